"""``bench.py tune``: studies of hyper-parameters, on validation data, with an equal budget."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    SYNTHETIC_SUFFIX,
    add_protocol_arguments,
    add_worker_arguments,
    check_worker_arguments,
    execution_of,
    usable_cores,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.trial import FrozenTrial

    from ..protocol.plan import DataPlan
    from ..protocol.schema import Protocol
    from ..studies.definition import StudyPlan
    from ..studies.mirror import StudyMirror
    from ..studies.study import Budget


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py tune``."""
    add_protocol_arguments(parser)
    parser.add_argument(
        "--method", dest="methods", type=lambda text: (text,), metavar="NAME", help="tune only this method"
    )
    parser.add_argument("--all", action="store_true", help="tune every method, each with the same budget")
    parser.add_argument(
        "--trials", type=_count, metavar="N", help="trials of every method, all sessions together"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="compute of every method instead of a number of trials"
    )
    add_worker_arguments(parser)
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: studies.db in the results folder)"
    )
    parser.add_argument(
        "--rerun", action="store_true", help="then run tuned and untuned methods through the protocol"
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no figures")
    parser.add_argument("--no-mlflow", action="store_true", help="do not log to MLflow")
    parser.add_argument("--quiet", action="store_true", help="no progress, only failures")
    parser.add_argument("--json", action="store_true", help="print the overview of all studies as JSON")


def run(args: argparse.Namespace) -> int:
    """Tunes methods: 0 if each has a best setting, 1 if one has none.

    Raises:
        UserError: Something in the file or the options can't be used.
    """
    from ..errors import UserError
    from ..protocol.plan import protocol_variants
    from ..store import folder_name
    from ..studies.definition import NotTunable, plan_study
    from ..studies.output import write_overview, write_tuned_protocol

    if not args.methods and not args.all:
        raise UserError("say what to tune: --method NAME, --methods A,B or --all")
    given = {"tune.trials": args.trials, "tune.seconds": args.seconds}
    args.set = [*args.set, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    check_worker_arguments(args)
    protocol, data = _load(args)
    args.jobs = args.jobs or max(1, usable_cores() // protocol.compute.threads)
    labels = [variant.label for variant in protocol_variants(protocol)]
    _refuse_shared_folders(labels)
    studies = args.results / (protocol.name + (SYNTHETIC_SUFFIX if args.synthetic else "")) / "studies"
    tuned: list[StudyPlan] = []
    failed = 0
    for label in labels:
        try:
            plan = plan_study(protocol, data, execution_of(protocol, args.device), label, args.synthetic)
        except NotTunable as reason:
            if len(labels) == 1:
                raise
            print(f"not tuned: {reason}", file=sys.stderr)
            continue
        folder = studies / folder_name(label)
        summary = _tune(args, plan, folder)
        if summary["best"] is None:
            failed += 1
            print(f"{label}: no trial has a value; reasons are in {folder / 'trials.csv'}", file=sys.stderr)
            continue
        tuned.append(plan)
        if not args.json:
            print(_closing(summary, folder))
    overview = write_overview(studies)
    path = studies / "tuned.toml"
    if tuned:
        write_tuned_protocol(path, args.protocol, tuned, protocol.methods)
    if args.json:
        print(json.dumps(overview, indent=1, ensure_ascii=False))
    if tuned and args.rerun:
        return _rerun(args, path) or int(failed > 0)
    if tuned and not args.json:
        print(f"tuned and untuned on test: bench.py --protocol {path}")
    return int(failed > 0)


def _refuse_shared_folders(labels: Sequence[str]) -> None:
    """Labels may differ in what a folder's name can't carry, or some systems don't tell apart."""
    from ..errors import UserError
    from ..store import folder_name

    owner: dict[str, str] = {}
    for label in labels:
        other = owner.setdefault(folder_name(label).lower(), label)
        if other != label:
            raise UserError(
                f"methods {other!r} and {label!r} would share the folder {folder_name(label)!r}; "
                "give one another label"
            )


def _tune(args: argparse.Namespace, plan: StudyPlan, folder: Path) -> dict[str, Any]:
    """Runs or resumes one study and writes what it found."""
    from ..studies.study import storage_faults

    with storage_faults(_storage(args)):
        return _tune_in(_storage(args), args, plan, folder)


def _tune_in(url: str, args: argparse.Namespace, plan: StudyPlan, folder: Path) -> dict[str, Any]:
    from ..studies.output import write_definition, write_outputs
    from ..studies.plots import write_plots
    from ..studies.study import open_study, shown_url

    study = open_study(plan, url, folder / plan.digest)
    write_definition(plan, folder)
    if not (args.quiet or args.json):
        print(f"study {plan.name}: {_budget_in_words(plan)}; {shown_url(url)}", file=sys.stderr)
    mirror = _mirror(args, plan, url, folder)
    try:
        if args.jobs == 1 and args.executor == "processes":
            _work(args, plan, folder, url)
        else:
            _work_together(args, plan)
    finally:
        summary = write_outputs(study, plan, folder, shown_url(url))
        if not args.no_plots:
            write_plots(study, plan, summary, folder)
        report = mirror.close() if mirror is not None else ""
    if report and not (args.quiet or args.json):
        print(report, file=sys.stderr)
    return summary


def _work(
    args: argparse.Namespace,
    plan: StudyPlan,
    folder: Path,
    url: str,
    interrupt: Callable[[], bool] = lambda: False,
) -> None:
    """One worker, to the end of the budget."""
    from ..studies.objective import Objective
    from ..studies.study import open_study, work

    shared = folder / plan.digest
    study = open_study(plan, url, shared)
    budget = budget_of(plan)
    show = _Progress(study, plan, budget, args.quiet or args.json)
    work(study, Objective(plan, shared, interrupt), budget, shared, show, interrupt)


def _work_together(args: argparse.Namespace, plan: StudyPlan) -> None:
    """Several workers; they load the data themselves."""
    from ..errors import UserError

    if args.executor == "ray":
        from ..executors.cluster import run_workers

        needs: dict[str, Any] = {"num_cpus": plan.execution.threads}
        if plan.execution.device == "cuda":
            needs["num_gpus"] = args.gpu_share or 1.0
        # Ray ends tasks whose command has gone: these workers have no parent to watch.
        codes = run_workers(worker, (args, plan.variant.label, None), args.jobs, needs, args.ray_address)
    else:
        from ..studies.parallel import run_workers

        codes = run_workers(worker, (args, plan.variant.label, os.getpid()), args.jobs)
    if all(codes):
        raise UserError(f"all workers of study {plan.name} ended with an error (exit codes {codes})")


def worker(args: argparse.Namespace, label: str, parent: int | None) -> None:
    """What a worker process does.

    Args:
        args: Arguments of the command.
        label: The method.
        parent: Process id of the command, without which the worker stops; ``None``: it goes on.
    """
    from ..errors import UserError
    from ..signals import termination_interrupts
    from ..store import folder_name
    from ..studies.definition import plan_study
    from ..studies.study import parent_is_gone, storage_faults

    try:
        with termination_interrupts(), storage_faults(_storage(args)):
            protocol, data = _load(args)
            plan = plan_study(protocol, data, execution_of(protocol, args.device), label, args.synthetic)
            store = args.results / (protocol.name + (SYNTHETIC_SUFFIX if args.synthetic else ""))
            folder = store / "studies" / folder_name(label)
            _work(args, plan, folder, _storage(args), lambda: parent is not None and parent_is_gone(parent))
    except UserError as error:
        print(f"bench.py tune: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def budget_of(plan: StudyPlan) -> Budget:
    """What the protocol allows a study."""
    from ..studies.study import Budget

    tune = plan.protocol.tune
    return Budget(None if tune.seconds is not None else tune.trials, tune.seconds)


class _Progress:
    """A line for every trial."""

    def __init__(self, study: Any, plan: StudyPlan, budget: Budget, quiet: bool) -> None:
        self._study, self._plan, self._budget, self._quiet = study, plan, budget, quiet

    def __call__(self, trial: FrozenTrial) -> None:
        from ..studies.output import best_trial, value_of
        from ..studies.study import REASON, counted

        reason = trial.user_attrs.get(REASON)
        if self._quiet and not reason:
            return
        trials = self._study.get_trials(deepcopy=False)
        best, value = best_trial(self._plan, trials), value_of(self._plan, trial)
        words = [f"{self._plan.variant.label} trial {trial.number}: {trial.state.name.lower()}"]
        words += [f"{self._plan.protocol.metrics.primary} {value:.4f}"] if value is not None else []
        words += [reason] if reason else []
        words += [f"best {value_of(self._plan, best):.4f} (trial {best.number})"] if best else []
        limit = f"/{self._budget.trials}" if self._budget.trials is not None else " trials"
        print(", ".join([*words, f"{len(counted(trials))}{limit}"]), file=sys.stderr)


def _closing(summary: dict[str, Any], folder: Path) -> str:
    budget, best, base, gain = (summary[key] for key in ("budget", "best", "base", "gain"))
    name = summary["objective"]["metric"]
    counts = ", ".join(f"{budget[key]} {key}" for key in ("complete", "pruned", "failed") if budget[key])
    lines = [
        f"{summary['label']}: {budget['counted']} trials ({counts}) in {budget['seconds']:.1f} s of compute",
        f"  best: trial {best['trial']}, validation {name} {best['value']:.4f}",
    ]
    if base is not None and gain is not None:
        line = f"  base setting: {base['value']:.4f}, gain {gain['value']:+.4f}"
        if gain["low"] is not None:
            level = f"{100 * gain['confidence']:g} %"
            line += f" [{gain['low']:+.4f}, {gain['high']:+.4f}] ({level}, over validation dialogues)"
        lines.append(line)
    lines += [f"  {summary['note']}"] if summary["note"] else []
    return "\n".join([*lines, f"  {folder / 'best.toml'} (also summary.json, trials.csv, plots)"])


def _budget_in_words(plan: StudyPlan) -> str:
    tune = plan.protocol.tune
    limit = f"{tune.trials} trials" if tune.seconds is None else f"{tune.seconds:g} s of compute"
    conditions = ", ".join(item.name for item in plan.conditions)
    trainings = f"{len(plan.runs)} trainings" if len(plan.runs) > 1 else "one training"
    return f"{limit}, {trainings} a trial, {plan.protocol.metrics.primary} on {conditions} ({tune.aggregate})"


def _load(args: argparse.Namespace) -> tuple[Protocol, tuple[DataPlan, ...]]:
    from ..protocol.data import DataSource, load_data
    from ..protocol.load import Overrides, load_protocol

    protocol = load_protocol(args.protocol, Overrides(tuple(args.set), args.methods, args.seeds))
    return protocol, load_data(protocol, DataSource(args.data_root, args.synthetic, args.synthetic_scale))


def _storage(args: argparse.Namespace) -> str:
    return args.storage or f"sqlite:///{(args.results / 'studies.db').absolute()}"


def _mirror(args: argparse.Namespace, plan: StudyPlan, url: str, folder: Path) -> StudyMirror | None:
    if args.no_mlflow or os.environ.get("IMER_NO_MLFLOW"):
        return None
    from ..studies.mirror import StudyMirror
    from ..studies.study import open_study

    study = open_study(plan, url, folder / plan.digest)
    return StudyMirror(study, plan, folder, args.results, " ".join(["bench.py", *sys.argv[1:]]))


def _rerun(args: argparse.Namespace, path: Path) -> int:
    """The tuned methods beside the untuned ones, as an ordinary run of a protocol."""
    from . import run as command

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    again = parser.parse_args(["--protocol", str(path)])
    for name in vars(again).keys() - {"protocol", "methods"}:
        if hasattr(args, name):
            setattr(again, name, getattr(args, name))
    return command.run(again)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of one or more, not {text!r}")
    return int(text)
