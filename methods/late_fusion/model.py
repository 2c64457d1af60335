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

    def _outputs(self, batch: Batch) -> Tensor:
        """Outputs of the heads, ``[..., M, K]``."""
        return torch.stack([self.heads[name](batch.features[name]) for name in self.spec.names], dim=-2)

    def _fused(self, outputs: Tensor, batch: Batch) -> Tensor:
        weights = batch.available.to(outputs.dtype)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)
        return (outputs * weights[..., None]).sum(dim=-2)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Task loss of the mean, plus the mean task loss of the available heads."""
        assert batch.labels is not None
        outputs = self._outputs(batch)
        fused = task_loss(self._fused(outputs, batch), batch.labels, batch.real, self.spec.task)
        labels = batch.labels[..., None].expand(batch.available.shape)
        heads = task_loss(outputs, labels, batch.available, self.spec.task)
        return {"total": fused + heads, "fused": fused, "heads": heads}

    def predict(self, batch: Batch) -> Prediction:
        """The mean over the available heads."""
        fused = self._fused(self._outputs(batch), batch)
        return prediction_from_outputs(fused, self.spec.task == "regression")
