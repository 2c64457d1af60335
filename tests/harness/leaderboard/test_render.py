"""Leaderboards as files: marks, holes, precision."""

from __future__ import annotations

import csv
import json
import re

import pandas as pd
import pytest
from result_tables import sentiment_table

from imer_bench.harness.leaderboard import (
    IntervalSettings,
    RunSummary,
    TableInfo,
    build_boards,
    render_markdown,
    render_terminal,
    write_leaderboard,
)

INFO = TableInfo("regression", score_range=(-3.0, 3.0), contexts={"strong": "dialogue"})
FEW = IntervalSettings(resamples=50)
RATES = tuple(f"random-0.{rate}" for rate in range(1, 8))
SUBSETS = ("fixed-t", "fixed-a", "fixed-v", "fixed-ta", "fixed-tv", "fixed-av")


def boards(frame: pd.DataFrame, info: TableInfo = INFO):
    return build_boards(frame, info, intervals=FEW)


def markdown_row(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("|") and label in line)
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_shows_means_deviations_runs_and_context():
    (board,) = boards(sentiment_table())
    found = board.rows[0].cells["wf1"]["complete"]
    assert found.mean is not None
    assert found.sd is not None
    cells = markdown_row(render_markdown([board]), "strong")
    assert cells[:4] == ["1", "strong", "default", "dialogue"]
    assert cells[4] == f"{100 * found.mean:.1f} ± {100 * found.sd:.1f}"
    assert cells[-1] == "3/3"


def test_errors_are_not_shown_in_per_cent():
    (board,) = boards(sentiment_table())
    mae = board.rows[0].cells["mae"]["complete"].mean
    assert mae is not None
    assert f"{mae:.3f} ±" in render_markdown([board])


def test_holes_and_n_a_look_different():
    frame = sentiment_table()
    frame = frame[
        (frame["label"] != "weak") | (frame["seed"] != 1) | (frame["test_condition"] != "random-0.5")
    ]
    (board,) = boards(frame)
    text = render_markdown([board])
    weak = markdown_row(text, "weak")
    assert weak.count("—(hole)") == 2  # the condition and its family's mean
    assert "—(hole)" in render_terminal(board)
    corr = text[text.index("### Corr") :]
    assert set(markdown_row(corr, "no information")[4:-1]) == {"n/a"}


@pytest.mark.parametrize(
    ("change", "mark", "words"),
    [
        ({"privileged": "targets,complete_stage"}, "†", "true features of absent modalities"),
        ({"selection": "test"}, "‡", "SELECTED ON TEST DATA"),
        ({"synthetic": True}, "§", "SYNTHETIC DATA"),
    ],
)
def test_marks_stand_in_every_row_and_are_explained(change, mark, words):
    plain, marked = (boards(sentiment_table(**kwargs))[0] for kwargs in ({}, change))
    for text in (render_markdown([marked]), render_terminal(marked)):
        rows = [line for line in text.splitlines() if re.search(r"\b(strong|weak)\b", line) and "±" in line]
        assert rows
        assert all(mark in line for line in rows)
        assert words in text
    for text in (render_markdown([plain]), render_terminal(plain)):
        assert mark not in text
        assert words not in text


def test_boards_of_two_comparisons_are_two_titled_tables():
    frame = pd.concat([sentiment_table(["strong"]), sentiment_table(["weak"], comparison_hash="another")])
    text = render_markdown(boards(frame))
    assert len(re.findall(r"^## ", text, flags=re.M)) == 2
    first, second = text.split("\n## ")[1:]
    assert "c0ffee0123456789" in first
    assert "weak" not in first
    assert "another" in second
    assert "strong" not in second


@pytest.mark.parametrize("width", [100, 120])
def test_the_terminal_is_never_wider_than_asked(width):
    frame = sentiment_table(
        ["a_method_with_quite_a_long_name", "weak"], conditions=("complete", *RATES, *SUBSETS)
    )
    (board,) = boards(frame)
    text = render_terminal(board, width)
    assert max(map(len, text.splitlines())) <= width
    for column in board.columns:
        assert column.name in text


def test_rates_are_in_order_and_average_within_their_family():
    (board,) = boards(sentiment_table(conditions=(*reversed(RATES), "random-0.05", "complete", *SUBSETS)))
    names = [column.name for column in board.columns]
    assert names == ["complete", "random-0.05", *RATES, "mean random", *SUBSETS, "mean fixed"]


def test_a_label_can_not_break_the_table():
    (board,) = boards(sentiment_table(["a|b <x> *c*", "weak"]))
    text = render_markdown([board])
    lengths = {
        len(re.split(r"(?<!\\)\|", line))
        for line in text.split("###")[1].splitlines()
        if line.startswith("|")
    }
    assert len(lengths) == 1
    assert "<x>" not in text


def test_one_seed_has_no_deviation_and_keeps_its_decimal():
    frame = sentiment_table(["strong"], seeds=[0], conditions=["complete"])
    (board,) = boards(frame.assign(score=frame["y_true"]))
    assert markdown_row(render_markdown([board]), "strong")[4] == "100.0"
    assert re.search(r"strong .* 100\.0 +1/1", render_terminal(board))


def test_files_have_every_number_in_full(tmp_path):
    frame = sentiment_table()
    skipped = RunSummary("picky", "mosi", 0, "random-0.5", "skipped", regime="single", selection="best",
                         comparison_hash="c0ffee0123456789", message="no text")  # fmt: skip
    result = build_boards(frame, INFO, [skipped], intervals=FEW)
    paths = write_leaderboard(result, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "leaderboard.csv", "leaderboard.json", "leaderboard.md",
    ]  # fmt: skip
    record = json.loads(paths[2].read_text())
    assert record["schema"] == 1
    (board,) = record["boards"]
    cell = result[0].rows[0].cells["wf1"]["mean random"]
    stored = board["rows"][0]["cells"]["wf1"]["mean random"]
    assert (stored["mean"], stored["sd"]) == (cell.mean, cell.sd)
    assert stored["interval"] == list(cell.interval or ())
    assert stored["by_seed"] == {str(seed): value for seed, value in cell.by_seed.items()}
    assert any("picky" in note for note in board["notes"])
    with paths[1].open(newline="") as file:
        lines = list(csv.DictReader(file))
    (line,) = [
        line
        for line in lines
        if (line["label"], line["metric"], line["column"]) == ("strong", "wf1", "mean random")
    ]
    assert float(line["mean"]) == cell.mean
    assert (line["state"], line["rank"], line["cell_runs_done"]) == ("value", "1", "6")
    assert len(lines) == 3 * len(INFO.metrics) * 7


def test_an_empty_leaderboard_is_written(tmp_path):
    skipped = RunSummary("picky", "mosi", 0, "complete", "skipped", message="no text")
    result = build_boards(sentiment_table().iloc[:0], INFO, [skipped])
    paths = write_leaderboard(result, tmp_path)
    assert "skipped: picky: no text" in paths[0].read_text()
    assert "skipped: picky: no text" in render_terminal(result[0])
