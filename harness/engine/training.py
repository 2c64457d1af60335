"""Trains one model: stages, epochs, selection on validation, checkpoints that continue exactly.

Every random number of an epoch comes from seeds derived from (training seed, stage, epoch), so a
run that continues from an epoch's checkpoint needs no generator state and ends as the unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..batch import Batch
from ..hashing import derive_seed
from ..method import Method, Stage, StagePlan
from ..metrics import mean_over
from ..schedules import Schedule
from ..spec import DataSpec
from .calls import Call, Lane, Work, alone
from .checkpoint import DamagedState, load_state, save_state
from .deadline import TimeLimit
from .evaluation import Condition, Evaluation, Evaluations, batches_in_order, score
from .masking import draw
from .means import Means
from .tensors import Masks, SplitTensors


class Diverged(Exception):
    """The loss or a parameter is no longer a finite number."""


@dataclass(frozen=True)
class Job:
    """Everything that decides the numbers of one training.

    Attributes:
        spec: Shape of the data.
        seed: Training seed.
        train: Training split.
        valid: Validation split.
        schedule: Training schedule.
        data_set: Name of the data set, part of the mask draw.
        validation: Validation conditions with their masks.
        selection: Which epoch is kept.
        primary: Metric that decides.
        higher_is_better: Direction of the primary metric.
        metrics: Metrics that are recorded.
        batch_size: Dialogues or utterances per training batch.
        evaluation_batch: The same for evaluation.
        joined: Whether conditions may share a batch in evaluation.
        targets: Whether the method may see true features of absent modalities in training.
        precision: ``"float32"`` or ``"bf16"``.
        max_seconds: Time limit, or ``None``.
        test: Test split, only where the protocol selects on test or audits selection.
        test_conditions: Its conditions.
        evaluations: Evaluations of every epoch, with the batches that they keep; runs may share them.
    """

    spec: DataSpec
    seed: int
    train: SplitTensors
    valid: SplitTensors
    schedule: Schedule
    data_set: str
    validation: Sequence[Condition]
    selection: Literal["best", "last", "test"]
    primary: str
    higher_is_better: bool
    metrics: Sequence[str]
    batch_size: int
    evaluation_batch: int
    joined: bool
    targets: bool
    precision: str = "float32"
    max_seconds: float | None = None
    test: SplitTensors | None = None
    test_conditions: Sequence[Condition] = ()
    evaluations: Evaluations = field(default_factory=Evaluations)


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint.

    Attributes:
        stage: Index of the current stage.
        epoch: Next epoch of the stage.
        step: Epochs done over all stages.
        best_score: Best selection score so far, over stages that may be selected.
        best_step: Epoch (over all stages) it comes from; -1 if there is none yet.
        stage_best: Best score within the stage.
        stale: Epochs of the stage without a better score.
        history: One record an epoch.
        audit: Test metrics an epoch, where the protocol audits selection.
        train_seconds: Time in training steps.
        evaluate_seconds: Time in validation.
        seconds: Time of all sessions of the run.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    best_score: float = -math.inf
    best_step: int = -1
    stage_best: float = -math.inf
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    seconds: float = 0.0


Report = Callable[[Stage, Progress], None]


class Training:
    """One training from the first epoch to the model that is tested.

    Args:
        job: What to train on.
        method: A fresh method on the job's device.
        report: Called after every epoch.
        checkpoint: File of the checkpoint; ``None``: none is written.
        checkpoint_seconds: Least time between two checkpoints; longer where writing one takes long.
        lane: Shows where the training stands to who carries out its calls.
    """

    def __init__(
        self,
        job: Job,
        method: Method,
        report: Report | None = None,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 0.0,
        lane: Lane | None = None,
    ) -> None:
        self.job = job
        self.method = method
        self.progress = Progress()
        self.discarded: list[str] = []  # damaged files of state that were not used
        self._stages = tuple(stage for stage in method.stages() if stage.epochs > 0)
        self._report = report
        self._checkpoint = checkpoint
        self._every = checkpoint_seconds
        self._lane = lane or Lane()
        self._best: dict[str, Tensor] | None = None
        self._stage_best: dict[str, Tensor] | None = None
        self._view = TrainingView(job, self._masks(0))

    @property
    def shared_stages(self) -> int:
        """Number of leading stages that don't depend on the training condition."""
        count = 0
        for stage in self._stages:
            if stage.data != "complete" or stage.select:
                break
            count += 1
        return count

    def run(self, shared: Path | None = None) -> Progress:
        """Trains to the end, alone; see ``work``."""
        return alone(self.work(shared))

    def work(self, shared: Path | None = None) -> Work[Progress]:
        """The work of training to the end, which leaves the chosen weights in the method.

        Args:
            shared: File of the state after the leading shared stages: read if it exists, else
                written once they are done.

        Raises:
            Diverged: A loss is not finite.
            NonFinitePrediction: A prediction is not finite.
            TimeLimit: The run took too long.
        """
        started = self._lane.now()
        if not self._resume(shared):
            self._start_stage()
        spent = self.progress.seconds
        saved, pause = self._lane.now(), 0.0
        while self.progress.stage < len(self._stages):
            yield from self._epoch()
            now = self._lane.now()
            self.progress.seconds = spent + now - started
            boundary = self._stage_is_over()
            if boundary:
                self._next_stage()
                if shared is not None and self.progress.stage == self.shared_stages:
                    save_state(shared, self._state())
            if self._checkpoint is not None and now - saved >= max(self._every, pause):
                save_state(self._checkpoint, self._state())
                saved = self._lane.now()
                pause = 200 * (saved - now) if self._every else 0.0  # half a hundredth of the time
            limit = self.job.max_seconds
            if limit is not None and self.progress.seconds > limit:
                raise TimeLimit(f"time limit of {limit / 60:g} minutes reached in epoch {self.progress.step}")
        if self._best is not None and self.job.selection != "last":
            self.method.load_state_dict(self._best)
        self.method.eval()
        self._show(self._weights_from())
        with torch.no_grad():
            self._view.masks = self._masks(max(self.progress.best_step, 0))
            self.method.before_evaluation(self._view)
        return self.progress

    def _weights_from(self) -> str:
        """Name of the stage that the chosen weights come from."""
        history, best = self.progress.history, self.progress.best_step
        chosen = best if self._best is not None and self.job.selection != "last" else len(history) - 1
        return str(history[chosen]["stage"]) if history else ""

    def _show(self, weights: str) -> None:
        self._lane.stage, self._lane.weights = self.progress.stage, weights

    # One epoch.

    def _epoch(self) -> Work[None]:
        job, progress = self.job, self.progress
        stage = self._stages[progress.stage]
        self._show(stage.name)
        begun = self._lane.now()
        seed_generators(derive_seed(job.seed, "epoch", progress.stage, progress.epoch), job.train.device)
        masks = job.train.everything() if stage.data == "complete" else self._masks(progress.step)
        self._view.masks = masks
        order = torch.randperm(
            job.train.units,
            generator=torch.Generator().manual_seed(
                derive_seed(job.seed, "batches", progress.stage, progress.epoch)
            ),
        )
        self.method.train()
        self.method.start_epoch(progress.epoch)
        means = Means("train/")
        units = order.split(job.batch_size)
        batches = job.train.batches(units, masks, labels=True, targets=job.targets)
        for position, (chosen, batch) in enumerate(zip(units, batches, strict=True)):
            terms = yield Call("training_step", self.method, batch, job.precision, position)
            means.add(terms, len(chosen))
        losses = means.read()
        trained = self._lane.now()
        progress.train_seconds += trained - begun
        if not all(math.isfinite(value) for value in losses.values()):
            wrong = [name for name, value in losses.items() if not math.isfinite(value)]
            raise Diverged(
                f"{', '.join(wrong)} is not finite in epoch {progress.step} (stage {stage.name!r})"
            )
        validation = yield from self._validate(stage)
        self.method.end_epoch(progress.epoch, validation)
        logged = {name: _plain(value) for name, value in self.method.log().items()}
        self._select(stage, validation)
        done = self._lane.now()
        progress.evaluate_seconds += done - trained
        progress.history.append(
            {
                "stage": stage.name,
                "epoch": progress.epoch,
                "step": progress.step,
                **losses,
                **{f"validation/{name}": value for name, value in validation.items()},
                **{f"log/{name}": value for name, value in logged.items()},
                "seconds": done - begun,
            }
        )
        progress.epoch += 1
        progress.step += 1
        if self._report is not None:
            self._report(stage, progress)

    def _masks(self, step: int) -> Masks:
        """Training masks of an epoch; the mask seed derives from the training seed alone."""
        seed = derive_seed(self.job.seed, "training masks")
        return draw(self.job.train, self.job.schedule, self.job.data_set, seed, step)

    def _validate(self, stage: Stage) -> Work[dict[str, float]]:
        job = self.job
        self.method.eval()
        with torch.no_grad():
            self.method.before_evaluation(self._view)
        # A shared stage must not depend on the condition, so it is validated on complete data.
        evaluation = self._evaluation(
            "complete" if stage.data == "complete" and not stage.select else "valid"
        )
        labels = job.valid.labels.cpu().numpy()
        predictions = yield from evaluation.predict(self.method)
        scores = [score(one, labels, job.spec, job.metrics) for one in predictions]
        result = {name: value for name, value in mean_over(scores).items() if value is not None}
        result |= yield from evaluation.losses(self.method)
        if job.test is not None:
            yield from self._audit(job.test)
        return result

    def _evaluation(self, what: Literal["complete", "valid", "test"]) -> Evaluation:
        """An evaluation of every epoch."""
        job = self.job
        if what == "complete":
            return job.evaluations.of_complete(job.valid, job.evaluation_batch, job.precision, job.joined)
        split, conditions = job.valid, job.validation
        if what == "test":
            assert job.test is not None
            split, conditions = job.test, job.test_conditions
        return job.evaluations.of(split, conditions, job.evaluation_batch, job.precision, job.joined)

    def _audit(self, test: SplitTensors) -> Work[None]:
        """Test metrics of the epoch, kept apart from everything that selection reads."""
        job = self.job
        labels = test.labels.cpu().numpy()
        by_condition: dict[str, list[Mapping[str, float | None]]] = {}
        predictions = yield from self._evaluation("test").predict(self.method)
        for condition, predicted in zip(job.test_conditions, predictions, strict=True):
            by_condition.setdefault(condition.name, []).append(
                score(predicted, labels, job.spec, job.metrics)
            )
        self.progress.audit.append(
            {"step": self.progress.step, **{name: mean_over(rows) for name, rows in by_condition.items()}}
        )

    def _select(self, stage: Stage, validation: Mapping[str, float]) -> None:
        progress, job = self.progress, self.job
        if job.selection == "test":
            rows = [row for name, row in progress.audit[-1].items() if name != "step"]
            value = mean_over(rows).get(job.primary)
        else:
            value = validation.get(job.primary)
        value = math.nan if value is None else value
        current = value if job.higher_is_better else -value
        if math.isnan(current):
            current = -math.inf  # an undefined score never beats a defined one
        better_in_stage = current > progress.stage_best or self._stage_best is None
        progress.stale = 0 if current > progress.stage_best else progress.stale + 1
        if not better_in_stage:
            return
        progress.stage_best = current
        self._stage_best = _copy(self.method.state_dict())
        if stage.select and (current > progress.best_score or self._best is None):
            progress.best_score, progress.best_step = current, progress.step
            self._best = self._stage_best

    # Stages.

    def _plan(self, index: int) -> StagePlan:
        steps = math.ceil(self.job.train.units / self.job.batch_size)
        return StagePlan(self._stages[index], index, steps)

    def _start_stage(self) -> None:
        if self.progress.stage >= len(self._stages):
            return
        seed_generators(derive_seed(self.job.seed, "stage", self.progress.stage), self.job.train.device)
        self.method.start_stage(self._plan(self.progress.stage))

    def _stage_is_over(self) -> bool:
        progress = self.progress
        stage = self._stages[progress.stage]
        impatient = stage.patience is not None and progress.stale >= stage.patience
        return progress.epoch >= stage.epochs or (impatient and self.job.selection != "last")

    def _next_stage(self) -> None:
        progress = self.progress
        self.method.end_stage(self._plan(progress.stage))
        progress.stage += 1
        following = self._stages[progress.stage] if progress.stage < len(self._stages) else None
        if following is not None and following.start_from == "best" and self._stage_best is not None:
            self.method.load_state_dict(self._stage_best)
        progress.epoch, progress.stale, progress.stage_best = 0, 0, -math.inf
        self._stage_best = None
        self._start_stage()

    # Checkpoints.

    def _state(self) -> dict[str, Any]:
        return {
            "progress": dict(vars(self.progress)),
            "weights": self.method.state_dict(),
            "training": self.method.training_state(),
            "best": self._best,
            "stage_best": self._stage_best,
        }

    def _resume(self, shared: Path | None) -> bool:
        for path in (self._checkpoint, shared):
            if path is None or not path.is_file():
                continue
            try:
                state = load_state(path, self.job.train.device)
            except DamagedState as damage:
                self.discarded.append(f"{damage}; computed again")
                path.unlink()
                continue
            self._restore(state)
            return True
        return False

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.progress = Progress(**state["progress"])
        # Optimisers may span stages: rebuild them in order, then fill them.
        for index in range(min(self.progress.stage, len(self._stages) - 1) + 1):
            self.method.start_stage(self._plan(index))
        self.method.load_state_dict(state["weights"])
        self.method.load_training_state(state["training"])
        self._best, self._stage_best = state["best"], state["stage_best"]


class TrainingView:
    """The training split as ``Method.before_evaluation`` sees it."""

    def __init__(self, job: Job, masks: Masks) -> None:
        self._job = job
        self.masks = masks

    def batches(self, batch_size: int | None = None) -> Iterable[Batch]:
        """Training batches in their fixed order, with labels, under the current masks."""
        return batches_in_order(
            self._job.train, self.masks, batch_size or self._job.evaluation_batch, labels=True
        )

    def sample(self, size: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """One batch drawn without replacement, equally often from every class if ``balanced``."""
        train = self._job.train
        order = torch.randperm(train.units, generator=generator)
        if balanced and train.level != "dialogues":
            order = order[_alternating(_classes_of(train.labels.cpu()[order], self._job.spec))]
        return train.batch(order[:size], self.masks, labels=True, targets=False)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds torch's generators of the CPU and of a device.

    ``torch.manual_seed`` does so for devices of every kind, and where CUDA is not in use it notes the
    whole stack, every time, for later.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _classes_of(labels: Tensor, spec: DataSpec) -> Tensor:
    """Class of each label; scores count as negative, zero, positive."""
    return labels.sign().long() + 1 if spec.task == "regression" else labels


def _alternating(classes: Tensor) -> Tensor:
    """Positions ordered so that every prefix is as balanced over classes as can be."""
    seen: dict[int, int] = {}
    rank = torch.zeros(len(classes), dtype=torch.int64)
    for position, value in enumerate(classes.tolist()):
        rank[position] = seen.get(value, 0)
        seen[value] = seen.get(value, 0) + 1
    return torch.argsort(rank, stable=True)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _plain(value: float | Tensor) -> Any:
    return value.detach().cpu().tolist() if isinstance(value, Tensor) else value
