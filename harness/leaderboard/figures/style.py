"""One look for every figure: colours and markers that everyone can tell apart, sizes of a paper.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers. No line is told apart by its
colour alone: markers and dashes differ too, so that a grey print can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Widths in inches of one and of two columns of a two-column paper.
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0
GREY, LIGHT = "#555555", "#BBBBBB"
# Their yellow is left out: it vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (8, 2)))
SEQUENTIAL, DIVERGING = "cividis", "PuOr"

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.dpi": 200,
    "savefig.dpi": 200,
    # Text stays text in PDF: searchable, and accepted by publishers that refuse Type 3 fonts.
    "pdf.fonttype": 42,
    "text.usetex": False,
    # A "$" of a free name is no formula.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}


@dataclass(frozen=True)
class Look:
    """How one label is drawn, the same in every figure.

    Attributes:
        colour: Colour.
        marker: Marker.
        dash: Line style.
    """

    colour: str
    marker: str
    dash: Any


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for every label, by its place."""
    return {
        label: Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])
        for index, label in enumerate(labels)
    }


def shortened(label: str, most: int = 28) -> str:
    """A label that can't fill a figure, on one line, of characters that the font has."""
    plain = "".join(character if character.isprintable() else " " for character in label)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def text_colour(background: tuple[float, ...]) -> str:
    """Black or white, whichever is easier to read on a colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


@contextmanager
def drawing() -> Iterator[None]:
    """Settings of every figure, for drawing and saving; the process's own stay as they were."""
    import logging
    import warnings

    import matplotlib

    fonts = logging.getLogger("matplotlib.font_manager")
    before = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context(cast(Any, _SETTINGS)), warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; that is no reason to stop.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        fonts.setLevel(before)


def new_figure(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches with its axes, without any window or global state.

    Args:
        width: Width.
        height: Height.
        **grid: As for ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)
