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

    def _hidden(self, batch: Batch) -> Tensor:
        """What the last layer reads, ``[..., H]``."""
        features = [batch.features[name] for name in self.spec.names]
        return self.network[:-1](torch.cat([*features, batch.available.to(features[0].dtype)], dim=-1))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Task loss."""
        assert batch.labels is not None
        outputs = self.network[-1](self._hidden(batch))
        return {"total": task_loss(outputs, batch.labels, batch.real, self.spec.task)}

    def predict(self, batch: Batch) -> Prediction:
        """Scores or class probabilities."""
        hidden = self._hidden(batch)
        prediction = prediction_from_outputs(self.network[-1](hidden), self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden)
