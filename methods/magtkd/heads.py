"""Stage 1: utterance-level heads, of which text's teaches the others (spec section 5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from ...harness.spec import Task
from .info import MAGTKDParameters
from .losses import feature_distillation, logit_distillation, task_loss


class UtteranceHead(nn.Module):
    """h = ReLU(P x + b), z = W h + c.

    Args:
        dim: Feature width.
        width: Hidden width H.
        outputs: Number of outputs C.
    """

    def __init__(self, dim: int, width: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, width)
        self.output = nn.Linear(width, outputs)

    def hidden(self, x: Tensor) -> Tensor:
        """Hidden state ``[..., H]`` of features ``[..., d]``."""
        return functional.relu(self.project(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden state and output of features."""
        hidden = self.hidden(x)
        return hidden, self.output(hidden)


def head_losses(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor] | None,
    labels: Tensor,
    counted: Tensor,
    taught: Tensor,
    task: Task,
    hp: MAGTKDParameters,
    everything: bool = False,
) -> Mapping[str, Tensor]:
    """Losses of one head.

    Args:
        student: Hidden states ``[N, H]`` and outputs ``[N, C]`` of the head that is trained.
        teacher: The same of the frozen teacher; ``None`` where there is none.
        labels: ``[N]``.
        counted: ``[N]`` bool, utterances with the student's modality.
        taught: ``[N]`` bool, those that have the teacher's as well.
        task: Task of the data.
        hp: Hyper-parameters.
        everything: Whether to compute terms of weight 0 too.
    """
    squared = hp.regression_loss == "l2"
    terms = {"ce": task_loss(student[1], labels, counted, task, squared)}
    total = terms["ce"]
    if teacher is not None:
        hidden, logits = teacher[0].detach(), teacher[1].detach()
        if task != "regression" and (hp.logit_weight or everything):
            kd = logit_distillation(student[1], logits, taught, hp.tau)
            terms |= {"inter": kd.inter, "intra": kd.intra, "logit_kd": kd.total}
            total = total + hp.logit_weight * kd.total
        if hp.feature_weight or everything:
            kd = feature_distillation(student[0], hidden, taught, hp.feature_temperature)
            terms["feature_kd"] = kd
            total = total + hp.feature_weight * kd
    terms["total"] = total
    return terms
