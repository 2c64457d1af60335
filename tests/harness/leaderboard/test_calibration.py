"""The tests keep what they promise, and the habitual ones do not: a small run of the full simulation."""

from __future__ import annotations

import numpy as np
import pytest
from result_tables import sentiment_table
from scipy import stats

from imer_bench.harness.leaderboard import validate
from imer_bench.harness.leaderboard.calibration import GRID, simulate
from imer_bench.harness.leaderboard.calibration_report import (
    mcnemar_p,
    measure,
    measure_family,
    wilcoxon_p,
)
from imer_bench.harness.leaderboard.self_comparison import self_comparison

BY_NAME = {item.name: item for item in GRID}


def most(share: float, trials: int) -> float:
    """Highest count share that chance explains (99.9 %)."""
    return float(stats.binom.ppf(0.999, trials, share)) / trials


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("name", ["seed 0.05, taste 0.5, 31 dialogues", "unequal seeds 0.02/0.3"])
def test_the_default_keeps_its_level_and_covers(name, seeds):
    found = measure(BY_NAME[name], seeds, 200, 20)
    assert found.false_positives["default"] <= most(0.05, 200)
    assert found.coverage >= 1 - most(0.07, 100)
    assert found.power["default"] > found.false_positives["default"]
    assert found.width > found.width_of_dialogues


def test_habits_do_not():
    found = measure(BY_NAME["seed 0.15, taste 0.5, 31 dialogues"], 5, 200, 200).false_positives
    assert found["Wilcoxon, seeds"] == 0.0  # can't reach 0.05 with 5 seeds
    assert found["unpaired t, seeds"] > 0.1
    assert found["utterance bootstrap"] > 0.2
    assert found["McNemar, one seed"] > 0.2


@pytest.mark.parametrize("name", ["seed 0.15, taste 0.5, 31 dialogues", "seed 0.4, taste 0.5, 93 dialogues"])
def test_the_family_wise_error_is_kept_with_three_seeds(name):
    found = measure_family(BY_NAME[name], 3, 60).errors
    assert found["default"] <= most(0.05, 60)


def test_one_t_with_satterthwaites_df_is_why_the_default_is_another():
    assert measure_family(BY_NAME["seed 0.4, taste 0.5, 93 dialogues"], 3, 60).errors["Satterthwaite t"] > 0.1


def test_simulated_methods_are_exchangeable_and_the_advantage_moves_the_first():
    rng = np.random.default_rng(0)
    even = simulate(rng, GRID[9], replicates=200, seeds=2).dialogue_values().mean(axis=(0, 2, 3, 4))
    better = simulate(rng, GRID[9], replicates=200, seeds=2, advantage=0.5).dialogue_values()
    assert abs(even[0] - even[1]) < 0.01
    assert np.subtract(*better.mean(axis=(0, 2, 3, 4))) > 0.05


def test_habitual_tests_equal_scipy_and_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(1)
    pairs = rng.normal(0.3, 1, (6, 7))
    assert wilcoxon_p(pairs) == pytest.approx([stats.wilcoxon(row, method="exact").pvalue for row in pairs])
    a, b = rng.random((2, 4, 80)) < 0.7
    for index in range(4):
        counts = [[(a & b)[index].sum(), (a & ~b)[index].sum()], [(~a & b)[index].sum(), 0]]
        assert mcnemar_p(a, b)[index] == pytest.approx(mcnemar(counts, exact=True).pvalue)


def test_a_method_does_not_beat_itself():
    frame = validate(
        sentiment_table(
            labels=("strong", "weak"), seeds=range(6), conditions=("complete", "random-0.5"), dialogues=30
        )
    )
    for item in self_comparison(frame, splits=2):
        assert item.tests > 0
        assert item.claims == 0
