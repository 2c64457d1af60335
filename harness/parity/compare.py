"""Tolerances: how far a tensor of ours is from the golden one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .case import Tolerance, Where
from .contract import ParityError


@dataclass(frozen=True)
class Difference:
    """Largest deviation of one tensor.

    Attributes:
        name: Name of the golden tensor.
        section: Section that produced it.
        kind: Kind of comparison.
        error: Largest absolute error.
        ratio: Largest ``error / (atol + rtol * |golden|)``; infinite for NaN and for integers
            that differ.
        problem: Why nothing could be compared; empty otherwise.
    """

    name: str
    section: str
    kind: str
    error: float = math.inf
    ratio: float = math.inf
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the tensor is within tolerance."""
        return not self.problem and self.ratio <= 1


def deviation(
    ours: Tensor, golden: Tensor, tolerance: Tolerance, where: Tensor | None = None
) -> tuple[float, float]:
    """Largest absolute error and largest ratio.

    Args:
        ours: Any shape.
        golden: The same shape, but a scalar may be ``[]`` or ``[1]``.
        tolerance: Integer golden tensors are compared exactly whatever it says.
        where: Bool mask that broadcasts to the shape, ``None`` for everywhere.

    Raises:
        ParityError: The shapes differ.
    """
    scalars = (torch.Size([]), torch.Size([1]))
    if ours.shape != golden.shape and not (ours.shape in scalars and golden.shape in scalars):
        raise ParityError(f"shape {list(ours.shape)}, expected {list(golden.shape)}")
    exact = not golden.is_floating_point()
    ours, golden = ours.detach().cpu().double().reshape(golden.shape), golden.cpu().double()
    error = (ours - golden).abs()
    error = torch.where(error.isfinite(), error, torch.inf)
    allowed = torch.zeros_like(golden) if exact else tolerance.atol + tolerance.rtol * golden.abs()
    ratio = torch.where(error == 0, 0.0, error / allowed)
    if where is not None:
        error, ratio = error[where.expand_as(error)], ratio[where.expand_as(error)]
    if error.numel() == 0:
        return 0.0, 0.0
    return float(error.max()), float(ratio.max())


def region(where: Where, mask: Tensor, shape: torch.Size) -> Tensor:
    """The mask of a comparison, shaped to broadcast over the output.

    Raises:
        ParityError: The mask doesn't fit the output.
    """
    if where.column is not None:
        if mask.dim() < 2 or not 0 <= where.column < mask.shape[1]:
            raise ParityError(f"mask {where.mask!r} of shape {list(mask.shape)} has no column {where.column}")
        mask = mask[:, where.column]
    fits = mask.dim() == len(where.axes) == len(set(where.axes)) and all(
        0 <= axis < len(shape) and shape[axis] == size
        for axis, size in zip(where.axes, mask.shape, strict=False)
    )
    if not fits:
        raise ParityError(
            f"mask {where.mask!r} of shape {list(mask.shape)} doesn't fit axes {where.axes} of an output "
            f"of shape {list(shape)}"
        )
    order = sorted(range(mask.dim()), key=lambda k: where.axes[k])
    sizes = [shape[axis] if axis in where.axes else 1 for axis in range(len(shape))]
    return (mask != 0).permute(order).reshape(sizes)


def sorted_edges(index: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    """Edges sorted by (source, target).

    Args:
        index: ``[2, E]``, row 0 source, row 1 target.
        kind: ``[E]`` relation of each edge.

    Raises:
        ParityError: The shapes are not those of edges.
    """
    if index.dim() != 2 or index.shape[0] != 2 or kind.shape != index.shape[1:]:
        raise ParityError(f"edges of shapes {list(index.shape)} and {list(kind.shape)}")
    if index.shape[1] == 0:
        return index, kind
    order = (index[0] * (index.max() + 1) + index[1]).argsort(stable=True)
    return index[:, order], kind[order]
