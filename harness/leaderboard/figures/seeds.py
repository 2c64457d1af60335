"""Every training seed as a point: how much of a difference is luck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...metrics import metric
from ..records import Board
from .style import GREY, LIGHT, ONE_COLUMN, looks, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def seed_scatter(board: Board) -> Figure:
    """Score of each seed in the ranking column, with the mean and the interval over dialogues.

    Args:
        board: A board.
    """
    item = metric(board.info.primary)
    scale = 100 if item.percent else 1
    rows = [row for row in board.rows if row.kind == "method"]
    rows = [row for row in rows if row.cells[item.name][board.ranked_by].mean is not None]
    look = looks([row.label for row in rows])
    figure, axis = new_figure(ONE_COLUMN, 0.7 + 0.24 * len(rows))
    for y, row in enumerate(rows):
        cell = row.cells[item.name][board.ranked_by]
        values = [scale * value for value in cell.by_seed.values()]
        if cell.interval is not None:
            low, high = cell.interval
            axis.plot([scale * low, scale * high], [y, y], color=LIGHT, linewidth=3, solid_capstyle="butt")
        # Seeds of equal score stay visible when they don't lie on one line.
        spread = [0.11 * ((index % 3) - 1) for index in range(len(values))]
        axis.scatter(
            values,
            [y + offset for offset in spread],
            s=14,
            color=look[row.label].colour,
            alpha=0.85,
            linewidths=0,
            zorder=3,
            marker=look[row.label].marker,
        )
        axis.plot([scale * (cell.mean or 0.0)] * 2, [y - 0.3, y + 0.3], color="black", linewidth=1, zorder=4)
    for row in board.rows:
        if row.kind == "no information" and (mean := row.cells[item.name][board.ranked_by].mean) is not None:
            low, high = axis.get_xlim()
            if low <= scale * mean <= high:
                axis.axvline(scale * mean, color=GREY, linestyle=(0, (6, 3)), linewidth=0.8, zorder=1)
            number = f"{scale * mean:.1f}" if item.percent else f"{scale * mean:.3f}"
            axis.set_title(f"no information: {number}", loc="right", fontsize=7, color=GREY)
    axis.set_yticks(range(len(rows)), [shortened(row.label, 22) for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel(f"{item.title}{' (%)' if item.percent else ''}, {board.ranked_by}")
    return figure
