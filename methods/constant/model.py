"""Predicts the same for every utterance, whatever is available."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction
from ...harness.method import Method, Services
from ...harness.spec import DataSpec
from .info import ConstantParameters


class Constant(Method[ConstantParameters]):
    """Mean of the training scores, or the class shares of the training labels.

    For a regression the constant is the mean, which minimises the squared error; for classes the
    arg max of the shares is the majority class.
    """

    total: Tensor
    count: Tensor

    def __init__(self, spec: DataSpec, parameters: ConstantParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        width = 1 if spec.task == "regression" else len(spec.classes)
        self.register_buffer("total", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Nothing is minimised; the labels are counted."""
        assert batch.labels is not None
        labels = batch.labels[batch.real]
        if self.spec.task == "regression":
            self.total += labels.double().sum()
        else:
            self.total += nn.functional.one_hot(labels, len(self.spec.classes)).double().sum(dim=0)
        self.count += len(labels)
        return {}

    def training_step(self, batch: Batch) -> Mapping[str, Tensor]:
        """Counts the labels of the batch."""
        return self.losses(batch)

    def predict(self, batch: Batch) -> Prediction:
        """The constant, for every utterance."""
        value = (self.total / self.count.clamp(min=1)).float()
        if self.spec.task == "regression":
            return Prediction(score=value.expand(batch.real.shape))
        return Prediction(probabilities=value.expand(*batch.real.shape, len(value)))
