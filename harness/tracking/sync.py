"""Brings a whole results folder to an MLflow store, and the command ``bench.py mlflow sync``."""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..errors import UserError
from .entry import RunEntry, UnreadableRun, read_entry
from .executions import Execution, read_journal, record_mirrored
from .mlflow_store import MlflowStore, is_refusal, reason

_PAUSES = (0.5, 1.5)

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A run that could not be brought to the store."""

    run: str
    reason: str


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        logged: Runs (``<protocol>/<run folder>``) that were logged now.
        already: Runs that the store had.
        failed: Runs that it still has not.
        uri: The store; empty if it was not opened.
        problem: What kept the parent runs from being finished, or empty.
    """

    logged: tuple[str, ...]
    already: tuple[str, ...]
    failed: tuple[Failure, ...]
    uri: str = ""
    problem: str = ""


@dataclass(frozen=True)
class _Run:
    name: str
    protocol_folder: Path
    entry: RunEntry
    execution: Execution
    waiting: bool


def sync(
    results_folder: Path,
    tracking_uri: str | None = None,
    rebuild: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SyncReport:
    """Logs every run of a results folder that the store lacks, or has in part or out of date.

    Args:
        results_folder: All results, or the folder of one protocol.
        tracking_uri: Where to log; MLflow's own choice if ``None``.
        rebuild: Delete what the store has of these runs first, and log all again.
        progress: Called with the number of runs dealt with, and of all.

    Raises:
        UserError: There is no such folder.
    """
    folders = _protocol_folders(Path(results_folder))
    found = [item for folder in folders for item in _read(folder)]
    runs = [item for item in found if isinstance(item, _Run)]
    failed = [item for item in found if isinstance(item, Failure)]
    if not runs:
        return SyncReport((), (), tuple(failed))
    outcomes: dict[str, str] = {}
    uri = problem = ""
    try:
        store = _patiently(lambda: MlflowStore(folders[0].parent, tracking_uri, patience=60.0))
        uri = store.uri
        present = _present(store, runs, rebuild)
        for run in runs:
            try:
                outcomes[run.name] = _log(store, run, present)
            except Exception as error:
                if not is_refusal(error):
                    raise
                outcomes[run.name] = reason(error)
            progress(len(outcomes), len(runs))
        _finish(store, runs)
    except Exception as error:
        problem = reason(error)  # the store is out of reach: what is left waits for the next sync
    for run in runs:
        if outcomes.get(run.name) not in ("logged", "already"):
            failed.append(Failure(run.name, outcomes.get(run.name, problem)))
    logged = tuple(name for name, outcome in outcomes.items() if outcome == "logged")
    already = tuple(name for name, outcome in outcomes.items() if outcome == "already")
    return SyncReport(logged, already, tuple(failed), uri, problem)


def _protocol_folders(results: Path) -> list[Path]:
    if not results.is_dir():
        raise UserError(f"no results folder {results}")
    if (results / "runs").is_dir():
        return [results.resolve()]
    return sorted(folder.parent.resolve() for folder in results.glob("*/runs") if folder.is_dir())


def _read(protocol_folder: Path) -> Iterator[_Run | Failure]:
    journal = read_journal(protocol_folder)
    entries: dict[str, RunEntry] = {}
    for folder in sorted((protocol_folder / "runs").iterdir()):
        if folder.is_file() or folder.name.startswith("."):
            continue
        try:
            entries[folder.name] = read_entry(folder)
        except UnreadableRun as error:
            yield Failure(f"{protocol_folder.name}/{folder.name}", str(error))
    # Runs that no execution is known for (an archive of run folders) share one parent.
    first = min((entry.started for entry in entries.values()), default=0)
    unknown = Execution("bench.py mlflow sync", datetime.fromtimestamp(first / 1000, UTC), "sync")
    for name, entry in entries.items():
        execution = journal.executions.get(journal.brought.get(name, ""), unknown)
        yield _Run(
            f"{protocol_folder.name}/{name}", protocol_folder, entry, execution, name in journal.waiting
        )


def _present(store: MlflowStore, runs: list[_Run], rebuild: bool) -> dict[tuple[str, str], str]:
    """What the store has exactly once and complete: the digest by experiment and address."""
    present: dict[tuple[str, str], str] = {}
    for experiment in sorted({run.entry.experiment for run in runs}):
        ours = [run for run in runs if run.entry.experiment == experiment]
        if rebuild:
            addresses = {run.entry.address for run in ours}
            executions = {run.execution.id for run in ours}
            _patiently(lambda e=experiment, a=addresses, x=executions: store.clear(e, a, x))
        else:
            mirrored = _patiently(lambda e=experiment: store.mirrored(e))
            for address, copies in mirrored.items():
                if len(copies) == 1 and copies[0].complete:
                    present[experiment, address] = copies[0].digest
    return present


def _log(store: MlflowStore, run: _Run, present: Mapping[tuple[str, str], str]) -> str:
    outcome = "already"
    if run.entry.digest != present.get((run.entry.experiment, run.entry.address)):
        outcome = _patiently(lambda: store.log(run.entry, run.execution))
    if run.waiting:
        record_mirrored(run.protocol_folder, run.entry.file.parent.name)
    return outcome


def _finish(store: MlflowStore, runs: list[_Run]) -> None:
    """Ends the parent runs; the latest of each protocol folder carries the leaderboards."""
    groups: dict[tuple[str, Path], list[_Run]] = defaultdict(list)
    for run in runs:
        groups[run.entry.experiment, run.protocol_folder].append(run)
    for (experiment, folder), members in groups.items():
        columns = {name for run in members for name in run.entry.columns}
        _patiently(lambda e=experiment, c=columns: store.show(e, c))
        ended: dict[Execution, int] = {}
        for run in members:
            ended[run.execution] = max(run.entry.finished, ended.get(run.execution, 0))
        latest = max(ended, key=lambda execution: execution.started)
        for execution, end in ended.items():
            tables = folder if execution == latest else None
            _patiently(lambda e=experiment, x=execution, t=tables, end=end: store.finish(e, x, t, end))


def _patiently(action: Callable[[], T]) -> T:
    """Tries again a few times where the store may only be busy."""
    for pause in _PAUSES:
        try:
            return action()
        except Exception as error:
            if is_refusal(error):
                raise
            time.sleep(pause)
    return action()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of ``bench.py mlflow``; there is one, ``sync``."""
    commands = parser.add_subparsers(dest="mlflow_command", required=True, metavar="COMMAND")
    command = commands.add_parser("sync", help="log what MLflow has not got yet")
    command.description = "Logs every run of the results that MLflow lacks, or has in part or out of date."
    command.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    command.add_argument("--protocol", help="only this protocol: its name or its file")
    command.add_argument("--tracking-uri", help="where to log (default: MLflow's own choice)")
    command.add_argument("--rebuild", action="store_true", help="delete these runs there and log all anew")
    command.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs ``bench.py mlflow sync``; 1 if a run could not be brought to the store.

    Raises:
        UserError: There are no such results.
    """
    folder = args.results / _protocol_name(args.protocol) if args.protocol else args.results
    report = sync(folder, args.tracking_uri, args.rebuild, _show_progress)
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        where = f" in {report.uri}" if report.uri else ""
        print(f"MLflow: {len(report.logged)} runs logged, {len(report.already)} already there{where}")
    if report.problem:
        print(f"MLflow is out of reach: {report.problem}", file=sys.stderr)
    for failure in report.failed:
        if failure.reason != report.problem:
            print(f"not logged: {failure.run}: {failure.reason}", file=sys.stderr)
    if report.failed:
        print(f"{len(report.failed)} runs wait for the next `bench.py mlflow sync`", file=sys.stderr)
    return 1 if report.failed or report.problem else 0


def _protocol_name(protocol: str) -> str:
    file = Path(protocol)
    if file.suffix != ".toml":
        return protocol
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).get("name", file.stem)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"protocol file {file}: {error}") from error


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rMLflow: {done}/{total}", end="\n" if done == total else "", file=sys.stderr)
