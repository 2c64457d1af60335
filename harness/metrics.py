"""Metrics of the field, exactly defined, with sample weights for every one of them.

Every metric here is a function of sums over samples: a confusion matrix, a sum of absolute errors,
the moments of a correlation. A metric is therefore two pure functions: ``terms`` gives what each
sample adds, ``[N, K]``, and ``value`` turns sums ``[..., K]`` into the metric. Sample weights, and
with them a bootstrap over dialogues, are then one matrix product::

    sums = metric("wf1").terms(outcome)                  # [N, K]
    replicates = metric("wf1").value(weights @ sums)     # weights [R, N], result [R]

Three answers are kept apart: a number; ``nan`` (the metric is undefined on these data, such as the
correlation of a constant; stored as missing, never as 0); ``None`` (not applicable to this kind of
prediction or task, printed "n/a").

Conventions: metrics are computed on a whole split at once, in float64 from the predictions as they
are; nothing is rounded. Rounding to classes is half to even. Arg max ties go to the lowest class.
A prediction that is not finite is an error, whatever the metric.

**Sentiment regression, scores.** y: label, p: prediction, round(.): half to even,
clip_c(x) = min(c, max(-c, x)). As in MMSA's regression mode: ``acc2``/``wf1`` compare p > 0 with
y > 0 over samples with y != 0 (the field's "Non0", negative against positive); ``acc2_has0``/
``wf1_has0`` compare p >= 0 with y >= 0 over all (negative against NON-negative); ``acc3``, ``acc5``,
``acc7`` compare round(clip_c p) with round(clip_c y), c = 1, 2, 3; ``mae`` and ``corr`` are not
clipped. ``mae_non0`` and ``corr_non0`` leave out y = 0 (GCNet and its line). The ``sims_`` metrics are
MMSA's for CH-SIMS: p and y clipped to [-1, 1], bins half open on the left with edges in float32, zero
on the NEGATIVE side.

**Sentiment regression, three classes.** A method may predict P(negative), P(neutral), P(positive)
instead of a score. A metric keeps its meaning and its labels; only the decision changes:
``acc2``/``wf1`` answer "positive" if P(positive) > P(negative); ``acc2_has0``/``wf1_has0`` answer
"non-negative" if P(neutral) + P(positive) > P(negative); ``sims_acc2``/``sims_wf1`` answer "positive"
if P(positive) > P(negative) + P(neutral); ``acc3``/``sims_acc3`` take the arg max. (MMSA's
classification mode drops P(neutral) from both comparisons, puts neutral labels on the negative side
under the name of the regression metric, and compares positive samples with a wrong class number.
None of this is repeated here.) Metrics with more classes, ``mae`` and ``corr`` are not applicable.
If a method gives both, the score counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from .errors import UnknownName, UserError
from .spec import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ScoreRange = tuple[float, float] | None

SIMS_RANGE = (-1.0, 1.0)
# Inner bin edges of CH-SIMS; a value on an edge belongs to the lower bin.
SIMS_EDGES: Mapping[int, tuple[float, ...]] = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}
# A variance below this share of the second moment is rounding noise, not variance.
_NO_VARIANCE = 1e-13


def is_sims(score_range: ScoreRange) -> bool:
    """Whether labels lie on the scale of CH-SIMS, which has metrics of its own."""
    return score_range is not None and tuple(score_range) == SIMS_RANGE


class NonFinitePrediction(UserError):
    """A score or a probability is nan or infinite: the run has failed and gets no number."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Labels and predictions of one split under one condition.

    Attributes:
        y_true: ``[N]`` scores (regression) or class indices 0..C-1.
        score: ``[N]`` predicted scores on the scale of the labels, or ``None``.
        probabilities: ``[N, C]`` class probabilities in the order of ``classes``, or ``None``. On a
            regression C = 3: negative, neutral, positive.
        task: Task of the data.
        classes: Class names in label order.
        score_range: Lowest and highest possible label of a regression; (-1, 1) is CH-SIMS.

    Raises:
        NonFinitePrediction: A prediction is nan or infinite.
        ValueError: Shapes disagree, there is no sample or no prediction, a label is not finite or no
            class, or rows of ``probabilities`` are negative or don't sum to 1.
    """

    y_true: np.ndarray
    score: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    task: Task = "regression"
    classes: tuple[str, ...] = ("negative", "neutral", "positive")
    score_range: ScoreRange = None

    def __post_init__(self) -> None:
        labels = np.asarray(self.y_true)
        if labels.ndim != 1 or len(labels) == 0:
            raise ValueError(f"y_true must be a list of at least one label, not of shape {labels.shape}")
        if not np.isfinite(labels.astype(np.float64)).all():
            raise ValueError("a label is nan or infinite")
        if self.task != "regression":
            whole = labels.astype(np.int64)
            if (whole != labels).any() or whole.min() < 0 or whole.max() >= len(self.classes):
                raise ValueError(f"labels of {self.task!r} must be class indices 0..{len(self.classes) - 1}")
            labels = whole
        object.__setattr__(self, "y_true", labels if self.task != "regression" else labels.astype(np.float64))
        if self.score is None and self.probabilities is None:
            raise ValueError("an outcome needs scores, class probabilities, or both")
        if self.score is not None:
            score = np.asarray(self.score).astype(np.float64)
            self._check("scores", score, (len(labels),))
            object.__setattr__(self, "score", score)
        if self.probabilities is not None:
            probabilities = np.asarray(self.probabilities).astype(np.float64)
            count = 3 if self.task == "regression" else len(self.classes)
            self._check("probabilities", probabilities, (len(labels), count))
            # Loose enough for half precision, tight enough to notice logits.
            if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 0.02:
                raise ValueError("class probabilities must be non-negative and sum to 1; are these logits?")
            object.__setattr__(self, "probabilities", probabilities)

    @staticmethod
    def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise ValueError(f"{name} have shape {values.shape}, expected {shape}")
        bad = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
        if bad:
            raise NonFinitePrediction(f"{bad} of {len(values)} predictions are not finite ({name})")

    def __len__(self) -> int:
        return len(self.y_true)

    @property
    def predicted(self) -> IntArray | None:
        """``[N]`` most probable class; ``None`` without probabilities."""
        return None if self.probabilities is None else np.argmax(self.probabilities, axis=1)


Terms = Callable[[Outcome], FloatArray | None]
Value = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Name in protocols and tables.
        title: Column title.
        definition: One line on what is measured.
        needs: ``"score"``: only scores will do. ``"classes"``: only class probabilities.
            ``"sentiment"``: scores, or probabilities of negative, neutral and positive.
            ``"task"``: as ``"sentiment"`` on a regression, as ``"classes"`` otherwise.
        tasks: Tasks it is defined for.
        terms: What each sample adds, ``[N, K]``; ``None`` if not applicable.
        value: Turns sums ``[..., K]`` into the metric ``[...]``; nan where undefined.
        scale: Score scale it is defined on: ``"sims"`` is [-1, 1], ``"wide"`` any other.
        higher_is_better: Direction.
        percent: Whether tables show it times 100.
        constant: Whether a constant prediction has a value at all.
    """

    name: str
    title: str
    definition: str
    needs: Literal["score", "classes", "sentiment", "task"]
    tasks: frozenset[Task]
    terms: Terms
    value: Value
    scale: Literal["any", "sims", "wide"] = "any"
    higher_is_better: bool = True
    percent: bool = True
    constant: bool = True

    def applies(self, task: Task, score_range: ScoreRange) -> bool:
        """Whether the metric is defined on data of this task and range of scores."""
        if task not in self.tasks:
            return False
        return self.scale == "any" or (self.scale == "sims") == is_sims(score_range)

    def sums(self, outcome: Outcome) -> FloatArray | None:
        """``terms`` of an outcome, or ``None`` where the metric is not applicable to it."""
        return self.terms(outcome) if self.applies(outcome.task, outcome.score_range) else None

    @overload
    def compute(self, outcome: Outcome) -> float | None: ...
    @overload
    def compute(self, outcome: Outcome, weights: npt.ArrayLike | None) -> float | FloatArray | None: ...
    def compute(self, outcome: Outcome, weights: npt.ArrayLike | None = None) -> float | FloatArray | None:
        """The metric on an outcome.

        Args:
            outcome: Labels and predictions.
            weights: Non-negative sample weights ``[N]``, or R sets of them ``[R, N]``. A weight of 2
                is the same as having the sample twice.

        Returns:
            A number (nan: undefined on these data); ``[R]`` for R sets of weights; ``None`` if not
            applicable.
        """
        terms = self.sums(outcome)
        if terms is None:
            return None
        if weights is None:
            return float(self.value(terms.sum(axis=0)))
        weights = np.asarray(weights, dtype=np.float64)
        result = self.value(weights @ terms)
        return float(result) if weights.ndim == 1 else result


# --- Values: from sums to numbers ------------------------------------------------------------------


def _ratio(numerator: FloatArray, denominator: FloatArray, empty: float) -> FloatArray:
    """Quotient with ``empty`` where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.full(numerator.shape, empty)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def accuracy(confusion: FloatArray) -> FloatArray:
    """Share of correct samples of confusion matrices ``[..., C, C]`` (true class first): ``[...]``."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)), math.nan)


def per_class_recall(confusion: FloatArray) -> FloatArray:
    """Recall of each class, ``[..., C, C]`` to ``[..., C]``; nan for a class without a true sample."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1), math.nan)


def per_class_f1(confusion: FloatArray) -> FloatArray:
    """F1 = 2PR / (P + R) of each class, ``[..., C, C]`` to ``[..., C]``; 0 where P + R is 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2), 0.0)


def unweighted_accuracy(confusion: FloatArray) -> FloatArray:
    """Mean recall over the classes with at least one true sample, ``[..., C, C]`` to ``[...]``."""
    present = confusion.sum(axis=-1) > 0
    recall = np.where(present, per_class_recall(confusion), 0.0)
    return _ratio(recall.sum(axis=-1), present.sum(axis=-1).astype(np.float64), math.nan)


def weighted_f1(confusion: FloatArray) -> FloatArray:
    """Mean F1 weighted by TRUE class counts, ``[..., C, C]`` to ``[...]``.

    A constant prediction with accuracy q has 2q²/(1+q); with the arguments swapped, as in code that
    descends from MulT, it would be 2q/(1+q).
    """
    counts = confusion.sum(axis=-1)
    return _ratio((counts * per_class_f1(confusion)).sum(axis=-1), counts.sum(axis=-1), math.nan)


def macro_f1(confusion: FloatArray) -> FloatArray:
    """Mean F1 over the classes that are true or predicted somewhere, ``[..., C, C]`` to ``[...]``."""
    present = (confusion.sum(axis=-1) + confusion.sum(axis=-2)) > 0
    return _ratio(per_class_f1(confusion).sum(axis=-1), present.sum(axis=-1).astype(np.float64), math.nan)


def _of_cells(function: Value, sums: FloatArray) -> FloatArray:
    """Applies a function of confusion matrices to flat cells ``[..., C * C]``."""
    size = math.isqrt(sums.shape[-1])
    return function(sums.reshape(*sums.shape[:-1], size, size))


def _mean(sums: FloatArray) -> FloatArray:
    """Weighted mean from sums ``[..., 2]`` of (1, x)."""
    return _ratio(sums[..., 1], sums[..., 0], math.nan)


def _pearson(sums: FloatArray) -> FloatArray:
    """Sample correlation from sums ``[..., 6]`` of (1, p, y, pp, yy, py); nan for a constant."""
    n, p, y, pp, yy, py = np.moveaxis(sums, -1, 0)
    var_p, var_y = pp - _ratio(p * p, n, 0.0), yy - _ratio(y * y, n, 0.0)
    defined = (var_p > _NO_VARIANCE * pp) & (var_y > _NO_VARIANCE * yy)
    product = np.where(defined, var_p * var_y, 0.0)
    return np.clip(_ratio(py - _ratio(p * y, n, 0.0), np.sqrt(product), math.nan), -1.0, 1.0)


# --- Terms: what each sample adds ------------------------------------------------------------------


def confusion_terms(true: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> FloatArray:
    """One-hot cell of the confusion matrix of each sample, ``[N, C * C]``, true class first."""
    cells = np.asarray(true, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.eye(classes * classes)[cells]


def confusion_matrix(
    true: npt.ArrayLike, predicted: npt.ArrayLike, classes: int, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Confusion matrix ``[C, C]``, true class first; ``[R, C, C]`` for weights ``[R, N]``."""
    terms = confusion_terms(true, predicted, classes)
    sums = terms.sum(axis=0) if weights is None else np.asarray(weights, dtype=np.float64) @ terms
    return sums.reshape(*sums.shape[:-1], classes, classes)


def _class_cells(outcome: Outcome) -> FloatArray | None:
    predicted = outcome.predicted
    return None if predicted is None else confusion_terms(outcome.y_true, predicted, len(outcome.classes))


def _two_way(
    outcome: Outcome,
    is_upper: Callable[[np.ndarray], np.ndarray],
    lower: tuple[int, ...],
    upper: tuple[int, ...],
) -> FloatArray | None:
    """Binary cells: the upper class by score, or by comparing sums of class probabilities."""
    if outcome.score is not None:
        predicted = is_upper(outcome.score)
    elif (probabilities := outcome.probabilities) is not None:
        predicted = probabilities[:, upper].sum(axis=1) > probabilities[:, lower].sum(axis=1)
    else:
        return None
    return confusion_terms(is_upper(outcome.y_true), predicted, 2)


def _non0_cells(outcome: Outcome) -> FloatArray | None:
    cells = _two_way(outcome, lambda x: x > 0, (0,), (2,))
    return None if cells is None else cells * (outcome.y_true != 0)[:, None]


def _has0_cells(outcome: Outcome) -> FloatArray | None:
    return _two_way(outcome, lambda x: x >= 0, (0,), (1, 2))


def _wf1_cells(outcome: Outcome) -> FloatArray | None:
    return _non0_cells(outcome) if outcome.task == "regression" else _class_cells(outcome)


def _rounded_cells(outcome: Outcome, limit: int) -> FloatArray | None:
    """Cells of round(clip(x)); the arg max of three classes where the limit is 1."""
    if outcome.score is not None:
        predicted = np.rint(np.clip(outcome.score, -limit, limit)) + limit
    elif limit == 1:
        predicted = outcome.predicted
    else:
        return None
    if predicted is None:
        return None
    return confusion_terms(np.rint(np.clip(outcome.y_true, -limit, limit)) + limit, predicted, 2 * limit + 1)


def _sims_bins(values: np.ndarray, bins: int) -> IntArray:
    """Bin numbers, half open on the left; edges and values are compared in float32."""
    edges = np.asarray(SIMS_EDGES[bins], dtype=np.float32)
    return np.searchsorted(edges, values.astype(np.float32), side="left")


def _sims_cells(outcome: Outcome, bins: int) -> FloatArray | None:
    if bins == 2:
        return _two_way(outcome, lambda x: _sims_bins(x, 2) > 0, (0, 1), (2,))
    if outcome.score is not None:
        predicted = _sims_bins(outcome.score, bins)
    else:
        predicted = outcome.predicted if bins == 3 else None
    return None if predicted is None else confusion_terms(_sims_bins(outcome.y_true, bins), predicted, bins)


def _pairs(outcome: Outcome, clip: float | None) -> tuple[FloatArray, FloatArray] | None:
    if outcome.score is None:
        return None
    if clip is None:
        return outcome.score, outcome.y_true
    return np.clip(outcome.score, -clip, clip), np.clip(outcome.y_true, -clip, clip)


def _error_terms(outcome: Outcome, clip: float | None = None, zeros: bool = True) -> FloatArray | None:
    """Terms (1, |p - y|)."""
    pairs = _pairs(outcome, clip)
    if pairs is None:
        return None
    terms = np.stack([np.ones(len(outcome)), np.abs(pairs[0] - pairs[1])], axis=1)
    return terms if zeros else terms * (outcome.y_true != 0)[:, None]


def _moment_terms(outcome: Outcome, clip: float | None = None, zeros: bool = True) -> FloatArray | None:
    """Terms (1, p, y, pp, yy, py) of values shifted by their median.

    The shift keeps the moments small, and makes those of a constant exactly zero.
    """
    pairs = _pairs(outcome, clip)
    if pairs is None:
        return None
    counted = np.ones(len(outcome), dtype=bool) if zeros else outcome.y_true != 0
    p, y = (values - (np.median(values[counted]) if counted.any() else 0.0) for values in pairs)
    return np.stack([np.ones(len(p)), p, y, p * p, y * y, p * y], axis=1) * counted[:, None]


# --- The registry ----------------------------------------------------------------------------------

_REGRESSION: frozenset[Task] = frozenset({"regression"})
_CLASSIFICATION: frozenset[Task] = frozenset({"binary", "multiclass"})

_acc = partial(_of_cells, accuracy)
_wf1 = partial(_of_cells, weighted_f1)
_sims2, _sims3, _sims5 = (partial(_sims_cells, bins=bins) for bins in (2, 3, 5))
_round3, _round5, _round7 = (partial(_rounded_cells, limit=limit) for limit in (1, 2, 3))


def _sentiment(name: str, title: str, terms: Terms, value: Value, definition: str, **fields: Any) -> Metric:
    return Metric(name, title, definition, "sentiment", _REGRESSION, terms, value, **fields)


def _score(name: str, title: str, terms: Terms, value: Value, definition: str, **fields: Any) -> Metric:
    return Metric(name, title, definition, "score", _REGRESSION, terms, value, **fields)


def _classes(name: str, title: str, function: Value, definition: str) -> Metric:
    value = partial(_of_cells, function)
    return Metric(name, title, definition, "classes", _CLASSIFICATION, _class_cells, value)


_WIDE: dict[str, Any] = {"scale": "wide"}
_SIMS: dict[str, Any] = {"scale": "sims"}
_ERROR: dict[str, Any] = {"higher_is_better": False, "percent": False}
_CORRELATION: dict[str, Any] = {"percent": False, "constant": False}

_ALL = (
    Metric(
        "wf1",
        "WF1",
        "weighted F1; on sentiment scores negative against positive, zero labels left out",
        "task",
        _REGRESSION | _CLASSIFICATION,
        _wf1_cells,
        _wf1,
    ),
    _sentiment(
        "acc2", "Acc2", _non0_cells, _acc, "accuracy, negative against positive, zero labels left out"
    ),
    _sentiment("wf1_has0", "WF1 has0", _has0_cells, _wf1, "weighted F1, negative against non-negative"),
    _sentiment("acc2_has0", "Acc2 has0", _has0_cells, _acc, "accuracy, negative against non-negative"),
    _sentiment("acc3", "Acc3", _round3, _acc, "accuracy of three rounded classes", **_WIDE),
    _score("acc5", "Acc5", _round5, _acc, "accuracy of five rounded classes", **_WIDE),
    _score("acc7", "Acc7", _round7, _acc, "accuracy of seven rounded classes", **_WIDE),
    _score("mae", "MAE", _error_terms, _mean, "mean absolute error", **_ERROR),
    _score("corr", "Corr", _moment_terms, _pearson, "Pearson correlation", **_CORRELATION),
    _score(
        "mae_non0",
        "MAE non0",
        partial(_error_terms, zeros=False),
        _mean,
        "mean absolute error, zero labels left out",
        **_ERROR,
    ),
    _score(
        "corr_non0",
        "Corr non0",
        partial(_moment_terms, zeros=False),
        _pearson,
        "Pearson correlation, zero labels left out",
        **_CORRELATION,
    ),
    _sentiment("sims_acc2", "Acc2 SIMS", _sims2, _acc, "accuracy of two bins, zero is negative", **_SIMS),
    _sentiment("sims_wf1", "WF1 SIMS", _sims2, _wf1, "weighted F1 of two bins, zero is negative", **_SIMS),
    _sentiment("sims_acc3", "Acc3 SIMS", _sims3, _acc, "accuracy of three bins", **_SIMS),
    _score("sims_acc5", "Acc5 SIMS", _sims5, _acc, "accuracy of five bins", **_SIMS),
    _score(
        "sims_mae",
        "MAE SIMS",
        partial(_error_terms, clip=1.0),
        _mean,
        "mean absolute error, clipped to [-1, 1]",
        **_SIMS,
        **_ERROR,
    ),
    _score(
        "sims_corr",
        "Corr SIMS",
        partial(_moment_terms, clip=1.0),
        _pearson,
        "Pearson correlation, clipped to [-1, 1]",
        **_SIMS,
        **_CORRELATION,
    ),
    _classes("acc", "WA", accuracy, "accuracy (weighted accuracy)"),
    _classes("ua", "UA", unweighted_accuracy, "mean recall of the classes with a true sample"),
    _classes("macro_f1", "Macro F1", macro_f1, "mean F1 of the classes that are true or predicted"),
)
METRICS: Mapping[str, Metric] = MappingProxyType({item.name: item for item in _ALL})


def metric(name: str) -> Metric:
    """The metric of this name.

    Raises:
        UnknownName: There is none; the message names the nearest one.
    """
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def metrics_for(task: Task, score_range: ScoreRange = None) -> tuple[str, ...]:
    """Names of the metrics that are reported by default, the primary one first."""
    if task != "regression":
        return ("wf1", "acc", "ua", "macro_f1")
    if is_sims(score_range):
        return ("wf1", "acc2", "sims_wf1", "sims_acc2", "sims_acc3", "sims_acc5", "sims_mae", "sims_corr")
    return ("wf1", "acc2", "wf1_has0", "acc2_has0", "acc5", "acc7", "mae", "corr")


def primary_metric(task: Task) -> str:
    """Name of the metric of selection and ranking: weighted F1, which every method can be given."""
    return "wf1"


def evaluate(outcome: Outcome, names: Iterable[str]) -> dict[str, float | None]:
    """Value of each named metric; ``None`` where not applicable."""
    return {name: metric(name).compute(outcome) for name in names}


def notes(outcome: Outcome, names: Iterable[str]) -> tuple[str, ...]:
    """What a reader of these metrics must know: undefined values and absent classes."""
    found: list[str] = []
    if outcome.task != "regression" and (absent := absent_classes(outcome.y_true, outcome.classes)):
        count = len(outcome.classes)
        found.append(
            f"{count - len(absent)} of {count} classes have a true sample (none: {', '.join(absent)}); "
            f"ua is the mean over these {count - len(absent)}"
        )
    values = evaluate(outcome, names)
    undefined = [name for name, value in values.items() if value is not None and math.isnan(value)]
    constants = [name for name in undefined if not metric(name).constant]
    if constants:
        found.append(f"{', '.join(constants)}: undefined, labels or predictions are constant")
    if others := [name for name in undefined if name not in constants]:
        found.append(f"{', '.join(others)}: undefined, every label is zero")
    return tuple(found)


def absent_classes(y_true: npt.ArrayLike, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes without a true sample."""
    present = set(np.unique(np.asarray(y_true)).tolist())
    return tuple(name for index, name in enumerate(classes) if index not in present)


def n_classes_present(outcome: Outcome) -> int | None:
    """Number of classes with at least one true sample; ``None`` on a regression."""
    return None if outcome.task == "regression" else len(np.unique(outcome.y_true))


def best_constant(
    name: str,
    y_true: npt.ArrayLike,
    task: Task,
    classes: tuple[str, ...] = (),
    score_range: ScoreRange = None,
) -> float | None:
    """The ``no information`` row: the best value any constant prediction reaches on these labels.

    Candidates are every class, or one score of every bin and the medians, which minimise the
    absolute errors; so the optimum is exact for every metric of this module.

    Args:
        name: Name of the metric.
        y_true: ``[N]`` TEST labels: the row knows them, nothing else.
        task: Task of the data.
        classes: Class names in label order.
        score_range: Lowest and highest possible score.

    Returns:
        The best value; nan if undefined on these labels; ``None`` for correlations and metrics that
        don't apply to the data.
    """
    item, labels = metric(name), np.asarray(y_true)
    if not item.constant or not item.applies(task, score_range):
        return None
    size = len(labels)
    if task == "regression":
        nonzero = labels[labels != 0]
        candidates = {-3.0, -2.0, -1.0, -0.5, 0.0, 0.05, 0.5, 1.0, 2.0, 3.0, float(np.median(labels))}
        candidates |= {float(np.median(nonzero))} if len(nonzero) else set()
        outcomes = [Outcome(labels, np.full(size, c), score_range=score_range) for c in sorted(candidates)]
    else:
        rows = np.eye(len(classes))
        outcomes = [Outcome(labels, None, np.tile(row, (size, 1)), task, classes) for row in rows]
    values = [value for outcome in outcomes if (value := item.compute(outcome)) is not None]
    return max(values) if item.higher_is_better else min(values)


def mean_over(scores: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean of each metric; not applicable stays not applicable, undefined stays undefined."""
    collected: dict[str, list[float | None]] = {}
    for one in scores:
        for name, value in one.items():
            collected.setdefault(name, []).append(value)
    means: dict[str, float | None] = {}
    for name, values in collected.items():
        known = [value for value in values if value is not None]
        means[name] = float(np.mean(known)) if known else None
    return means
