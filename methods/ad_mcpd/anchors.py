"""Similarity to prototypes, top-k selection and anchors (sections 3.2 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Selection:
    """Which samples make up the anchors; L levels (modalities, then the global one).

    Attributes:
        chosen: ``[L, C, B]`` bool.
        found: ``[L, C]`` bool, whether the class has any candidate.
    """

    chosen: Tensor
    found: Tensor


def cosine(features: Tensor, anchors: Tensor) -> Tensor:
    """Cosine of ``[..., B, D]`` with ``[..., C, D]``: ``[..., B, C]``."""
    return F.normalize(features, dim=-1, eps=1e-8) @ F.normalize(anchors, dim=-1, eps=1e-8).mT


def similarity(features: Tensor, prototypes: Tensor, entropies: Tensor, weight: float) -> Tensor:
    """s_ic = cos(x_i, p_c) + lambda_H H_i (section 3.2).

    Args:
        features: ``[L, B, D]``.
        prototypes: ``[L, C, D]``.
        entropies: ``[L, B]``.
        weight: lambda_H.

    Returns:
        ``[L, B, C]``.
    """
    return cosine(features, prototypes) + weight * entropies[..., None]


def select(similarities: Tensor, candidates: Tensor, top_k: int) -> Selection:
    """The ``top_k`` most similar candidates of every class, or all of them if there are fewer.

    Args:
        similarities: ``[L, B, C]``.
        candidates: ``[L, B, C]`` bool.
        top_k: K.
    """
    ranked = similarities.detach().masked_fill(~candidates, -torch.inf).mT
    best = ranked.topk(min(top_k, ranked.shape[-1]), dim=-1)
    none = torch.zeros_like(ranked, dtype=torch.bool)
    chosen = none.scatter(-1, best.indices, best.values > -torch.inf)
    return Selection(chosen, chosen.any(dim=-1))


def anchors(features: Tensor, selection: Selection) -> Tensor:
    """Mean of the chosen features ``[L, B, D]`` per class: ``[L, C, D]``, zero if none is chosen."""
    weight = selection.chosen.to(features.dtype)
    return weight @ features / weight.sum(dim=-1, keepdim=True).clamp(min=1.0)


class AnchorMemory(nn.Module):
    """Moving average of the anchors: the anchors of every prediction outside training.

    A class that no training sample has shown yet keeps a zero anchor, whose cosine is 0.

    Args:
        levels: M + 1.
        classes: C.
        shared_dim: D.
        momentum: Share of the old value; a first observation is copied.
    """

    values: Tensor
    seen: Tensor

    def __init__(self, levels: int, classes: int, shared_dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(levels, classes, shared_dim))
        self.register_buffer("seen", torch.zeros(levels, classes, dtype=torch.bool))

    def complete(self, values: Tensor, found: Tensor) -> Tensor:
        """Anchors ``[L, C, D]`` with the stored ones where a class has no candidate."""
        return torch.where(found[..., None], values, self.values)

    @torch.no_grad()
    def update(self, values: Tensor, found: Tensor) -> None:
        """One step of the average for the classes that were found ``[L, C]``."""
        mixed = self.momentum * self.values + (1.0 - self.momentum) * values
        new = torch.where(self.seen[..., None], mixed, values)
        self.values.copy_(torch.where(found[..., None], new, self.values))
        self.seen.logical_or_(found)
