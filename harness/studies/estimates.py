"""Numbers of a study, as pure functions: aggregates, expected best of k trials, gain of tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..leaderboard.info import TableInfo
from ..leaderboard.intervals import (
    IntervalSettings,
    percentile_interval,
    replicates,
    resampled_counts,
)
from ..metrics import Metric, Outcome

FloatArray = npt.NDArray[np.float64]
Aggregate = Literal["mean", "worst", "area", "multi"]


def aggregate(
    kind: Aggregate, values: npt.ArrayLike, rates: Sequence[float], higher_is_better: bool
) -> FloatArray:
    """One value from those of the conditions.

    ``mean``; ``worst``: the lowest (highest where lower is better); ``area``: area under the
    polygon over the nominal rates, divided by their span, conditions of one rate averaged first.
    The one value of ``multi`` is its mean.

    Args:
        kind: What becomes of the conditions.
        values: ``[C]`` or ``[C, R]``.
        rates: Nominal rate of each condition, ``[C]``.
        higher_is_better: Direction of the metric.

    Returns:
        A number, or ``[R]``.
    """
    values = np.asarray(values, dtype=np.float64)
    if kind in ("mean", "multi"):
        return values.mean(axis=0)
    if kind == "worst":
        return values.min(axis=0) if higher_is_better else values.max(axis=0)
    axis, group = np.unique(np.asarray(rates, dtype=np.float64), return_inverse=True)
    curve = np.stack([values[group == index].mean(axis=0) for index in range(len(axis))])
    return np.trapezoid(curve, axis, axis=0) / (axis[-1] - axis[0])


def expected_best(values: npt.ArrayLike, higher_is_better: bool = True) -> FloatArray:
    """Expected best of k of the N trials, drawn without replacement, for k = 1..N.

    With values sorted from worst to best, v_1 <= ... <= v_N, the best of k is v_i with probability
    C(i - 1, k - 1) / C(N, k). It says what a shorter random search over the same trials would have
    found; trials of a sampler that learns are not exchangeable, so for them it is a summary of the
    values, not a forecast.

    Args:
        values: ``[N]`` finite values.
        higher_is_better: Direction.

    Returns:
        ``[N]``, the k-th for k trials.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not higher_is_better:
        ordered = ordered[::-1]
    count = len(ordered)
    result = np.empty(count)
    for k in range(1, count + 1):
        # C(i-1, k-1) / C(N, k) by its ratio to the next smaller i, from i = N with weight k / N.
        weights = np.zeros(count)
        weights[-1] = k / count
        for i in range(count - 1, k - 1, -1):
            weights[i - 1] = weights[i] * (i - k + 1) / i
        result[k - 1] = weights @ ordered
    return result


@dataclass(frozen=True)
class Gain:
    """What tuning gained over the base setting, on validation.

    Attributes:
        value: Objective of the best trial minus that of the base setting; for metrics where lower is
            better the other way round, so that positive is always better.
        low: Lower end of the interval; ``None`` if there is none.
        high: Upper end.
        confidence: Its level.
        dialogues: Validation dialogues that were resampled.
        missing: Why there is no interval, or empty.
    """

    value: float
    low: float | None
    high: float | None
    confidence: float
    dialogues: int
    missing: str = ""


def gain(
    best: pd.DataFrame,
    base: pd.DataFrame,
    metric: Metric,
    info: TableInfo,
    combine: Aggregate,
    rates: Mapping[str, float],
    settings: IntervalSettings,
    data_set: str,
) -> Gain:
    """The gain with a bootstrap over validation dialogues, both settings on the same resamples.

    It says how far another sample of validation dialogues would move the difference of THESE two
    sets of trained models. It does not cover another training seed, nor that the best of several
    trials was picked on these very dialogues, which makes the gain optimistic.

    Args:
        best: Validation predictions of the best trial, as ``Objective`` writes them.
        base: Those of the base setting.
        metric: Primary metric.
        info: Task of the data.
        combine: Aggregate of the objective.
        rates: Nominal rate of each condition.
        settings: Level, resamples and seed.
        data_set: Name of the data set.
    """
    names = sorted(set(best["dialogue"]) | set(base["dialogue"]))
    counts = np.vstack([np.ones(len(names)), resampled_counts(len(names), settings, data_set)])
    sign = 1.0 if metric.higher_is_better else -1.0
    found = []
    for frame in (best, base):
        rows = {str(name): part for name, part in frame.groupby("condition")}
        by_condition = [_replicates(rows[name], metric, info, names, counts) for name in rates]
        found.append(
            aggregate(combine, np.stack(by_condition), list(rates.values()), metric.higher_is_better)
        )
    difference = sign * (found[0] - found[1])
    interval = percentile_interval(difference[1:], settings.confidence)
    low, high = (None, None) if interval is None else interval
    missing = "" if interval else "the metric is undefined on too many resamples"
    return Gain(float(difference[0]), low, high, settings.confidence, len(names), missing)


def _replicates(
    frame: pd.DataFrame, metric: Metric, info: TableInfo, names: Sequence[str], counts: FloatArray
) -> FloatArray:
    """The metric of one condition on every resample, averaged over mask draws, then seeds: ``[R]``."""
    by_seed = []
    for _, of_seed in frame.groupby("seed"):
        draws = []
        for _, rows in of_seed.groupby("mask_seed", dropna=False):
            classes = [name for name in rows.columns if str(name).startswith("class_")]
            score = rows["score"].to_numpy(dtype=np.float64) if "score" in rows else None
            outcome = Outcome(
                y_true=rows["y_true"].to_numpy(),
                score=score,
                probabilities=rows[classes].to_numpy(dtype=np.float64) if classes else None,
                task=info.task,
                classes=info.classes,
                score_range=info.score_range,
            )
            positions = np.searchsorted(names, rows["dialogue"].to_numpy(dtype=str)).astype(np.int64)
            values = replicates(metric, outcome, positions, counts)
            assert values is not None, "the objective has this metric"
            draws.append(values)
        by_seed.append(np.mean(draws, axis=0))
    return np.mean(by_seed, axis=0)
