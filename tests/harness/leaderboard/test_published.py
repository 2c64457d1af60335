"""Published numbers: read, matched, compared, checked, and never ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from result_tables import sentiment_table

from imer_bench.harness.leaderboard import Board, IntervalSettings, TableInfo, build_boards
from imer_bench.harness.leaderboard.appendix import appendix_latex, appendix_markdown, appendix_text
from imer_bench.harness.leaderboard.content import content_of
from imer_bench.harness.leaderboard.published import (
    Quotation,
    column_of,
    data_set_key,
    metric_of,
    quotations_for,
    read_published,
)
from imer_bench.harness.leaderboard.published_checks import check_quotations
from imer_bench.harness.leaderboard.table import TableError

HEADER = "source,dataset,metric,method,missing_rate_or_condition,value\n"
REAL = Path(__file__).resolve().parents[4] / "shared" / "published"


@pytest.fixture(scope="module")
def board() -> Board:
    conditions = ("complete", "random-0.1", "random-0.5", "fixed-t", "fixed-a", "fixed-ta")
    info = TableInfo("regression", score_range=(-3.0, 3.0))
    frame = sentiment_table(("strong", "gcnet"), conditions=conditions)
    return build_boards(frame, info, intervals=IntervalSettings(resamples=50))[0]


def quote(value: float, **changes) -> Quotation:
    item = Quotation("Paper, Table 1", "CMU-MOSI", "F1", "GCNet", "0.5", value, 0.01)
    return replace(item, **changes)


def test_both_spellings_of_the_header_are_read(tmp_path):
    theirs, ours = tmp_path / "theirs.csv", tmp_path / "ours.csv"
    theirs.write_text(HEADER + '"A, 2024",CMU-MOSI,ACC2,GCNet,0.3,77.5\n')
    ours.write_text("source,data_set,metric,method,condition,value,remark\nB,mosi,Corr,X,complete,0.7,none\n")
    first, second = read_published([theirs, ours])
    assert (first.source, first.data_set, first.condition) == ("A, 2024", "CMU-MOSI", "0.3")
    assert (first.value, first.scale) == (77.5, 0.01)
    assert (second.value, second.scale) == (0.7, 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + "A,mosi,F1,X,0.3,\n", "line 2: value ''"),
        (HEADER + "A,mosi,F1,X,0.3,71.0\nA,mosi,F1,X,0.5,high\n", "line 3: value 'high'"),
        ("source,metric,method,condition,value\nA,F1,X,0.3,1\n", "no column 'data_set'"),
    ],
)
def test_what_is_no_quotation_is_named(tmp_path, text, words):
    file = tmp_path / "numbers.csv"
    file.write_text(text)
    with pytest.raises(TableError, match=words):
        read_published([file])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("0.5", "random-0.5"),
        ("random:0.10", "random-0.1"),
        ("0.0", "complete"),
        ("atv", "complete"),
        ("complete modalities (rate 0.0)", "complete"),
        ("t", "fixed-t"),
        ("fixed:at", "fixed-ta"),
        ("available=a+t", "fixed-ta"),
        ("available={text,audio}", "fixed-ta"),
        ("mean(random 0.1-0.7)", None),
        ("mean(fixed t,a,at)", "mean fixed"),
        ("mean(fixed t,a)", None),
        ("frames:0.5", None),
        ("avg6", None),
        ("0.7", None),
    ],
)
def test_conditions_are_matched_or_not_at_all(board, theirs, ours):
    assert column_of(theirs, board) == ours


def test_names_of_data_sets_and_metrics(board):
    assert data_set_key("CMU-MOSI") == data_set_key("mosi")
    assert data_set_key("IEMOCAPFour") == data_set_key("IEMOCAP-4") == data_set_key("iemocap4")
    assert data_set_key("CMU-MOSI") != data_set_key("CMU-MOSEI")
    assert metric_of("ACC2", board) == "acc2"
    assert metric_of("F1_has0", board) == "wf1_has0"
    assert metric_of("F1 std over 10", board) is None


def test_deviations_are_own_minus_quoted_with_the_own_interval(board):
    found = quotations_for(board, [quote(70.0), quote(70.0, method="Other"), quote(60, condition="0.7")], {})
    assert len(found.cells) == 2
    assert found.unmatched == 1
    (deviation,) = found.deviations
    cell = next(row for row in board.rows if row.label == "gcnet").cells["wf1"]["random-0.5"]
    assert deviation.difference == pytest.approx(cell.mean - 0.70)
    assert deviation.interval == pytest.approx((cell.interval[0] - 0.70, cell.interval[1] - 0.70))
    assert "masks drawn anew in every pass" in deviation.causes


def test_quotations_of_other_data_sets_stay_away(board):
    found = quotations_for(board, [quote(70.0, data_set="CMU-MOSEI")], {})
    assert found.cells == ()
    assert found.unmatched == 0


def test_titles_of_records_match_too(board):
    found = quotations_for(board, [quote(70.0, method="The Strong One")], {"strong": "The Strong One"})
    assert [item.label for item in found.deviations] == ["strong"]


def test_what_a_source_says_of_itself_is_a_cause(board):
    source = "rerun, test set used for checkpoint choice, quoted elsewhere"
    (deviation,) = quotations_for(board, [quote(70.0, source=source)], {}).deviations
    assert {"epoch selected on the test set", "quoted at second hand"} <= set(deviation.causes)


def test_quotations_stand_beside_and_are_not_ranked(board):
    content = content_of((board,), published=(quote(99.9, method="Winner <b>"), quote(70.0)))
    (shown,) = content.shown
    assert [row.label for row in shown.board.rows] == [row.label for row in board.rows]
    for text in (appendix_markdown(content), appendix_text(content), appendix_latex(content)):
        assert "not ranked" in text
        assert "gcnet" in text.lower()
    assert "99.9" in appendix_markdown(content)
    assert "Winner &lt;b>" in appendix_markdown(content)
    assert "Winner \\textless{}b\\textgreater{}" in appendix_latex(content)


def test_impossible_values_are_found():
    found = check_quotations([quote(101.0), quote(-0.1, metric="MAE", scale=1.0), quote(70.0)])
    assert len(found) == 2
    assert all(text.startswith("impossible") for text in found)


def test_swapped_arguments_of_a_constant_prediction_are_found():
    # Accuracy 62.85: 2p/(1+p) = 77.19 if labels and predictions are swapped, 2p^2/(1+p) = 48.51 if not.
    accuracy = quote(62.85, metric="Acc2_non0")
    (text,) = check_quotations([accuracy, quote(77.19, metric="F1_non0")])
    assert "swapped" in text
    assert "48.51" in text
    assert check_quotations([accuracy, quote(48.51, metric="F1_non0")]) == ()


def test_an_f1_that_no_predictions_have_is_found():
    # At accuracy p two-class weighted F1 is largest where all errors fall on one class; at 70 % nothing
    # reaches 80 %.
    accuracy = quote(70.0, metric="ACC2")
    (text,) = check_quotations([accuracy, quote(80.0)])
    assert text.startswith("F1 above what accuracy allows")
    assert check_quotations([accuracy, quote(70.3)]) == ()


def test_equal_columns_are_found():
    values = {"0.1": 71.2, "0.2": 70.1, "0.3": 66.6, "0.5": 60.4}
    first = [quote(value, condition=name) for name, value in values.items()]
    second = [replace(item, method="Other") for item in first]
    (text,) = check_quotations([*first, *second])
    assert text.startswith("the same 4 numbers")
    assert check_quotations([*first, *(replace(item, value=item.value + 0.1) for item in second)]) == ()


@pytest.mark.skipif(not REAL.is_dir(), reason="the files of published numbers are not here")
def test_the_real_files_are_read_and_their_known_errors_found():
    quotations = read_published(sorted(REAL.glob("*.csv")))
    assert len(quotations) > 4000
    found = check_quotations(quotations)
    swapped = [text for text in found if "swapped" in text or "above" in text]
    assert swapped
    # The authors of LNLN have said that their F1 is swapped; nothing else is.
    assert all("LNLN" in text for text in swapped)
