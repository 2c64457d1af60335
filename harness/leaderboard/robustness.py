"""How a row bears missing modalities, beside its mean.

x_c: score under condition c; x_0: complete data; b: the best constant prediction (no information).
Formulas are for metrics where higher is better; others are negated first, so that a drop is a loss
everywhere. Averages and areas stay within one family of conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np

from .claims import Bounded, Claims, Robustness
from .evidence import Evidence
from .inference import one_sample_interval
from .intervals import FloatArray, percentile_interval
from .records import Board, Column, Row

_RATE = re.compile(r"^(?P<family>.+?)-(?P<rate>[01](?:\.\d+)?)$")


def rate_of(column: str) -> float | None:
    """Missing rate in a condition's name, such as 0.3 in ``random-0.3``; ``None`` if there is none."""
    found = _RATE.match(column)
    return float(found["rate"]) if found else None


def subset_of(column: str) -> frozenset[str] | None:
    """Letters of the available modalities in ``fixed-tv``; ``None`` for other conditions."""
    family, _, letters = column.partition("-")
    return frozenset(letters) if family == "fixed" and letters.isalpha() else None


def trapezoid_weights(rates: Sequence[float]) -> list[float]:
    """Weights w with area = sum w_i x_i, the trapezoid rule over increasing rates."""
    steps = np.diff(np.asarray(rates, dtype=np.float64))
    return (np.concatenate([[0.0], steps / 2]) + np.concatenate([steps / 2, [0.0]])).tolist()


def shapley(values: Mapping[frozenset[str], float], modalities: Iterable[str]) -> dict[str, float]:
    """Shapley contribution of each modality from the score of every subset, the empty one included.

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! (v(S + m) - v(S)); the sum over m is
    v(all) - v(empty) (Shapley 1953).
    """
    names = sorted(modalities)
    count = len(names)
    result: dict[str, float] = {}
    for name in names:
        others = [other for other in names if other != name]
        total = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for chosen in combinations(others, size):
                subset = frozenset(chosen)
                total += weight * (values[subset | {name}] - values[subset])
        result[name] = total
    return result


def shares_and_evenness(
    contributions: Mapping[str, float],
) -> tuple[dict[str, float], float | None]:
    """Shares p_m of the positive contributions, and -sum p ln p / ln M; none if nothing contributes.

    1: all modalities contribute alike; 0: one carries all.
    """
    positive = {name: max(value, 0.0) for name, value in contributions.items()}
    total = sum(positive.values())
    if total <= 0 or len(positive) < 2:
        return {}, None
    shares = {name: value / total for name, value in positive.items()}
    entropy = -sum(p * np.log(p) for p in shares.values() if p > 0)
    return shares, float(entropy / np.log(len(shares)))


def robustness(
    row: Row,
    board: Board,
    evidence: Evidence,
    resampled: Mapping[str, FloatArray],
    claims: Claims,
    no_information: float | None,
    higher: bool,
) -> Robustness:
    """Robustness of one row.

    Args:
        row: The row.
        board: Its board, for columns and the metric.
        evidence: Scores by condition and seed.
        resampled: Per condition: the score on every resample of dialogues, ``[R]``.
        claims: Tests against no information.
        no_information: Score of the best constant prediction.
        higher: Whether a higher score is better.
    """
    sign = 1.0 if higher else -1.0
    cells = row.cells[board.info.primary]
    conditions = [item for item in board.columns if not item.is_mean and cells[item.name].mean is not None]
    scores = {item.name: float(cells[item.name].mean or 0.0) for item in conditions}
    complete = next((item.name for item in conditions if item.family == "complete"), None)
    drop: dict[str, float] = {}
    relative: dict[str, float] = {}
    retention: dict[str, float] = {}
    shown = [item for item in board.columns if item.family != "complete"]
    for item in shown if complete is not None else []:
        mean = cells[item.name].mean
        if mean is None or complete is None:
            continue
        drop[item.name] = sign * (scores[complete] - mean)
        usable = None if no_information is None else sign * (scores[complete] - no_information)
        # A row that is no better than a constant on complete data has nothing to lose.
        if usable is not None and usable > 0:
            relative[item.name] = drop[item.name] / usable
            retention[item.name] = 1 - relative[item.name]
    raw, normalised, rates = _area(row.label, conditions, complete, evidence, claims.settings.alpha)
    worst, name = _worst(scores, conditions, resampled, claims.settings.alpha, sign)
    contributions = _contributions(scores, complete, no_information, sign)
    shares, evenness = shares_and_evenness(contributions)
    return Robustness(
        label=row.label,
        mean={x.family: m for x in board.columns if x.is_mean and (m := cells[x.name].mean) is not None},
        area=raw,
        area_normalised=normalised,
        rates=rates,
        drop=drop,
        relative_drop=relative,
        retention=retention,
        worst=worst,
        worst_condition=name,
        shapley=contributions,
        shares=shares,
        evenness=evenness,
        lost_at=_lost_at(row.label, conditions, claims),
    )


def _curve(conditions: Sequence[Column], complete: str | None) -> list[tuple[float, str]]:
    """Rates and conditions of the random family, complete data as rate 0."""
    points = [(rate, x.name) for x in conditions if x.family == "random" and (rate := rate_of(x.name))]
    if complete is not None:
        points.append((0.0, complete))
    return sorted(points)


def _area(
    label: str, conditions: Sequence[Column], complete: str | None, evidence: Evidence, alpha: float
) -> tuple[float | None, Bounded | None, tuple[float, ...]]:
    """Area under score against rate, per seed and then averaged, which is the same as of the means."""
    points = _curve(conditions, complete)
    rates = tuple(rate for rate, _ in points)
    if len(points) < 2 or len(set(rates)) < len(rates):
        return None, None, ()
    weights = trapezoid_weights(rates)
    span = rates[-1] - rates[0]
    combined = evidence.combined(
        label, {name: weight / span for (_, name), weight in zip(points, weights, strict=True)}
    )
    if combined is None:
        return None, None, ()
    return combined.mean * span, Bounded(combined.mean, one_sample_interval(combined, alpha)), rates


def _worst(
    scores: Mapping[str, float],
    conditions: Sequence[Column],
    resampled: Mapping[str, FloatArray],
    alpha: float,
    sign: float,
) -> tuple[Bounded | None, str]:
    """The worst incomplete condition; the bootstrap takes the worst anew in every resample."""
    names = [item.name for item in conditions if item.family != "complete"]
    if not names:
        return None, ""
    worst = min(names, key=lambda name: sign * scores[name])
    interval = None
    if all(name in resampled for name in names):
        lowest = sign * np.min([sign * resampled[name] for name in names], axis=0)
        interval = percentile_interval(lowest, 1 - alpha)
    return Bounded(scores[worst], interval), worst


def _contributions(
    scores: Mapping[str, float], complete: str | None, no_information: float | None, sign: float
) -> dict[str, float]:
    """Shapley contributions if every subset was tested, else nothing."""
    values = {subset: sign * x for name, x in scores.items() if (subset := subset_of(name)) is not None}
    modalities = frozenset().union(*values) if values else frozenset()
    if complete is not None and modalities:
        values[modalities] = sign * scores[complete]
    if no_information is None or len(modalities) < 2:
        return {}
    values[frozenset()] = sign * no_information
    return shapley(values, modalities) if len(values) == 2 ** len(modalities) else {}


def _lost_at(label: str, conditions: Sequence[Column], claims: Claims) -> float | None:
    """Lowest rate from which on no test tells the row from no information (in its favour)."""
    beaten = {item.column: item.better == label for item in claims.against_no_information if item.a == label}
    lost: float | None = None
    for rate, name in reversed(_curve(conditions, None)):
        if beaten.get(name, True):
            break
        lost = rate
    return lost
