"""Losses that keep the shared and the exclusive part of a modality apart and meaningful."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .distillation import cosine

MARGIN = 0.15


def mean_over_present(values: Tensor, present: Tensor | None) -> Tensor:
    """Mean of ``values [B, ...]`` over the samples that count; 0 where none does.

    Args:
        values: Terms, one row per sample.
        present: ``[B]`` bool; ``None``: all count.
    """
    if present is None:
        return values.mean()
    rows = torch.where(present, values.flatten(1).mean(1) if values.dim() > 1 else values, 0.0)
    return rows.sum() / present.sum().clamp(min=1)


def orthogonality(
    exclusive: Tensor, shared: Tensor, axis: Literal["feature", "batch"], present: Tensor | None = None
) -> Tensor:
    """Mean positive cosine between the exclusive and the shared part (spec section 7).

    Args:
        exclusive: ``[B, T, d]``.
        shared: ``[B, T, d]``.
        axis: ``"feature"`` compares the two vectors of each step; ``"batch"`` is the released form,
            a cosine along the batch for every step and channel.
        present: ``[B]`` bool, samples that count.
    """
    if axis == "feature":
        return mean_over_present(cosine(exclusive, shared).clamp(min=0), present)
    if present is not None:
        exclusive = torch.where(present[:, None, None], exclusive, 0.0)
        shared = torch.where(present[:, None, None], shared, 0.0)
    return cosine(exclusive, shared, dim=0).clamp(min=0).mean()


def margin_loss(vectors: Tensor, labels: Tensor, classes: bool, present: Tensor | None = None) -> Tensor:
    """Hinge loss over all (anchor, positive, negative) of a batch's vectors (spec section 7).

    Positives of an anchor are all other vectors with exactly its label, negatives all others. The
    loss of an anchor is the mean over its pairs of max(0, m - cos(anchor, positive) +
    cos(anchor, negative)) with m = 0.15 |difference of labels|, or 0.15 between classes; the result
    is the mean over anchors that have both, 0 if there is none.

    The mean over pairs is computed without building them. It is piecewise linear: each negative
    counts as often as there are positives below it, each positive as often as there are negatives
    above it, and these counts come from sorted rows.

    Args:
        vectors: ``[B, M, d]`` one vector per sample and modality.
        labels: ``[B]`` scores or classes.
        classes: Whether labels are classes.
        present: ``[B, M]`` bool, vectors that take part; ``None``: all.
    """
    flat = vectors.flatten(0, 1)
    unit = flat / (flat.square().sum(-1, keepdim=True) + 1e-8).sqrt()
    cosines = unit @ unit.T
    each = labels.repeat_interleave(vectors.shape[1])
    difference = each[:, None] - each[None, :]
    same = difference == 0
    margins = MARGIN * (~same if classes else difference.abs()).to(cosines.dtype)
    itself = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    positive, negative = same & ~itself, ~same
    if present is not None:
        counted = present.flatten()
        positive = positive & counted[:, None] & counted[None, :]
        negative = negative & counted[:, None] & counted[None, :]
    hard = cosines + margins  # what a positive must exceed
    with torch.no_grad():
        positives, negatives = positive.sum(1), negative.sum(1)
        low = torch.where(positive, cosines, torch.inf).sort(dim=1).values
        high = torch.where(negative, hard, torch.inf).sort(dim=1).values
        below = torch.searchsorted(low, hard.contiguous())
        above = negatives[:, None] - torch.searchsorted(high, cosines.contiguous(), right=True)
        push = torch.where(negative, below, 0).to(cosines.dtype)
        pull = torch.where(positive, above, 0).to(cosines.dtype)
        pairs = positives * negatives
    hinge = (push * hard - pull * cosines).sum(1) / pairs.clamp(min=1)
    return hinge.sum() / (pairs > 0).sum().clamp(min=1)
