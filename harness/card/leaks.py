"""Checks for leaks: what a test utterance must not share with training, and features that know labels.

Features that come from a network trained on the labels of some dialogues reveal those labels: inside
these dialogues a probe is far better, even for dialogues held out from the probe, than it is on any
others. That is found in two ways: by comparing the parts of a split (``label_leak``), and, where no
split is known to be the network's, by dialogues of two kinds (``two_kinds``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from ..corpus.records import FeatureSet
from .probe import Reading, Target, held_out, out_of_fold

LARGE = 0.05  # difference of areas that matters at all
ERRORS = 4.0  # and in standard errors, so that a card's many comparisons raise no false alarm
_ALIKE = 0.9
_SHORT = 20  # letters; shorter sentences ("okay") are said by everybody


@dataclass(frozen=True)
class LabelLeak:
    """Whether features know the labels of the training part.

    Attributes:
        modality: Name of the modality.
        feature: Name of the feature set.
        column: Split column.
        inside: Area under the curve, cross-validated by dialogue inside training.
        outside: Area on the test part: the better of training -> test and cross-validation inside it.
        error: Standard error of the difference, over dialogues.
        suspicious: The difference is larger than is possible for features that saw no label.
        dialogues: Dialogues of the training part, if suspicious.
    """

    modality: str
    feature: str
    column: str
    inside: float
    outside: float
    error: float
    suspicious: bool
    dialogues: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Inside minus outside."""
        return self.inside - self.outside


@dataclass(frozen=True)
class TwoKinds:
    """Dialogues in which a probe errs almost never, beside others.

    Attributes:
        modality: Name of the modality.
        feature: Name of the feature set.
        share: Share of dialogues of the better kind.
        high: Accuracy of the probe in these.
        low: Accuracy in the others.
        evidence: Log-likelihood of two kinds minus that of one.
        suspicious: Whether it looks like a network trained on the labels of some dialogues.
        dialogues: The better kind, if suspicious.
    """

    modality: str
    feature: str
    share: float
    high: float
    low: float
    evidence: float
    suspicious: bool
    dialogues: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contamination:
    """Held-out dialogues of a split that are among suspicious ones.

    Attributes:
        column: Split column.
        part: ``"valid"`` or ``"test"``.
        dialogues: Suspicious dialogues in the part.
        of_dialogues: All dialogues of the part.
        utterances: Their utterances.
        of_utterances: All utterances of the part.
    """

    column: str
    part: str
    dialogues: int
    of_dialogues: int
    utterances: int
    of_utterances: int


@dataclass(frozen=True)
class Duplicate:
    """Two utterances in different parts with the same or nearly the same transcript."""

    column: str
    training: str
    other: str
    similarity: float


def label_leak(
    item: FeatureSet, target: Target, column: str, parts: np.ndarray, generator_seed: int = 0
) -> LabelLeak | None:
    """Compares the probe inside training with the probe on the test part.

    Args:
        item: Feature set.
        target: What the probe reads.
        column: Name of the split column.
        parts: ``[n]`` part of each row of the target.
        generator_seed: Seed of the bootstrap.

    Returns:
        ``None`` if a part has fewer than two dialogues or lacks a class.
    """
    training, test = target.part(parts == "train"), target.part(parts == "test")
    for part in (training, test):
        if len(set(part.dialogues)) < 2 or len(np.unique(part.classes)) < 2:
            return None
    inside = out_of_fold([item], training)
    outside = max(held_out([item], training, test), out_of_fold([item], test), key=Reading.auc)
    error = float(np.hypot(inside.auc_error(generator_seed), outside.auc_error(generator_seed + 1)))
    gap = inside.auc() - outside.auc()
    suspicious = gap > LARGE and gap > ERRORS * error
    names = tuple(sorted(set(training.dialogues))) if suspicious else ()
    return LabelLeak(item.modality, item.name, column, inside.auc(), outside.auc(), error, suspicious, names)


def two_kinds(item: FeatureSet, reading: Reading) -> TwoKinds:
    """Fits one and two binomial distributions to the correct predictions of every dialogue.

    Args:
        item: The feature set that was read.
        reading: Out-of-fold predictions for all dialogues.
    """
    from scipy.stats import binom

    names = np.unique(reading.dialogues)
    counts = np.array([(reading.dialogues == name).sum() for name in names])
    right = np.array([reading.correct[reading.dialogues == name].sum() for name in names])
    share, high, low = 0.5, 0.95, 0.6
    better = np.full(len(names), 0.5)
    for _ in range(500):  # expectation and maximisation
        first = np.log(share) + binom.logpmf(right, counts, high)
        second = np.log1p(-share) + binom.logpmf(right, counts, low)
        better = 1 / (1 + np.exp(np.clip(second - first, -700, 700)))
        share = float(np.clip(better.mean(), 1e-6, 1 - 1e-6))
        high = _rate(right, counts, better)
        low = _rate(right, counts, 1 - better)
    two = np.logaddexp(
        np.log(share) + binom.logpmf(right, counts, high), np.log1p(-share) + binom.logpmf(right, counts, low)
    ).sum()
    one = binom.logpmf(right, counts, right.sum() / counts.sum()).sum()
    evidence = float(two - one)
    suspicious = high >= 0.9 and high - low >= 0.15 and 0.1 <= share <= 0.9 and evidence > 15
    found = tuple(str(name) for name in names[better > 0.5]) if suspicious else ()
    return TwoKinds(item.modality, item.name, share, high, low, evidence, suspicious, found)


def _rate(right: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> float:
    total = float((weights * counts).sum())
    return float(np.clip((weights * right).sum() / total if total else 0.5, 1e-6, 1 - 1e-6))


def contamination(
    table: pd.DataFrame, columns: Sequence[str], dialogues: Sequence[str]
) -> tuple[Contamination, ...]:
    """How many of the suspicious dialogues each split evaluates on."""
    found = []
    suspicious = table["dialogue"].isin(list(dialogues)).to_numpy()
    for column in columns:
        for part in ("valid", "test"):
            inside = (table[column] == part).to_numpy()
            both = inside & suspicious
            if both.any():
                names = table["dialogue"].to_numpy(dtype=object)
                sizes = len(set(names[both])), len(set(names[inside]))
                found.append(Contamination(column, part, *sizes, int(both.sum()), int(inside.sum())))
    return tuple(found)


def near_duplicates(table: pd.DataFrame, column: str) -> tuple[Duplicate, ...]:
    """Transcripts of validation and test that training has as well, nearly.

    Similarity is the cosine of counts of four letters in a row, without case and punctuation; 1 means
    the same. Transcripts under 20 letters are left out.
    """
    if "transcript" not in table:
        return ()
    from sklearn.feature_extraction.text import HashingVectorizer

    letters = [
        "".join(c for c in str(text).casefold() if c.isalnum() or c == " ") for text in table["transcript"]
    ]
    texts = np.array([" ".join(text.split()) for text in letters], dtype=object)
    long = np.array([len(text) >= _SHORT for text in texts])
    parts = table[column].to_numpy(dtype=object)
    training = np.flatnonzero(long & (parts == "train"))
    other = np.flatnonzero(long & np.isin(parts, ["valid", "test"]))
    if not len(training) or not len(other):
        return ()
    counter = HashingVectorizer(analyzer="char", ngram_range=(4, 4), lowercase=False, alternate_sign=False)
    known = _sparse(counter.transform(texts[training])).T
    ids = [str(name) for name in table["id"]]
    found = []
    for begin in range(0, len(other), 500):
        rows = other[begin : begin + 500]
        similarity = (_sparse(counter.transform(texts[rows])) @ known).tocsr()
        for place, row in enumerate(rows):
            scores = similarity[place]
            if scores.nnz and scores.data.max() >= _ALIKE:
                best = int(scores.data.argmax())
                value = min(1.0, float(scores.data[best]))
                found.append(Duplicate(column, ids[training[scores.indices[best]]], ids[row], value))
    return tuple(sorted(found, key=lambda pair: (-round(pair.similarity, 6), pair.other)))


def _sparse(matrix: Any) -> csr_matrix:
    return csr_matrix(matrix)


def _letters(text: str) -> str:
    """Letters, digits and single blanks, without case."""
    kept = "".join(letter for letter in text.casefold() if letter.isalnum() or letter.isspace())
    return " ".join(kept.split())


def shared_rows(item: FeatureSet, parts: np.ndarray) -> int:
    """Held-out utterances whose features are exactly those of a training utterance."""

    def digests(rows: np.ndarray) -> list[bytes]:
        return [hashlib.blake2b(item.values[row].tobytes(), digest_size=16).digest() for row in rows]

    known = set(digests(np.flatnonzero((parts == "train") & item.observed)))
    held = np.flatnonzero(np.isin(parts, ["valid", "test"]) & item.observed)
    return sum(digest in known for digest in digests(held))
