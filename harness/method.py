"""The one interface of all methods.

A method is a ``torch.nn.Module`` that is built from a ``DataSpec`` and typed hyper-parameters. A
simple method defines ``losses`` and ``predict`` and is done; a demanding one overrides its stages,
its training step or its optimisers. The engine owns everything else: data, masks, devices, seeds,
selection, files. A method never sees the test set, a path or a seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .batch import Batch, Prediction
from .record import HyperParameters
from .spec import DataSpec

P = TypeVar("P", bound=HyperParameters)


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: Name in logs (``"experts"``).
        epochs: Length in epochs; stages of length 0 are left out.
        data: ``"schedule"``: what the training schedule leaves. ``"complete"``: everything that
            was recorded; privileged, and independent of the training condition, so that such a
            leading stage is trained once per seed and shared by the runs that branch from it.
        select: Whether the model to be tested may come from this stage.
        patience: Early stopping within the stage, in epochs; ``None``: never.
        start_from: Weights that the stage starts with: the ``"last"`` of the stage before, or its
            ``"best"`` by the protocol's selection metric.
    """

    name: str = "train"
    epochs: int = 20
    data: Literal["schedule", "complete"] = "schedule"
    select: bool = True
    patience: int | None = None
    start_from: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class StagePlan:
    """What a method may need to know when a stage starts.

    Attributes:
        stage: The stage.
        index: Position of the stage, counted from 0.
        steps_per_epoch: Batches per epoch.
    """

    stage: Stage
    index: int
    steps_per_epoch: int


class TrainingData(Protocol):
    """A read-only view of the training split, for support banks and statistics."""

    def batches(self, batch_size: int | None = None) -> Iterable[Batch]:
        """Training batches in a fixed order under the current epoch's masks, with labels."""
        ...

    def sample(self, size: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """One batch of ``size`` training utterances or dialogues drawn without replacement.

        Args:
            size: Number of utterances or dialogues; all of them if there are fewer.
            generator: Where the draw comes from (``Services.generator``).
            balanced: Draw equally often from every class, as far as classes are large enough.
        """
        ...


class Services(Protocol):
    """What the harness offers a method beside data."""

    device: torch.device

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator seeded from the run's seed and this name; the same at every call."""
        ...

    def language_model(self, name: str) -> Any:
        """A frozen language model by Hugging Face id or local folder.

        It is held once per process, in evaluation mode, outside the method's checkpoint; its name
        and the hash of its weights enter the record of the run.

        Raises:
            LookupError: The model is not at hand; the message names it and the ways out.
        """
        ...


class Method(nn.Module, ABC, Generic[P]):
    """Base of all methods.

    The optimisers live in ``self.optimizers`` and the schedulers in ``self.schedulers`` (stepped
    by the method); the engine saves both with the weights and buffers.

    Args:
        spec: Shape of the data.
        parameters: Validated hyper-parameters.
        services: Generators and frozen language models.
    """

    def __init__(self, spec: DataSpec, parameters: P, services: Services) -> None:
        super().__init__()
        self.spec = spec
        self.parameters_: P = parameters
        self.services = services
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedulers: list[Any] = []

    # What every method defines.

    @abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalar losses of a training batch; ``"total"`` is minimised.

        Terms are means over real utterances, so that padding never counts.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Predictions for a batch without labels; called in evaluation mode without gradients."""

    # What a method may override.

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order. Default: one stage of ``epochs``."""
        hp = self.parameters_
        return (Stage(epochs=hp.epochs, patience=hp.patience),)

    def start_stage(self, plan: StagePlan) -> None:
        """Prepares a stage: optimisers, freezing, resets.

        The default builds fresh optimisers with ``build_optimizers``; a method that keeps its
        optimiser over stages builds it for ``plan.index == 0`` only.
        """
        self.optimizers = self.build_optimizers(plan)
        self.schedulers = []

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """Optimisers of a stage. Default: AdamW on all parameters with ``lr``, ``weight_decay``."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        if not trainable:
            return []
        lr = getattr(self.parameters_, "lr", 1e-3)
        decay = getattr(self.parameters_, "weight_decay", 0.0)
        return [torch.optim.AdamW(trainable, lr=lr, weight_decay=decay, fused=True)]

    def start_epoch(self, epoch: int) -> None:
        """Called before the batches of an epoch (counted from 0 within the stage)."""

    def training_step(self, batch: Batch) -> Mapping[str, Tensor]:
        """One training step: forward, backward, ``update``.

        Returns:
            Detached scalars for the log, on the device; they are read once per epoch.
        """
        losses = self.losses(batch)
        self.clear_gradients()
        losses["total"].backward()
        self.update()
        return {name: value.detach() for name, value in losses.items()}

    def clear_gradients(self) -> None:
        """Called before every backward pass; a method that adds gradients up over batches does less."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def update(self) -> None:
        """Called after every backward pass: clips the gradients and steps the optimisers."""
        self.clip_gradients()
        for optimizer in self.optimizers:
            optimizer.step()

    def clip_gradients(self) -> None:
        """Clips the global norm to ``gradient_clip`` if the hyper-parameters have one."""
        limit = getattr(self.parameters_, "gradient_clip", None)
        if limit:
            nn.utils.clip_grad_norm_(self.parameters(), limit)

    def validation_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Optional scalars on a labelled validation batch (means over its real utterances).

        Called without gradients in evaluation mode; the engine averages them over utterances and
        hands them to ``end_epoch`` as ``loss/<name>``.
        """
        return {}

    def end_epoch(self, epoch: int, validation: Mapping[str, float]) -> None:
        """Called after an epoch's validation: plateau schedules, best-expert bookkeeping.

        Args:
            epoch: Counted from 0 within the stage.
            validation: Metrics of the protocol under the validation masks (higher is better as
                each metric defines), and ``loss/<name>`` of ``validation_losses``. Empty in a
                stage without validation.
        """

    def before_evaluation(self, training: TrainingData) -> None:
        """Called once before every evaluation pass, in evaluation mode without gradients."""

    def log(self) -> Mapping[str, float | Tensor]:
        """Scalars and small arrays of the epoch for the record (router weights, graph edges)."""
        return {}

    def end_stage(self, plan: StagePlan) -> None:
        """Called after the last epoch of a stage, before the next one starts."""

    # What is saved with the weights, so that a killed run continues exactly.

    def training_state(self) -> dict[str, Any]:
        """State beside weights and buffers: nested dictionaries and lists of tensors and numbers."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``training_state`` after ``start_stage`` has built optimisers and schedulers."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)


def has_validation_losses(method: type[Method[Any]]) -> bool:
    """Whether a method has validation losses of its own, so that they are worth a pass."""
    return method.validation_losses is not Method.validation_losses
