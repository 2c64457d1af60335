"""``bench.py plan``: what a protocol would run, without training."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .options import add_protocol_arguments, execution_of, load_plan, store_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..costs import Cost, Estimate
    from ..protocol.plan import DataPlan, Plan
    from ..protocol.schema import Protocol
    from ..schedules import Schedule
    from ..store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py plan``."""
    add_protocol_arguments(parser)
    parser.add_argument(
        "--workers",
        type=_counts,
        default=(1, 2, 4, 8),
        metavar="N,N",
        help="numbers of runs at a time (jobs, or GPUs with a run each) to estimate the time for "
        "(default: 1,2,4,8)",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the plan: 0 if it could run, 1 if data are absent or something can't be used."""
    from ..corpus.errors import DataNotFound
    from ..costs import read_costs

    try:
        plan = load_plan(args)
    except DataNotFound as absent:
        return _print_without_data(args, absent)
    store = store_of(args, plan.protocol)
    summary = summarise(plan, store, read_costs(sorted(args.results.glob("*"))), args.workers)
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    else:
        _print(summary)
    return 0


def _print_without_data(args: argparse.Namespace, absent: Exception) -> int:
    """What can be said without the data: the protocol is sound, and what is absent."""
    from ..protocol.load import Overrides, load_protocol

    protocol = load_protocol(args.protocol, Overrides(tuple(args.set), args.methods, args.seeds))
    execution_of(protocol, args.device)
    if args.json:
        print(json.dumps({"protocol": protocol.name, "data": None, "problem": str(absent)}, indent=1))
        return 1
    print(f"protocol {protocol.name}: {protocol.description}".rstrip(": "))
    print(f"{len(protocol.methods)} methods x {len(protocol.train.seeds)} training seeds")
    print(f"data: ABSENT\n{absent}")
    return 1


def summarise(
    plan: Plan, store: Store, costs: Sequence[Cost] = (), workers: Sequence[int] = ()
) -> dict[str, Any]:
    """Everything that the plan shows, as plain values.

    Args:
        plan: The plan.
        store: Where its results are.
        costs: What runs are known to cost.
        workers: Numbers of runs at a time to estimate the time for.
    """
    from ..costs import estimate

    protocol, have = plan.protocol, store.addresses()
    methods: dict[str, dict[str, Any]] = {}
    left: list[Estimate] = []
    for run in plan.runs:
        entry = methods.setdefault(
            run.variant.label,
            {
                "method": run.variant.info.name,
                "profile": run.variant.profile,
                "context": run.variant.info.context,
                "level": run.spec.level,
                "epochs": run.parameters.epochs,
                "batch_size": run.parameters.batch_size,
                "privileged": list(run.parameters.privileged()),
                "runs": 0,
                "done": 0,
                "skip": run.skip,
                "note": run.note,
                "seconds": None,
                "memory_mib": None,
                "measured": None,
            },
        )
        entry["runs"] += not run.skip
        entry["done"] += run.address in have
        expected = None if run.skip else estimate(run, plan.execution, costs)
        if expected is not None:
            entry["seconds"] = max(entry["seconds"] or 0.0, expected.seconds)
            entry["memory_mib"] = max(entry["memory_mib"] or 0.0, expected.memory_mib)
            entry["measured"] = expected.exact and entry["measured"] is not False
            if run.address not in have:
                left.append(expected)
    runs = [run for run in plan.runs if not run.skip]
    return {
        "protocol": protocol.name,
        "description": protocol.description,
        "comparison": protocol.comparison.model_dump(),
        "device": plan.execution.device,
        "threads": plan.execution.threads,
        "stack": plan.execution.stack,
        "results": str(store.folder),
        "data": [_data_summary(protocol, data) for data in plan.data],
        "methods": methods,
        "runs": len(runs),
        "done": sum(run.address in have for run in runs),
        "epochs": sum(run.parameters.epochs for run in runs),
        "utterance_epochs": sum(run.parameters.epochs * run.spec.train_utterances for run in runs),
        "estimate": _estimate(left, workers, sum(run.address not in have for run in runs)),
        "comparison_hashes": sorted({run.comparison_hash for run in plan.runs}),
    }


def _estimate(left: Sequence[Estimate], workers: Sequence[int], runs: int) -> dict[str, Any]:
    """What the runs to come will take, as far as costs are known."""
    from ..costs import makespan

    seconds = [item.seconds for item in left]
    memory = sorted((item.memory_mib for item in left), reverse=True)
    return {
        "runs": runs,
        "known": len(left),
        "in_proportion": sum(not item.exact for item in left),
        "workers": [
            {"at_a_time": count, "seconds": makespan(seconds, count), "memory_mib": sum(memory[:count])}
            for count in workers
        ],
    }


def _data_summary(protocol: Protocol, data: DataPlan) -> dict[str, Any]:
    corpus = data.samples.corpus
    fold, split = next(iter(data.splits.items()))
    return {
        "set": corpus.name,
        "synthetic": corpus.synthetic,
        "fingerprint": corpus.fingerprint,
        "task": data.samples.task,
        "mapping": data.samples.mapping,
        "features": {name: f"{item.name} ({item.dim})" for name, item in corpus.features.items()},
        "folds": [number for number in data.splits if number is not None],
        "utterances": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        "sizes_of_fold": fold,
        "conditions": [_condition_summary(protocol, data, schedule, split.test) for schedule in data.test],
    }


def _condition_summary(
    protocol: Protocol,
    data: DataPlan,
    schedule: Schedule,
    rows: Any,
) -> dict[str, Any]:
    """Nominal and realised rates and pattern shares of a test condition (its first mask seed)."""
    from ..schedules import IdHashes, describe, draw_availability, nominal_rate

    seed = protocol.test.mask_seeds[0] if schedule.is_random else 0
    ids = IdHashes.of(data.samples.corpus.utterances["id"].iloc[rows].tolist())
    mask = draw_availability(
        schedule, data_set=data.info.name, ids=ids, modalities=data.modalities, seed=seed
    )
    summary = describe(mask, data.modalities, ids)
    frames = schedule.kind == "frames"
    return {
        "name": schedule.name,
        "family": schedule.family,
        "draws": len(protocol.test.mask_seeds) if schedule.is_random else 1,
        "nominal_rate": nominal_rate(schedule, data.modalities),
        "realised_rate": None if frames else summary.rate,
        "per_modality": None if frames else dict(summary.rates),
        "patterns": None if frames else dict(summary.shares),
    }


def _print(summary: dict[str, Any]) -> None:
    from tabulate import tabulate

    print(f"protocol {summary['protocol']}: {summary['description']}".rstrip(": "))
    print("  " + ", ".join(f"{key} = {value}" for key, value in summary["comparison"].items()))
    for data in summary["data"]:
        mark = "  SYNTHETIC" if data["synthetic"] else ""
        sizes = ", ".join(f"{part} {count}" for part, count in data["utterances"].items())
        folds = f", folds {data['folds']}, the first has" if data["folds"] else ":"
        print(
            f"\ndata set {data['set']}{mark}, task {data['task']} ({data['mapping']}){folds} "
            f"{sizes} utterances"
        )
        print("  features: " + ", ".join(f"{name} {text}" for name, text in data["features"].items()))
        rows = [
            [
                item["name"],
                item["draws"],
                item["nominal_rate"],
                "per frame" if item["realised_rate"] is None else item["realised_rate"],
                _shares(item["patterns"]),
            ]
            for item in data["conditions"]
        ]
        headers = ["condition", "draws", "nominal", "realised", "shares of what is available"]
        print(tabulate(rows, headers=headers, floatfmt=".4f", tablefmt="simple"))
    print()
    rows = [
        [
            label,
            f"{entry['done']}/{entry['runs']}",
            entry["profile"],
            entry["level"],
            entry["epochs"],
            entry["batch_size"],
            ", ".join(entry["privileged"]) or "-",
            _cost(entry),
            f"skipped: {entry['skip']}" if entry["skip"] else entry["note"],
        ]
        for label, entry in summary["methods"].items()
    ]
    headers = ["method", "done", "profile", "takes", "epochs", "batch", "privileged", "a run", "note"]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    print(
        f"\n{summary['runs']} runs ({summary['done']} in {summary['results']} already), at most "
        f"{summary['epochs']} epochs = {summary['utterance_epochs'] / 1e6:.2f} million utterance passes, "
        f"on {summary['device']} with {summary['threads']} threads a run"
    )
    print(_time_and_memory(summary["estimate"], summary["device"]))


def _cost(entry: dict[str, Any]) -> str:
    from .display import duration

    if entry["seconds"] is None:
        return "?"
    about = "" if entry["measured"] else "~"
    return f"{about}{duration(entry['seconds'])}, {entry['memory_mib']:.0f} MiB"


def _time_and_memory(expected: dict[str, Any], device: str) -> str:
    from .display import duration

    if not expected["runs"]:
        return "nothing left to compute"
    if not expected["known"]:
        return "time and memory: no method of the runs to come has been measured on this kind of device yet"
    what = "GPUs, a run on each" if device == "cuda" else "runs at a time"
    lines = [
        f"{item['at_a_time']:>6} {what}: at most {duration(item['seconds'])}, {item['memory_mib']:.0f} MiB"
        for item in expected["workers"]
    ]
    unknown = expected["runs"] - expected["known"]
    notes = [f"{expected['in_proportion']} of them in proportion (~)"] if expected["in_proportion"] else []
    notes += [f"{unknown} not measured yet (?) and left out"] if unknown else []
    head = f"time and memory of the {expected['runs']} runs to come, from measured costs"
    return "\n".join([head + (f"; {', '.join(notes)}" if notes else ""), *lines])


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers of one or more separated by commas, not {text!r}")
    return tuple(int(part) for part in parts)


def _shares(patterns: dict[str, float] | None) -> str:
    if patterns is None:
        return "frames inside sequences"
    return "  ".join(f"{label} {share:.3f}" for label, share in patterns.items())
