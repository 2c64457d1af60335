"""A data set in memory: NumPy arrays and one table of utterances, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the records of data sets import this module and must import quickly
    import numpy as np
    import pandas as pd

# Columns that every utterance table has; label columns, split columns and folds come on top.
UTTERANCE_COLUMNS = ("id", "dialogue", "index", "speaker")


@dataclass(frozen=True)
class LabelInfo:
    """One label column of the utterance table.

    Attributes:
        column: Name of the column.
        kind: ``"score"`` (a real number) or ``"class"`` (an integer class).
        classes: Class names in label order, for ``"class"``.
        low: Lowest possible score, for ``"score"``.
        high: Highest possible score, for ``"score"``.
    """

    column: str
    kind: Literal["score", "class"]
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class FeatureSet:
    """One feature set of one modality.

    Attributes:
        modality: Name of the modality.
        name: Name of the feature set.
        values: ``[N, d]`` vectors or ``[N, T, d]`` frame sequences, float32. Zero where absent.
        lengths: ``[N]`` valid frames of each sequence (int64); ``None`` for vectors.
        observed: ``[N]`` bool, whether the modality really exists for the utterance.
        note: Origin of the features, in words.
    """

    modality: str
    name: str
    values: np.ndarray
    lengths: np.ndarray | None
    observed: np.ndarray
    note: str = ""

    @property
    def dim(self) -> int:
        """Width of one vector or frame."""
        return int(self.values.shape[-1])

    @property
    def max_length(self) -> int:
        """Longest sequence; 1 for vectors."""
        return 1 if self.values.ndim == 2 else int(self.values.shape[1])


@dataclass(frozen=True)
class TokenSet:
    """Token ids of the transcripts.

    Attributes:
        ids: ``[N, L]`` int32 token ids.
        mask: ``[N, L]`` bool, True for real tokens (special tokens included).
        unknown: Id of the unknown token, which replaces lost tokens.
        special: ``[N, L]`` bool, True for tokens that are never lost ([CLS], [SEP]).
        vocabulary: Size of the vocabulary.
        tokenizer: Name of the tokenizer.
    """

    ids: np.ndarray
    mask: np.ndarray
    unknown: int
    special: np.ndarray
    vocabulary: int
    tokenizer: str = ""


@dataclass(frozen=True)
class Corpus:
    """A data set with the feature sets that a protocol picked.

    Attributes:
        name: Name of the data set.
        utterances: One row per utterance, sorted by dialogue and index: ``id``, ``dialogue``,
            ``index``, ``speaker`` (all str but the integer index), ``transcript`` where known,
            label columns, split columns (``split``, values train/valid/test, or others such as
            ``split_standard``) and fold columns (integers, ``-1``: in no fold).
        labels: Label columns by name.
        features: Chosen feature set per modality, in mask order.
        tokens: Token ids of the transcripts, if any.
        fingerprint: Hash of everything above.
        synthetic: Whether the data come from the generator.
        origin: Where the data come from, in words.
        licence: Licence note.
    """

    name: str
    utterances: pd.DataFrame
    labels: Mapping[str, LabelInfo]
    features: Mapping[str, FeatureSet]
    tokens: TokenSet | None = None
    fingerprint: str = ""
    synthetic: bool = False
    origin: str = ""
    licence: str = ""
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.utterances)
