"""Matrix of pairwise differences with their significance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...metrics import metric
from ..claims import Claims
from ..records import Board
from .style import DIVERGING, ONE_COLUMN, TWO_COLUMNS, new_figure, shortened, text_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compared(board: Board, claims: Claims) -> list[str]:
    """Labels with a comparison in the ranking column, in the board's order."""
    found = {
        label for item in claims.comparisons if item.column == board.ranked_by for label in (item.a, item.b)
    }
    return [row.label for row in board.rows if row.label in found]


def pair_matrix(board: Board, claims: Claims) -> Figure:
    """Row minus column in the ranking column; an asterisk where the difference is significant.

    Args:
        board: A board.
        claims: Its claims, with two or more compared rows.
    """
    import numpy as np

    item = metric(claims.metric)
    scale = 100 if item.percent else 1
    labels = compared(board, claims)
    pairs = [[claims.comparison(a, b, board.ranked_by) for b in labels] for a in labels]
    values = np.array([[np.nan if p is None else scale * p.difference for p in own] for own in pairs])
    limit = float(np.nanmax(np.abs(values))) or 1.0
    width = ONE_COLUMN if len(labels) <= 7 else TWO_COLUMNS
    figure, axis = new_figure(width, min(width, 1.5 + 0.3 * len(labels)))
    # Orange is worse, purple is better, whatever the direction of the metric.
    image = axis.imshow(
        values if item.higher_is_better else -values,
        cmap=DIVERGING,
        vmin=-1.4 * limit,
        vmax=1.4 * limit,
        aspect="auto",
    )
    for y, own in enumerate(pairs):
        for x, pair in enumerate(own):
            if pair is None:
                continue
            number = f"{scale * pair.difference:+.1f}" if item.percent else f"{pair.difference:+.3f}"
            text = number.replace("-", "−") + ("*" if pair.significant else "")
            weight = "bold" if pair.significant else "normal"
            shade = pair.difference if item.higher_is_better else -pair.difference
            colour = text_colour(image.cmap(image.norm(scale * shade)))
            axis.text(x, y, text, ha="center", va="center", fontsize=6.5, fontweight=weight, color=colour)
    names = [shortened(label, 22) for label in labels]
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(f"row − column, {board.ranked_by}\n* significant after correction", loc="left", fontsize=7)
    bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02)
    bar.set_label(f"{item.title}{', points' if item.percent else ''}")
    bar.outline.set_linewidth(0)  # type: ignore[union-attr]
    if not item.higher_is_better:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{-value:g}")
    return figure
