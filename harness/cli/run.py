"""``bench.py run``: computes a protocol and prints its leaderboard."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from .options import add_protocol_arguments, add_worker_arguments, load_plan, shard, store_of, workers_of
from .reporting import add_report_arguments, report_request, tables_of_store

if TYPE_CHECKING:
    from ..execute import Outcome
    from ..protocol.plan import Plan
    from ..store import Store, StoredRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py run``."""
    add_protocol_arguments(parser)
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="compute only part I of N, counted from 1; parts share the results folder",
    )
    add_worker_arguments(parser)
    parser.add_argument(
        "--retry", action="store_true", help="repeat runs that failed, diverged or are damaged"
    )
    add_report_arguments(parser)
    parser.add_argument("--no-mlflow", action="store_true", help="do not log to MLflow now (mlflow sync can)")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the leaderboard and failures")
    parser.add_argument("--json", action="store_true", help="print the leaderboard as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs a protocol: 0 if every run has a result, 1 if one failed."""
    from ..execute import execute
    from ..files import write_json
    from ..report import boards_of_plan
    from .display import Quiet, Terminal

    request = report_request(args)
    plan = load_plan(args)
    store = store_of(args, plan.protocol)
    workers = workers_of(args, plan, store)
    store.folder.mkdir(parents=True, exist_ok=True)
    write_json(store.folder / "protocol.json", plan.protocol.model_dump(mode="json", by_alias=True))
    mirror = _Mirror(args, store)
    quiet = args.quiet or args.json
    part = plan.shard(*args.shard) if args.shard else plan
    display = Quiet() if quiet else Terminal([run for run in part.runs if not run.skip])
    try:
        with display:
            outcome = execute(part, store, display, args.retry, mirror.submit, workers, mirror.prepare)
    except BaseException:
        mirror.close(quiet)
        raise
    tables = tables_of_store(request, lambda: boards_of_plan(plan, store), store, plan)
    mirror.close(quiet)
    if args.json:
        print(tables.record)
    else:
        print(tables.text, end="")
        print("\n".join([*_closing(plan, outcome), *tables.where]))
    return 1 if outcome.failed else 0


def _closing(plan: Plan, outcome: Outcome) -> list[str]:
    from ..store import DAMAGED

    skipped = {(run.variant.label, run.skip) for run in plan.runs if run.skip}
    lines = [f"skipped {label}: {reason}" for label, reason in sorted(skipped)]
    done = len(outcome.computed)
    lines.append(f"{done} runs computed, {outcome.reused} reused, {len(outcome.failed)} without a result")
    lines += [run.record["error"]["message"] for run in outcome.failed if run.status == DAMAGED]
    if outcome.failed:
        lines.append("repeat failed or damaged runs with --retry; the reason is in each run.json")
    return lines


class _Mirror:
    """MLflow's mirror of this execution, or nothing where it is switched off."""

    def __init__(self, args: argparse.Namespace, store: Store) -> None:
        self._mirror = None
        if args.no_mlflow or os.environ.get("IMER_NO_MLFLOW"):
            return
        from ..tracking import Execution, Mirror

        self._mirror = Mirror()
        self._mirror.start(store.folder, Execution(command=" ".join(["bench.py", *sys.argv[1:]])))

    def prepare(self) -> None:
        if self._mirror is not None:
            self._mirror.prepare()

    def submit(self, stored: StoredRun) -> None:
        if self._mirror is not None:
            self._mirror.submit(stored.folder)

    def close(self, quiet: bool) -> None:
        if self._mirror is None:
            return
        report = str(self._mirror.close())
        if report and not quiet:
            print(report, file=sys.stderr)
        self._mirror = None
