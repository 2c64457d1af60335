"""Tables and floats in LaTeX (booktabs), whatever they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from .latex_text import escape

Layout = Literal["auto", "table", "table*", "sideways"]

# Characters that fit side by side in footnotesize: one column, the page, the page turned.
WIDTH: Mapping[Layout, int] = {"table": 50, "table*": 108, "sideways": 150}
GAP = 2.0
# Plain texts take less room than numbers with deviations and marks, which widths are measured for.
_ROOM = 1.15


@dataclass(frozen=True)
class Grid:
    """A table in LaTeX, not yet in a float.

    Attributes:
        stub: Headings of the leading columns.
        headings: Group and title of every other column.
        rows: Leading cells and other cells of every row.
        breaks: Rows, by index, that a rule precedes.
        column_type: Column type of the cells.
        widest: Width in characters of leading columns and of every other column.
    """

    stub: tuple[str, ...]
    headings: tuple[tuple[str, str], ...]
    rows: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    breaks: frozenset[int] = frozenset()
    column_type: str = "c"
    widest: tuple[int, ...] = ()


def simple_table(
    stub: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    label: str,
    notes: Sequence[str],
) -> str:
    """A table of texts, all of them free text.

    Args:
        stub: Heading of the first column.
        headings: Headings of the others.
        rows: Cells, the first column included.
        caption: Caption.
        label: Label, a plain slug.
        notes: Footnotes.
    """
    widths = [max([len(row[index]) for row in rows] or [1]) for index in range(len(headings) + 1)]
    grid = Grid(
        stub=(escape(stub),),
        headings=tuple(("", escape(title)) for title in headings),
        rows=tuple(((escape(row[0]),), tuple(map(escape, row[1:]))) for row in rows),
        widest=tuple(max(width, len(title)) for width, title in zip(widths, (stub, *headings), strict=True)),
    )
    total = sum(grid.widest) + GAP * len(grid.widest)
    narrow: tuple[Layout, ...] = ("table", "table*")
    fitting: list[Layout] = [item for item in narrow if total <= _ROOM * WIDTH[item]]
    layout: Layout = fitting[0] if fitting else "sideways"
    return float_of(layout, grid, escape(caption), label, [escape(note) for note in notes])


def float_of(layout: Layout, grid: Grid, caption: str, label: str, notes: Sequence[str]) -> str:
    """A float.

    Args:
        layout: Kind of float.
        grid: The table.
        caption: Caption, in LaTeX as all of these.
        label: Label.
        notes: Footnotes beneath it.
    """
    environment = {"sideways": "sidewaystable*"}.get(layout, layout)
    gap = "3pt" if layout == "sideways" else "5pt"
    aligned = grid.column_type.startswith("S")
    columns = "l" * len(grid.stub) + grid.column_type * len(grid.headings)
    lines = [
        f"\\begin{{{environment}}}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{" + gap + "}\\setlength{\\belowcaptionskip}{4pt}",
        *(["\\sisetup{mode=text,detect-weight,separate-uncertainty}"] if aligned else []),
        f"\\caption{{{caption}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{@{{}}{columns}@{{\\hspace{{9pt}}}}}}",
        "\\toprule",
        *_group_lines(grid),
        " & ".join([*grid.stub, *(f"{{{title}}}" for _, title in grid.headings)]) + " \\\\",
        "\\midrule",
    ]
    for index, (stub, cells) in enumerate(grid.rows):
        lines += ["\\midrule"] if index in grid.breaks else []
        lines.append(" & ".join([*stub, *cells]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    if notes:
        text = ". ".join(note.rstrip(".") for note in notes)
        lines += ["\\par\\vspace{3pt}", f"\\parbox{{\\linewidth}}{{\\scriptsize {text}.}}"]
    return "\n".join([*lines, f"\\end{{{environment}}}", ""])


def _group_lines(grid: Grid) -> list[str]:
    """The upper line of the header and the rules below its groups."""
    if not any(group for group, _ in grid.headings):
        return []
    cells, rules, start = ["" for _ in grid.stub], [], len(grid.stub) + 1
    for group, own in groupby(grid.headings, key=lambda heading: heading[0]):
        count = len(list(own))
        cells.append(f"\\multicolumn{{{count}}}{{c}}{{{group}}}" if group else " & " * (count - 1))
        rules += [f"\\cmidrule(lr){{{start}-{start + count - 1}}}"] if group else []
        start += count
    return [" & ".join(cells) + " \\\\", " ".join(rules)]
