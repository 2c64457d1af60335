"""Means of scalars that stay on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Weighted means of named scalars of batches, read from the device once.

    Args:
        prefix: Put before every name.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._values: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[int]] = {}

    def add(self, terms: Mapping[str, Tensor], weight: int) -> None:
        """Takes the scalars of a batch."""
        for name, value in terms.items():
            self._values.setdefault(name, []).append(value.detach())
            self._weights.setdefault(name, []).append(weight)

    def read(self) -> dict[str, float]:
        """The means, in double precision."""
        means: dict[str, float] = {}
        for name, values in self._values.items():
            weights = self._weights[name]
            numbers = torch.stack(values).double().reshape(-1).tolist()
            total = sum(number * weight for number, weight in zip(numbers, weights, strict=True))
            means[f"{self._prefix}{name}"] = total / sum(weights)
        return means
