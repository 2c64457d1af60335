"""Two stages under one optimiser: modalities alone, then together (MoMKE, ComP)."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..harness.batch import Batch
from ..harness.method import Method, Services, Stage, StagePlan
from ..harness.spec import DataSpec
from ._blocks import modality_order
from ._parameters import TwoStageParameters

P = TypeVar("P", bound=TwoStageParameters)


class TwoStageMethod(Method[P]):
    """A method whose Adam keeps its moments from the first stage to the second.

    Attributes:
        stage_names: Names of the two stages.
        names: Modalities in alphabetical order.
        first_stage: Whether losses and predictions are those of the first stage. It is saved with
            the weights, so that a model chosen from the first stage predicts as it did there.
    """

    stage_names: ClassVar[tuple[str, str]]

    def __init__(self, spec: DataSpec, parameters: P, services: Services) -> None:
        super().__init__(spec, parameters, services)
        self.names = modality_order(spec)
        self.first_stage = parameters.first_epochs > 0
        self._best: dict[str, dict[str, Any]] = {}

    # What differs between methods.

    def first_stage_data(self) -> Literal["schedule", "complete"]:
        """What the first stage is trained on."""
        return "schedule"

    def keeps_optimizer(self) -> bool:
        """Whether the second stage continues with the moments of the first."""
        return True

    def restored_parts(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """Parts of one modality that go back to its best epoch at the end of the first stage."""
        yield from ()

    @abstractmethod
    def unimodal(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Validation loss of each modality in the first stage, and its accuracy or error; scalars."""

    # Stages.

    def stages(self) -> tuple[Stage, ...]:
        """Both stages, cut where the tested model may first come from."""
        hp = self.parameters_
        border = hp.first_epochs
        first = border if hp.select_from_epoch is None else hp.select_from_epoch
        cuts = sorted({0, border, min(first, hp.epochs), hp.epochs})
        return tuple(
            Stage(
                name=self.stage_names[start >= border],
                epochs=end - start,
                data="schedule" if start >= border else self.first_stage_data(),
                select=start >= first,
                patience=hp.patience if start >= max(border, first) else None,
            )
            for start, end in pairwise(cuts)
        )

    def start_stage(self, plan: StagePlan) -> None:
        """Builds the optimiser once; the second stage keeps it unless told otherwise."""
        was_first = self.first_stage
        self.first_stage = plan.stage.name == self.stage_names[0]
        begins = was_first and not self.first_stage
        if plan.index == 0 or (begins and not self.keeps_optimizer()):
            self.optimizers = self.build_optimizers(plan)

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """One Adam over all parameters; those without a gradient do not move."""
        hp = self.parameters_
        return [torch.optim.Adam(self.parameters(), lr=hp.lr, weight_decay=hp.weight_decay, fused=True)]

    def validation_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Loss and accuracy (regression: mean absolute error) of each modality in the first stage."""
        if not self.first_stage:
            return {}
        measure = "error" if self.spec.task == "regression" else "accuracy"
        found: dict[str, Tensor] = {}
        for name, (loss, value) in self.unimodal(batch).items():
            found |= {f"unimodal_{name}": loss, f"unimodal_{name}_{measure}": value}
        return found

    def end_epoch(self, epoch: int, validation: Mapping[str, float]) -> None:
        """Remembers each modality's parts of its best validation loss, if they are to go back."""
        if not self.first_stage:
            return
        for name in self.names:
            loss = validation.get(f"loss/unimodal_{name}", math.nan)
            if loss < self._best.get(name, {"loss": math.inf})["loss"]:
                parts = {key: dict(part.state_dict()) for key, part in self.restored_parts(name)}
                if parts:
                    self._best[name] = {"loss": loss, "parts": copy.deepcopy(parts)}

    def end_stage(self, plan: StagePlan) -> None:
        """Brings the best parts back where the second stage follows; their moments start afresh."""
        following = self.stages()[plan.index + 1 : plan.index + 2]
        if not self.first_stage or not following or following[0].name == self.stage_names[0]:
            return
        for name, best in self._best.items():
            for key, part in self.restored_parts(name):
                part.load_state_dict(best["parts"][key])
                for parameter in part.parameters():
                    for optimizer in self.optimizers:
                        optimizer.state.pop(parameter, None)
        self._best = {}

    # What a killed run needs beside the weights, and what belongs to a chosen model.

    def training_state(self) -> dict[str, Any]:
        """The optimiser, and the best parts so far."""
        return {**super().training_state(), "best": self._best}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``training_state``."""
        super().load_training_state(state)
        self._best = dict(state["best"])

    def get_extra_state(self) -> Tensor:
        """The stage that the weights belong to."""
        return torch.tensor(self.first_stage)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the stage that the weights belong to."""
        self.first_stage = bool(state)
