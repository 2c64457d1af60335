"""Aggregates, expected best and gain against brute force and other people's formulas."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, f1_score

from imer_bench.harness.leaderboard.info import TableInfo
from imer_bench.harness.leaderboard.intervals import IntervalSettings, resampled_counts
from imer_bench.harness.metrics import metric
from imer_bench.harness.studies.estimates import aggregate, expected_best, gain

VALUES = st.lists(st.floats(-10, 10), min_size=1, max_size=7)


@given(VALUES, st.booleans())
def test_expected_best_is_the_mean_over_all_subsets(values, higher):
    best = max if higher else min
    found = expected_best(values, higher)
    for k in range(1, len(values) + 1):
        brute = np.mean([best(subset) for subset in itertools.combinations(values, k)])
        assert found[k - 1] == pytest.approx(brute, abs=1e-9)


def test_expected_best_of_many_trials_is_finite_and_rises_to_the_best():
    values = np.random.default_rng(0).normal(size=500)
    found = expected_best(values)
    assert found[0] == pytest.approx(values.mean())
    assert found[-1] == values.max()
    assert (np.diff(found) >= -1e-12).all()


def test_aggregates():
    values, rates = [0.8, 0.6, 0.5, 0.3], [0.0, 0.2, 0.2, 0.6]
    assert aggregate("mean", values, rates, True) == pytest.approx(0.55)
    assert aggregate("worst", values, rates, True) == 0.3
    assert aggregate("worst", values, rates, False) == 0.8
    assert aggregate("area", values, rates, True) == pytest.approx(auc([0, 0.2, 0.6], [0.8, 0.55, 0.3]) / 0.6)
    both = np.stack([values, np.array(values) * 2], axis=1)
    for kind in ("mean", "worst", "area"):
        single = [aggregate(kind, both[:, i], rates, True) for i in range(2)]
        np.testing.assert_allclose(aggregate(kind, both, rates, True), single)


def predictions(seed: int, noise: float) -> pd.DataFrame:
    labels = np.random.default_rng(0)
    rows = []
    for dialogue in range(9):
        for utterance in range(5):
            y = labels.normal()
            for condition in ("complete", "random-0.5"):
                rng = np.random.default_rng([seed, dialogue, utterance, len(condition)])
                rows.append((1, condition, None, f"d{dialogue}", f"{utterance}", y, y + noise * rng.normal()))
    names = ["seed", "condition", "mask_seed", "dialogue", "utterance", "y_true", "score"]
    return pd.DataFrame(rows, columns=names)


INFO = TableInfo("regression", ("negative", "neutral", "positive"), (-3.0, 3.0), "wf1", ("wf1",))
RATES = {"complete": 0.0, "random-0.5": 0.5}


def test_gain_is_a_paired_bootstrap_over_dialogues():
    """Weighted F1 of non-zero scores by scikit-learn, every resample written out with weights."""
    best, base = predictions(1, 0.5), predictions(2, 2.0)
    settings = IntervalSettings(0.9, 60, 3)
    found = gain(best, base, metric("wf1"), INFO, "mean", RATES, settings, "x")

    def value(frame: pd.DataFrame, weights: dict[str, float]) -> float:
        parts = []
        for _, part in frame.groupby("condition"):
            weight = part["dialogue"].map(weights)
            parts.append(f1_score(part.y_true > 0, part.score > 0, sample_weight=weight, average="weighted"))
        return float(np.mean(parts))

    names = sorted(best["dialogue"].unique())
    even = dict.fromkeys(names, 1.0)
    assert found.value == pytest.approx(value(best, even) - value(base, even))
    draws = [dict(zip(names, counts, strict=True)) for counts in resampled_counts(9, settings, "x")]
    differences = [value(best, weights) - value(base, weights) for weights in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])))
    assert found.low is not None
    assert found.low > 0
    assert found.dialogues == 9


def test_gain_of_the_same_predictions_is_nothing_and_errors_count_downwards():
    best, base = predictions(1, 0.5), predictions(2, 2.0)
    settings = IntervalSettings(0.95, 100, 0)
    same = gain(best, best, metric("wf1"), INFO, "worst", RATES, settings, "x")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = gain(best, base, metric("mae"), INFO, "mean", RATES, settings, "x")
    assert better.value > 0, "a lower error is a gain"
