"""A head per modality, averaged over the available ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Method, Services
from ...harness.spec import DataSpec
from .info import LateFusionParameters


class LateFusion(Method[LateFusionParameters]):
    """Two-layer heads, one per modality; the fused output is the mean over available heads.

    Each head is trained on the utterances that have its modality, and the mean on all of them, so
    that every head predicts on its own.
    """

    def __init__(self, spec: DataSpec, parameters: LateFusionParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        self.heads = nn.ModuleDict(
            {
                modality.name: nn.Sequential(
                    nn.Linear(modality.dim, parameters.hidden),
                    nn.ReLU(),
                    nn.Dropout(parameters.dropout),
                    nn.Linear(parameters.hidden, spec.outputs),
                )
                for modality in spec.modalities
            }
        )

    def _states(self, batch: Batch) -> list[Tensor]:
        """What the last layer of each head reads, ``[..., H]``."""
        return [self._head(name)[:-1](batch.features[name]) for name in self.spec.names]

    def _head(self, name: str) -> nn.Sequential:
        head = self.heads[name]
        assert isinstance(head, nn.Sequential)
        return head

    def _outputs(self, states: list[Tensor]) -> Tensor:
        """Outputs of the heads, ``[..., M, K]``."""
        heads = zip(self.spec.names, states, strict=True)
        return torch.stack([self._head(name)[-1](state) for name, state in heads], dim=-2)

    def _weights(self, batch: Batch) -> Tensor:
        """Share of each head in the mean, ``[..., M]``."""
        weights = batch.available.float()
        return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)

    def _fused(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs * self._weights(batch)[..., None]).sum(dim=-2)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Task loss of the mean, plus the mean task loss of the available heads."""
        assert batch.labels is not None
        outputs = self._outputs(self._states(batch))
        fused = task_loss(self._fused(outputs, batch), batch.labels, batch.real, self.spec.task)
        labels = batch.labels[..., None].expand(batch.available.shape)
        heads = task_loss(outputs, labels, batch.available, self.spec.task)
        return {"total": fused + heads, "fused": fused, "heads": heads}

    def predict(self, batch: Batch) -> Prediction:
        """The mean over the available heads; ``hidden`` are their weighted states side by side.

        Their last layers, applied to ``hidden``, give the mean again (but for the bias).
        """
        states = self._states(batch)
        prediction = prediction_from_outputs(
            self._fused(self._outputs(states), batch), self.spec.task == "regression"
        )
        hidden = (torch.stack(states, dim=-2) * self._weights(batch)[..., None]).flatten(-2)
        return Prediction(prediction.score, prediction.probabilities, hidden)
