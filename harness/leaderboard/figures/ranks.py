"""Critical-difference diagram over independent data sets (Demšar 2006, figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..claims import AcrossDataSets
from .style import GREY, TWO_COLUMNS, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches that a character of a name takes.
_NAME = 0.066


def critical_difference(across: AcrossDataSets) -> Figure:
    """Mean ranks on a line, the best on the left; a bar joins rows that can't be told apart.

    Args:
        across: Ranks over five or more independent data sets.
    """
    labels = sorted(across.labels, key=lambda label: across.mean_ranks[label])
    count = len(labels)
    half = -(-count // 2)
    groups = [group for group in across.groups if len(group) > 1]
    top = 0.5 + 0.16 * len(groups)
    names = {label: f"{shortened(label)} ({across.mean_ranks[label]:.2f})" for label in labels}
    figure, axis = new_figure(TWO_COLUMNS, 1.0 + 0.2 * half + 0.12 * len(groups))
    # Names stand outside the line of ranks: leave as much room as the longest ones take.
    before = _NAME * max(len(names[label]) for label in labels[:half]) + 0.15
    after = _NAME * max([len(names[label]) for label in labels[half:]] or [0]) + 0.15
    unit = (count - 0.6) / (TWO_COLUMNS - 0.1 - before - after)
    axis.set_xlim(0.8 - unit * before, count + 0.2 + unit * after)
    axis.set_ylim(-(top + 0.32 * half + 0.1), 1.25)
    axis.axis("off")
    axis.plot([1, count], [0, 0], color="black", linewidth=1)
    for tick in range(1, count + 1):
        axis.plot([tick, tick], [0, 0.12], color="black", linewidth=0.8)
        axis.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=7)
    for index, label in enumerate(labels):
        rank = across.mean_ranks[label]
        left = index < half
        # Outer rows hang lowest, so that no two leader lines cross.
        depth = index if left else count - 1 - index
        y = -(top + 0.32 * depth)
        end = 1 - 0.15 if left else count + 0.15
        axis.plot([rank, rank, end], [0, y, y], color=GREY, linewidth=0.7)
        side = "right" if left else "left"
        axis.text(end + (-0.05 if left else 0.05), y, names[label], ha=side, va="center")
    for index, group in enumerate(groups):
        ranks = [across.mean_ranks[label] for label in group]
        y = -(0.25 + 0.16 * index)
        axis.plot([min(ranks) - 0.04, max(ranks) + 0.04], [y, y], color="black", linewidth=2.6)
    difference = across.critical_difference
    axis.plot([1, 1 + difference], [0.62, 0.62], color="black", linewidth=1)
    for end in (1, 1 + difference):
        axis.plot([end, end], [0.56, 0.68], color="black", linewidth=1)
    exact = "exact" if across.exact else "asymptotic"
    axis.text(
        1,
        0.82,
        f"critical difference {difference:.2f}; Friedman p = {across.p:.2g} ({exact}), "
        f"{len(across.data_sets)} data sets, {across.column}",
        va="bottom",
        fontsize=7,
    )
    return figure
