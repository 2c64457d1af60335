"""Figures: what is drawn is what the board says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from result_tables import sentiment_table

from imer_bench.harness.leaderboard import Board, IntervalSettings, TableInfo, build_boards
from imer_bench.harness.leaderboard.claims import AcrossDataSets, Robustness
from imer_bench.harness.leaderboard.content import content_of
from imer_bench.harness.leaderboard.figures import draw_figures
from imer_bench.harness.leaderboard.figures.curves import rate_curves, rate_families, rated
from imer_bench.harness.leaderboard.figures.modalities import modality_shares
from imer_bench.harness.leaderboard.figures.pairs import pair_matrix
from imer_bench.harness.leaderboard.figures.ranks import critical_difference
from imer_bench.harness.leaderboard.figures.style import COLOURS, looks, text_colour
from imer_bench.harness.leaderboard.figures.subsets import subset_map

INFO = TableInfo("regression", score_range=(-3.0, 3.0))


@pytest.fixture(scope="module")
def board() -> Board:
    frame = sentiment_table(("strong", "weak", "$x_1$ 中"))
    return build_boards(frame, INFO, intervals=IntervalSettings(resamples=50))[0]


def texts(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_curves_have_the_means_over_rates_with_complete_data_as_rate_zero(board):
    assert [rate for rate, _ in rated(board)] == [0.0, 0.1, 0.5]
    assert rate_families([board]) == ("random",)
    figure = rate_curves([board])
    line = figure.axes[0].lines[0]
    row = board.rows[0]
    means = [100 * row.cells["wf1"][name].mean for name in ("complete", "random-0.1", "random-0.5")]
    assert list(line.get_xdata()) == [0.0, 0.1, 0.5]
    assert list(line.get_ydata()) == pytest.approx(means)
    assert len(figure.axes[0].collections) == 3


def test_curves_have_a_panel_per_data_set(board):
    figure = rate_curves([board, replace(board, data_set="mosei"), replace(board, data_set="sims")])
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["mosi", "mosei", "sims"]


def test_the_heat_map_has_every_number(board):
    found = texts(subset_map(board))
    for row in board.rows:
        for name in ("fixed-t", "fixed-a", "complete"):
            assert f"{100 * row.cells['wf1'][name].mean:.1f}" in found


def test_the_matrix_is_signed_and_marks_significance(board):
    claims = board.claims
    assert claims is not None
    pair = claims.comparison("strong", "weak", board.ranked_by)
    found = texts(pair_matrix(board, claims))
    mark = "*" if pair.significant else ""
    assert f"{100 * pair.difference:+.1f}{mark}" in found
    assert f"{-100 * pair.difference:+.1f}".replace("-", "−") + mark in found


def test_shares_add_up_to_a_whole_bar():
    rows = [Robustness("a", shares={"t": 0.7, "a": 0.3}, evenness=0.8)]
    figure = modality_shares(rows)
    bars = figure.axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(100)
    assert {bar.get_hatch() for bar in bars} == {"", "////"} or len({bar.get_hatch() for bar in bars}) == 2


def test_the_diagram_of_ranks_names_every_row():
    labels = ("A", "B", "C")
    ranks = AcrossDataSets(
        tuple("vwxyz"), "mean random", labels, {"A": 1.2, "B": 1.9, "C": 2.9}, 7.6, 0.02, True, 1.48, {},
        (("A", "B"), ("B", "C")),
    )  # fmt: skip
    found = texts(critical_difference(ranks))
    assert {"A (1.20)", "B (1.90)", "C (2.90)"} <= set(found)
    assert any("critical difference 1.48" in text and "exact" in text for text in found)


def test_labels_differ_in_more_than_colour():
    found = looks([str(index) for index in range(10)])
    assert len({(look.marker, str(look.dash)) for look in found.values()}) == 10
    assert len(set(COLOURS)) == len(COLOURS)


@pytest.mark.parametrize(("colour", "expected"), [((1, 1, 1), "black"), ((0, 0, 0), "white")])
def test_text_is_readable_on_its_background(colour, expected):
    assert text_colour(colour) == expected


def test_same_results_give_the_same_files_with_plain_names(board, tmp_path):
    # Columns that no curve and no map is drawn of: drawing takes its time.
    columns = tuple(column for column in board.columns if column.name in ("complete", board.ranked_by))
    nasty = replace(board, data_set="../x/<y>", columns=columns, robustness=(), claims=None)
    first = draw_figures([nasty], tmp_path / "one")
    second = draw_figures([nasty], tmp_path / "two")
    assert first
    assert [file.name for file in first] == [file.name for file in second]
    for file, other in zip(first, second, strict=True):
        assert file.pdf.read_bytes() == other.pdf.read_bytes()
    assert all(file.png.parent == tmp_path / "one" for file in first)
    assert not {"/", "<"} & set("".join(file.name for file in first))


def test_ranks_over_data_sets_need_five_independent_ones(board):
    names = ("mosi", "mosei", "sims", "meld", "iemocap4", "iemocap6")
    boards = tuple(replace(board, data_set=name) for name in names)
    assert content_of(boards[:4]).across == ()
    # Six-class IEMOCAP is the same recordings as four-class IEMOCAP.
    assert content_of((*boards[:4],)).across == ()
    (ranks,) = content_of(boards).across
    assert ranks.data_sets == names[:5]
