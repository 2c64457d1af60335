"""The result table: what is accepted, what is refused, and what survives a file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from result_tables import sentiment_rows, sentiment_table

from imer_bench.harness.leaderboard import (
    TableError,
    TableInfo,
    concatenate,
    infer_info,
    read_predictions,
    validate,
    write_predictions,
)

INFO = TableInfo("regression", score_range=(-3.0, 3.0), contexts={"strong": "dialogue"})
MINIMAL = ["data_set", "label", "seed", "test_condition", "dialogue", "utterance", "y_true", "score"]


def test_a_minimal_table_gets_documented_defaults():
    frame = validate(sentiment_table()[MINIMAL])
    assert set(frame["comparison_hash"]) == {"unstated"}
    assert set(frame["selection"]) == {"unstated"}
    assert set(frame["status"]) == {"finished"}
    assert set(frame["synthetic"]) == {False}
    assert set(frame["fold"]) == {pd.NA}
    assert list(frame["method"]) == list(frame["label"])
    families = dict(zip(frame["test_condition"], frame["family"], strict=True))
    assert families["random-0.5"] == families["random-0.1"] == "random"
    assert families["complete"] == "complete"


@pytest.mark.parametrize("column", [name for name in MINIMAL if name != "score"])
def test_a_missing_column_is_named(column):
    with pytest.raises(TableError, match=f"mine: no column '{column}'"):
        validate(sentiment_table()[MINIMAL].drop(columns=column), "mine")


def test_a_misspelt_column_gets_a_suggestion():
    with pytest.raises(TableError, match="did you mean 'utterence'"):
        validate(sentiment_table()[MINIMAL].rename(columns={"utterance": "utterence"}))


def test_a_table_without_predictions_is_refused():
    with pytest.raises(TableError, match="no predictions"):
        validate(sentiment_table()[MINIMAL].drop(columns="score"))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", 0.5, "'seed' must hold integers"),
        ("seed", None, "'seed' has empty rows"),
        ("score", "high", "'score' must hold numbers"),
        ("y_true", np.nan, "1 finished rows have no finite y_true"),
        ("label", None, "'label' is empty in row 3"),
        ("synthetic", "perhaps", "not 'perhaps'"),
        ("mask_seed", 1.5, "'mask_seed' must hold integers"),
    ],
)
def test_a_bad_value_is_named(column, value, message):
    frame = sentiment_rows("strong", 0).astype({column: object})
    frame.loc[2, column] = value
    with pytest.raises(TableError, match=message):
        validate(frame)


def test_class_columns_may_not_have_gaps():
    frame = sentiment_rows("strong", 0, classes=True).drop(columns="class_1")
    with pytest.raises(TableError, match="no class_1"):
        validate(frame)


def test_parquet_keeps_rows_and_information(tmp_path):
    path = tmp_path / "new" / "predictions.parquet"
    frame = validate(sentiment_table())
    write_predictions(path, frame, INFO)
    table = read_predictions(path)
    pd.testing.assert_frame_equal(table.frame, frame, check_categorical=False)
    assert table.infos == {("c0ffee0123456789", "mosi"): INFO}
    assert [item.name for item in path.parent.iterdir()] == ["predictions.parquet"]


def test_parquet_files_stay_small(tmp_path):
    path = tmp_path / "predictions.parquet"
    frame = sentiment_table(seeds=range(10))
    write_predictions(path, frame, INFO)
    assert path.stat().st_size < 12 * len(frame)  # 21 columns, of which two are float32 noise


def test_a_refused_table_leaves_the_old_file(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, sentiment_table(), INFO)
    before = path.read_bytes()
    with pytest.raises(TableError, match="no column"):
        write_predictions(path, sentiment_table().drop(columns="dialogue"), INFO)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unknown_schema_is_refused(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, sentiment_table(), INFO)
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    metadata[b"imer_bench"] = metadata[b"imer_bench"].replace(b'"schema": 1', b'"schema": 2')
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(TableError, match=r"predictions\.parquet: result table of schema 2"):
        read_predictions(path)


def test_csv_reads_like_parquet(tmp_path):
    frame = sentiment_table()
    frame["label"] = frame["label"].replace("weak", "NA")  # a name, not a missing value
    frame.to_csv(tmp_path / "mine.csv", index=False)
    write_predictions(tmp_path / "mine.parquet", frame, INFO)
    mine, theirs = (read_predictions(tmp_path / f"mine.{kind}").frame for kind in ("csv", "parquet"))
    pd.testing.assert_frame_equal(mine, theirs, check_categorical=False)


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_an_unreadable_file_is_named(tmp_path, name):
    with pytest.raises(TableError, match="no result table"):
        read_predictions(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TableError, match=name.replace(".", r"\.")):
        read_predictions(tmp_path / name)


def test_files_of_one_comparison_share_their_information(tmp_path):
    for label in ("strong", "weak"):
        rows = validate(sentiment_rows(label, 0))
        write_predictions(
            tmp_path / f"{label}.parquet", rows, TableInfo("regression", contexts={label: "dialogue"})
        )
    table = read_predictions(sorted(tmp_path.iterdir()))
    (info,) = table.infos.values()
    assert info.contexts == {"strong": "dialogue", "weak": "dialogue"}
    assert list(table.frame["label"].cat.categories) == ["strong", "weak"]
    write_predictions(
        tmp_path / "weak.parquet", sentiment_rows("weak", 0), TableInfo("regression", score_range=(-1, 1))
    )
    with pytest.raises(TableError, match="disagree about score_range"):
        read_predictions(sorted(tmp_path.iterdir()))


def test_joined_tables_keep_their_own_predictions():
    scores, classes = (
        validate(sentiment_rows("strong", 0)),
        validate(sentiment_rows("classes", 0, classes=True)),
    )
    joined = concatenate([scores, classes])
    assert np.isnan(joined["class_2"].to_numpy()).sum() == len(scores)
    assert np.isnan(joined["score"].to_numpy()).sum() == len(classes)
    np.testing.assert_array_equal(joined["class_2"].to_numpy()[len(scores) :], classes["class_2"].to_numpy())


@pytest.mark.parametrize(
    ("columns", "task", "score_range"),
    [
        ({"score": 0.4, "y_true": [-2.4, 1.0, 0.0]}, "regression", (-3.0, 3.0)),
        ({"score": 0.4, "y_true": [-0.6, 1.0, 0.0]}, "regression", (-1.0, 1.0)),
        (
            {"class_0": 0.2, "class_1": 0.3, "class_2": 0.5, "y_true": [-2.4, 1.0, 0.0]},
            "regression",
            (-3.0, 3.0),
        ),
        ({"class_0": 0.2, "class_1": 0.3, "class_2": 0.5, "y_true": [0, 1, 2]}, "multiclass", None),
        ({"class_0": 0.2, "class_1": 0.8, "y_true": [0, 1, 1]}, "binary", None),
    ],
)
def test_task_of_a_users_table_is_inferred(columns, task, score_range):
    frame = sentiment_rows("strong", 0, dialogues=1, per_dialogue=3)[MINIMAL].drop(
        columns=["score", "y_true"]
    )
    info = infer_info(validate(frame.assign(**columns)))
    assert (info.task, info.score_range) == (task, score_range)


def test_information_survives_json_and_refuses_unknown_metrics():
    assert TableInfo.from_json(INFO.to_json()) == INFO
    with pytest.raises(Exception, match="unknown metric 'wf2'"):
        TableInfo("regression", metrics=("wf2",))


def test_the_leaderboard_imports_no_torch():
    code = (
        "import sys, imer_bench.harness.leaderboard;"
        "print(sorted({'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
