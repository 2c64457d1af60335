"""A report as one HTML file that needs nothing else: no network, no folder beside it.

Every text goes through ``html.escape``; a policy in the page forbids to load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from ..metrics import Metric, metric
from .audit import audit_cells
from .claims import Bounded, Claims, Comparison
from .content import Content, Shown
from .figures import FigureFile
from .html_background import Section, background_sections
from .html_tables import Tables, bullets, escaped, head_cell
from .html_template import PAGE, SCRIPT, STYLE
from .marks import CellMarks, Remark, cell_marks, remarks
from .published import deviation_cells, quoted_cells
from .records import Board, Cell, Column

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# A figure is shown over the whole width from this many pixels on.
_WIDE = 1000


def render_html(content: Content, figures: Sequence[FigureFile] = ()) -> str:
    """The whole report.

    Args:
        content: What it is about.
        figures: Figures that were drawn; they are taken into the page.
    """
    page = _Page()
    parts: list[Section] = [
        (f"board-{index}", item.board.title, page.board(item))
        for index, item in enumerate(content.shown, start=1)
    ]
    if figures:
        parts.append(
            ("figures", "Figures", "".join(["<div class=figures>", *map(_figure, figures), "</div>"]))
        )
    if content.across:
        parts.append(("across", "Across data sets", page.across(content)))
    if content.quotation_warnings:
        parts.append(("quotations", "Checks of quoted numbers", bullets(content.quotation_warnings, "warn")))
    parts += background_sections(page, content.background)
    title = f"Report: {content.background.name}"
    return PAGE.substitute(
        title=escaped(title),
        style=STYLE,
        script=SCRIPT,
        nav="".join(f'<a href="#{key}">{escaped(name)}</a>' for key, name, _ in parts),
        body="\n".join(
            f'<section id="{key}"><h2>{escaped(name)}</h2>{text}</section>' for key, name, text in parts
        ),
    )


def _figure(file: FigureFile) -> str:
    data = file.png.read_bytes()
    # Width of a PNG: bytes 16 to 20 of its header.
    width = int.from_bytes(data[16:20], "big")
    picture = base64.b64encode(data).decode("ascii")
    return (
        f"<figure{' class=wide' if width > _WIDE else ''}>"
        f'<img width="{round(0.65 * width)}" alt="{escaped(file.caption)}" '
        f'src="data:image/png;base64,{picture}">'
        f"<figcaption>{escaped(file.caption)} "
        f"<small>figures/{escaped(file.name)}.pdf</small></figcaption></figure>"
    )


class _Page(Tables):
    """Sections of the page."""

    def board(self, item: Shown) -> str:
        """A board with all that is said about it."""
        board = item.board
        return "".join(self._board_parts(item, board))

    def _board_parts(self, item: Shown, board: Board) -> Iterator[str]:
        if board.synthetic:
            yield (
                f"<p class=banner>SYNTHETIC DATA: {escaped(board.data_set)} was generated; these numbers say "
                "nothing about real emotions</p>"
            )
        if board.test_selected:
            yield "<p class=banner>Epochs were selected on test data: not comparable with honest results</p>"
        yield (
            f"<p class=facts>{board.utterances} test utterances of {board.dialogues} dialogues; comparison "
            f"{escaped(board.comparison_hash)}; ordered by {escaped(board.ranked_by)}</p>"
        )
        if board.warnings:
            yield "<h3>Warnings</h3>" + bullets(board.warnings, "warn")
        if board.claims is not None:
            yield "<h3>What the results say</h3>"
            yield bullets(board.claims.statements) or "<p>No difference can be told.</p>"
            if board.claims.limits:
                yield "<h3>What they can't say</h3>" + bullets(board.claims.limits)
        first, *others = board.info.metrics
        yield self._metric(board, first)
        if others:
            tables = "".join(self._metric(board, name) for name in others)
            yield f"<details><summary>Other metrics ({len(others)})</summary>{tables}</details>"
        if board.claims is not None and board.claims.comparisons:
            yield f"<details><summary>All pairs</summary>{self._pairs(board, board.claims)}</details>"
        if board.robustness:
            yield "<h3>Robustness</h3>" + self._robustness(board)
        yield from self._beside(item, board)
        if board.notes:
            yield "<h3>Holes and notes</h3>" + bullets(board.notes)

    def _beside(self, item: Shown, board: Board) -> Iterator[str]:
        if item.audit is not None:
            yield "<h3>Audit of selection</h3>" + self.table(*audit_cells(item.audit))
            unit = "points" if metric(item.audit.metric).percent else "units"
            yield (
                f"<p class=note>{unit} of {escaped(metric(item.audit.metric).title)} that choosing the "
                "epoch on the test set would have added to each method (mean ± deviation over seeds); a "
                "lower bound of what test selection does. None of it is in the tables above.</p>"
            )
        found = item.quotations
        if found is None:
            return
        yield (
            f"<h3>Published numbers</h3><p class=note>Quoted, not run here, not ranked. "
            f"{found.unmatched} further quotations about this data set have no place in this board.</p>"
        )
        for name in board.info.metrics:
            header, rows = quoted_cells(board, found, name)
            if rows:
                last = frozenset({len(header) - 1})
                title = f"{metric(name).title}: {len(rows)} rows of the literature"
                table = self.table(header, rows, frozenset({0}) | last, last)
                yield f"<details><summary>{escaped(title)}</summary>{table}</details>"
            header, rows = deviation_cells(found, name)
            if rows:
                yield f"<p>Own results against quotations, {escaped(metric(name).title)}</p>"
                yield self.table(header, rows, frozenset({0, 1, 6, 7}), frozenset({6, 7}))

    def _metric(self, board: Board, name: str) -> str:
        item = metric(name)
        notes: dict[Remark, str] = {}
        for row in board.rows:
            for remark in remarks(board, row):
                notes.setdefault(remark, _LETTERS[len(notes) % len(_LETTERS)])
        marks = {column.name: cell_marks(board, name, column.name) for column in board.columns}
        context = any(row.context for row in board.rows)
        profile = any(row.profile not in ("", "default") for row in board.rows)
        stub = ["#", "method", *(["profile"] if profile else []), *(["context"] if context else [])]
        body = []
        for row in board.rows:
            letters = ",".join(notes[remark] for remark in remarks(board, row))
            name_cell = escaped(row.label) + (f"<sup>{letters}</sup>" if letters else "")
            cells = [
                f'<td data-v="{row.rank or ""}">{row.rank or ""}</td>',
                f'<td class=text data-v="{escaped(row.label)}">{name_cell}</td>',
                *([f"<td class=text>{escaped(row.profile)}</td>"] if profile else []),
                *([f"<td class=text>{escaped(row.context)}</td>"] if context else []),
                *(
                    _score(row.cells[name][column.name], item, marks[column.name].get(row.label, CellMarks()))
                    for column in board.columns
                ),
                f"<td>{row.runs_done}/{row.runs_planned}</td>" if row.runs_planned else "<td></td>",
            ]
            body.append(f"<tr{'' if row.kind == 'method' else ' class=reference'}>{''.join(cells)}</tr>")
        unit = ", %" if item.percent else ""
        arrow = "higher" if item.higher_is_better else "lower"
        heading = f"{item.title}: {item.definition}{unit} ({arrow} is better)"
        legend = self._legend(board, name, marks, notes)
        return f"<h3>{escaped(heading)}</h3>{self.wrapped_rows(_board_head(board, stub), body)}{legend}"

    def _legend(
        self,
        board: Board,
        name: str,
        marks: Mapping[str, Mapping[str, CellMarks]],
        notes: Mapping[Remark, str],
    ) -> str:
        lines = [
            "mean ± standard deviation over training seeds, mask draws averaged first",
            "bold: best mean",
        ]
        lines.append("underlined: second")
        claims = board.claims if board.claims is not None and board.claims.metric == name else None
        if claims is not None:
            level = f"{100 * (1 - claims.settings.alpha):g} % confidence"
            lines.append(f"≈: not significantly worse than the best of the column ({level})")
            lines.append(
                f"test: {claims.test}; {claims.settings.correction}-corrected, family of {claims.family_size}"
            )
        else:
            lines.append("differences are not tested here")
        if board.has_intervals and name == board.info.primary:
            lines.append("intervals over dialogues appear when the pointer rests on a cell")
        lines += [f"{letter}: {remark.text}" for remark, letter in notes.items()]
        return f"<p class=legend>{escaped('. '.join(lines))}.</p>"

    def _pairs(self, board: Board, claims: Claims) -> str:
        item = metric(claims.metric)
        header = ["column", "A", "B", "A − B", "interval", "p", "p adjusted", "better", "effect", "P(A > B)"]
        header += ["detectable", "seeds needed"]
        rows = [_pair(pair, item) for pair in claims.comparisons]
        power = f"{100 * claims.settings.power:g} % power"
        note = (
            f"{claims.test}; intervals are not corrected, p adjusted is, in families of "
            f"{claims.family_size}; detectable: smallest difference found with {power} at the seeds at hand"
        )
        return self.table(header, rows, frozenset({0, 1, 2, 7})) + f"<p class=note>{escaped(note)}.</p>"

    def _robustness(self, board: Board) -> str:
        item = metric(board.info.primary)
        header = [
            "label",
            "area / span",
            "worst",
            "worst condition",
            "mean retention",
            "evenness",
            "lost at rate",
        ]
        names = list(dict.fromkeys(name for row in board.robustness for name in row.shares))
        rows = []
        for row in board.robustness:
            kept = list(row.retention.values())
            rows.append(
                [
                    row.label,
                    _bounded(row.area_normalised, item),
                    _bounded(row.worst, item),
                    row.worst_condition,
                    f"{100 * sum(kept) / len(kept):.0f} %" if kept else "",
                    "" if row.evenness is None else f"{row.evenness:.2f}",
                    "" if row.lost_at is None else f"{row.lost_at:g}",
                    *(f"{100 * row.shares[name]:.0f} %" if name in row.shares else "" for name in names),
                ]
            )
        table = self.table([*header, *(f"share of {name}" for name in names)], rows, frozenset({0, 3}))
        return table + (
            "<p class=note>area: under the curve of score against missing rate, over the span of rates; "
            "retention: what is left above no information, relative to complete data; lost at: lowest rate "
            "from which on the row can't be told from no information; shares: Shapley contributions.</p>"
        )

    # Beside the boards.

    def across(self, content: Content) -> str:
        """Ranks over independent data sets."""
        parts = []
        for ranks in content.across:
            order = sorted(ranks.labels, key=lambda label: ranks.mean_ranks[label])
            rows = [[label, f"{ranks.mean_ranks[label]:.2f}"] for label in order]
            parts.append(
                f"<p>{escaped(ranks.column)}, {len(ranks.data_sets)} data sets: Friedman statistic "
                f"{ranks.statistic:.2f}, p = {ranks.p:.2g} ({'exact' if ranks.exact else 'asymptotic'}); "
                f"critical difference {ranks.critical_difference:.2f}</p>"
                + self.table(["label", "mean rank"], rows)
            )
        return "".join(parts)


def _board_head(board: Board, stub: Sequence[str]) -> str:
    """Two lines: families above their conditions."""
    groups = f"<th colspan={len(stub)}></th>"
    for family, own in groupby(board.columns, key=lambda column: column.family):
        count = len(list(own))
        groups += f"<th class=group colspan={count}>{escaped(family if count > 1 else '')}</th>"
    names = [*stub, *(_short(column) for column in board.columns), "runs"]
    heads = "".join(head_cell(name, index, 0 < index < len(stub)) for index, name in enumerate(names))
    return f"<tr>{groups}<th></th></tr><tr>{heads}</tr>"


def _short(column: Column) -> str:
    if column.is_mean:
        return "mean"
    family, _, rest = column.name.partition("-")
    return rest if rest and family == column.family else column.name


def _score(cell: Cell, item: Metric, marks: CellMarks) -> str:
    if cell.mean is None:
        text = {"hole": "hole", "n/a": "n/a"}.get(cell.state, "undefined")
        about = f"{cell.done} of {cell.planned} runs" if cell.state == "hole" else ""
        return f'<td class=hole data-v="" title="{about}">{text}</td>'
    kinds = " ".join(name for name, on in (("best", marks.best), ("second", marks.second)) if on)
    sd = f" <span class=sd>± {_number(cell.sd, item)}</span>" if cell.sd is not None else ""
    after = "<sup>≈</sup>" if marks.tied else ""
    details = [f"seed {seed}: {_number(value, item)}" for seed, value in cell.by_seed.items()]
    if cell.interval is not None:
        details.insert(0, f"interval [{_number(cell.interval[0], item)}, {_number(cell.interval[1], item)}]")
    return (
        f'<td class="{kinds}" data-v="{cell.mean:.9g}" title="{escaped("; ".join(details))}">'
        f"<span class=mean>{_number(cell.mean, item)}</span>{sd}{after}</td>"
    )


def _number(value: float, item: Metric) -> str:
    return f"{100 * value:.1f}" if item.percent else f"{value:.3f}"


def _signed(value: float, item: Metric) -> str:
    return f"{100 * value:+.1f}" if item.percent else f"{value:+.3f}"


def _bounded(value: Bounded | None, item: Metric) -> str:
    if value is None:
        return ""
    if value.interval is None:
        return _number(value.value, item)
    low, high = value.interval
    return f"{_number(value.value, item)} [{_number(low, item)}, {_number(high, item)}]"


def _pair(pair: Comparison, item: Metric) -> list[str]:
    interval = ""
    if pair.interval is not None:
        interval = f"[{_signed(pair.interval[0], item)}, {_signed(pair.interval[1], item)}]"
    return [
        pair.column,
        pair.a,
        pair.b,
        _signed(pair.difference, item),
        interval,
        "" if pair.p is None else f"{pair.p:.3g}",
        "" if pair.p_adjusted is None else f"{pair.p_adjusted:.3g}",
        pair.better or "can't be told",
        "" if pair.effect is None else f"{pair.effect:.2f}",
        "" if pair.probability is None else f"{pair.probability:.2f}",
        "" if pair.detectable is None else _number(pair.detectable, item),
        "" if pair.seeds_needed is None else str(pair.seeds_needed),
    ]
