"""The default test: against scipy, statsmodels, numerical integration and literal leave-one-out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from sklearn.metrics import f1_score

from imer_bench.harness.leaderboard.influence import (
    Scores,
    interaction_mean_square,
    jackknife_values,
    scores,
)
from imer_bench.harness.leaderboard.intervals import sums_by_dialogue
from imer_bench.harness.leaderboard.power import (
    detectable_differences,
    seeds_needed,
    smallest_p_of_habitual_tests,
)
from imer_bench.harness.leaderboard.significance import (
    critical_difference,
    differences,
    seed_part,
    two_sided_p,
)
from imer_bench.harness.metrics import Outcome, metric


def crossed(rng: np.random.Generator, seeds: int, dialogues: int, seed_sd=0.02, dialogue_sd=0.1, rest=0.05):
    return (
        0.7
        + seed_sd * rng.normal(size=(seeds, 1))
        + dialogue_sd * rng.normal(size=dialogues)
        + rest * rng.normal(size=(seeds, dialogues))
    )


def test_jackknife_values_are_literal_leave_one_out_of_the_weighted_f1():
    rng = np.random.default_rng(0)
    dialogue = np.sort(rng.integers(0, 8, 90))
    y = rng.choice([-1.0, 1.0], 90)
    score = y + 1.5 * rng.normal(size=90)
    item = metric("wf1")
    terms = item.terms(Outcome(y, score, score_range=(-3, 3)))
    values = jackknife_values(item.value, sums_by_dialogue(terms, dialogue, 8))
    without = np.array(
        [f1_score(y[dialogue != d] > 0, score[dialogue != d] > 0, average="weighted") for d in range(8)]
    )
    full = f1_score(y > 0, score > 0, average="weighted")
    assert values.mean() == pytest.approx(full)
    assert values - full == pytest.approx(7 * (without.mean() - without))


def test_jackknife_of_a_mean_of_equal_dialogues_is_the_mean_of_each():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 4))
    sums = np.stack([np.full(6, 4.0), x.sum(axis=1)], axis=-1)
    assert jackknife_values(lambda s: s[..., 1] / s[..., 0], sums) == pytest.approx(x.mean(axis=1))


def test_interaction_mean_square_is_that_of_an_analysis_of_variance():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = crossed(np.random.default_rng(2), 4, 9)
    frame = pd.DataFrame(
        [(s, d, values[s, d]) for s in range(4) for d in range(9)], columns=["seed", "dialogue", "x"]
    )
    table = anova_lm(ols("x ~ C(seed) + C(dialogue)", frame).fit())
    expected = table.loc["Residual", "sum_sq"] / table.loc["Residual", "df"]
    assert interaction_mean_square(values) == pytest.approx(expected)


@pytest.mark.parametrize("df", [2, 4, 8, 18])
@pytest.mark.parametrize("t", [0.5, 2.5, 6.0])
def test_one_part_alone_is_students_t(df, t):
    exact = 2 * stats.t.sf(t, df)
    assert two_sided_p(t, 1.0, df, 0.0, 30) == pytest.approx(exact, rel=0.01)
    assert two_sided_p(2 * t, 0.0, 1, 4.0, df + 10) == pytest.approx(2 * stats.t.sf(t, df + 10), rel=0.02)


@pytest.mark.parametrize(("seeds", "dialogues"), [(1.0, 1.0), (4.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("size", [1.0, 4.0, 25.0])
def test_p_is_the_tail_of_the_sum_of_two_student_variables(seeds, dialogues, size):
    # P(|aT + bU| >= x) by integrating over T.
    a, b, first, second = seeds**0.5, dialogues**0.5, stats.t(4), stats.t(30)
    tail, _ = integrate.quad(
        lambda u: first.pdf(u) * (second.sf((size - a * u) / b) + second.cdf((-size - a * u) / b)),
        -400,
        400,
        points=[-size / a, size / a],
        limit=400,
    )
    assert two_sided_p(size, seeds, 4, dialogues, 30) == pytest.approx(tail, rel=0.02)
    assert critical_difference(tail, seeds, 4, dialogues, 30) == pytest.approx(size, rel=0.01)


def test_identical_rows_have_p_1_and_a_difference_without_any_variance_p_0():
    assert two_sided_p([0.0, 0.1], 0.0, 4, 0.0, 30).tolist() == [1.0, 0.0]


def test_without_seed_variance_it_is_the_paired_t_test_over_dialogues():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.7, 0.1, (2, 25))
    found = differences([tuple(scores([1, 2, 3], np.tile(x, (3, 1))) for x in (a, b))])
    assert found.p[0] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.01)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.value[0] + found.reach(0.05)[0] == pytest.approx(high, rel=0.01)
    assert found.value[0] - found.reach(0.05)[0] == pytest.approx(low, rel=0.01)


@pytest.mark.parametrize("sizes", [(5, 5), (3, 8)])
def test_without_dialogue_variance_it_is_the_unpaired_t_test_over_seeds(sizes):
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.7, 0.02, sizes[0]), rng.normal(0.72, 0.03, sizes[1])
    pair = tuple(scores(range(len(x)), np.repeat(x[:, None], 40, axis=1)) for x in (a, b))
    expected = stats.ttest_ind(a, b, equal_var=sizes[0] == sizes[1])
    assert differences([pair]).p[0] == pytest.approx(expected.pvalue, rel=0.01)


def test_a_row_that_does_not_move_with_the_seed_lends_no_degrees_of_freedom():
    _, df = seed_part(np.array([0.01, 0.0]), np.array([3.0, 3.0]))
    assert df == 2


def test_one_seed_is_not_testable_and_a_reference_row_is():
    one = scores([1], np.full((1, 5), 0.5))
    assert not one.testable
    assert scores([0], np.full((1, 5), 0.5), trained=False).testable


def seeds_only(rng: np.random.Generator, count: int) -> Scores:
    return scores(range(count), np.repeat(rng.normal(0.7, 0.02, (count, 1)), 30, axis=1))


def test_detectable_difference_against_statsmodels():
    from statsmodels.stats.power import TTestIndPower

    rng = np.random.default_rng(5)
    a, b = seeds_only(rng, 10), seeds_only(rng, 10)
    found = differences([(a, b)])
    pooled = ((a.by_seed.var(ddof=1) + b.by_seed.var(ddof=1)) / 2) ** 0.5
    exact = TTestIndPower().solve_power(nobs1=10, alpha=0.05, power=0.8) * pooled
    assert detectable_differences(found, 0.05, 0.8)[0] == pytest.approx(exact, rel=0.03)


def test_seeds_needed_against_statsmodels_and_never_enough_where_dialogues_vary():
    from statsmodels.stats.power import TTestIndPower

    rng = np.random.default_rng(6)
    a, b = seeds_only(rng, 10), seeds_only(rng, 10)
    pooled = ((a.by_seed.var(ddof=1) + b.by_seed.var(ddof=1)) / 2) ** 0.5
    exact = TTestIndPower().solve_power(effect_size=0.02 / pooled, alpha=0.05, power=0.8)
    (needed,) = seeds_needed([(a, b)], 0.02, 0.05, 0.8)
    assert needed is not None
    assert exact - 1 <= needed <= 1.3 * exact + 1
    noisy = tuple(scores(range(5), crossed(rng, 5, 30, dialogue_sd=0.5)) for _ in range(2))
    assert seeds_needed([noisy], 0.001, 0.05, 0.8) == [None]


@pytest.mark.parametrize("seeds", [3, 5, 7])
def test_smallest_p_of_tests_over_seeds(seeds):
    # The most extreme data there are: every seed of a above every seed of b.
    a, b = np.arange(seeds) + 100.0, np.arange(seeds) * 0.5
    found = smallest_p_of_habitual_tests(seeds)
    assert found["Wilcoxon signed-rank"] == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)
    assert found["Mann-Whitney"] == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
