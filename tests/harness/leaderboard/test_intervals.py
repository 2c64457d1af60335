"""Intervals: against literal resampling, the closed form of a cluster bootstrap, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from result_tables import sentiment_table
from sklearn.metrics import f1_score

from imer_bench.harness.leaderboard import IntervalSettings, TableInfo, build_boards
from imer_bench.harness.leaderboard.intervals import percentile_interval, replicates, resampled_counts
from imer_bench.harness.metrics import Outcome, metric

CLASSES = ("no", "yes")


def binary_outcome(correct: np.ndarray) -> Outcome:
    """An outcome whose accuracy is the mean of ``correct``."""
    return Outcome(np.ones(len(correct), dtype=int), None, np.eye(2)[correct.astype(int)], "binary", CLASSES)


def test_replicates_equal_literally_resampled_utterances():
    rng = np.random.default_rng(0)
    dialogue = np.sort(rng.integers(0, 9, 70))
    y, score = np.round(rng.normal(size=(2, 70)), 1)
    counts = resampled_counts(9, IntervalSettings(resamples=20), "mosi")
    found = replicates(metric("wf1"), Outcome(y, score, score_range=(-3, 3)), dialogue, counts)
    assert found is not None
    for row, value in zip(counts.astype(int), found, strict=True):
        drawn = np.concatenate([np.tile(np.flatnonzero(dialogue == d), n) for d, n in enumerate(row)])
        drawn = drawn[y[drawn] != 0]
        assert value == pytest.approx(f1_score(y[drawn] > 0, score[drawn] > 0, average="weighted"))


def test_spread_equals_the_closed_form_of_a_mean_of_clusters():
    # Equal clusters: the metric is the mean of D cluster means; the bootstrap variance of a mean is
    # the population variance over D.
    rng = np.random.default_rng(1)
    clusters, size = 60, 12
    correct = rng.random((clusters, size)) < rng.beta(4, 2, size=(clusters, 1))
    outcome = binary_outcome(correct.reshape(-1))
    counts = resampled_counts(clusters, IntervalSettings(resamples=20_000), "any")
    found = replicates(metric("acc"), outcome, np.repeat(np.arange(clusters), size), counts)
    assert found is not None
    expected = np.std(correct.mean(axis=1)) / np.sqrt(clusters)
    assert np.std(found) == pytest.approx(expected, rel=0.03)
    low, high = percentile_interval(found, 0.95) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.04)
    as_independent = np.sqrt(correct.mean() * (1 - correct.mean()) / correct.size)
    assert high - low > 1.2 * 2 * 1.96 * as_independent  # utterances of a dialogue are not independent


def test_coverage_over_simulated_test_sets():
    # 40 dialogues: the percentile interval is a little short (about 93.5 %), far from 85 %, which
    # resampling utterances would give here.
    rng = np.random.default_rng(2)
    clusters, size, trials = 40, 10, 600
    counts = resampled_counts(clusters, IntervalSettings(resamples=600), "any")
    dialogue = np.repeat(np.arange(clusters), size)
    covered = 0
    for _ in range(trials):
        correct = rng.random((clusters, size)) < rng.beta(3, 1.5, size=(clusters, 1))
        found = replicates(metric("acc"), binary_outcome(correct.reshape(-1)), dialogue, counts)
        assert found is not None
        low, high = percentile_interval(found, 0.95) or (0, 0)
        covered += low <= 3 / 4.5 <= high
    assert 0.91 <= covered / trials <= 0.97


def test_undefined_replicates_give_no_interval():
    assert percentile_interval(np.array([np.nan] * 10 + [0.5] * 90), 0.95) is None
    assert percentile_interval(np.array([np.nan] * 4 + [0.5] * 96), 0.95) == (0.5, 0.5)


def test_a_board_averages_seeds_and_masks_on_the_same_dialogues():
    frame = sentiment_table(labels=["strong"], conditions=["random-0.1", "random-0.5"])
    settings = IntervalSettings(confidence=0.9, resamples=200, seed=7)
    (board,) = build_boards(frame, TableInfo("regression", score_range=(-3, 3)), intervals=settings)
    counts = resampled_counts(8, settings, "mosi")
    means = []
    for condition in ("random-0.1", "random-0.5"):
        values = []
        for _, draw in frame[frame["test_condition"] == condition].groupby(["seed", "mask_seed"]):
            dialogue = draw["dialogue"].str[-3:].astype(int).to_numpy()
            outcome = Outcome(draw["y_true"].to_numpy(), draw["score"].to_numpy(), score_range=(-3, 3))
            weighted = metric("wf1").compute(outcome, counts[:, dialogue])
            values.append(weighted)
        means.append(np.mean(values, axis=0))
        expected = np.quantile(means[-1], [0.05, 0.95])
        assert board.rows[0].cells["wf1"][condition].interval == pytest.approx(tuple(expected))
    expected = np.quantile(np.mean(means, axis=0), [0.05, 0.95])
    assert board.rows[0].cells["wf1"]["mean random"].interval == pytest.approx(tuple(expected))
    assert board.rows[0].cells["acc2"]["random-0.1"].interval is None


def test_the_same_seed_gives_the_same_resamples_and_another_does_not():
    first, again = (resampled_counts(31, IntervalSettings(resamples=50), "mosi") for _ in range(2))
    other = resampled_counts(31, IntervalSettings(resamples=50, seed=1), "mosi")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first.sum(axis=1), 31)
