"""Boards with claims: what is compared, what is said, what can't be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from result_tables import sentiment_rows, sentiment_table
from scipy import stats
from sklearn.metrics import f1_score

from imer_bench.harness.errors import UserError
from imer_bench.harness.leaderboard import (
    ClaimSettings,
    IntervalSettings,
    TableInfo,
    build_boards,
    render_markdown,
    render_terminal,
    write_leaderboard,
)
from imer_bench.harness.leaderboard.ranks import across_data_sets
from imer_bench.harness.leaderboard.robustness import shapley, shares_and_evenness, trapezoid_weights

INFO = TableInfo("regression", score_range=(-3.0, 3.0))
QUICK = IntervalSettings(resamples=0)
RATES = ("complete", "random-0.1", "random-0.3", "random-0.5")


def board(frame: pd.DataFrame, info: TableInfo = INFO, **settings):
    (found,) = build_boards(frame, info, intervals=QUICK, claims=ClaimSettings(**settings))
    return found


def table(labels=("strong", "weak"), seeds=range(5), conditions=RATES, dialogues=20, **columns):
    return sentiment_table(labels, tuple(seeds), conditions, dialogues=dialogues, **columns)


def test_a_comparison_equals_the_test_done_by_hand():
    # One condition and mask draw, accuracy: jackknife values of equal dialogues are their accuracies.
    frame = table(conditions=("complete",))
    frame = frame[frame["y_true"] != 0]
    frame = frame.groupby(["label", "seed", "dialogue"]).head(4)
    full = frame.groupby("dialogue")["label"].transform("size") == frame.groupby("dialogue").size().max()
    frame = frame[full]
    found = board(frame, TableInfo("regression", score_range=(-3.0, 3.0), primary="acc2"))
    right = (frame["score"] > 0) == (frame["y_true"] > 0)
    means = right.groupby([frame["label"], frame["seed"], frame["dialogue"]]).mean().unstack("dialogue")
    strong, weak = means.loc["strong"].to_numpy(), means.loc["weak"].to_numpy()
    item = found.claims.comparison("strong", "weak", "complete")
    assert item.difference == pytest.approx(strong.mean() - weak.mean())
    seeds = (strong.mean(axis=1).var(ddof=1) + weak.mean(axis=1).var(ddof=1)) / 5
    paired = strong.mean(axis=0) - weak.mean(axis=0)
    dialogues = paired.var(ddof=1) / len(paired)
    assert item.standard_error == pytest.approx((seeds + dialogues) ** 0.5)
    rng = np.random.default_rng(0)
    null = seeds**0.5 * rng.standard_t(8, 400_000)
    null += dialogues**0.5 * rng.standard_t(len(paired) - 1, 400_000)
    assert (item.interval[1] - item.interval[0]) / 2 == pytest.approx(np.quantile(abs(null), 0.95), rel=0.01)


def test_every_pair_and_column_is_in_one_family():
    found = board(table(labels=("strong", "good", "weak")))
    claims = found.claims
    assert claims.family_size == 3 * 5  # complete, three rates' worth of columns and their mean
    assert {item.column for item in claims.comparisons} == {column.name for column in found.columns}
    p = np.array([item.p for item in claims.comparisons])
    adjusted = np.array([item.p_adjusted for item in claims.comparisons])
    assert adjusted.min() == pytest.approx(min(1.0, 15 * p.min()))


@pytest.mark.parametrize(("family", "size"), [("column", 3), ("ranking", 3)])
def test_smaller_families_are_declared_and_their_size_is_printed(family, size):
    found = board(table(labels=("strong", "good", "weak")), family=family)
    assert found.claims.family_size == size
    assert f"Holm over {size} tests" in render_terminal(found)
    outside = [x for x in found.claims.comparisons if x.column != found.ranked_by]
    assert all((x.p_adjusted is None) == (family == "ranking") for x in outside)


def test_false_discovery_rate_is_an_option_and_is_named():
    found = board(table(), correction="bh")
    assert "Benjamini-Hochberg over" in render_terminal(found)
    holm = board(table())
    pairs = zip(found.claims.comparisons, holm.claims.comparisons, strict=True)
    assert all(a.p_adjusted <= b.p_adjusted for a, b in pairs)


def test_statements_name_the_winner_the_size_and_what_cannot_be_told():
    frame = table(labels=("strong", "good", "weak"), seeds=range(10))
    found = board(frame)
    text = " ".join(found.claims.statements)
    item = found.claims.comparison("strong", "weak", "mean random")
    assert item.better == "strong"
    low, high = (100 * end for end in item.interval)
    assert f"in mean random by {100 * item.difference:.1f} points [{low:.1f}, {high:.1f}]" in text
    assert "strong beats weak" in text
    assert "weak beats" not in text
    assert "The data cannot tell apart, in any column" in text
    assert {"good", "strong"} <= set(found.claims.best_of("mean random").members)
    assert "weak" not in found.claims.best_of("mean random").members
    assert "strong beats weak" in " ".join(render_terminal(found).split())
    assert "strong beats weak" in render_markdown([found])


def test_a_threshold_of_rates_is_summed_up():
    frame = table(seeds=range(10), conditions=(*RATES, "random-0.7"))
    # Up to 0.3 both rows predict alike.
    same = frame["test_condition"].isin(["complete", "random-0.1", "random-0.3"])
    source = frame.loc[(frame["label"] == "strong") & same, "score"].to_numpy()
    frame.loc[(frame["label"] == "weak") & same, "score"] = source
    found = board(frame)
    (sentence,) = [line for line in found.claims.statements if "strong beats weak" in line]
    assert "at rates ≥ 0.5 by" in sentence
    assert "at lower rates the data cannot tell" in sentence


def test_lower_is_better_is_respected():
    found = board(table(seeds=range(10)), TableInfo("regression", score_range=(-3.0, 3.0), primary="mae"))
    item = found.claims.comparison("strong", "weak", "complete")
    assert item.difference < 0
    assert item.better == "strong"
    assert found.claims.best_of("complete").best == "strong"
    assert all(x.better in (None, "strong") for x in found.claims.comparisons)


def test_one_seed_makes_no_claim():
    found = board(table(seeds=[3]))
    assert all(item.p is None and item.better is None for item in found.claims.comparisons)
    assert any("No test is possible with a single seed" in line for line in found.claims.statements)
    assert any("One seed cannot tell" in line for line in found.claims.limits)


def test_three_seeds_are_told_what_they_cannot():
    found = board(table(seeds=range(3)))
    text = " ".join(found.claims.limits)
    assert "can reach p < 0.05 with 3 seeds" in text
    assert "smallest possible p 0.25" in text
    assert "To find a difference of 1.0 points" in text


def test_holes_are_not_compared():
    frame = table(labels=("strong", "good", "weak"))
    gone = (frame["label"] == "weak") & (frame["seed"] == 2) & (frame["test_condition"] == "random-0.5")
    found = board(frame[~gone])
    assert found.claims.comparison("strong", "weak", "random-0.5") is None
    assert found.claims.comparison("strong", "weak", "mean random") is None
    assert found.claims.comparison("strong", "weak", "random-0.1") is not None
    assert "weak" not in found.claims.best_of("mean random").p


def test_rows_of_unequal_seeds_are_compared():
    frame = pd.concat([table(labels=("strong",), seeds=range(8)), table(labels=("weak",), seeds=range(4))])
    item = board(frame).claims.comparison("strong", "weak", "complete")
    assert item.seeds == (8, 4)
    assert item.p is not None


def test_selected_on_test_and_synthetic_never_meet_honest_rows():
    frame = pd.concat(
        [table(labels=("honest",)), table(labels=("cheat",), selection="test"),
         table(labels=("toy",), synthetic=True)]
    )  # fmt: skip
    found = build_boards(frame, INFO, intervals=QUICK)
    assert len(found) == 3
    assert all(not item.claims.comparisons for item in found)


def test_overall_is_an_intersection_union_over_families():
    found = board(table(seeds=range(10), conditions=(*RATES, "fixed-t", "fixed-a")))
    (overall,) = found.claims.overall
    assert overall.columns == ("complete", "mean random", "mean fixed")
    parts = [found.claims.comparison("strong", "weak", name).p for name in overall.columns]
    assert overall.p == max(parts)


def test_the_best_row_is_in_its_set_and_a_clone_is_not_left_out():
    frame = table(labels=("strong", "weak"), seeds=range(5))
    clone = frame[frame["label"] == "strong"].assign(label="clone", method="clone")
    found = board(pd.concat([frame, clone]))
    for best in found.claims.best:
        assert {"strong", "clone"} <= set(best.members)
    assert any("clone" in line and "equal in every metric" in line for line in found.warnings)


def test_variance_components_find_what_was_put_in():
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(10):
        shift = 0.8 * rng.normal()
        part = sentiment_rows("m", seed, dialogues=60, noise=0.5)
        frames.append(part.assign(score=part["score"] + np.float32(shift)))
    steady = [sentiment_rows("s", seed, dialogues=60, noise=0.5) for seed in range(10)]
    found = board(
        pd.concat([*frames, *steady]), TableInfo("regression", score_range=(-3.0, 3.0), primary="mae")
    )
    own, other = ({x.name: x for x in found.claims.components[label]["complete"]} for label in ("m", "s"))
    assert own["training seed"].sd > 5 * other["training seed"].sd
    cell = next(row for row in found.rows if row.label == "m").cells["mae"]["complete"]
    total = own["training seed"].sd ** 2 + own["seed x dialogue"].sd ** 2
    assert total == pytest.approx(cell.sd**2)


def test_mask_draws_are_a_component_where_there_are_several():
    found = board(table())
    names = {x.name for x in found.claims.components["weak"]["mean random"]}
    assert names == {"training seed", "dialogues", "seed x dialogue", "mask draw"}
    assert "mask draw" not in {x.name for x in found.claims.components["weak"]["complete"]}


def test_folds_are_a_component_and_are_tested_in_both_policies():
    frame = pd.concat(
        [
            sentiment_rows(label, seed, fold=fold, noise=noise, dialogues=12)
            for label, noise in (("strong", 0.5), ("weak", 1.8))
            for seed in range(4)
            for fold in range(3)
        ]
    )
    pooled, mean = (
        build_boards(frame, INFO, intervals=QUICK, folds=policy)[0] for policy in ("pool", "mean")
    )
    assert "fold" in {x.name for x in pooled.claims.components["weak"]["complete"]}
    first, second = (b.claims.comparison("strong", "weak", "complete") for b in (pooled, mean))
    assert first.difference == pytest.approx(second.difference, abs=0.02)
    assert first.standard_error == pytest.approx(second.standard_error, rel=0.25)


def test_claims_are_in_the_json(tmp_path):
    paths = write_leaderboard([board(table())], tmp_path)
    record = json.loads(paths[2].read_text())["boards"][0]
    assert record["claims"]["comparisons"][0]["p_adjusted"] is not None
    assert record["robustness"][0]["label"]


# --- Robustness --------------------------------------------------------------------------------------


def test_area_is_the_trapezoid_of_the_seeds():
    found = board(table())
    row = next(row for row in found.rows if row.label == "weak")
    own = next(x for x in found.robustness if x.label == "weak")
    heights = [row.cells["wf1"][name].mean for name in RATES]
    assert own.area == pytest.approx(np.trapezoid(heights, [0.0, 0.1, 0.3, 0.5]))
    assert own.area_normalised.value == pytest.approx(own.area / 0.5)
    assert own.area_normalised.interval[0] < own.area_normalised.value < own.area_normalised.interval[1]
    assert trapezoid_weights([0.0, 0.5]) == [0.25, 0.25]


def test_drop_and_retention_count_from_no_information():
    frame = table()
    found = board(frame)
    one = frame[(frame["seed"] == 0) & (frame["label"] == "weak") & (frame["test_condition"] == "complete")]
    y = one[one["y_true"] != 0]["y_true"] > 0
    base = max(f1_score(y, np.full(len(y), value), average="weighted") for value in (True, False))
    row = next(row for row in found.rows if row.label == "weak")
    own = next(x for x in found.robustness if x.label == "weak")
    whole, part = (row.cells["wf1"][name].mean for name in ("complete", "random-0.5"))
    assert own.drop["random-0.5"] == pytest.approx(whole - part)
    assert own.retention["random-0.5"] == pytest.approx((part - base) / (whole - base))
    assert own.retention["random-0.5"] + own.relative_drop["random-0.5"] == pytest.approx(1)


def test_a_row_that_loses_its_signal_is_lost_at_that_rate():
    frame = table(labels=("strong",), seeds=range(5), conditions=(*RATES, "random-0.7"))
    blind = frame["test_condition"].isin(["random-0.5", "random-0.7"])
    frame.loc[blind, "score"] = np.random.default_rng(1).normal(size=int(blind.sum())).astype(np.float32)
    (own,) = board(frame).robustness
    assert own.lost_at == 0.5
    (kept,) = board(table(labels=("strong",), seeds=range(5))).robustness
    assert kept.lost_at is None


def test_worst_case_is_the_lowest_and_its_interval_takes_it_anew():
    frame = table(conditions=("complete", "fixed-t", "fixed-a", "fixed-v"))
    (found,) = build_boards(frame, INFO, intervals=IntervalSettings(resamples=300))
    for row in found.rows[:2]:
        own = next(x for x in found.robustness if x.label == row.label)
        cells = {name: row.cells["wf1"][name] for name in ("fixed-t", "fixed-a", "fixed-v")}
        lowest = min(cells, key=lambda name: cells[name].mean)
        assert (own.worst.value, own.worst_condition) == (cells[lowest].mean, lowest)
        assert own.worst.interval[1] <= min(cell.interval[1] for cell in cells.values()) + 1e-9


def test_shapley_contributions():
    # Additive game: each modality is worth its own share; glove game: worth only in pairs.
    worth = {"t": 0.3, "a": 0.1, "v": 0.0}
    subsets = [frozenset(x) for x in ("", "t", "a", "v", "ta", "tv", "av", "tav")]
    additive = {s: 0.5 + sum(worth[m] for m in s) for s in subsets}
    assert shapley(additive, "tav") == pytest.approx(worth)
    glove = {s: float("t" in s and len(s) > 1) for s in subsets}
    assert shapley(glove, "tav") == pytest.approx({"t": 4 / 6, "a": 1 / 6, "v": 1 / 6})
    shares, evenness = shares_and_evenness({"t": 0.5, "a": 0.5, "v": -0.2})
    assert shares == {"t": 0.5, "a": 0.5, "v": 0.0}
    assert evenness == pytest.approx(stats.entropy([0.5, 0.5]) / np.log(3))
    assert shares_and_evenness({"t": -0.1, "a": 0.0}) == ({}, None)


def test_shapley_needs_every_subset():
    fixed = ("fixed-t", "fixed-a", "fixed-v", "fixed-ta", "fixed-tv", "fixed-av")
    (whole,) = board(table(labels=("strong",), seeds=range(2), conditions=("complete", *fixed))).robustness
    assert set(whole.shapley) == {"t", "a", "v"}
    assert sum(whole.shares.values()) == pytest.approx(1)
    (part,) = board(table(labels=("strong",), seeds=range(2), conditions=("complete", *fixed[:4]))).robustness
    assert not part.shapley


# --- Across data sets --------------------------------------------------------------------------------


def test_ranks_need_five_data_sets_that_belong_together():
    boards = [
        board(table(("strong", "good", "weak"), range(2), ("complete",), 8, data_set=f"set{index}"))
        for index in range(5)
    ]
    found = across_data_sets(boards)
    assert found.exact
    assert max(found.mean_ranks, key=lambda label: found.mean_ranks[label]) == "weak"
    with pytest.raises(UserError, match="descriptive"):
        across_data_sets(boards[:4])
    with pytest.raises(UserError, match="synthetic"):
        across_data_sets([*boards[:4], replace(boards[4], synthetic=True)])
    with pytest.raises(UserError, match="twice"):
        across_data_sets([*boards, boards[0]])
