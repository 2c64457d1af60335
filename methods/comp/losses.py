"""Loss terms of ComP and its gradient modulator, as pure functions (sections 4 and 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from ...harness.losses import task_loss
from ...harness.spec import Task

COSINE_EPSILON = 1e-8
RELEASED_EPSILON = 1e-10
SMALL_SUM = 1e-6
LARGEST_WEIGHT = 2.0


def reconstruction(decoded: Tensor, projected: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error over modalities and counted positions; the target is not detached.

    Args:
        decoded: ``[M, B, S, D]``.
        projected: ``[M, B, S, D]``.
        counted: ``[B, S]`` bool.
    """
    error = (decoded - projected).square().mean(dim=(0, -1))
    return _mean(error, counted)


def divergence(first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
    """J(Z_i, Z_j): Jensen-Shannon form of element-wise sigmoids.

    With p = σ(first), q = σ(second), M = (p + q) / 2: half the sum over dimensions of
    p (log p − log M) + q (log q − log M), averaged over counted positions. It grows with the width,
    and it is no true divergence since σ is not normalised over dimensions. Logarithms are taken in
    log-sigmoid form, which stays finite where σ saturates.

    Args:
        first: ``[B, S, D]``.
        second: ``[B, S, D]``.
        counted: ``[B, S]`` bool.
    """
    log_p, log_q = functional.logsigmoid(first), functional.logsigmoid(second)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    terms = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return _mean(0.5 * terms.sum(dim=-1), counted)


@dataclass(frozen=True)
class PairTerms:
    """The terms of one pair of modalities.

    Attributes:
        divergence: J of the shared features.
        total: J and the three cosines.
    """

    divergence: Tensor
    total: Tensor


def disentangling(
    shared: Tensor, private: Tensor, real: Tensor, counted: Tensor
) -> dict[tuple[int, int], PairTerms]:
    """Summands of the disentangling loss for every pair of modalities (i < j).

    μ|cos(R_i, R_j)| + μ|cos(R_i, Z_i)| + μ|cos(R_j, Z_j)| + J(Z_i, Z_j), μ the mean over real
    utterances: a modality's own cosine counts once for every pair it is in.

    Args:
        shared: Z, ``[M, B, S, D]``.
        private: R, ``[M, B, S, D]``.
        real: ``[B, S]`` bool.
        counted: ``[B, S]`` bool, positions that J averages over.
    """
    own = [_cosine(r, z, real) for r, z in zip(private, shared, strict=True)]
    pairs: dict[tuple[int, int], PairTerms] = {}
    for i, j in combinations(range(len(own)), 2):
        gap = divergence(shared[i], shared[j], counted)
        pairs[i, j] = PairTerms(gap, _cosine(private[i], private[j], real) + own[i] + own[j] + gap)
    return pairs


def _cosine(first: Tensor, second: Tensor, real: Tensor) -> Tensor:
    return _mean(functional.cosine_similarity(first, second, dim=-1, eps=COSINE_EPSILON).abs(), real)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)


def private_loss(outputs: Tensor, target: Tensor, real: Tensor, task: Task, uniform: bool) -> Tensor:
    """Loss of a private head, meant to keep the label out of the private features.

    Args:
        outputs: ``[B, S, K]``.
        target: ``[B, S]``: noise for a regression, else the true classes.
        real: ``[B, S]`` bool.
        task: Task of the data.
        uniform: In classification, the target is the uniform distribution; otherwise the true class
            on the reversed logits 1 − o, as released, which keeps the features informative.
    """
    if task == "regression":
        return task_loss(outputs, target, real, task)
    if uniform:
        return _mean(-functional.log_softmax(outputs, dim=-1).mean(dim=-1), real)
    return task_loss(1 - outputs, target, real, task)


def noise_target(shape: tuple[int, ...], device: torch.device, largest: float) -> Tensor:
    """Private target of a regression: N(0, (largest / 2)²) clamped to ±largest.

    On scores from -3 to 3 this is clamp(1.5 · N(0, 1), -3, 3).
    """
    return (torch.randn(shape, device=device) * (largest / 2)).clamp(-largest, largest)


@dataclass(frozen=True)
class Modulation:
    """What the gradient modulator found in a batch.

    Attributes:
        weights: W, ``[M, B, S]``; 1 where an utterance is not counted.
        counted: ``[B, S]`` bool.
        clipped: Share of weights that the stabilised form clips; scalar.
    """

    weights: Tensor
    counted: Tensor
    clipped: Tensor

    def scale(self) -> Tensor:
        """Factor of each sequence position, ``[M, S]``: the mean over the batch; 1 if none counts."""
        count = self.counted.sum(dim=0)
        total = torch.where(self.counted, self.weights, 0.0).sum(dim=1)
        return torch.where(count > 0, total / count.clamp(min=1), 1.0)


def modulation(outputs: Tensor, labels: Tensor, real: Tensor, task: Task, released: bool) -> Modulation:
    """Weights of the gradient modulator (equations 10 and 11 of the paper).

    With E^u the error of modality u on an utterance and δ = E^u − E^v,
    W^u_i = mean over v ≠ u of (Σ_j δ_j − δ_i) / Σ_j δ_j: utterances on which u fails more than v
    pull less. A regression counts utterances whose label is not 0.

    The sum in the denominator may vanish, and single weights are unbounded. The stabilised form
    (ours) takes 1 for a pair with |Σ_j δ_j| < 1e-6 n, clips W to [0, 2], and measures errors of
    classes as 1 − P(true class); the released helper adds 1e-10 to the sum and takes
    |class index − logit of the true class|.

    Args:
        outputs: Unimodal outputs, ``[M, B, S, K]``.
        labels: ``[B, S]``.
        real: ``[B, S]`` bool.
        task: Task of the data.
        released: Whether the released helper is reproduced.
    """
    outputs = outputs.detach().float()
    if task == "regression":
        counted = real & (labels != 0)
        errors = (outputs.squeeze(-1) - labels).abs()
    else:
        counted = real
        scores = outputs if released else outputs.softmax(dim=-1)
        true = scores.gather(-1, labels.expand(outputs.shape[:-1])[..., None]).squeeze(-1)
        errors = (labels - true).abs() if released else 1 - true
    errors = torch.where(counted, errors, 0.0)
    gaps = errors[:, None] - errors[None, :]
    sums = gaps.sum(dim=(2, 3), keepdim=True)
    if released:
        pairs = (sums - gaps) / (sums + RELEASED_EPSILON)
    else:
        usable = sums.abs() >= SMALL_SUM * counted.sum()
        pairs = torch.where(usable & (sums != 0), (sums - gaps) / torch.where(sums == 0, 1.0, sums), 1.0)
    others = ~torch.eye(len(outputs), dtype=torch.bool, device=outputs.device)
    weights = torch.where(others[..., None, None], pairs, 0.0).sum(dim=1) / (len(outputs) - 1)
    bounded = weights if released else weights.clamp(0.0, LARGEST_WEIGHT)
    changed = (weights != bounded) & counted
    clipped = changed.sum() / (counted.sum() * len(outputs)).clamp(min=1)
    return Modulation(torch.where(counted, bounded, 1.0), counted, clipped)
