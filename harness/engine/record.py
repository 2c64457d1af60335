"""What a run leaves behind: its record, its predictions, its masks' statistics."""

from __future__ import annotations

import gc
import platform
import resource
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .. import metrics as metric_registry
from ..hashing import derive_seed
from ..leaderboard.files import write_predictions
from ..leaderboard.info import TableInfo
from ..protocol.plan import (
    ENGINE_NUMERICS,
    Execution,
    PlannedRun,
    address_parts,
    can_stack,
    comparison_parts,
)
from ..protocol.schema import Protocol
from ..registry import FOREIGN_CODE, foreign_code
from ..run_file import RUN_SCHEMA
from ..schedules import pattern_label
from .evaluation import Condition, Predicted
from .masking import draw, summarise
from .tensors import Masks, SplitTensors


def run_record(
    run: PlannedRun, protocol: Protocol, execution: Execution, started: datetime
) -> dict[str, Any]:
    """Everything needed to repeat a run, known before it starts.

    Args:
        run: The run.
        protocol: Its protocol, overrides included.
        execution: Where and how it is computed.
        started: When.
    """
    info, corpus = run.variant.info, run.data.samples.corpus
    split = run.data.splits[run.fold]
    notes = [run.note] if run.note else []
    for code in foreign_code(info):
        where = f"module {code.module}, {code.place}, SHA-256 {code.sha256}"
        notes.append(f"{FOREIGN_CODE} {run.variant.entry.name} ({where})")
    tuned = run.variant.entry.tuned
    if tuned is not None:
        notes.append(f"tuned in {tuned.trials} trials (study {tuned.study or 'not named'})")
        notes += [tuned.note] if tuned.note else []
    return {
        "schema": RUN_SCHEMA,
        "address": run.address,
        "comparison_hash": run.comparison_hash,
        "table": {
            "task": run.spec.task,
            "classes": list(run.spec.classes),
            "score_range": run.spec.score_range,
            "primary": protocol.metrics.primary,
            "metrics": list(reported_metrics(protocol, run)),
        },
        "identity": {
            "protocol": protocol.name,
            "method": info.name,
            "label": run.variant.label,
            "profile": run.variant.profile,
            "hyper_parameters": run.parameters.model_dump(mode="json"),
            "data_set": run.data.info.name,
            "fold": run.fold,
            "regime": protocol.comparison.regime,
            "train_condition": run.train.name,
            "test_conditions": {schedule.name: schedule.family for schedule in run.test},
            "seed": run.seed,
            "level": run.spec.level,
            "variant": run.variant_address,
            "method_numerics": info.numerics_version,
            "engine_numerics": ENGINE_NUMERICS,
        },
        "marks": {
            "synthetic": corpus.synthetic,
            "privileged": list(run.parameters.privileged()),
            "selection": protocol.comparison.selection,
            "context": info.context,
            "batch_dependent": run.variant.profile in info.batch_dependent,
            "tuned": None if tuned is None else tuned.model_dump(mode="json"),
            "notes": notes,
        },
        "data": {
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "features": {name: features.name for name, features in corpus.features.items()},
            "dims": {name: features.dim for name, features in corpus.features.items()},
            "scale": run.data.entry.scale,
            "mapping": run.data.samples.mapping,
            "origin": corpus.origin,
            "licence": corpus.licence,
            "utterances": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        },
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
            "device": execution.device,
            "device_name": _device_name(execution.device),
            "threads": execution.threads,
            "precision": execution.precision,
            "stacked": can_stack(execution, run),
            "deterministic": "deterministic kernels where torch has them",
            **git_state(),
        },
        "timings": {"started": started.isoformat()},
        "hashed": {
            **vars(address_parts(protocol, execution, run)),
            "comparison": comparison_parts(protocol, run.data),
        },
        "protocol": protocol.model_dump(mode="json", by_alias=True),
    }


@cache
def git_state() -> Mapping[str, Any]:
    """Commit of the working tree, for the record only: it never decides an address."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.machine()


def free_memory(device: str) -> None:
    """Gives memory back that a failed run held, before the next one starts."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def reset_peak_memory(device: str) -> None:
    """Starts the count of ``peak_memory`` anew, where it can be."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> float:
    """Peak memory in MiB: of the device for this run, or of the whole process on the CPU."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def reported_metrics(protocol: Protocol, run: PlannedRun) -> tuple[str, ...]:
    """Metrics of the tables, the primary one first."""
    spec = run.spec
    names = protocol.metrics.report or metric_registry.metrics_for(spec.task, spec.score_range)
    return tuple(dict.fromkeys([protocol.metrics.primary, *names]))


def store_predictions(
    path: Path,
    run: PlannedRun,
    protocol: Protocol,
    test: SplitTensors,
    labels: np.ndarray,
    predictions: Sequence[tuple[Condition, Predicted]],
) -> None:
    """The long table of ``docs/results.md``: a row per test utterance and condition."""
    rows, draws = len(labels), [condition for condition, _ in predictions]

    def same(value: Any) -> pd.Categorical:
        return _column([value], np.zeros(rows * len(draws), dtype=np.int8))

    def by_draw(values: Sequence[Any]) -> pd.Categorical:
        return _column(values, np.repeat(np.arange(len(draws)), rows))

    def by_utterance(values: Sequence[Any]) -> pd.Categorical:
        return _column(values, np.tile(np.arange(rows), len(draws)))

    available = np.concatenate([condition.masks.available.cpu().numpy() for condition in draws])
    patterns, pattern = np.unique(available, axis=0, return_inverse=True)
    names = [pattern_label(np.array(test.modalities)[own].tolist()) for own in patterns]
    nothing = np.full(rows, np.nan, dtype=np.float32)
    columns: dict[str, Any] = {
        "comparison_hash": same(run.comparison_hash),
        "data_set": same(run.data.info.name),
        "fold": pd.array([run.fold], dtype="Int64").repeat(rows * len(draws)),
        "regime": same(protocol.comparison.regime),
        "method": same(run.variant.info.name),
        "label": same(run.variant.label),
        "profile": same(run.variant.profile),
        "seed": run.seed,
        "train_condition": same(run.train.name),
        "test_condition": by_draw([condition.name for condition in draws]),
        "family": by_draw([condition.family for condition in draws]),
        "mask_seed": pd.array([condition.mask_seed for condition in draws], dtype="Int64").repeat(rows),
        "dialogue": by_utterance(test.utterances["dialogue"].to_numpy()),
        "utterance": by_utterance(test.ids),
        "y_true": np.tile(labels.astype(np.float64), len(draws)),
        "score": np.concatenate([nothing if one.score is None else one.score for _, one in predictions]),
    }
    probabilities = [one.probabilities for _, one in predictions if one.probabilities is not None]
    if probabilities:
        for index, values in enumerate(np.concatenate(probabilities).T):
            columns[f"class_{index}"] = values
    columns |= {
        "available": _column(names, pattern.reshape(-1)),
        "synthetic": run.data.samples.corpus.synthetic,
        "selection": same(protocol.comparison.selection),
        "privileged": same(",".join(run.parameters.privileged())),
        "status": same("finished"),
    }
    write_predictions(path, pd.DataFrame(columns), table_info(run, protocol))


def _column(values: Sequence[Any], index: np.ndarray) -> pd.Categorical:
    """The text column ``values[index]``; equal values are one category."""
    codes, categories = pd.factorize(np.asarray([str(value) for value in values], dtype=object))
    return pd.Categorical.from_codes(codes[index], categories=categories)


def table_info(run: PlannedRun, protocol: Protocol) -> TableInfo:
    """What a result table needs beside its rows."""
    return TableInfo(
        task=run.spec.task,
        classes=run.spec.classes,
        score_range=run.spec.score_range,
        primary=protocol.metrics.primary,
        metrics=reported_metrics(protocol, run),
    )


def mask_record(
    run: PlannedRun,
    train: SplitTensors,
    valid: SplitTensors,
    test: SplitTensors,
    validation: Sequence[Condition],
    tests: Sequence[Condition],
) -> dict[str, Any]:
    """Hashes and realised statistics of all masks of the run."""

    def of(split: SplitTensors, drawn: Sequence[Condition]) -> dict[str, list[dict[str, Any]]]:
        result: dict[str, list[dict[str, Any]]] = {}
        for condition in drawn:
            entry = _mask_entry(split, condition.masks, condition.mask_seed)
            result.setdefault(condition.name, []).append(entry)
        return result

    seed = derive_seed(run.seed, "training masks")
    first = draw(train, run.train, run.data.info.name, seed, 0)
    return {
        "train": {run.train.name: [{"epoch": 0, **_mask_entry(train, first, seed)}]},
        "validation": of(valid, validation),
        "test": of(test, tests),
    }


def _mask_entry(split: SplitTensors, masks: Masks, seed: int | None) -> dict[str, Any]:
    summary = summarise(split, masks)
    return {
        "seed": seed,
        "hash": summary.hash,
        "realised_rate": summary.rate,
        "per_modality": dict(summary.rates),
        "patterns": dict(summary.shares),
        "repaired": masks.repaired,
    }
