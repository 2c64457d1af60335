"""Task losses that methods share: means over real utterances, padding never counts."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .spec import Task


def task_loss(outputs: Tensor, labels: Tensor, mask: Tensor, task: Task) -> Tensor:
    """Squared error of scores or cross-entropy of classes, averaged over masked positions.

    Args:
        outputs: ``[..., 1]`` scores or ``[..., C]`` logits.
        labels: ``[...]`` float scores or int64 classes.
        mask: ``[...]`` bool, the positions that count.
        task: Task of the data.

    Returns:
        Scalar: (sum of mask * loss) / (sum of mask); 0 where nothing counts.
    """
    if task == "regression":
        terms = (outputs.squeeze(-1) - labels).square()
    else:
        flat = functional.cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        terms = flat.view(labels.shape)
    weights = mask.to(terms.dtype)
    return (terms * weights).sum() / weights.sum().clamp(min=1)
