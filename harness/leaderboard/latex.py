r"""Leaderboards as LaTeX: booktabs tables to ``\input``, captions, labels and footnotes included.

A document needs ``\usepackage{booktabs}`` (and ``siunitx`` or ``rotating`` for these options); the
file says so in its first lines. Nothing has to be edited: free text is escaped, widths fit the column
or the page of a two-column paper, and citations refer to ``references.bib``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from ..metrics import metric
from .bibliography import Sources, citation_key
from .latex_grid import GAP, WIDTH, Grid, Layout, float_of
from .latex_options import LatexOptions
from .latex_text import escape
from .marks import CellMarks, Remark, cell_marks, remarks
from .records import Board, Cell, Column, Row

_FAMILIES = {
    "random": "Random missing, rate",
    "fixed": "Available modalities",
    "frames": "Missing frames, rate",
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def render_latex(
    boards: Iterable[Board],
    sources: Sources | None = None,
    options: LatexOptions | None = None,
    appendix: str = "",
) -> str:
    """All boards as one LaTeX file.

    Args:
        boards: Boards with their claims.
        sources: Names and publications of methods.
        options: How tables look.
        appendix: Further tables, as they are.
    """
    options = options or LatexOptions()
    tables = [
        text
        for board in boards
        for name in options.metrics or (board.info.primary,)
        if name in board.info.metrics
        for text in _Table(board, sources or {}, options, name).floats()
    ]
    packages = ["booktabs", *(["siunitx"] if options.siunitx else [])]
    packages += ["rotating"] if any("{sidewaystable" in text for text in (*tables, appendix)) else []
    head = [
        "% Tables of a leaderboard, made by IMER-Bench: \\input this file, and leave it as it is.",
        "% The preamble needs: " + " ".join(f"\\usepackage{{{name}}}" for name in packages),
        "% Citations are in references.bib: \\bibliography{references}",
    ]
    return "\n".join([*head, "", *tables, appendix])


class _Table:
    """One metric of one board, as one float or several.

    Args:
        board: The board.
        sources: Names and publications of methods.
        options: How tables look.
        name: Metric.
    """

    def __init__(self, board: Board, sources: Sources, options: LatexOptions, name: str) -> None:
        self.board, self.sources, self.options = board, sources, options
        self.metric = metric(name)
        self.claims = board.claims if board.claims is not None and board.claims.metric == name else None
        self.percent = self.metric.percent if options.percent is None else options.percent
        decimals = 1 if self.percent else 3
        self.decimals = decimals if options.precision is None else options.precision
        self.columns = [item for item in board.columns if not options.columns or item.name in options.columns]
        self.marks = {
            column.name: cell_marks(board, name, column.name, options.baseline) for column in self.columns
        }
        self.remarks: dict[Remark, str] = {}
        for row in board.rows:
            for remark in remarks(board, row):
                self.remarks.setdefault(remark, _LETTERS[len(self.remarks) % len(_LETTERS)])

    # Floats.

    def floats(self) -> Iterator[str]:
        """The float, or several where the table is too wide for one."""
        if not self.columns:
            return
        layout, blocks = self._layout()
        for index, columns in enumerate(blocks):
            grid = self._transposed(columns) if self.options.transpose else self._grid(columns)
            part = f" (part {index + 1} of {len(blocks)})" if len(blocks) > 1 else ""
            label = _slug(self.board, self.metric.name) + (f"-{index + 1}" if part else "")
            yield float_of(layout, grid, self._caption(columns) + part + ".", label, self._footnotes(columns))

    def _layout(self) -> tuple[Layout, list[list[Column]]]:
        def width(columns: Sequence[Column]) -> float:
            grid = self._transposed(columns) if self.options.transpose else self._grid(columns)
            return sum(grid.widest) + GAP * len(grid.widest)

        if self.options.layout != "auto":
            return self.options.layout, [self.columns]
        for layout in ("table", "table*"):
            if width(self.columns) <= WIDTH[layout]:
                return layout, [self.columns]
        if self.options.transpose:
            return "sideways", [self.columns]
        blocks: list[list[Column]] = []
        for _, own in groupby(self.columns, key=lambda column: column.family):
            family = list(own)
            if blocks and width([*blocks[-1], *family]) <= WIDTH["table*"]:
                blocks[-1] += family
                continue
            blocks.append([])
            for column in family:
                if blocks[-1] and width([*blocks[-1], column]) > WIDTH["table*"]:
                    blocks.append([])
                blocks[-1].append(column)
        return "table*", blocks

    # Grids.

    def _grid(self, columns: Sequence[Column]) -> Grid:
        rows = self.board.rows
        context = any(row.context for row in rows)
        body = tuple(
            (
                (self._name(row), *([escape(row.context[:1].upper())] if context else [])),
                tuple(self._cell(row, column) for column in columns),
            )
            for row in rows
        )
        methods = sum(row.kind == "method" for row in rows)
        plain = max((len(self._plain_name(row)) for row in rows), default=6)
        return Grid(
            stub=("Method", *(["Ctx."] if context else [])),
            headings=tuple(_heading(column, self.board) for column in columns),
            rows=body,
            breaks=frozenset({methods} if 0 < methods < len(rows) else ()),
            column_type=self._column_type(rows, columns),
            widest=(plain, *([4] if context else []), *(self._width(rows, [column]) for column in columns)),
        )

    def _transposed(self, columns: Sequence[Column]) -> Grid:
        rows = self.board.rows
        heads = [_heading(column, self.board) for column in columns]
        body, breaks, before = [], set(), ""
        for index, (column, (group, title)) in enumerate(zip(columns, heads, strict=True)):
            if index and column.family != columns[index - 1].family:
                breaks.add(index)
            shown = group if group != before else ""
            before = group
            body.append(((shown, title), tuple(self._cell(row, column) for row in rows)))
        return Grid(
            stub=("Condition", ""),
            headings=tuple(("", self._name(row)) for row in rows),
            rows=tuple(body),
            breaks=frozenset(breaks),
            column_type=self._column_type(rows, columns),
            widest=(
                max(len(group) for group, _ in heads),
                max(len(title) for _, title in heads),
                *(max(len(self._plain_name(row)), self._width([row], columns)) for row in rows),
            ),
        )

    # Rows and cells.

    def _title(self, row: Row) -> str:
        source = self.sources.get(row.method)
        return source.title if source is not None and row.label == row.method else row.label

    def _plain_name(self, row: Row) -> str:
        cited = self.options.cite and row.method in self.sources and self.sources[row.method].paper
        return self._title(row) + (" [99]" if cited else "") + " " * (len(remarks(self.board, row)) // 2)

    def _name(self, row: Row) -> str:
        source = self.sources.get(row.method)
        cited = self.options.cite and source is not None and source.paper is not None
        letters = ",".join(self.remarks[remark] for remark in remarks(self.board, row))
        return (
            escape(self._title(row))
            + (f"\\textsuperscript{{{letters}}}" if letters else "")
            + (f"~\\cite{{{citation_key(row.method)}}}" if cited else "")
        )

    def _number(self, value: float) -> str:
        return f"{100 * value if self.percent else value:.{self.decimals}f}"

    def _cell(self, row: Row, column: Column) -> str:
        cell = row.cells[self.metric.name][column.name]
        marks = self.marks[column.name].get(row.label, CellMarks())
        after = ("\\approx" if marks.tied else "") + ("\\dagger" if marks.differs else "")
        if cell.mean is None:
            text = {"hole": "hole", "n/a": "n/a"}.get(cell.state, "undef.")
            return f"{{\\textit{{{text}}}}}"
        mean = self._number(cell.mean)
        if self.options.siunitx:
            return self._aligned(cell, mean, marks, after)
        number = f"${mean}$"
        if marks.best:
            number = f"$\\mathbf{{{mean}}}$"
        elif marks.second:
            number = f"\\underline{{${mean}$}}"
        # Marks take no width, so that numbers of a column stay beneath each other.
        return number + self._spread(cell) + (f"\\rlap{{$^{{{after}}}$}}" if after else "")

    def _spread(self, cell: Cell) -> str:
        if self.options.spread == "sd" and cell.sd is not None:
            return f"{{\\scriptsize$\\,\\pm\\,{self._number(cell.sd)}$}}"
        if self.options.spread == "interval" and cell.interval is not None:
            low, high = map(self._number, cell.interval)
            return f"{{\\scriptsize$\\,[{low}, {high}]$}}"
        return ""

    def _aligned(self, cell: Cell, mean: str, marks: CellMarks, after: str) -> str:
        """A cell of a siunitx column; text in braces stays text."""
        with_sd = self.options.spread == "sd" and cell.sd is not None
        number = f"{mean} +- {self._number(cell.sd)}" if with_sd and cell.sd is not None else mean
        beside = "" if self.options.spread == "sd" else self._spread(cell)
        if marks.second:
            beside = f"$^{{\\mathit{{2}}{after}}}${beside}"
        elif after:
            beside = f"$^{{{after}}}${beside}"
        return ("\\bfseries " if marks.best else "") + number + (f" {{{beside}}}" if beside else "")

    def _values(self, rows: Sequence[Row], columns: Sequence[Column]) -> list[Cell]:
        cells = [row.cells[self.metric.name][column.name] for row in rows for column in columns]
        return [cell for cell in cells if cell.mean is not None]

    def _width(self, rows: Sequence[Row], columns: Sequence[Column]) -> int:
        longest = 5
        for cell in self._values(rows, columns):
            length = len(self._number(cell.mean or 0.0)) + 2
            if self.options.spread == "sd" and cell.sd is not None:
                length += 1 + round(0.8 * len(self._number(cell.sd)))
            if self.options.spread == "interval" and cell.interval is not None:
                length += 2 + round(0.8 * sum(len(self._number(end)) for end in cell.interval))
            longest = max(longest, length)
        return max(longest, *(len(_heading(column, self.board)[1]) for column in columns))

    def _column_type(self, rows: Sequence[Row], columns: Sequence[Column]) -> str:
        if not self.options.siunitx:
            return "c"
        cells = self._values(rows, columns)
        whole = max((len(self._number(cell.mean or 0.0).partition(".")[0]) for cell in cells), default=1)
        digits = f"{whole}.{self.decimals}" if self.decimals else str(whole)
        sds = [cell.sd for cell in cells if cell.sd is not None] if self.options.spread == "sd" else []
        if sds:
            digits += f"({max(len(self._number(sd).replace('.', '').lstrip('0')) for sd in sds) or 1})"
        room = "{$^{\\approx\\dagger}$}"
        return f"S[table-format={digits},table-space-text-post={room}]"

    # Words.

    def _caption(self, columns: Sequence[Column]) -> str:
        board, item = self.board, self.metric
        unit = ", \\%" if self.percent else ""
        arrow = "\\uparrow" if item.higher_is_better else "\\downarrow"
        parts = [f"{escape(item.title)} (${arrow}${unit}) on {escape(board.title)}"]
        rows = [row for row in board.rows if row.kind == "method"]
        seeds = {len(cell.by_seed) for cell in self._values(rows, columns) if cell.by_seed}
        if seeds:
            low, high = min(seeds), max(seeds)
            count = f"{low}" if low == high else f"{low} to {high}"
            spread = {
                "sd": "mean $\\pm$ standard deviation",
                "interval": f"mean [{100 * board.intervals.confidence:g}\\,\\% interval over dialogues]",
                "none": "mean",
            }[self.options.spread]
            plural = "s" if high > 1 else ""
            parts.append(f"{spread} over {count} training seed{plural}, mask draws averaged first")
        size = f"{board.utterances} test utterances of {board.dialogues} dialogues"
        if self.claims is None:
            return "; ".join([*parts, size, "differences are not tested"])
        correction = {"holm": "Holm", "bh": "Benjamini--Hochberg"}[self.claims.settings.correction]
        test = f"test of differences: {escape(self.claims.test)}, {correction}-corrected"
        return "; ".join([*parts, size, f"{test} (family of {self.claims.family_size})"])

    def _footnotes(self, columns: Sequence[Column]) -> list[str]:
        marks = [mark for column in columns for mark in self.marks[column.name].values()]
        second = "superscript 2" if self.options.siunitx else "underlined"
        lines = [
            "\\textbf{Bold}: best mean" + (f", {second}: second" if any(m.second for m in marks) else "")
        ]
        if self.claims is not None and any(mark.tied for mark in marks):
            level = f"{100 * (1 - self.claims.settings.alpha):g}\\,\\% confidence"
            lines.append(f"$^{{\\approx}}$: not significantly worse than the best of the column ({level})")
        if self.claims is not None and self.options.baseline:
            names = {row.label: self._title(row) for row in self.board.rows}
            baseline = escape(names.get(self.options.baseline, self.options.baseline))
            lines.append(f"$^{{\\dagger}}$: differs significantly from {baseline}")
        if any(row.context for row in self.board.rows) and not self.options.transpose:
            lines.append("Ctx.: a prediction looks at the utterance alone (U) or at its dialogue (D)")
        lines += [f"$^{{{letter}}}$: {escape(remark.text)}" for remark, letter in self.remarks.items()]
        cells = [row.cells[self.metric.name][column.name] for row in self.board.rows for column in columns]
        if any(cell.state == "hole" for cell in cells):
            lines.append("\\textit{hole}: a planned run is missing or failed")
        if any(row.kind == "no information" for row in self.board.rows):
            lines.append("no information: the best constant prediction, knowing the test labels")
        return lines


def _heading(column: Column, board: Board) -> tuple[str, str]:
    """Group and title of a column, in LaTeX."""
    members = sum(item.family == column.family for item in board.columns)
    if column.is_mean:
        return _FAMILIES.get(column.family, escape(column.family)), "mean"
    family, _, rest = column.name.partition("-")
    if members == 1 or not rest or family != column.family:
        return "", escape(column.name)
    return _FAMILIES.get(column.family, escape(column.family)), escape(rest)


def _slug(board: Board, name: str) -> str:
    parts = [board.data_set, board.regime, board.trained_on, name, board.comparison_hash[:6]]
    parts += ["test-selected"] if board.test_selected else []
    text = "-".join(part for part in parts if part)
    return "tab:imer-" + re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
