"""Graph distillation: modalities as nodes, predicted edges say who learns from whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Metric = Literal["l1", "l2", "cosine"]
Representation = Literal["distance", "repel", "none"]

EPSILON = 1e-12


@dataclass(frozen=True)
class UnitSettings:
    """Settings of one graph (spec section 6).

    Attributes:
        size: Width G of the edge predictor.
        prior: Prior weight of each edge, summing to 1, in the order of ``edge_pairs``.
        reg: Weight of the pull towards the prior.
        logit_weight: Weight of the logit term.
        repr_weight: Weight of the representation term.
        metric: Distance between student and teacher.
        alpha: Sharpness of the edge softmax.
        representation: What the representation term does.
    """

    size: int
    prior: tuple[float, ...]
    reg: float = 10.0
    logit_weight: float = 1.0
    repr_weight: float = 10.0
    metric: Metric = "l1"
    alpha: float = 0.125
    representation: Representation = "distance"


@dataclass(frozen=True)
class Distillation:
    """What a unit computed.

    Attributes:
        edges: ``[K, B]`` edge weights e, summing to 1 over the edges of a sample.
        scores: ``[K, B]`` raw scores, before the softmax.
        prior: ``[K]`` prior weights.
        reg: Pull towards the prior, weighted.
        logit: Distillation of logits, weighted.
        representation: Distillation of representations, weighted.
    """

    edges: Tensor
    scores: Tensor
    prior: Tensor
    reg: Tensor
    logit: Tensor
    representation: Tensor


def edge_pairs(nodes: int) -> list[tuple[int, int]]:
    """All (student, teacher) pairs, students in the outer loop."""
    return [(student, teacher) for student in range(nodes) for teacher in range(nodes) if student != teacher]


def prior(logits: Sequence[float], temperature: float = 0.25) -> tuple[float, ...]:
    """Softmax of ``logits / temperature``."""
    return tuple(torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, dim=0).tolist())


def cosine(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    """Cosine whose denominator is sqrt((sum a^2 + 1e-12)(sum b^2 + 1e-12)): 0 for zero vectors."""
    norms = (a.square().sum(dim) + EPSILON) * (b.square().sum(dim) + EPSILON)
    return (a * b).sum(dim) / norms.sqrt()


def distance(a: Tensor, b: Tensor, metric: Metric) -> Tensor:
    """Distance over the last axis: sum of absolute or squared differences, or 1 - cosine."""
    if metric == "l1":
        return (a - b).abs().sum(-1)
    if metric == "l2":
        return (a - b).square().sum(-1)
    return 1.0 - cosine(a, b)


class GraphDistillation(nn.Module):
    """Predicts an edge for every ordered pair of modalities and distils along it.

    Args:
        nodes: Number of modalities M; there are K = M(M-1) edges.
        outputs: Width C of the logits.
        width: Width E of the representations.
        settings: Weights and forms of the terms.

    Raises:
        ValueError: The prior has not one weight per edge.
    """

    prior: Tensor
    students: Tensor
    teachers: Tensor

    def __init__(self, nodes: int, outputs: int, width: int, settings: UnitSettings) -> None:
        super().__init__()
        pairs = edge_pairs(nodes)
        if len(settings.prior) != len(pairs):
            raise ValueError(f"{nodes} modalities have {len(pairs)} edges, the prior {len(settings.prior)}")
        self.settings = settings
        self.logit = nn.Linear(outputs, settings.size)
        self.representation = nn.Linear(width, settings.size)
        self.edge = nn.Linear(4 * settings.size, 1)
        self.register_buffer("prior", torch.tensor(settings.prior), persistent=False)
        self.register_buffer("students", torch.tensor([pair[0] for pair in pairs]), persistent=False)
        self.register_buffer("teachers", torch.tensor([pair[1] for pair in pairs]), persistent=False)

    def forward(self, logits: Tensor, reprs: Tensor, present: Tensor | None = None) -> Distillation:
        """Edges and losses of a batch.

        Args:
            logits: ``[M, B, C]``.
            reprs: ``[M, B, E]``.
            present: ``[B, M]`` bool. Edges of absent modalities have weight 0 in edges and prior,
                and samples with fewer than two modalities count nowhere; ``None``: all count.
        """
        settings = self.settings
        nodes = torch.cat([self.logit(logits), self.representation(reprs)], dim=-1)
        # W_edge [zeta_student, zeta_teacher] split into a part per end: no K pairs are built.
        as_student, as_teacher = self.edge.weight[0].chunk(2)
        scores = (
            (nodes @ as_student)[self.students] + (nodes @ as_teacher)[self.teachers] + self.edge.bias
        )  # [K, B]
        if present is None:
            edges = torch.softmax(settings.alpha * scores, dim=0)
            weights = edges + self.prior[:, None]
            reg = (edges.mean(1) - self.prior).square().sum()
            count, both = None, None
        else:
            both = present.T[self.students] & present.T[self.teachers]
            active = both.any(dim=0)
            masked = torch.where(both | ~active, settings.alpha * scores, -torch.inf)
            edges = torch.where(both, torch.softmax(masked, dim=0), 0.0)
            favoured = torch.where(both, self.prior[:, None], 0.0)
            favoured = favoured / favoured.sum(0).clamp(min=EPSILON)
            weights = edges + favoured
            count = active.sum().clamp(min=1)
            reg = ((edges.sum(1) - favoured.sum(1)) / count).square().sum()

        def total(values: Tensor) -> Tensor:
            """Sum over edges of the batch mean of weight times value."""
            terms = weights * values
            return terms.sum() / terms.shape[1] if count is None else terms.sum() / count

        logit = total(self._distances(logits))
        if settings.representation == "distance":
            representation = total(self._distances(reprs))
        elif settings.representation == "repel":
            # One number per edge, so that the weights of samples are averaged away. (A clamp, not a
            # ReLU: at exactly 0 the released code has a gradient.)
            likeness = cosine(reprs[self.students], reprs.detach()[self.teachers]).clamp(min=0)
            if both is None:
                likeness = likeness.mean(1, keepdim=True)
            else:
                likeness = torch.where(both, likeness, 0.0).sum(1) / both.sum(1).clamp(min=1)
                likeness = likeness[:, None]
            representation = total(likeness)
        else:
            representation = logit.new_zeros(())
        return Distillation(
            edges=edges,
            scores=scores,
            prior=self.prior,
            reg=settings.reg * reg,
            logit=settings.logit_weight * logit,
            representation=settings.repr_weight * representation,
        )

    def _distances(self, values: Tensor) -> Tensor:
        """``[K, B]`` distance of each student to its detached teacher."""
        return distance(values[self.students], values.detach()[self.teachers], self.settings.metric)
