"""Score against missing rate, with interval bands, one panel per data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...metrics import metric
from ..records import Board, Cell, Column, Row
from .style import GREY, LIGHT, ONE_COLUMN, TWO_COLUMNS, Look, looks, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATE = re.compile(r"-(\d*\.?\d+)$")


def rated(board: Board, family: str = "random") -> list[tuple[float, Column]]:
    """Missing rates and columns of a family, in order; complete data are rate 0."""
    found = [(0.0, column) for column in board.columns if column.name == "complete"]
    for column in board.columns:
        match = _RATE.search(column.name)
        if column.family == family and not column.is_mean and match:
            found.append((float(match.group(1)), column))
    return sorted(found, key=lambda item: item[0])


def rate_families(boards: Sequence[Board]) -> tuple[str, ...]:
    """Families with at least two rates, complete data included, and one rate of their own."""
    families = dict.fromkeys(column.family for board in boards for column in board.columns)
    return tuple(
        family
        for family in families
        if family != "complete"
        and any(len(rates := rated(board, family)) > 1 and rates[-1][0] > 0 for board in boards)
    )


def rate_curves(boards: Sequence[Board], family: str = "random") -> Figure:
    """Score against missing rate.

    Bands are intervals over dialogues where the board has them, else one standard deviation over
    seeds.

    Args:
        boards: Boards of one kind (regime, training condition), one per data set.
        family: Family of conditions with rates.
    """
    boards = [board for board in boards if len(rated(board, family)) > 1]
    labels = [row.label for board in boards for row in board.rows if row.kind == "method"]
    look = looks(list(dict.fromkeys(labels)))
    across = min(len(boards), 3)
    down = -(-len(boards) // across)
    width = ONE_COLUMN if len(boards) == 1 else TWO_COLUMNS
    names = list(dict.fromkeys(labels))
    legend_lines = -(-(len(names) + 2) // (2 if width == ONE_COLUMN else 5))
    figure, axes = new_figure(
        width, 2.1 * down + 0.16 * legend_lines + 0.2, nrows=down, ncols=across, squeeze=False
    )
    handles = {}
    for index, board in enumerate(boards):
        axis = axes[index // across][index % across]
        handles |= _panel(axis, board, family, look)
        axis.set_title(shortened(board.data_set + (" (SYNTHETIC)" if board.synthetic else ""), 40))
        axis.set_xlabel("missing rate")
    for index in range(len(boards), across * down):
        axes[index // across][index % across].set_visible(False)
    figure.legend(
        handles.values(),
        [shortened(name) for name in handles],
        loc="outside lower center",
        ncols=2 if width == ONE_COLUMN else 5,
    )
    return figure


def _panel(axis, board: Board, family: str, look: dict[str, Look]) -> dict[str, object]:
    item = metric(board.info.primary)
    scale = 100 if item.percent else 1
    points = rated(board, family)
    handles: dict[str, object] = {}
    outside: list[str] = []
    for row in board.rows:
        cells = [(rate, row.cells[item.name][column.name]) for rate, column in points]
        known = [(rate, cell) for rate, cell in cells if cell.mean is not None]
        if not known:
            continue
        rates = [rate for rate, _ in known]
        means = [scale * cell.mean for _, cell in known if cell.mean is not None]
        if row.kind != "method":
            if _is_near(axis, means):
                handles[row.label] = _reference(axis, row, rates, means)
            else:
                outside.append(f"{row.label} {means[-1]:.3g}")
            continue
        own = look[row.label]
        (handles[row.label],) = axis.plot(
            rates, means, color=own.colour, marker=own.marker, linestyle=own.dash
        )
        bands = [(rate, *_band(cell)) for rate, cell in known]
        axis.fill_between(
            [rate for rate, _, _ in bands],
            [scale * low for _, low, _ in bands],
            [scale * high for _, _, high in bands],
            color=own.colour,
            alpha=0.12,
            linewidth=0,
        )
    if outside:
        where = "below" if item.higher_is_better else "above"
        text = "\n".join(f"{where}: {name}" for name in outside)
        axis.text(0.01, 0.01, text, transform=axis.transAxes, fontsize=6, color=GREY)
    arrow = "higher" if item.higher_is_better else "lower"
    axis.set_ylabel(f"{item.title}{' (%)' if item.percent else ''}, {arrow} is better")
    axis.set_xticks([rate for rate, _ in points])
    axis.set_xticklabels([f"{rate:g}" for rate, _ in points])
    return handles


def _is_near(axis, means: list[float]) -> bool:
    """Whether a line would leave the methods at least two thirds of the panel; they are drawn first."""
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if low > high:
        return True
    return high - low >= 0.65 * (max(high, *means) - min(low, *means))


def _reference(axis, row: Row, rates: list[float], means: list[float]) -> object:
    dash = (0, (1, 1)) if row.kind == "constant" else (0, (6, 3))
    colour = LIGHT if row.kind == "constant" else GREY
    (line,) = axis.plot(rates, means, color=colour, linestyle=dash, linewidth=1.0, zorder=1)
    return line


def _band(cell: Cell) -> tuple[float, float]:
    mean = cell.mean or 0.0
    if cell.interval is not None:
        return cell.interval
    return mean - (cell.sd or 0.0), mean + (cell.sd or 0.0)
