"""Computes one planned run and puts it into the store."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from .. import metrics as metric_registry
from ..files import CannotWrite, write_json_lines, written_whole
from ..hashing import derive_seed
from ..language_models import LanguageModels, is_random
from ..method import Method, Stage, has_validation_losses
from ..metrics import NonFinitePrediction, mean_over
from ..protocol.plan import Execution, Plan, PlannedRun, can_stack
from ..protocol.schema import Protocol
from ..registry import method_class
from ..schedules import Schedule
from ..store import Store, StoredRun
from .calls import Lane, Work, alone
from .evaluation import Condition, Evaluation, Evaluations, score
from .lockstep import together
from .masking import conditions
from .record import (
    free_memory,
    mask_record,
    peak_memory,
    reported_metrics,
    reset_peak_memory,
    run_record,
    store_predictions,
)
from .tensors import Scaling, SplitTensors, fit_scaling
from .training import Diverged, Job, Progress, Training, seed_generators

Report = Callable[[Stage, Progress], None]
Part = Literal["train", "valid", "test"]

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

    @property
    def pretrained(self) -> dict[str, str]:
        """The pretrained ones of ``used``; the weights of a random encoder follow from its name."""
        return {name: digest for name, digest in self.used.items() if not is_random(name)}


class SplitCache:
    """Splits and drawn conditions of the run before, for the next run that can use them."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._scaling: Scaling | None = None
        self._splits: dict[Part, SplitTensors] = {}
        self._drawn: dict[Part, tuple[tuple[Any, ...], tuple[Condition, ...]]] = {}
        self.evaluations = Evaluations()

    def split(self, run: PlannedRun, device: torch.device, part: Part) -> SplitTensors:
        """Training, validation or test split of a run on a device."""
        wants_tokens = run.variant.info.wants_tokens and run.data.entry.tokens
        key = (id(run.data), run.fold, run.spec.level, str(device), wants_tokens)
        samples, split = run.data.samples, run.data.splits[run.fold]
        if key != self._key:
            self._key, self._splits, self._drawn = key, {}, {}
            self.evaluations = Evaluations()
            self._scaling = fit_scaling(samples.corpus, split.train, run.data.entry.scale)
        if part not in self._splits:
            rows = {"train": split.train, "valid": split.valid, "test": split.test}[part]
            targets = samples.targets[rows]
            self._splits[part] = SplitTensors(
                samples.corpus, rows, targets, run.spec.level, device, self._scaling, wants_tokens
            )
        return self._splits[part]

    def conditions(
        self,
        run: PlannedRun,
        device: torch.device,
        part: Part,
        schedules: Sequence[Schedule],
        seeds: Sequence[int],
    ) -> tuple[Condition, ...]:
        """The conditions of a split of a run, drawn."""
        split = self.split(run, device, part)
        wanted = (*(schedule.model_dump_json() for schedule in schedules), *seeds)
        if part not in self._drawn or self._drawn[part][0] != wanted:
            self.evaluations.forget(split)
            self._drawn[part] = (wanted, conditions(split, schedules, run.data.info.name, seeds))
        return self._drawn[part][1]


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
    """Trains and tests a run and publishes it, also when it fails; see ``computing``.

    Args:
        run: The run; its address is claimed by the caller.
        shop: What the runs of this process share.
        report: Called after every epoch.

    Raises:
        KeyboardInterrupt: The run was interrupted.
        CannotWrite: The results folder takes no files.
    """
    reset_peak_memory(shop.execution.device)
    with own_random_state(shop.execution.device):
        return alone(computing(run, shop, report, Lane()))


def compute_group(
    runs: Sequence[PlannedRun], shop: Workshop, report: Callable[[PlannedRun], Report | None]
) -> Iterator[tuple[PlannedRun, StoredRun]]:
    """Computes the runs of a group (``stacks_of``), in a stack where they can be.

    Args:
        runs: The runs; their addresses are claimed by the caller.
        shop: What the runs of this process share.
        report: Answers what to call after every epoch of a run.

    Yields:
        Each run as it is published.

    Raises:
        KeyboardInterrupt: The runs were interrupted.
        CannotWrite: The results folder takes no files.
    """
    if not runs or not can_stack(shop.execution, runs[0]):
        for run in runs:
            yield run, compute(run, shop, report(run))
        return
    reset_peak_memory(shop.execution.device)

    def work_of(run: PlannedRun) -> Callable[[Lane], Work[StoredRun]]:
        return lambda lane: computing(run, shop, report(run), lane)

    calls = runs[0].variant.info.stacks(runs[0].parameters)
    minutes = shop.protocol.compute.max_minutes
    device = torch.device(shop.execution.device)
    with own_random_state(shop.execution.device):
        for index, stored in together([work_of(run) for run in runs], device, calls, minutes):
            yield runs[index], stored


def computing(run: PlannedRun, shop: Workshop, report: Report | None, lane: Lane) -> Work[StoredRun]:
    """The work of training, testing and publishing a run.

    A failure (an exception of the method, a loss that is not finite, memory, the time limit) is
    recorded; an interruption and a folder that takes no files leave the checkpoint for the next time.

    Args:
        run: The run; its address is claimed by the caller.
        shop: What the runs of this process share.
        report: Called after every epoch.
        lane: Shows where the run stands.
    """
    work = shop.store.work_folder(run.address)
    begun = lane.now()
    record = run_record(run, shop.protocol, shop.execution, datetime.now(UTC))
    try:
        status, error = "finished", None
        with lane.deadline(shop.protocol.compute.max_minutes):
            results = yield from _train_and_test(run, shop, work, report, lane)
        record["timings"].update(results.pop("timings"))
        record.update(results)
    except (KeyboardInterrupt, CannotWrite, GeneratorExit):
        raise
    except (Diverged, NonFinitePrediction) as problem:
        status, error = "diverged", _error(problem)
    except BaseException as problem:  # a method that calls sys.exit() ends its run, and no other
        status, error = "failed", _error(problem)
    if error is not None:
        free_memory(shop.execution.device)
    return _publish(run, shop.store, work, record, status, error, lane.now() - begun)


def own_random_state(device: str) -> AbstractContextManager[Any]:
    """Leaves torch's generators as they were."""
    return torch.random.fork_rng(devices=[torch.device(device)] if device == "cuda" else [])


def record_failure(run: PlannedRun, plan: Plan, store: Store, problem: Exception) -> StoredRun:
    """Publishes a run that could not be computed, so that it is a hole and not tried for ever.

    Args:
        run: The run; its address is claimed by the caller.
        plan: Its plan.
        store: Where it goes.
        problem: Why there is no result.
    """
    record = run_record(run, plan.protocol, plan.execution, datetime.now(UTC))
    return _publish(run, store, store.work_folder(run.address), record, "failed", _error(problem), 0.0)


def _publish(
    run: PlannedRun,
    store: Store,
    work: Path,
    record: dict[str, Any],
    status: str,
    error: dict[str, str] | None,
    seconds: float,
) -> StoredRun:
    record["status"], record["error"] = status, error
    timings = record["timings"]
    timings["finished"] = datetime.now(UTC).isoformat()
    timings["wall_s"] = round(seconds, 4)
    record["peak_memory_mib"] = peak_memory(record["environment"]["device"])
    (work / "checkpoint.safetensors").unlink(missing_ok=True)
    for leftover in work.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    return store.publish(work, run.name, record)


def make_job(run: PlannedRun, shop: Workshop) -> tuple[Job, tuple[Condition, ...], SplitTensors]:
    """What a run trains on, its test conditions and its test split."""
    protocol = shop.protocol
    job = training_job(run, shop)
    device = torch.device(shop.execution.device)
    test = shop.splits.split(run, device, "test")
    tests = shop.splits.conditions(run, device, "test", run.test, protocol.test.mask_seeds)
    # Selection can't read what it isn't given: the test split is part of the job only where the
    # protocol selects on test, openly, or audits selection.
    if protocol.comparison.selection == "test" or protocol.compute.audit:
        job = replace(job, test=test, test_conditions=tests)
    return job, tests, test


def training_job(run: PlannedRun, shop: Workshop) -> Job:
    """What a run trains and validates on; the test split is not touched.

    Args:
        run: The run.
        shop: What the runs of this process share.
    """
    protocol = shop.protocol
    device = torch.device(shop.execution.device)
    train, valid = (shop.splits.split(run, device, part) for part in ("train", "valid"))
    seeds = protocol.validation.mask_seeds
    validation = shop.splits.conditions(run, device, "valid", run.validation, seeds)
    limit = protocol.compute.max_minutes
    return Job(
        spec=run.spec,
        seed=run.seed,
        train=train,
        valid=valid,
        schedule=run.train,
        data_set=run.data.info.name,
        validation=validation,
        selection=protocol.comparison.selection,
        primary=protocol.metrics.primary,
        higher_is_better=metric_registry.metric(protocol.metrics.primary).higher_is_better,
        metrics=reported_metrics(protocol, run),
        batch_size=run.parameters.batch_size,
        evaluation_batch=evaluation_batch(run),
        joined=may_join_conditions(run),
        targets="targets" in run.parameters.privileged(),
        precision=shop.execution.precision,
        max_seconds=None if limit is None else 60 * limit,
        evaluations=shop.splits.evaluations,
    )


def evaluation_batch(run: PlannedRun) -> int:
    """Dialogues or utterances per evaluation batch; the training batch where predictions depend on it."""
    size = run.parameters.batch_size
    return size if _depends_on_batch(run) else max(size, _EVALUATION_BATCH[run.spec.level])


def may_join_conditions(run: PlannedRun) -> bool:
    """Whether several conditions may be evaluated in one batch.

    Not where predictions depend on the batch, nor where validation losses are means over it.
    """
    return not _depends_on_batch(run) and not has_validation_losses(method_class(run.variant.info))


def _depends_on_batch(run: PlannedRun) -> bool:
    return run.variant.profile in run.variant.info.batch_dependent


def build_method(run: PlannedRun, services: RunServices) -> Method:
    """A fresh method on the device of the run; initialisation depends on the seed alone."""
    seed_generators(derive_seed(run.seed, "initialisation"), services.device)
    return method_class(run.variant.info)(run.spec, run.parameters, services).to(services.device)


def _train_and_test(
    run: PlannedRun, shop: Workshop, work: Path, report: Report | None, lane: Lane
) -> Work[dict[str, Any]]:
    protocol = shop.protocol
    prepare_torch(shop.execution)
    job, tests, test = make_job(run, shop)
    services = RunServices(run.seed, torch.device(shop.execution.device), shop.models)
    method = build_method(run, services)
    shop.store.hold_to_language_models(services.pretrained)
    checkpoint, every = work / "checkpoint.safetensors", protocol.compute.checkpoint_seconds
    training = Training(job, method, report, checkpoint, every, lane)
    progress = yield from _run_with_shared_stages(training, run, shop)
    begun = lane.now()
    evaluation = Evaluation(test, tests, job.evaluation_batch, job.precision, job.joined)
    found = yield from evaluation.predict(method)
    predictions = list(zip(tests, found, strict=True))
    labels = test.labels.cpu().numpy()
    by_condition: dict[str, list[dict[str, float | None]]] = {}
    for condition, predicted in predictions:
        by_condition.setdefault(condition.name, []).append(score(predicted, labels, run.spec, job.metrics))
    store_predictions(work / "predictions.parquet", run, protocol, test, labels, predictions)
    with written_whole(work / "model.safetensors") as path:
        save_file(_weights(method), path)
    write_json_lines(work / "history.jsonl", progress.history)
    if protocol.compute.audit:
        write_json_lines(work / "audit.jsonl", progress.audit)
    best = progress.best_step if job.selection != "last" else progress.step - 1
    chosen = progress.history[best] if 0 <= best < len(progress.history) else {}
    prefix = "validation/"
    return {
        "metrics": {
            "validation": {
                key.removeprefix(prefix): value for key, value in chosen.items() if key.startswith(prefix)
            },
            "test": {key: mean_over(rows) for key, rows in by_condition.items()},
        },
        "masks": mask_record(run, job.train, job.valid, test, job.validation, tests),
        "epochs": progress.step,
        "best_epoch": best,
        "parameters_trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "language_models": services.used,
        **({"discarded": training.discarded} if training.discarded else {}),
        "timings": {
            "train_s": round(progress.train_seconds, 4),
            "validate_s": round(progress.evaluate_seconds, 4),
            "test_s": round(lane.now() - begun, 4),
            "training_s": round(progress.seconds, 4),
        },
    }


def _run_with_shared_stages(training: Training, run: PlannedRun, shop: Workshop) -> Work[Progress]:
    """Leading stages that don't depend on the condition are trained once and branched from."""
    if not training.shared_stages:
        return (yield from training.work())
    shared = shop.store.stage_file(run.stage_address)
    if shared.is_file():
        return (yield from training.work(shared))
    with shop.store.claim(f"stage-{run.stage_address}", wait=True):
        return (yield from training.work(shared))


def prepare_torch(execution: Execution) -> None:
    """Threads and deterministic kernels, as far as torch has them."""
    if torch.get_num_threads() != execution.threads:
        torch.set_num_threads(execution.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def _weights(method: Method) -> dict[str, torch.Tensor]:
    """Weights and buffers; tied ones are cloned, as the file format wants."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in method.state_dict().items()}


def _error(problem: BaseException) -> dict[str, str]:
    if isinstance(problem.__cause__, StopIteration):  # a generator lets it through as another error only
        problem = problem.__cause__
    try:
        message = str(problem) or type(problem).__name__
    except Exception:
        message = f"{type(problem).__name__}, which can't say what it is about"
    if isinstance(problem, SystemExit):
        message = f"the method asked the process to exit with {message}"
    elif _is_out_of_memory(problem, message):
        message = f"out of memory; a smaller batch_size needs less ({message})"
    return {
        "type": type(problem).__name__,
        "message": message,
        "traceback": "".join(traceback.format_exception(problem)),
    }


def _is_out_of_memory(problem: BaseException, message: str) -> bool:
    known = isinstance(problem, MemoryError | torch.cuda.OutOfMemoryError)
    return known or "can't allocate memory" in message  # torch's words on a CPU, as a RuntimeError
