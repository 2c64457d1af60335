"""Predictions of a split under fixed masks, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..method import Method
from ..metrics import Outcome, evaluate
from ..spec import DataSpec
from .tensors import Masks, SplitTensors


@dataclass(frozen=True)
class Condition:
    """A test or validation condition with one draw of its masks.

    Attributes:
        name: Name of the condition.
        family: Family under which averages are allowed.
        mask_seed: Seed of the draw; ``None`` where nothing is drawn.
        masks: The masks of the split.
        mask_hash: Hash of the drawn masks.
    """

    name: str
    family: str
    mask_seed: int | None
    masks: Masks
    mask_hash: str = ""


@dataclass(frozen=True)
class Predicted:
    """Predictions of a split, in row order.

    Attributes:
        score: ``[N]`` float32 or ``None``.
        probabilities: ``[N, C]`` float32 or ``None``.
    """

    score: np.ndarray | None
    probabilities: np.ndarray | None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The precision of forward passes: float32, or bf16 where it is safe."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def batches_in_order(
    split: SplitTensors, masks: Masks, batch_size: int, labels: bool = False, targets: bool = False
) -> Iterator[Batch]:
    """Batches of a split in their fixed order."""
    return split.batches(torch.arange(split.units).split(batch_size), masks, labels=labels, targets=targets)


@torch.no_grad()
def predict(method: Method, split: SplitTensors, masks: Masks, batch_size: int, precision: str) -> Predicted:
    """Predictions of a method for every utterance of a split.

    Args:
        method: A method in evaluation mode.
        split: The split.
        masks: What is available.
        batch_size: Dialogues or utterances per batch.
        precision: ``"float32"`` or ``"bf16"``.
    """
    scores: list[Tensor] = []
    probabilities: list[Tensor] = []
    rows: list[Tensor] = []
    with autocast(split.device, precision):
        for batch in batches_in_order(split, masks, batch_size):
            prediction = method.predict(batch)
            rows.append(batch.rows.reshape(-1))
            if prediction.score is not None:
                scores.append(prediction.score.reshape(-1))
            if (classes := prediction.probabilities) is not None:
                probabilities.append(classes.reshape(-1, classes.shape[-1]))
    # Read from the device once, at the end.
    places = torch.cat(rows).cpu().numpy()
    return Predicted(_placed(scores, places), _placed(probabilities, places))


def _placed(values: Sequence[Tensor], rows: np.ndarray) -> np.ndarray | None:
    """Values of batches in the order of their rows, without those on padding (row -1)."""
    if not values:
        return None
    joined, real = torch.cat(list(values)).float().cpu().numpy(), rows >= 0
    placed = np.empty_like(joined[: int(real.sum())])
    placed[rows[real]] = joined[real]
    return placed


def score(
    predicted: Predicted, labels: np.ndarray, spec: DataSpec, names: Sequence[str]
) -> dict[str, float | None]:
    """Metrics of predictions.

    Raises:
        NonFinitePrediction: A prediction is not a finite number.
    """
    outcome = Outcome(
        y_true=labels,
        score=predicted.score,
        probabilities=predicted.probabilities,
        task=spec.task,
        classes=spec.classes,
        score_range=spec.score_range,
    )
    return evaluate(outcome, names)
