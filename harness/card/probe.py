"""A linear probe: how much a modality says about the label, by whole dialogues held out.

The probe is logistic regression with the fixed penalty C = 0.01 on standardised features. It is no
method of the benchmark; it is the same cheap reader of every feature set.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..corpus.records import FeatureSet, LabelInfo
from ..errors import UserError
from ..hashing import derive_seed

PENALTY = 0.01
_FOLDS = 5
_RESAMPLES = 200


@dataclass(frozen=True)
class Target:
    """What the probe reads.

    Attributes:
        classes: ``[n]`` int64 class of each row.
        rows: ``[n]`` rows of the utterance table; scores of exactly zero are left out.
        dialogues: ``[n]`` dialogue of each row.
        names: Names of the classes.
    """

    classes: np.ndarray
    rows: np.ndarray
    dialogues: np.ndarray
    names: tuple[str, ...]

    def part(self, chosen: np.ndarray) -> Target:
        """The rows where ``chosen`` (``[n]`` bool) holds."""
        return Target(self.classes[chosen], self.rows[chosen], self.dialogues[chosen], self.names)


@dataclass(frozen=True)
class Reading:
    """Predictions of the probe.

    Attributes:
        classes: ``[n]`` true classes.
        probabilities: ``[n, C]``.
        dialogues: ``[n]`` dialogues, the unit of resampling.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    dialogues: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """``[n]`` bool."""
        return self.probabilities.argmax(axis=1) == self.classes

    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(self.correct.mean())

    def weighted_f1(self) -> float:
        """F1 of each class, weighted by how often it occurs."""
        predicted = self.probabilities.argmax(axis=1)
        total = 0.0
        for label in np.unique(self.classes):
            true = self.classes == label
            found = predicted == label
            total += true.sum() * 2 * (true & found).sum() / (true.sum() + found.sum())
        return float(total / len(self.classes))

    def auc(self) -> float:
        """Area under the ROC curve, one class against the rest, averaged over classes; 0.5 is chance."""
        return auc(self.classes, self.probabilities)

    def auc_error(self, seed: int = 0) -> float:
        """Standard error of ``auc`` when dialogues are drawn anew (bootstrap)."""
        generator = np.random.default_rng(derive_seed(seed, "card", "auc"))
        members = [np.flatnonzero(self.dialogues == name) for name in np.unique(self.dialogues)]
        values = []
        for _ in range(_RESAMPLES):
            drawn = generator.integers(len(members), size=len(members))
            rows = np.concatenate([members[place] for place in drawn])
            values.append(auc(self.classes[rows], self.probabilities[rows]))
        return float(np.nanstd(values, ddof=1))


def auc(classes: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over classes of the chance that a member outranks a non-member (ties count half).

    Args:
        classes: ``[n]``.
        probabilities: ``[n, C]``.

    Returns:
        A value in [0, 1]; NaN if there is one class only.
    """
    from scipy.stats import rankdata

    values = []
    # Two classes mirror each other: the second one says all.
    for label in range(1 if probabilities.shape[1] == 2 else 0, probabilities.shape[1]):
        positive = classes == label
        count = int(positive.sum())
        if 0 < count < len(classes):
            above = rankdata(probabilities[:, label])[positive].sum() - count * (count + 1) / 2
            values.append(above / (count * (len(classes) - count)))
    return float(np.mean(values)) if values else float("nan")


def target_of(table: pd.DataFrame, label: LabelInfo) -> Target:
    """The probe's target: the class, or for scores negative against positive without the zeros."""
    values = table[label.column].to_numpy()
    dialogues = table["dialogue"].to_numpy(dtype=object)
    if label.kind == "class":
        rows = np.arange(len(table))
        return Target(values.astype(np.int64), rows, dialogues, label.classes)
    middle = 0.0 if label.low < 0 < label.high else (label.low + label.high) / 2
    rows = np.flatnonzero(values != middle)
    names = ("negative", "positive") if middle == 0 else ("below the middle", "above the middle")
    return Target((values[rows] > middle).astype(np.int64), rows, dialogues[rows], names)


def vectors_of(item: FeatureSet) -> np.ndarray:
    """``[N, d]`` vectors; sequences are averaged over their valid steps."""
    if item.lengths is None:
        return item.values
    return item.values.sum(axis=1) / np.maximum(item.lengths, 1)[:, None]


def out_of_fold(items: Sequence[FeatureSet], target: Target, folds: np.ndarray | None = None) -> Reading:
    """Cross-validated predictions; every dialogue is predicted by a probe that did not see it.

    Args:
        items: Feature sets, side by side.
        target: What to read.
        folds: ``[n]`` fold of each row; ``None``: five folds of about equal size by dialogue.
    """
    from_folds = balanced_folds(target.dialogues) if folds is None else folds
    probabilities = np.zeros((len(target.rows), len(target.names)))
    for fold in np.unique(from_folds):
        inside = from_folds == fold
        probabilities[inside] = fit_and_predict(items, target.part(~inside), target.part(inside))
    return Reading(target.classes, probabilities, target.dialogues)


def held_out(items: Sequence[FeatureSet], training: Target, test: Target) -> Reading:
    """Predictions of a probe fitted on ``training`` for ``test``."""
    return Reading(test.classes, fit_and_predict(items, training, test), test.dialogues)


def balanced_folds(dialogues: np.ndarray, count: int = _FOLDS) -> np.ndarray:
    """Folds of whole dialogues: the longest dialogue first, always into the smallest fold."""
    names, sizes = np.unique(dialogues, return_counts=True)
    load = np.zeros(min(count, len(names)), dtype=np.int64)
    fold_of: dict[str, int] = {}
    for place in np.argsort(-sizes, kind="stable"):
        fold_of[str(names[place])] = int(load.argmin())
        load[load.argmin()] += sizes[place]
    return np.array([fold_of[str(name)] for name in dialogues])


def fit_and_predict(items: Sequence[FeatureSet], training: Target, test: Target) -> np.ndarray:
    """Class probabilities ``[n, C]``.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UserError("data-set cards need scikit-learn (pip install scikit-learn)") from None
    present = np.unique(training.classes)
    probabilities = np.zeros((len(test.rows), len(training.names)))
    if len(present) == 1:
        probabilities[:, present[0]] = 1
        return probabilities
    inputs = [_scaled(item, training.rows, test.rows) for item in items]
    model = LogisticRegression(C=PENALTY, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe need not be exact
        model.fit(np.hstack([first for first, _ in inputs]), training.classes)
    probabilities[:, present] = model.predict_proba(np.hstack([second for _, second in inputs]))
    return probabilities


def _scaled(item: FeatureSet, training: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features standardised by the observed training rows; absent rows are at the mean, with a flag."""
    values = vectors_of(item).astype(np.float64)
    observed = item.observed
    known = values[training][observed[training]]
    if not len(known):
        known = np.zeros((1, values.shape[1]))
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-8, spread, np.inf)  # a constant column says nothing
    scaled = np.where(observed[:, None], (values - mean) / spread, 0)
    if not observed.all():
        scaled = np.hstack([scaled, observed[:, None]])
    return scaled[training], scaled[test]
