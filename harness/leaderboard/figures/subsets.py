"""Heat map of scores with a fixed subset of modalities available."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...metrics import metric
from ..records import Board
from .style import ONE_COLUMN, SEQUENTIAL, TWO_COLUMNS, new_figure, shortened, text_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def has_subsets(board: Board) -> bool:
    """Whether there are two or more fixed subsets."""
    return sum(column.family == "fixed" and not column.is_mean for column in board.columns) > 1


def subset_map(board: Board) -> Figure:
    """Rows by subsets, each with its number; ``no information`` is the last row.

    Args:
        board: A board with fixed subsets.
    """
    import numpy as np

    item = metric(board.info.primary)
    columns = [column for column in board.columns if column.family == "fixed" and not column.is_mean]
    columns += [column for column in board.columns if column.name == "complete"]
    rows = board.rows
    scale = 100 if item.percent else 1
    means = [[row.cells[item.name][column.name].mean for column in columns] for row in rows]
    values = np.array([[np.nan if m is None else scale * m for m in own] for own in means])
    width = ONE_COLUMN if len(columns) <= 7 else TWO_COLUMNS
    figure, axis = new_figure(width, 0.85 + 0.2 * len(rows))
    palette = SEQUENTIAL if item.higher_is_better else f"{SEQUENTIAL}_r"
    # Colours tell methods apart; a reference row far below them would take most of the scale.
    methods = values[[row.kind == "method" for row in rows]]
    shown = methods if np.isfinite(methods).any() else values
    image = axis.imshow(
        values, cmap=palette, aspect="auto", vmin=float(np.nanmin(shown)), vmax=float(np.nanmax(shown))
    )
    for y, own in enumerate(values):
        for x, value in enumerate(own):
            if np.isnan(value):
                axis.text(x, y, "–", ha="center", va="center", color="black")
                continue
            text = f"{value:.1f}" if item.percent else f"{value:.2f}"
            colour = text_colour(image.cmap(image.norm(value)))
            axis.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour)
    names = ["all" if column.name == "complete" else column.name.removeprefix("fixed-") for column in columns]
    axis.set_xticks(range(len(names)), [shortened(name, 14) for name in names])
    axis.set_yticks(range(len(rows)), [shortened(row.label, 22) for row in rows])
    axis.set_xlabel("available modalities")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02)
    bar.set_label(f"{item.title}{' (%)' if item.percent else ''}")
    bar.outline.set_linewidth(0)  # type: ignore[union-attr]
    return figure
