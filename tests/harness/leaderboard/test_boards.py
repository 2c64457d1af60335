"""Boards: cells against pandas and scikit-learn, holes, and who may share a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from result_tables import sentiment_rows, sentiment_table
from sklearn.metrics import accuracy_score, f1_score

from imer_bench.harness.leaderboard import (
    Board,
    Cell,
    Condition,
    IntervalSettings,
    Row,
    RunSummary,
    TableError,
    TableInfo,
    build_boards,
    concatenate,
    read_predictions,
    validate,
)

INFO = TableInfo("regression", score_range=(-3.0, 3.0))
QUICK = IntervalSettings(resamples=0)
CONDITIONS = ("complete", "random-0.1", "random-0.5", "fixed-t", "fixed-a")


def boards(frame: pd.DataFrame, runs=(), **options) -> tuple[Board, ...]:
    return build_boards(frame, INFO, runs, intervals=QUICK, **options)


def row(board: Board, label: str) -> Row:
    return next(item for item in board.rows if item.label == label)


def cell(board: Board, label: str, column: str, metric: str = "wf1") -> Cell:
    return row(board, label).cells[metric][column]


def weighted_f1(rows: pd.DataFrame) -> float:
    own = rows[rows["y_true"] != 0]
    return float(f1_score(own["y_true"] > 0, own["score"] > 0, average="weighted"))


def summaries(frame: pd.DataFrame, **changes) -> list[RunSummary]:
    """Summaries of all runs of a table, as the run store would give them."""
    keys = ["label", "data_set", "seed", "train_condition", "regime", "comparison_hash", "selection"]
    conditions = tuple(Condition(name, name.partition("-")[0]) for name in frame["test_condition"].unique())
    return [
        RunSummary(**{"method": record["label"], "conditions": conditions, **record, **changes})
        for record in frame.loc[:, keys].drop_duplicates().to_dict(orient="records")
    ]


def test_cells_equal_pandas_and_scikit_learn():
    frame = sentiment_table()
    (board,) = boards(frame)
    scores = frame.groupby(["label", "test_condition", "seed", "mask_seed"], dropna=False).apply(
        weighted_f1, include_groups=False
    )
    by_seed = scores.groupby(level=["label", "test_condition", "seed"]).mean()
    for key, values in by_seed.groupby(level=["label", "test_condition"]):
        label, condition = tuple(key)  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
        found = cell(board, label, condition)
        assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std(ddof=1)))
        assert list(found.by_seed.values()) == pytest.approx(values.tolist())
    random = by_seed.unstack("test_condition")[["random-0.1", "random-0.5"]].mean(axis=1)
    for label, values in random.groupby(level="label"):
        found = cell(board, label, "mean random")
        assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std(ddof=1)))


def test_columns_group_families_and_complete_data_is_in_no_mean():
    (board,) = boards(sentiment_table())
    assert [column.name for column in board.columns] == [
        "complete", "random-0.1", "random-0.5", "mean random", "fixed-t", "fixed-a", "mean fixed",
    ]  # fmt: skip


def test_rows_are_ordered_by_the_mean_of_the_random_family():
    frame = sentiment_table(labels=["weak", "strong"])
    # weak gets perfect complete data, which must not count.
    perfect = (frame["label"] == "weak") & (frame["test_condition"] == "complete")
    frame.loc[perfect, "score"] = frame.loc[perfect, "y_true"]
    (board,) = boards(frame)
    assert board.ranked_by == "mean random"
    assert [(item.label, item.rank) for item in board.rows] == [
        ("strong", 1),
        ("weak", 2),
        ("no information", None),
    ]


def test_a_metric_where_lower_is_better_orders_upwards():
    info = TableInfo("regression", score_range=(-3.0, 3.0), primary="mae")
    (board,) = build_boards(sentiment_table(), info, intervals=QUICK)
    assert [item.label for item in board.rows[:2]] == ["strong", "weak"]
    assert board.info.metrics[0] == "mae"


@pytest.mark.parametrize("status", ["failed", "diverged", "missing", "running"])
def test_a_run_that_did_not_finish_is_a_hole(status):
    frame = sentiment_table()
    runs = [
        RunSummary(**{**vars(run), "status": status, "message": "loss is nan"})
        if (run.label, run.seed) == ("weak", 1)
        else run
        for run in summaries(frame)
    ]
    frame = frame[(frame["label"] != "weak") | (frame["seed"] != 1)]
    (board,) = boards(frame, runs)
    weak = row(board, "weak")
    for name, found in weak.cells["wf1"].items():
        assert found.state == "hole", name
        assert found.mean is None
    assert (weak.cells["wf1"]["complete"].done, weak.cells["wf1"]["complete"].planned) == (2, 3)
    assert (weak.runs_done, weak.runs_planned, weak.rank) == (2, 3, None)
    assert cell(board, "strong", "mean random").state == "value"
    assert any(
        "weak" in note and "seed 1" in note and status in note and "nan" in note for note in board.notes
    )


def test_one_prediction_that_is_not_finite_fails_the_run():
    frame = sentiment_table()
    frame.loc[frame.index[(frame["label"] == "weak") & (frame["seed"] == 2)][5], "score"] = np.inf
    (board,) = boards(frame)
    assert {found.state for found in row(board, "weak").cells["wf1"].values()} == {"hole"}
    assert any("1 of 336 predictions" in note for note in board.notes)


def test_rows_of_an_unfinished_status_are_a_hole():
    frame = sentiment_table()
    frame.loc[(frame["label"] == "weak") & (frame["seed"] == 2), "status"] = "failed"
    (board,) = boards(frame)
    assert cell(board, "weak", "complete").state == "hole"


def test_a_hole_in_one_condition_is_a_hole_in_its_family_only():
    frame = sentiment_table()
    gone = (frame["label"] == "weak") & (frame["seed"] == 2) & (frame["test_condition"] == "random-0.5")
    (board,) = boards(frame[~gone])
    states = {name: found.state for name, found in row(board, "weak").cells["wf1"].items()}
    assert states == {
        "complete": "value", "random-0.1": "value", "random-0.5": "hole", "mean random": "hole",
        "fixed-t": "value", "fixed-a": "value", "mean fixed": "value",
    }  # fmt: skip


def test_a_missing_mask_draw_is_a_hole():
    frame = sentiment_table()
    gone = (frame["label"] == "weak") & (frame["seed"] == 0) & (frame["mask_seed"] == 202)
    (board,) = boards(frame[~gone & (frame["test_condition"] != "complete")])
    assert cell(board, "weak", "random-0.1").state == "hole"
    assert cell(board, "strong", "random-0.1").state == "value"


def test_a_finished_run_without_predictions_is_a_hole():
    frame = sentiment_table()
    runs = summaries(frame)
    (board,) = boards(frame[frame["label"] != "weak"], runs)
    assert cell(board, "weak", "complete").state == "hole"
    assert any("its predictions are not in the table" in note for note in board.notes)


def test_a_plan_larger_than_the_table_is_a_hole():
    info = TableInfo("regression", score_range=(-3.0, 3.0), planned={"weak": 5})
    (board,) = build_boards(sentiment_table(), info, intervals=QUICK)
    assert (cell(board, "weak", "complete").state, cell(board, "weak", "complete").planned) == ("hole", 5)
    assert cell(board, "strong", "complete").state == "value"


def test_all_runs_failed_still_gives_a_board():
    runs = [
        RunSummary(
            "weak", "mosi", seed, "complete", "failed", conditions=(Condition("complete", "complete"),)
        )
        for seed in (0, 1)
    ]
    (board,) = build_boards(concatenate([]), INFO, runs)
    assert cell(board, "weak", "complete").state == "hole"


def test_a_skipped_method_is_a_note_and_no_hole():
    frame = sentiment_table()
    skipped = RunSummary(
        "picky", "mosi", 0, "random-0.5", "skipped", regime="single", selection="best",
        comparison_hash="c0ffee0123456789", message="needs three modalities",
    )  # fmt: skip
    (board,) = boards(frame, [*summaries(frame), skipped])
    assert "picky" not in {item.label for item in board.rows}
    assert any(note.startswith("skipped: picky: needs three modalities") for note in board.notes)
    assert cell(board, "weak", "mean random").state == "value"


def test_a_row_of_fewer_seeds_joins_a_table_without_holes():
    frame = pd.concat(
        [sentiment_table(["strong"], seeds=range(5)), sentiment_table(["weak"], seeds=range(3))]
    )
    (board,) = boards(frame)
    assert (row(board, "strong").runs_done, row(board, "weak").runs_done) == (5, 3)
    assert cell(board, "weak", "mean random").state == "value"


def test_a_table_joins_planned_runs():
    ours = sentiment_table(["strong"])
    (board,) = boards(pd.concat([ours, sentiment_table(["mine"])]), summaries(ours))
    assert cell(board, "mine", "mean random").state == "value"
    assert row(board, "mine").rank is not None


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"comparison_hash": "another"}, None),
        ({"selection": "test"}, "test_selected"),
        ({"synthetic": True}, "synthetic"),
        ({"regime": "no_prior"}, None),
        ({"data_set": "mosei"}, None),
    ],
)
def test_what_may_not_be_compared_never_shares_a_table(change, flag):
    frame = pd.concat([sentiment_table(["strong"]), sentiment_table(["weak"], **change)])
    first, second = boards(frame)
    assert [item.label for item in first.rows if item.kind == "method"] == ["strong"]
    assert [item.label for item in second.rows if item.kind == "method"] == ["weak"]
    assert first.title != second.title or first.comparison_hash != second.comparison_hash
    if flag:
        assert (getattr(first, flag), getattr(second, flag)) == (False, True)


def test_folds_are_pooled_or_averaged():
    frame = pd.concat(
        [
            sentiment_rows("strong", seed, "complete", fold=fold, noise=1.5, dialogues=3)
            for seed in (0, 1)
            for fold in (0, 1, 2)
        ]
    )
    (pooled,), (averaged,) = boards(frame), boards(frame, folds="mean")
    expected = [weighted_f1(rows) for _, rows in frame.groupby("seed")]
    assert cell(pooled, "strong", "complete").mean == pytest.approx(np.mean(expected))
    assert cell(pooled, "strong", "complete").sd == pytest.approx(np.std(expected, ddof=1))
    folds = frame.groupby(["seed", "fold"]).apply(weighted_f1, include_groups=False)
    by_seed = np.array([np.mean([folds[seed, fold] for fold in (0, 1, 2)]) for seed in (0, 1)])
    assert cell(averaged, "strong", "complete").mean == pytest.approx(by_seed.mean())
    assert cell(averaged, "strong", "complete").sd == pytest.approx(by_seed.std(ddof=1))
    assert cell(pooled, "strong", "complete").mean != pytest.approx(by_seed.mean())
    assert (pooled.utterances, pooled.dialogues) == (54, 9)
    shares = [np.mean(y[y != 0] > 0) for _, y in frame[frame["seed"] == 0].groupby("fold")["y_true"]]
    best = np.mean([max(share, 1 - share) for share in shares])
    assert cell(averaged, "no information", "complete", "acc2").mean == pytest.approx(best)
    assert any("pooled" in note for note in pooled.notes)


def test_a_failed_fold_is_a_hole():
    frame = pd.concat(
        [sentiment_rows("strong", seed, fold=fold) for seed in (0, 1) for fold in (0, 1) if seed + fold < 2]
    )
    (board,) = boards(frame)
    found = cell(board, "strong", "complete")
    assert (found.state, found.done, found.planned) == ("hole", 3, 4)


def test_a_matched_regime_is_one_table_of_many_models():
    frame = sentiment_table(regime="matched")
    frame["train_condition"] = frame["test_condition"]
    gone = (frame["label"] == "weak") & (frame["seed"] == 0) & (frame["test_condition"] == "fixed-t")
    (board,) = boards(frame[~gone])
    assert board.trained_on == ""
    assert (row(board, "strong").runs_done, row(board, "weak").runs_done) == (15, 14)
    assert (row(board, "weak").runs_planned, cell(board, "weak", "mean fixed").state) == (15, "hole")
    assert cell(board, "weak", "mean random").state == "value"


def test_a_grid_of_training_and_test_conditions_is_a_table_per_training_condition():
    frames = [sentiment_table(train_condition=name, regime="matched") for name in ("complete", "random-0.5")]
    first, second = boards(pd.concat(frames))
    assert (first.trained_on, second.trained_on) == ("complete", "random-0.5")
    assert cell(first, "strong", "mean random").done == 6


def test_classes_on_sentiment_are_not_applicable_to_error_and_correlation():
    frame = pd.concat([sentiment_rows("scores", seed) for seed in (0, 1)])
    classes = pd.concat([sentiment_rows("classes", seed, classes=True) for seed in (0, 1)])
    (board,) = boards(pd.concat([frame, classes]))
    assert cell(board, "classes", "complete", "mae").state == "n/a"
    assert cell(board, "classes", "complete", "corr").state == "n/a"
    rows = classes[classes["y_true"] != 0]
    expected = [
        accuracy_score(own["y_true"] > 0, own["class_2"] > own["class_0"]) for _, own in rows.groupby("seed")
    ]
    assert cell(board, "classes", "complete", "acc2").mean == pytest.approx(np.mean(expected))
    assert cell(board, "scores", "complete", "mae").state == "value"


def test_a_hole_outweighs_not_applicable_in_a_mean():
    frame = sentiment_table(classes=True)
    gone = (frame["label"] == "weak") & (frame["seed"] == 2) & (frame["test_condition"] == "random-0.5")
    (board,) = boards(frame[~gone])
    assert cell(board, "weak", "random-0.1", "mae").state == "n/a"
    assert cell(board, "weak", "mean random", "mae").state == "hole"
    assert cell(board, "strong", "mean random", "mae").state == "n/a"


def test_an_undefined_metric_is_neither_a_hole_nor_a_number():
    frame = sentiment_rows("constant", 0).assign(score=1.0)
    (board,) = boards(frame)
    assert cell(board, "constant", "complete", "corr") == Cell("undefined", done=1, planned=1)
    assert row(board, "constant").kind == "constant"


def test_no_information_is_the_best_constant_and_stands_last():
    (board,) = boards(sentiment_table(["strong", "constant"]))
    assert [item.kind for item in board.rows] == ["method", "constant", "no information"]
    y = sentiment_rows("any", 0)["y_true"].to_numpy()
    p = float(np.mean(y[y != 0] > 0))
    p = max(p, 1 - p)
    assert cell(board, "no information", "random-0.5", "acc2").mean == pytest.approx(p)
    assert cell(board, "no information", "mean random").mean == pytest.approx(2 * p**2 / (1 + p))
    assert cell(board, "no information", "complete", "corr").state == "n/a"


def test_multiclass_tables_report_absent_classes():
    rng = np.random.default_rng(0)
    base = sentiment_rows("net", 0)[["data_set", "label", "seed", "test_condition", "dialogue", "utterance"]]
    y = rng.integers(0, 3, len(base))
    p = rng.dirichlet(np.ones(4), len(base))
    frame = base.assign(y_true=y, **{f"class_{index}": p[:, index] for index in range(4)})
    info = TableInfo("multiclass", ("joy", "anger", "fear", "disgust"))
    (board,) = build_boards(frame, info, intervals=QUICK)
    assert cell(board, "net", "complete", "acc").mean == pytest.approx(
        accuracy_score(y, p.argmax(axis=1)), abs=1e-6
    )
    assert any("disgust" in note for note in board.notes)


def test_a_users_csv_of_the_minimum_works(tmp_path):
    frame = sentiment_table()
    minimal = [
        "data_set",
        "label",
        "seed",
        "test_condition",
        "mask_seed",
        "dialogue",
        "utterance",
        "y_true",
        "score",
    ]
    frame[minimal].to_csv(tmp_path / "mine.csv", index=False)
    table = read_predictions(tmp_path / "mine.csv")
    (mine,) = build_boards(table.frame, table.infos, intervals=QUICK)
    (ours,) = boards(frame)
    assert cell(mine, "strong", "mean random").mean == pytest.approx(
        cell(ours, "strong", "mean random").mean, abs=1e-6
    )
    assert any("no comparison hash" in note for note in mine.notes)
    assert any("selected on" in note for note in mine.notes)


def test_different_test_sets_are_refused():
    frame = sentiment_table()
    short = frame[(frame["label"] != "weak") | (frame["utterance"] != "u0003")]
    with pytest.raises(TableError, match=r"weak.*has 47 test utterances.*strong.*has 48"):
        boards(short)
    frame.loc[(frame["label"] == "weak") & (frame["utterance"] == "u0003"), "y_true"] = -3
    with pytest.raises(TableError, match="different labels for the same utterances"):
        boards(frame)


def test_a_run_given_twice_is_refused():
    frame = sentiment_table()
    with pytest.raises(TableError, match="is there twice"):
        boards(concatenate([validate(frame), validate(frame[frame["label"] == "weak"])]))


def test_one_label_for_two_methods_is_refused():
    frame = sentiment_table()
    frame.loc[frame["seed"] == 1, "method"] = "other"
    with pytest.raises(TableError, match="two methods"):
        boards(frame)


def test_logits_are_refused_with_the_run_named():
    frame = sentiment_rows("net", 4, classes=True)
    frame["class_0"] += 3
    with pytest.raises(TableError, match=r"net, complete, seed 4.*logits"):
        boards(frame)


def test_order_of_rows_in_the_file_changes_nothing():
    frame = sentiment_table()
    shuffled = frame.sample(frac=1, random_state=0)
    assert {
        (item.label, name, column): found
        for item in boards(frame)[0].rows
        for name, cells in item.cells.items()
        for column, found in cells.items()
    } == {
        (item.label, name, column): found
        for item in boards(shuffled)[0].rows
        for name, cells in item.cells.items()
        for column, found in cells.items()
    }
