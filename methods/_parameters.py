"""Hyper-parameters of methods that train their modalities alone before they train them together."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ..harness.record import FloatRange, HyperParameters


class TwoStageParameters(HyperParameters):
    """Length and selection of two stages that share one optimiser.

    Attributes:
        lr: Learning rate of Adam.
        weight_decay: L2 term that Adam adds to the gradient (not decoupled).
        stage1_share: Share of ``epochs`` that trains every modality alone.
        stage1_epochs: Length of that stage in epochs; ``None``: from ``stage1_share``; 0: it is left
            out (an ablation).
        select_from_epoch: First epoch the tested model may come from; ``None``: the first in which
            the joint head is trained.
    """

    epochs: int = 100
    batch_size: int = 32
    lr: Annotated[float, Field(gt=0), FloatRange(3e-5, 1e-3, log=True)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0), FloatRange(1e-6, 1e-3, log=True)] = 1e-5

    stage1_share: Annotated[float, Field(ge=0, lt=1), FloatRange(0.2, 0.6)] = 0.5
    stage1_epochs: Annotated[int, Field(ge=0)] | None = None
    select_from_epoch: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.first_epochs >= self.epochs > 0:
            raise ValueError(f"stage1_epochs ({self.first_epochs}) must be below epochs ({self.epochs})")
        if self.select_from_epoch is not None and self.select_from_epoch >= self.epochs > 0:
            raise ValueError(
                f"select_from_epoch ({self.select_from_epoch}) must be below epochs ({self.epochs})"
            )
        return self

    @property
    def first_epochs(self) -> int:
        """Epochs of the first stage."""
        return int(self.stage1_share * self.epochs) if self.stage1_epochs is None else self.stage1_epochs
