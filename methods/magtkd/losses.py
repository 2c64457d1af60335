"""Distillation losses between streams (spec section 4.1), over the utterances that count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...harness.spec import Task

EPSILON = 1e-8


def mean_over(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of ``values [N]`` where ``counted [N]``; 0 where nothing counts."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)


def task_loss(logits: Tensor, labels: Tensor, counted: Tensor, task: Task, squared: bool = False) -> Tensor:
    """Mean cross-entropy of classes, or absolute (squared) error of scores.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``.
        counted: ``[N]`` bool.
        task: Task of the data.
        squared: Whether errors of scores are squared.
    """
    if task != "regression":
        return mean_over(functional.cross_entropy(logits, labels, reduction="none"), counted)
    errors = logits.squeeze(-1) - labels
    return mean_over(errors.square() if squared else errors.abs(), counted)


@dataclass(frozen=True)
class LogitDistillation:
    """The two halves of the logit distillation, each with its factor tau squared.

    Attributes:
        inter: Between classes of an utterance.
        intra: Between utterances of a class.
    """

    inter: Tensor
    intra: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.inter + self.intra


def logit_distillation(student: Tensor, teacher: Tensor, counted: Tensor, tau: float) -> LogitDistillation:
    """1 - Pearson correlation of softened class probabilities, by utterance and by class.

    Args:
        student: ``[N, C]`` logits.
        teacher: ``[N, C]`` logits.
        counted: ``[N]`` bool; both halves are 0 where nothing counts.
        tau: Temperature.
    """
    p, q = torch.softmax(student / tau, dim=-1), torch.softmax(teacher / tau, dim=-1)
    some = counted.any().to(p.dtype)
    rows = _correlation(_centred(p, None), _centred(q, None), dim=1)
    columns = _correlation(_centred(p, counted), _centred(q, counted), dim=0)
    inter = some - mean_over(rows, counted)
    return LogitDistillation(tau**2 * inter, tau**2 * some * (1.0 - columns.mean()))


def feature_distillation(student: Tensor, teacher: Tensor, counted: Tensor, temperature: float) -> Tensor:
    """Divergence between how utterances resemble the teacher's and the student's states.

    With unit rows, P = softmax of teacher x teacher, Q = softmax of teacher x student over columns;
    the result is the mean over rows of sum P (log P - log Q).

    Args:
        student: ``[N, H]`` states.
        teacher: ``[N, H]`` states.
        counted: ``[N]`` bool, rows and columns that take part; 0 where there are none.
        temperature: Divides the similarities.
    """
    s, t = functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1)
    # Finite, so that a batch without any counted utterance stays finite.
    p = torch.where(counted, t @ t.T / temperature, -1e9).log_softmax(dim=-1)
    q = torch.where(counted, t @ s.T / temperature, -1e9).log_softmax(dim=-1)
    return mean_over((p.exp() * (p - q)).sum(-1), counted)


def _centred(values: Tensor, counted: Tensor | None) -> Tensor:
    """Rows centred (``counted`` is ``None``), or columns over the counted rows, others zero."""
    if counted is None:
        return values - values.mean(dim=1, keepdim=True)
    kept = torch.where(counted[:, None], values, 0.0)
    mean = kept.sum(0) / counted.sum().clamp(min=1)
    return torch.where(counted[:, None], values - mean, 0.0)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + EPSILON)
