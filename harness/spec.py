"""What is known about the data before training: tasks, modalities and their shapes.

This module is free of torch, so that plans, tables and records can be made without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["regression", "binary", "multiclass"]
Level = Literal["dialogues", "vectors", "sequences"]

SENTIMENT_CLASSES = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class ModalitySpec:
    """Shape of one modality as a method receives it.

    Attributes:
        name: Name of the modality, such as ``"text"``. Never a position.
        dim: Width of a feature vector, at least 1.
        max_length: Longest frame sequence of the data set; 1 for vectors.
        features: Name of the feature set (``"deberta-large-4-UTT"``).
        vocabulary: Size of the token vocabulary; 0 if there are no token ids.
    """

    name: str
    dim: int
    max_length: int = 1
    features: str = ""
    vocabulary: int = 0


@dataclass(frozen=True)
class DataSpec:
    """What a method may know of a data set when it is built.

    Attributes:
        name: Name of the data set.
        modalities: Two or more modalities, in the order of every availability mask.
        task: ``"regression"`` (a score), ``"binary"`` or ``"multiclass"``.
        classes: Class names in label order. For a regression on sentiment these are the three
            classes negative, neutral, positive, which a method may predict instead of a score.
        score_range: Lowest and highest possible score; ``None`` if labels are classes only.
        longest_dialogue: Largest number of utterances in any dialogue of any split.
        speakers: Largest number of different speakers in one dialogue, at least 1.
        train_utterances: Number of training utterances.
        train_dialogues: Number of training dialogues.
        class_counts: Training utterances of each class, in label order; empty for a regression.
        level: What the batches hold (see ``Batch``): ``"dialogues"``, ``"vectors"`` or
            ``"sequences"``.
    """

    name: str
    modalities: tuple[ModalitySpec, ...]
    task: Task
    classes: tuple[str, ...]
    score_range: tuple[float, float] | None
    longest_dialogue: int
    speakers: int
    train_utterances: int
    train_dialogues: int
    class_counts: tuple[int, ...] = ()
    level: Level = "vectors"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities in mask order."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def dims(self) -> Mapping[str, int]:
        """Feature width of each modality."""
        return {modality.name: modality.dim for modality in self.modalities}

    @property
    def outputs(self) -> int:
        """Number of model outputs: 1 for a regression, else the number of classes."""
        return 1 if self.task == "regression" else len(self.classes)
