"""Corrections, effects, ranks: against statsmodels, scipy, scikit-posthocs, rliable, baycomp."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from imer_bench.harness.leaderboard.effects import (
    interquartile_mean,
    interquartile_mean_interval,
    probability_of_improvement,
    signed_rank_posterior,
    standardised_difference,
)
from imer_bench.harness.leaderboard.multiplicity import (
    benjamini_hochberg,
    holm,
    intersection_union,
    not_worse_p,
)
from imer_bench.harness.leaderboard.ranks import (
    critical_rank_difference,
    friedman,
    groups_within,
    nemenyi_p,
)


@pytest.mark.parametrize("count", [1, 2, 7, 225])
def test_corrections_equal_statsmodels(count):
    # Cubed: many small ones; rounded: ties.
    p = np.round(np.random.default_rng(count).random(count) ** 3, 3)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


def test_intersection_union_needs_every_family_and_one_direction():
    assert intersection_union([0.01, 0.04], [0.1, 0.2]) == 0.04
    assert intersection_union([0.01, 0.01], [0.1, -0.2]) == 1.0


def test_not_worse_p_is_the_joint_normal_tail():
    # Many-to-one with equal variances: correlation 1/2, the normal limit of Dunnett's test.
    rivals = 4
    correlation = np.full((rivals, rivals), 0.5) + 0.5 * np.eye(rivals)
    draws = np.random.default_rng(0).standard_normal((200_000, rivals))
    for z in (1.5, 2.2):
        exact = 1 - stats.multivariate_normal(cov=correlation).cdf(np.full(rivals, z))
        one_sided = [stats.norm.sf(z), 0.5, 0.7, 0.9]
        assert not_worse_p(one_sided, correlation, draws) == pytest.approx(exact, abs=0.003)


def test_not_worse_p_agrees_with_dunnetts_test():
    rng = np.random.default_rng(1)
    control, *rivals = rng.normal(0, 1, (4, 400)) + np.array([[0.0], [0.1], [0.15], [-0.1]])
    exact = stats.dunnett(*rivals, control=control, alternative="greater", rng=rng)
    pooled = np.mean([x.var(ddof=1) for x in (control, *rivals)])
    one_sided = stats.norm.sf([(x.mean() - control.mean()) / (pooled * 2 / 400) ** 0.5 for x in rivals])
    draws = rng.standard_normal((200_000, 3))
    found = not_worse_p(one_sided, np.full((3, 3), 0.5) + 0.5 * np.eye(3), draws)
    assert found == pytest.approx(exact.pvalue.min(), abs=0.01)


def test_effects_equal_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, (2, 9)) / 10
    expected = stats.mannwhitneyu(a, b).statistic / 81
    assert probability_of_improvement(a, b) == pytest.approx(expected)
    t = stats.ttest_rel(a, b).statistic
    assert standardised_difference(a, b) == pytest.approx(t / 3)
    assert standardised_difference([0.5], [0.4]) is None
    values = rng.normal(size=23)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_effects_equal_rliable():
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.1, 1, (2, 10, 1))
    assert interquartile_mean(a) == pytest.approx(metrics.aggregate_iqm(a))
    assert probability_of_improvement(a[:, 0], b[:, 0]) == pytest.approx(
        metrics.probability_of_improvement(a, b)
    )


def test_interquartile_interval_covers_and_narrows_with_seeds():
    rng = np.random.default_rng(4)
    few, many = rng.normal(0, 1, (5, 8)), rng.normal(0, 1, (80, 8))
    widths = [np.ptp(interquartile_mean_interval(x, rng, resamples=400)) for x in (few, many)]
    assert widths[1] < 0.5 * widths[0]
    low, high = interquartile_mean_interval(many, rng, resamples=400)
    assert low < interquartile_mean(many) < high


def test_bayesian_signed_rank_equals_baycomp():
    baycomp = pytest.importorskip("baycomp", reason="baycomp is not installed")
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.72, 0.03, 12), rng.normal(0.70, 0.03, 12)
    left, inside, right = baycomp.SignedRankTest.probs(b, a, rope=0.01, nsamples=20_000)
    found = signed_rank_posterior(a - b, 0.01, rng, draws=20_000)
    # baycomp's left is "first argument is better": b.
    assert found == pytest.approx((left, inside, right), abs=0.03)


def test_friedman_statistic_equals_scipy_with_ties():
    rng = np.random.default_rng(6)
    table = rng.integers(0, 5, (30, 6)).astype(float)
    statistic, p, exact = friedman(table)
    expected = stats.friedmanchisquare(*table.T)
    assert (statistic, p, exact) == pytest.approx((expected.statistic, expected.pvalue, False))


@pytest.mark.parametrize(
    ("blocks", "ranks", "p"),
    [
        # Friedman's exact tables: k = 3, N = 3, chi2 = 6 and k = 3, N = 4, chi2 = 8.
        (3, [(1, 2, 3)] * 3, 0.028),
        (4, [(1, 2, 3)] * 4, 0.0046),
        (4, [(1, 2, 3)] * 3 + [(2, 1, 3)], 0.042),
    ],
)
def test_exact_friedman_equals_the_printed_tables(blocks, ranks, p):
    _, found, exact = friedman(-np.array(ranks, dtype=float))
    assert exact
    assert found == pytest.approx(p, abs=0.0006)


def test_critical_difference_equals_demsar():
    # Demšar (2006), table 5: q_0.05 is 2.343 for 3 and 2.728 for 5 classifiers.
    assert critical_rank_difference(3, 10, 0.05) == pytest.approx(2.343 * (12 / 60) ** 0.5, rel=1e-3)
    assert critical_rank_difference(5, 7, 0.05) == pytest.approx(2.728 * (30 / 42) ** 0.5, rel=1e-3)


def test_nemenyi_equals_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs", reason="scikit-posthocs is not installed")
    table = np.random.default_rng(7).normal(size=(8, 4)) + np.array([0, 0.5, 1.0, 0.2])
    expected = posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    mean = stats.rankdata(-table, axis=1).mean(axis=0)
    for i, j in itertools.combinations(range(4), 2):
        assert nemenyi_p(mean[i] - mean[j], 4, 8) == pytest.approx(expected[i, j], abs=1e-3)


def test_groups_are_the_maximal_ones():
    ranks = {"a": 1.0, "b": 1.5, "c": 2.4, "d": 4.0}
    assert groups_within(ranks, 1.0) == (("a", "b"), ("b", "c"))
