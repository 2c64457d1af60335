"""Zero-filled concatenation through a small network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Method, Services
from ...harness.spec import DataSpec
from .info import EarlyFusionParameters


class EarlyFusion(Method[EarlyFusionParameters]):
    """An MLP over the concatenated features and the availability mask."""

    def __init__(self, spec: DataSpec, parameters: EarlyFusionParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        width = sum(spec.dims.values()) + len(spec.modalities)
        self.network = nn.Sequential(
            nn.Linear(width, parameters.hidden),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
            nn.Linear(parameters.hidden, parameters.hidden),
            nn.ReLU(),
            nn.Dropout(parameters.dropout),
            nn.Linear(parameters.hidden, spec.outputs),
        )

    def _outputs(self, batch: Batch) -> Tensor:
        features = [batch.features[name] for name in self.spec.names]
        return self.network(torch.cat([*features, batch.available.to(features[0].dtype)], dim=-1))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Task loss."""
        assert batch.labels is not None
        return {"total": task_loss(self._outputs(batch), batch.labels, batch.real, self.spec.task)}

    def predict(self, batch: Batch) -> Prediction:
        """Scores or class probabilities."""
        return prediction_from_outputs(self._outputs(batch), self.spec.task == "regression")
