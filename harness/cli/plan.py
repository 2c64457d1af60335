"""``bench.py plan``: what a protocol would run, without training."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .options import add_protocol_arguments, execution_of, load_plan, store_of

if TYPE_CHECKING:
    from ..protocol.plan import DataPlan, Plan
    from ..protocol.schema import Protocol
    from ..schedules import Schedule
    from ..store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py plan``."""
    add_protocol_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the plan: 0 if it could run, 1 if data are absent or something can't be used."""
    from ..corpus.errors import DataNotFound

    try:
        plan = load_plan(args)
    except DataNotFound as absent:
        return _print_without_data(args, absent)
    store = store_of(args, plan.protocol)
    summary = summarise(plan, store)
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


def summarise(plan: Plan, store: Store) -> dict[str, Any]:
    """Everything that the plan shows, as plain values."""
    protocol, have = plan.protocol, store.addresses()
    methods: dict[str, dict[str, Any]] = {}
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
            },
        )
        entry["runs"] += not run.skip
        entry["done"] += run.address in have
    runs = [run for run in plan.runs if not run.skip]
    return {
        "protocol": protocol.name,
        "description": protocol.description,
        "comparison": protocol.comparison.model_dump(),
        "device": plan.execution.device,
        "threads": plan.execution.threads,
        "results": str(store.folder),
        "data": [_data_summary(protocol, data) for data in plan.data],
        "methods": methods,
        "runs": len(runs),
        "done": sum(run.address in have for run in runs),
        "epochs": sum(run.parameters.epochs for run in runs),
        "utterance_epochs": sum(run.parameters.epochs * run.spec.train_utterances for run in runs),
        "comparison_hashes": sorted({run.comparison_hash for run in plan.runs}),
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
            f"skipped: {entry['skip']}" if entry["skip"] else entry["note"],
        ]
        for label, entry in summary["methods"].items()
    ]
    headers = ["method", "done", "profile", "takes", "epochs", "batch", "privileged", "note"]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    print(
        f"\n{summary['runs']} runs ({summary['done']} in {summary['results']} already), at most "
        f"{summary['epochs']} epochs = {summary['utterance_epochs'] / 1e6:.2f} million utterance passes, "
        f"on {summary['device']} with {summary['threads']} threads a run"
    )


def _shares(patterns: dict[str, float] | None) -> str:
    if patterns is None:
        return "frames inside sequences"
    return "  ".join(f"{label} {share:.3f}" for label, share in patterns.items())
