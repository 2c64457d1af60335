"""Which modality carries a method: Shapley shares from the fixed subsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..claims import Robustness
from .style import COLOURS, ONE_COLUMN, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\")


def with_shares(robustness: Sequence[Robustness]) -> list[Robustness]:
    """Rows whose shares are known."""
    return [item for item in robustness if item.shares]


def modality_shares(robustness: Sequence[Robustness]) -> Figure:
    """Shares of the modalities as one bar a row, 100 % in all; evenness is written beside it.

    Args:
        robustness: Rows with shares.
    """
    rows = with_shares(robustness)
    names = list(dict.fromkeys(name for item in rows for name in item.shares))
    figure, axis = new_figure(ONE_COLUMN, 0.85 + 0.24 * len(rows))
    for y, item in enumerate(rows):
        left = 0.0
        for index, name in enumerate(names):
            share = 100 * item.shares.get(name, 0.0)
            axis.barh(
                y,
                share,
                left=left,
                height=0.68,
                color=COLOURS[index % len(COLOURS)],
                hatch=_HATCHES[index % len(_HATCHES)],
                edgecolor="white",
                linewidth=0.4,
                label=name if y == 0 else None,
            )
            if share >= 12:
                axis.text(
                    left + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=6.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
                )  # fmt: skip
            left += share
        if item.evenness is not None:
            axis.text(102, y, f"{item.evenness:.2f}", va="center", fontsize=6.5)
    axis.text(102, -0.75, "evenness", fontsize=6.5, va="bottom", ha="left")
    axis.set_xlim(0, 100)
    axis.set_ylim(len(rows) - 0.5, -0.6)
    axis.set_yticks(range(len(rows)), [shortened(item.label, 22) for item in rows])
    axis.set_xlabel("Shapley share (%)")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=max(len(names), 1))
    return figure
