"""The statistics of the ablation and drift scripts, against scipy on the same numbers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ablation, drift = script("ad_mcpd_ablation"), script("drift")
RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(size=(2, 6))


def row(by_seed, resampled):
    return ablation.Row("ad_mcpd", np.asarray(by_seed), np.asarray(resampled), dialogues=25)


def test_seeds_alone_give_the_paired_t_test():
    found = ablation.paired_difference(row(FIRST, np.ones(50)), row(SECOND, np.zeros(50)))
    expected = stats.ttest_rel(FIRST, SECOND)
    assert found.value == pytest.approx((FIRST - SECOND).mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_dialogues_alone_give_a_t_test_with_their_variance():
    resampled = RNG.normal(size=4000)
    found = ablation.paired_difference(row([3.0] * 5, resampled), row([1.0] * 5, np.zeros(4000)))
    assert found.p == pytest.approx(2 * stats.t.sf(2 / resampled.std(ddof=1), 24))


def test_dialogues_that_both_rows_share_cancel_and_make_equal_rows_equal():
    same = row(FIRST, RNG.normal(size=50))
    assert ablation.paired_difference(same, same) == ablation.Difference(0.0, (0.0, 0.0), 1.0)


def test_drift_against_a_row_pairs_seeds():
    table = pd.DataFrame(
        {
            "space": "raw",
            "family": "fixed",
            "label": ["a"] * 12 + ["b"] * 12,
            "condition": ["fixed-t", "fixed-a"] * 12,
            "seed": np.tile(np.repeat(np.arange(6), 2), 2),
            "drift": np.concatenate([np.repeat(FIRST, 2), np.repeat(SECOND, 2)]),
        }
    )
    (found,) = drift.against(table, "b").to_dict("records")
    expected = stats.ttest_rel(FIRST, SECOND).confidence_interval(0.95)
    assert (found["label"], found["seeds"]) == ("a", 6)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
