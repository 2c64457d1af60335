"""Computes one planned run and puts it into the store."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from .. import metrics as metric_registry
from ..files import write_text
from ..hashing import derive_seed
from ..language_models import LanguageModels
from ..leaderboard.files import write_predictions
from ..leaderboard.info import TableInfo
from ..method import Method, Stage
from ..metrics import NonFinitePrediction
from ..protocol.plan import ENGINE_NUMERICS, Execution, PlannedRun
from ..protocol.schema import Protocol
from ..registry import is_foreign, method_class
from ..schedules import pattern_label
from ..store import RUN_SCHEMA, Store, StoredRun
from .evaluation import Condition, Predicted, mean_over, predict, score
from .masking import conditions, draw, summarise
from .tensors import Masks, SplitTensors, fit_scaling
from .training import Diverged, Job, Progress, Training

Report = Callable[[Stage, Progress], None]

# Evaluation batches of methods whose predictions don't depend on them.
_EVALUATION_BATCH = {"vectors": 1024, "dialogues": 64, "sequences": 64}


class RunServices:
    """Generators and frozen language models of one run.

    Args:
        seed: Training seed.
        device: Device of the run.
        models: Language models of the process.
    """

    def __init__(self, seed: int, device: torch.device, models: LanguageModels) -> None:
        self.device = device
        self.used: dict[str, str] = {}
        self._seed = seed
        self._models = models

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator that depends on the run's seed and the name."""
        return torch.Generator().manual_seed(derive_seed(self._seed, "method", name))

    def language_model(self, name: str) -> Any:
        """A frozen language model, resolved once per process."""
        model = self._models.resolve(name, self.device)
        self.used[name] = model.weights_hash
        return model


class SplitCache:
    """The splits of the run before, for the next run that can use them."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._splits: tuple[SplitTensors, SplitTensors, SplitTensors] | None = None

    def splits(
        self, run: PlannedRun, device: torch.device
    ) -> tuple[SplitTensors, SplitTensors, SplitTensors]:
        """Training, validation and test split of a run on a device."""
        wants_tokens = run.variant.info.wants_tokens and run.data.entry.tokens
        key = (id(run.data), run.fold, run.spec.level, str(device), wants_tokens)
        if key != self._key or self._splits is None:
            samples, split = run.data.samples, run.data.splits[run.fold]
            scaling = fit_scaling(samples.corpus, split.train, run.data.entry.scale)
            train, valid, test = (
                SplitTensors(
                    samples.corpus, rows, samples.targets[rows], run.spec.level, device, scaling, wants_tokens
                )
                for rows in (split.train, split.valid, split.test)
            )
            self._key, self._splits = key, (train, valid, test)
        return self._splits


@dataclass(frozen=True)
class Workshop:
    """What the runs of one process share.

    Attributes:
        protocol: The protocol.
        execution: Where and how.
        store: Results of the protocol.
        splits: Tensors of the current data set.
        models: Frozen language models.
    """

    protocol: Protocol
    execution: Execution
    store: Store
    splits: SplitCache
    models: LanguageModels


def compute(run: PlannedRun, shop: Workshop, report: Report | None = None) -> StoredRun:
    """Trains and tests a run and publishes it, also when it fails.

    A failure (an exception of the method, a loss that is not finite, memory) is recorded; an
    interruption leaves the checkpoint for the next time.

    Args:
        run: The run; its address is claimed by the caller.
        shop: What the runs of this process share.
        report: Called after every epoch.
    """
    work = shop.store.work_folder(run.address)
    started = datetime.now(UTC)
    begun = time.perf_counter()
    record = _record(run, shop, started)
    _reset_peak_memory(shop.execution.device)
    try:
        status, error = "finished", None
        record.update(_train_and_test(run, shop, work, report))
    except (Diverged, NonFinitePrediction) as problem:
        status, error = "diverged", _error(problem)
    except Exception as problem:
        status, error = "failed", _error(problem)
    record["status"], record["error"] = status, error
    timings = record.setdefault("timings", {})
    timings["finished"] = datetime.now(UTC).isoformat()
    timings["wall_s"] = round(time.perf_counter() - begun, 4)
    record["peak_memory_mib"] = _peak_memory(shop.execution.device)
    (work / "checkpoint.safetensors").unlink(missing_ok=True)
    for leftover in work.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    return shop.store.publish(work, run.name, record)


def _train_and_test(run: PlannedRun, shop: Workshop, work: Path, report: Report | None) -> dict[str, Any]:
    protocol, info = shop.protocol, run.variant.info
    device = torch.device(shop.execution.device)
    prepare_torch(shop.execution)
    train, valid, test = shop.splits.splits(run, device)
    name = run.data.info.name
    validation = conditions(valid, run.validation, name, protocol.validation.mask_seeds)
    tests = conditions(test, run.test, name, protocol.test.mask_seeds)
    report_metrics = _reported(protocol, run)
    batch_dependent = run.variant.profile in info.batch_dependent
    size = run.parameters.batch_size
    sees_test = protocol.comparison.selection == "test" or protocol.compute.audit
    limit = protocol.compute.max_minutes
    job = Job(
        spec=run.spec,
        seed=run.seed,
        train=train,
        valid=valid,
        schedule=run.train,
        data_set=name,
        validation=validation,
        selection=protocol.comparison.selection,
        primary=protocol.metrics.primary,
        higher_is_better=metric_registry.metric(protocol.metrics.primary).higher_is_better,
        metrics=report_metrics,
        batch_size=size,
        evaluation_batch=size if batch_dependent else max(size, _EVALUATION_BATCH[run.spec.level]),
        targets="targets" in run.parameters.privileged(),
        precision=shop.execution.precision,
        max_seconds=None if limit is None else 60 * limit,
        test=test if sees_test else None,
        test_conditions=tests if sees_test else (),
    )
    services = RunServices(run.seed, device, shop.models)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(run.seed, "initialisation"))
        method = method_class(info)(run.spec, run.parameters, services).to(device)
        training = Training(
            job,
            method,
            report,
            checkpoint=work / "checkpoint.safetensors",
            checkpoint_seconds=protocol.compute.checkpoint_seconds,
        )
        progress = _run_with_shared_stages(training, run, shop)
        begun = time.perf_counter()
        predictions = _predict_all(method, test, tests, job)
    labels = test.labels.cpu().numpy()
    by_condition: dict[str, list[dict[str, float | None]]] = {}
    for condition, predicted in predictions:
        by_condition.setdefault(condition.name, []).append(score(predicted, labels, run.spec, report_metrics))
    _write_predictions(work / "predictions.parquet", run, shop, test, labels, predictions)
    save_file({key: value.contiguous() for key, value in _untied(method).items()}, work / "model.safetensors")
    _write_lines(work / "history.jsonl", progress.history)
    if protocol.compute.audit:
        _write_lines(work / "audit.jsonl", progress.audit)
    best = progress.best_step if protocol.comparison.selection != "last" else progress.step - 1
    chosen = progress.history[best] if progress.history and best >= 0 else {}
    prefix = "validation/"
    return {
        "metrics": {
            "validation": {
                key.removeprefix(prefix): value for key, value in chosen.items() if key.startswith(prefix)
            },
            "test": {key: mean_over(rows) for key, rows in by_condition.items()},
        },
        "masks": _mask_record(run, train, valid, test, validation, tests),
        "epochs": progress.step,
        "best_epoch": best,
        "parameters_trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "language_models": services.used,
        "timings": {
            "train_s": round(progress.train_seconds, 4),
            "validate_s": round(progress.evaluate_seconds, 4),
            "test_s": round(time.perf_counter() - begun, 4),
            "training_s": round(progress.seconds, 4),
        },
    }


def _run_with_shared_stages(training: Training, run: PlannedRun, shop: Workshop) -> Progress:
    """Leading stages that don't depend on the condition are trained once and branched from."""
    if not training.shared_stages:
        return training.run()
    shared = shop.store.stage_file(run.stage_address)
    if shared.is_file():
        return training.run(shared)
    with shop.store.claim(f"stage-{run.stage_address}", wait=True):
        return training.run(shared)


def prepare_torch(execution: Execution) -> None:
    """Threads and deterministic kernels, as far as torch has them."""
    if torch.get_num_threads() != execution.threads:
        torch.set_num_threads(execution.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def _predict_all(
    method: Method, test: SplitTensors, tests: Sequence[Condition], job: Job
) -> list[tuple[Condition, Predicted]]:
    return [
        (condition, predict(method, test, condition.masks, job.evaluation_batch, job.precision))
        for condition in tests
    ]


def _reported(protocol: Protocol, run: PlannedRun) -> tuple[str, ...]:
    spec = run.spec
    names = protocol.metrics.report or metric_registry.metrics_for(spec.task, spec.score_range)
    return tuple(dict.fromkeys([protocol.metrics.primary, *names]))


def _untied(method: Method) -> dict[str, torch.Tensor]:
    """Weights and buffers; tied ones are cloned, as the file format wants."""
    return {name: value.detach().cpu().clone() for name, value in method.state_dict().items()}


def _write_predictions(
    path: Path,
    run: PlannedRun,
    shop: Workshop,
    test: SplitTensors,
    labels: np.ndarray,
    predictions: Sequence[tuple[Condition, Predicted]],
) -> None:
    """The long table of ``docs/results.md``: a row per test utterance and condition."""
    info = table_info(run, shop.protocol)
    frames = []
    for condition, predicted in predictions:
        available = condition.masks.available.cpu().numpy()
        frame = pd.DataFrame(
            {
                "comparison_hash": run.comparison_hash,
                "data_set": run.data.info.name,
                "fold": pd.array([run.fold] * len(labels), dtype="Int64"),
                "regime": shop.protocol.comparison.regime,
                "method": run.variant.info.name,
                "label": run.variant.label,
                "profile": run.variant.profile,
                "seed": run.seed,
                "train_condition": run.train.name,
                "test_condition": condition.name,
                "family": condition.family,
                "mask_seed": pd.array([condition.mask_seed] * len(labels), dtype="Int64"),
                "dialogue": test.utterances["dialogue"].to_numpy(),
                "utterance": test.ids,
                "y_true": labels.astype(np.float64),
                "score": predicted.score if predicted.score is not None else np.float32(np.nan),
            }
        )
        if predicted.probabilities is not None:
            for index in range(predicted.probabilities.shape[1]):
                frame[f"class_{index}"] = predicted.probabilities[:, index]
        frame["available"] = pattern_labels(available, test.modalities)
        frame["synthetic"] = run.data.samples.corpus.synthetic
        frame["selection"] = shop.protocol.comparison.selection
        frame["privileged"] = ",".join(run.parameters.privileged())
        frame["status"] = "finished"
        frames.append(frame)
    write_predictions(path, pd.concat(frames, ignore_index=True), info)


def pattern_labels(available: np.ndarray, modalities: Sequence[str]) -> list[str]:
    """Short label of what each utterance has, such as ``"ta"``.

    Args:
        available: ``[N, M]`` bool.
        modalities: Names of the columns.
    """
    patterns, index = np.unique(available, axis=0, return_inverse=True)
    names = [pattern_label(np.array(modalities)[pattern].tolist()) for pattern in patterns]
    return [names[i] for i in index.reshape(-1)]


def table_info(run: PlannedRun, protocol: Protocol) -> TableInfo:
    """What a result table needs beside its rows."""
    return TableInfo(
        task=run.spec.task,
        classes=run.spec.classes,
        score_range=run.spec.score_range,
        primary=protocol.metrics.primary,
        metrics=_reported(protocol, run),
    )


def _mask_record(
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


def _record(run: PlannedRun, shop: Workshop, started: datetime) -> dict[str, Any]:
    protocol, info, corpus = shop.protocol, run.variant.info, run.data.samples.corpus
    split = run.data.splits[run.fold]
    notes = [run.note] if run.note else []
    if is_foreign(info):
        notes.append(f"foreign code: {run.variant.entry.name}")
    return {
        "schema": RUN_SCHEMA,
        "address": run.address,
        "comparison_hash": run.comparison_hash,
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
            "test_conditions": [schedule.name for schedule in run.test],
            "seed": run.seed,
            "level": run.spec.level,
            "method_numerics": info.numerics_version,
            "engine_numerics": ENGINE_NUMERICS,
        },
        "marks": {
            "synthetic": corpus.synthetic,
            "privileged": list(run.parameters.privileged()),
            "selection": protocol.comparison.selection,
            "context": info.context,
            "batch_dependent": run.variant.profile in info.batch_dependent,
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
            "device": shop.execution.device,
            "device_name": _device_name(shop.execution.device),
            "threads": shop.execution.threads,
            "precision": shop.execution.precision,
            "deterministic": "deterministic kernels where torch has them",
            **git_state(),
        },
        "timings": {"started": started.isoformat()},
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


def _reset_peak_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: str) -> float:
    """Peak memory in MiB: of the device for this run, or of the whole process on the CPU."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _error(problem: Exception) -> dict[str, str]:
    return {
        "type": type(problem).__name__,
        "message": str(problem) or type(problem).__name__,
        "traceback": "".join(traceback.format_exception(problem)),
    }


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and value - value != 0 else value

    lines = (
        json.dumps({key: plain(value) for key, value in row.items()}, ensure_ascii=False) for row in rows
    )
    write_text(path, "".join(line + "\n" for line in lines))
