"""What a method sees and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch, on the device of the run.

    The leading shape ``[...]`` depends on the level that the method takes: ``[B]`` utterances for
    ``"vectors"`` and ``"sequences"``, ``[B, S]`` for ``"dialogues"`` (S: longest dialogue of the
    batch). Three masks are kept apart: what is real and not padding (``real``, ``frames``), what
    the schedule and the recording left (``available``, ``frames_available``); an absent entry is
    already zero (token ids: the unknown token) in ``features`` (``tokens``).

    Attributes:
        features: Per modality ``[..., d]``; for ``"sequences"`` ``[B, T, d]``. float32.
        available: ``[..., M]`` bool in the order of ``DataSpec.modalities``. False on padding.
        real: ``[...]`` bool; True for utterances, False for the padding of a dialogue.
        speakers: ``[...]`` int64, speaker number local to the dialogue (order of first
            appearance); 0 on padding.
        lengths: Utterances per dialogue as Python integers (no device read); all 1 for utterances.
        rows: ``[...]`` int64, row of the utterance in the split; -1 on padding.
        labels: ``[...]`` float32 scores or int64 classes, 0 on padding; ``None`` in prediction.
        frames: ``"sequences"`` only: per modality ``[B, T]`` bool, True for real frames.
        frames_available: Per modality ``[B, T]`` bool, True for real frames that are not lost.
        targets: The true features of all modalities, absent ones included, for methods whose
            record declares them as privileged; training only, else ``None``.
        tokens: Text token ids ``[..., L]`` int64 where the data set has them and the method asks.
        token_mask: ``[..., L]`` bool, True for real tokens.
    """

    features: Mapping[str, Tensor]
    available: Tensor
    real: Tensor
    speakers: Tensor
    lengths: tuple[int, ...]
    rows: Tensor
    labels: Tensor | None = None
    frames: Mapping[str, Tensor] | None = None
    frames_available: Mapping[str, Tensor] | None = None
    targets: Mapping[str, Tensor] | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of dialogues or utterances B."""
        return self.real.shape[0]

    def without_labels(self) -> Batch:
        """The same batch as a method sees it outside training: no labels, no targets."""
        return replace(self, labels=None, targets=None)


@dataclass(frozen=True)
class Prediction:
    """What a method predicts for the utterances of a batch.

    Either field may be ``None``, not both; what a metric needs and a method does not give is
    "not applicable". Values on padding are ignored.

    Attributes:
        score: ``[...]`` float, on the scale of the labels.
        probabilities: ``[..., C]`` float, non-negative, summing to 1, in the order of
            ``DataSpec.classes``. On a sentiment regression C = 3 (negative, neutral, positive).
        hidden: ``[..., H]`` the representation the prediction is made from, for analyses of drift;
            optional, never stored with the predictions.
    """

    score: Tensor | None = None
    probabilities: Tensor | None = None
    hidden: Tensor | None = None

    def __post_init__(self) -> None:
        if self.score is None and self.probabilities is None:
            raise ValueError("a Prediction needs a score, probabilities, or both")


def prediction_from_outputs(outputs: Tensor, regression: bool) -> Prediction:
    """Turns raw model outputs ``[..., K]`` into a prediction.

    Args:
        outputs: ``[..., 1]`` scores for a regression, ``[..., C]`` logits otherwise.
        regression: Whether the outputs are scores.
    """
    if regression:
        return Prediction(score=outputs.squeeze(-1))
    return Prediction(probabilities=torch.softmax(outputs.float(), dim=-1))
