"""Sanity checks: each finds what it is for and is silent on sound tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from result_tables import sentiment_table
from sklearn.metrics import f1_score

from imer_bench.harness.leaderboard import IntervalSettings, TableInfo, build_boards
from imer_bench.harness.leaderboard.checks import f1_above_accuracy, f1_ceiling

INFO = TableInfo("regression", score_range=(-3.0, 3.0))


def warnings(frame):
    (board,) = build_boards(frame, INFO, intervals=IntervalSettings(resamples=0))
    return board.warnings


def test_a_sound_table_has_no_warnings():
    assert warnings(sentiment_table(labels=("strong", "good", "weak"))) == ()


def test_equal_columns_are_found():
    frame = sentiment_table()
    source = frame[(frame["label"] == "weak") & (frame["test_condition"] == "fixed-t")]
    frame.loc[(frame["label"] == "weak") & (frame["test_condition"] == "fixed-a"), "score"] = source[
        "score"
    ].to_numpy()
    (found,) = warnings(frame)
    assert "weak: fixed-t and fixed-a are equal" in found


def test_a_score_of_a_constant_prediction_is_found():
    frame = sentiment_table()
    blind = (frame["label"] == "weak") & (frame["test_condition"] == "fixed-v")
    frame = sentiment_table(conditions=("complete", "fixed-v"))
    blind = (frame["label"] == "weak") & (frame["test_condition"] == "fixed-v")
    frame.loc[blind, "score"] = np.float32(1.0)
    assert any("weak" in line and "constant" in line and "fixed-v" in line for line in warnings(frame))


def test_seeds_that_are_no_seeds_are_found():
    frame = sentiment_table(conditions=("complete",))
    first = frame[(frame["label"] == "weak") & (frame["seed"] == 0)]["score"].to_numpy()
    for seed in (1, 2):
        frame.loc[(frame["label"] == "weak") & (frame["seed"] == seed), "score"] = first
    assert any("all 3 seeds score the same" in line for line in warnings(frame))


def test_other_masks_than_rivals_are_found():
    frame = sentiment_table(labels=("a", "b", "weak"))
    other = (frame["label"] == "weak") & (frame["test_condition"] == "random-0.5")
    frame.loc[frame.index[other][:3], "available"] = "t"
    found = [line for line in warnings(frame) if "masks" in line]
    assert len(found) == 1
    assert found[0].startswith("weak")
    assert "random-0.5" in found[0]


@pytest.mark.parametrize("positive", [3, 5, 8])
def test_f1_ceiling_equals_the_best_of_all_confusion_matrices(positive):
    count = 12
    for right in range(4, count + 1, 2):
        best = 0.0
        for hits in range(max(0, right - (count - positive)), min(positive, right) + 1):
            y = np.arange(count) < positive
            guess = np.concatenate([np.arange(positive) < hits, np.arange(count - positive) >= right - hits])
            best = max(best, float(f1_score(y, guess, average="weighted", zero_division=0)))
        found = f1_ceiling(right / count, positive / count)
        assert best - 1e-9 <= found <= best + 0.02


def test_swapped_arguments_of_f1_show_and_correct_ones_do_not():
    share, accuracy = 0.578, 0.578
    swapped, correct = 2 * accuracy / (1 + accuracy), 2 * accuracy**2 / (1 + accuracy)
    assert "more than accuracy" in (f1_above_accuracy({"acc2": accuracy, "wf1": swapped}, share) or "")
    assert f1_above_accuracy({"acc2": accuracy, "wf1": correct}, share) is None
    rng = np.random.default_rng(0)
    for _, noise in itertools.product(range(20), (0.3, 1.0, 3.0)):
        y = rng.random(200) < share
        guess = (y + noise * rng.normal(size=200)) > 0.5
        scores = {"acc2": float((y == guess).mean()), "wf1": float(f1_score(y, guess, average="weighted"))}
        assert f1_above_accuracy(scores, float(y.mean())) is None
