"""Distributions over anchors, divergences and losses (section 4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .anchors import cosine

Similarity = Literal["cosine", "dot"]
Direction = Literal["teacher_student", "student_teacher"]

_FLOOR = 1e-8
_CLAMP = 10.0


def log_distribution(features: Tensor, anchors: Tensor, temperature: float, how: Similarity) -> Tensor:
    """Log q_tau(x, Gamma) of section 4.

    Args:
        features: ``[..., B, D]`` x.
        anchors: ``[..., C, D]`` Gamma.
        temperature: tau.
        how: ``"cosine"``, or ``"dot"``: clamped dot products, softmax floored and renormalised.

    Returns:
        ``[..., B, C]``.
    """
    if how == "cosine":
        return torch.log_softmax(cosine(features, anchors) / temperature, dim=-1)
    logits = (features @ anchors.mT / temperature).clamp(-_CLAMP, _CLAMP)
    floored = torch.softmax(logits, dim=-1).clamp(min=_FLOOR)
    return torch.log(floored / floored.sum(dim=-1, keepdim=True))


def divergence(teacher: Tensor, student: Tensor, direction: Direction, how: Similarity) -> Tensor:
    """KL divergence of log distributions ``[..., C]``, teacher first unless reversed: ``[...]``.

    Under ``"dot"`` the second logarithm is guarded as in the released code.
    """
    first, second = (teacher, student) if direction == "teacher_student" else (student, teacher)
    log_second = second if how == "cosine" else torch.log(second.exp() + _FLOOR)
    return (first.exp() * (first - log_second)).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Mean of values where the mask is True, 0 where it never is; no read of the device."""
    weight = mask.to(values.dtype)
    return (weight * values).sum(dim=dim) / weight.sum(dim=dim).clamp(min=1.0)


def channel_loss(divergences: Tensor, mask: Tensor, how: Similarity) -> Tensor:
    """Mean over samples, clamped under ``"dot"``, then over the levels that have samples.

    Args:
        divergences: ``[L, B]``.
        mask: ``[L, B]`` bool.
        how: The similarity in force.
    """
    levels = masked_mean(divergences, mask)
    if how == "dot":
        levels = levels.clamp(0.0, 100.0)
    return masked_mean(levels, mask.any(dim=-1))


def compensate(features: Tensor, completion: Tensor, incomplete: Tensor, weight: float) -> Tensor:
    """Ubar = u~ + gamma delta zhat (section 4.4)."""
    return features + weight * incomplete[:, None] * completion


def classification_losses(
    log_probabilities: Tensor, labels: Tensor, form: Literal["logits", "probabilities"]
) -> Tensor:
    """Loss of each sample ``[B]``: -log P(y), or the cross entropy with P in the place of logits."""
    if form == "probabilities":
        log_probabilities = torch.log_softmax(log_probabilities.exp(), dim=-1)
    return -log_probabilities.gather(-1, labels[:, None]).squeeze(-1)
