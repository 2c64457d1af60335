"""Predictions of a split under fixed masks, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..method import Method, has_validation_losses
from ..metrics import Outcome, evaluate
from ..spec import DataSpec
from .calls import Call, Work, alone
from .means import Means
from .tensors import Masks, SplitTensors

# Evaluation batches that are kept from epoch to epoch, per split and conditions.
_KEPT_BYTES = 128 * 2**20


@dataclass(frozen=True, eq=False)
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

    def __len__(self) -> int:
        return next(len(values) for values in (self.score, self.probabilities) if values is not None)

    def part(self, first: int, end: int) -> Predicted:
        """The predictions of some rows."""
        score = None if self.score is None else self.score[first:end]
        return Predicted(score, None if self.probabilities is None else self.probabilities[first:end])


def batches_in_order(
    split: SplitTensors, masks: Masks, batch_size: int, labels: bool = False, targets: bool = False
) -> Iterator[Batch]:
    """Batches of a split in their fixed order."""
    return split.batches(torch.arange(split.units).split(batch_size), masks, labels=labels, targets=targets)


_State: TypeAlias = list[tuple[int, int]]


class FixedBatches:
    """Labelled batches of a split under masks that stay the same, in their fixed order.

    What fits into ``room`` is gathered once and kept for the passes to come. A method that writes into
    its batches is given fresh ones in every pass.

    Args:
        split: The split.
        masks: What is available; of several ones, one after the other.
        batch_size: Dialogues or utterances per batch.
        room: Bytes that may be kept.
    """

    def __init__(self, split: SplitTensors, masks: Sequence[Masks], batch_size: int, room: int = 0) -> None:
        self._split = split
        self._masks = split.stacked(masks)
        self._units = torch.arange(len(masks) * split.units).split(batch_size)
        self._room = room
        self._kept: list[tuple[Batch, Batch, _State]] = []
        self._real: np.ndarray | None = None
        once = np.concatenate(split.order) if split.level == "dialogues" else np.arange(len(split))
        self._rows = np.concatenate([once + copy * len(split) for copy in range(len(masks))])

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch, _ in self.pairs())

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Every batch, and the same without its labels."""
        if any(_state(batch) != state for batch, _, state in self._kept):
            self._kept, self._room = [], 0
        for batch, bare, _ in self._kept:
            yield batch, bare
        reached = len(self._kept)
        missing = self._units[reached:]
        for batch in self._split.batches(missing, self._masks, labels=True, targets=False):
            bare = batch.without_labels()
            taken = sum(tensor.nbytes for tensor in _tensors(batch))
            # Only what comes first: batches are kept in their order, whoever else goes through them.
            if reached == len(self._kept):
                self._room = self._room - taken if taken <= self._room else 0
                if self._room:
                    self._kept.append((batch, bare, _state(batch)))
            reached += 1
            yield batch, bare

    def predict(self, method: Method, precision: str) -> Work[Predicted]:
        """Predictions of a method in evaluation mode, in row order, masks one after the other."""
        scores: list[Tensor] = []
        probabilities: list[Tensor] = []
        real: list[Tensor] = []
        known = self._real is not None
        for batch, bare in self.pairs():
            prediction = yield Call("predict", method, bare, precision)
            if not known:
                real.append(batch.real.reshape(-1))
            if prediction.score is not None:
                scores.append(prediction.score.reshape(-1))
            if (classes := prediction.probabilities) is not None:
                probabilities.append(classes.reshape(-1, classes.shape[-1]))
        if self._real is None:
            self._real = torch.cat(real).cpu().numpy()
        # Read from the device once, at the end.
        return Predicted(
            _placed(scores, self._real, self._rows), _placed(probabilities, self._real, self._rows)
        )


class Evaluation:
    """Evaluates a split under fixed conditions, in as few passes as may be.

    Small conditions share a batch, unless the method's predictions or validation losses depend on what
    else is in it.

    Args:
        split: The split.
        conditions: Its conditions.
        batch_size: Dialogues or utterances per batch.
        precision: ``"float32"`` or ``"bf16"``.
        joined: Whether conditions may share a batch.
        room: Bytes of batches that may be kept from pass to pass.
    """

    def __init__(
        self,
        split: SplitTensors,
        conditions: Sequence[Condition],
        batch_size: int,
        precision: str,
        joined: bool,
        room: int = 0,
    ) -> None:
        together = max(1, batch_size // max(split.units, 1)) if joined else 1
        masks = [condition.masks for condition in conditions]
        groups = [masks[first : first + together] for first in range(0, len(masks), together)]
        self._batches = [FixedBatches(split, group, batch_size, room // len(groups)) for group in groups]
        self._split = split
        self._precision = precision

    def predict(self, method: Method) -> Work[list[Predicted]]:
        """Predictions under every condition."""
        size = len(self._split)
        found: list[Predicted] = []
        for batches in self._batches:
            joined = yield from batches.predict(method, self._precision)
            found += [joined.part(first, first + size) for first in range(0, len(joined), size)]
        return found

    def losses(self, method: Method) -> Work[dict[str, float]]:
        """Validation losses by name, ``loss/...``, averaged over conditions; empty if the method has none."""
        if not has_validation_losses(type(method)):
            return {}
        rows: list[dict[str, float]] = []
        for batches in self._batches:
            means = Means("loss/")
            for batch in batches:
                terms = yield Call("validation_losses", method, batch, self._precision)
                if not terms:  # none in this stage, so none in any batch
                    return {}
                means.add(terms, sum(batch.lengths))
            rows.append(means.read())
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


class Evaluations:
    """Evaluations that are made again and again, each with the batches that it keeps."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Evaluation] = {}
        self._complete: dict[SplitTensors, tuple[Condition, ...]] = {}

    def of(
        self,
        split: SplitTensors,
        conditions: Sequence[Condition],
        batch_size: int,
        precision: str,
        joined: bool,
    ) -> Evaluation:
        """The evaluation of a split under some conditions, made once; see ``Evaluation``."""
        key = (split, tuple(conditions), batch_size, precision, joined)
        if key not in self._made:
            self._made[key] = Evaluation(split, conditions, batch_size, precision, joined, _KEPT_BYTES)
        return self._made[key]

    def of_complete(self, split: SplitTensors, batch_size: int, precision: str, joined: bool) -> Evaluation:
        """The evaluation of a split with everything that was observed."""
        if split not in self._complete:
            self._complete[split] = (Condition("complete", "complete", None, split.everything()),)
        return self.of(split, self._complete[split], batch_size, precision, joined)

    def forget(self, split: SplitTensors) -> None:
        """Drops what is kept of a split."""
        self._complete.pop(split, None)
        self._made = {key: made for key, made in self._made.items() if key[0] is not split}


def predict(method: Method, split: SplitTensors, masks: Masks, batch_size: int, precision: str) -> Predicted:
    """Predictions of a method in evaluation mode for every utterance of a split, in row order."""
    return alone(FixedBatches(split, [masks], batch_size).predict(method, precision))


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for value in vars(batch).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from value.values()


def _state(batch: Batch) -> _State:
    """Which tensors a batch has, and how often they, or others that share their memory, were written into."""
    return [(id(tensor), tensor._version) for tensor in _tensors(batch)]


def _placed(values: Sequence[Tensor], real: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Values of batches in the order of their rows, without those on padding."""
    if not values:
        return None
    joined = torch.cat(list(values)).float().cpu().numpy()[real]
    placed = np.empty_like(joined)
    placed[rows] = joined
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
