"""What stands beneath boards in terminal, Markdown and LaTeX: audits of selection, quoted numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from tabulate import tabulate

from ..cells import markdown_text
from ..metrics import metric
from .audit import AuditTable, audit_cells
from .content import Content
from .latex_grid import simple_table
from .published import deviation_cells, quoted_cells

# Rows of a LaTeX table that fit a page with their notes.
_ROWS = 36
_QUOTED = "quoted from the literature, not run here, not ranked"


def appendix_text(content: Content) -> str:
    """Audits, own results against quotations, and what looks wrong in these, for a terminal."""
    lines: list[str] = []
    for audit in _audits(content):
        header, rows = audit_cells(audit)
        lines += [_audit_title(audit), "", tabulate(rows, header, disable_numparse=True), ""]
    for item in content.shown:
        if item.quotations is None:
            continue
        name = item.board.info.primary
        header, rows = deviation_cells(item.quotations, name)
        quoted = len({(c.quotation.source, c.quotation.method) for c in item.quotations.cells})
        lines += [f"Published numbers beside {item.board.title}: {quoted} rows, {_QUOTED}", ""]
        if rows:
            # Sources and causes are long: they are in the report.
            lines += [tabulate([row[:6] for row in rows], header[:6], disable_numparse=True), ""]
            lines += [f"- {row[0]}, {row[1]}: {row[6]}: {row[7]}" for row in rows]
            lines.append("")
    lines += [f"- {text}" for text in content.quotation_warnings]
    return "\n".join(lines).rstrip() + "\n" if lines else ""


def appendix_markdown(content: Content) -> str:
    """Sections for the Markdown page; empty if there are none."""
    parts: list[str] = []
    for audit in _audits(content):
        header, rows = audit_cells(audit)
        cells = [[markdown_text(cell) for cell in row] for row in rows]
        table = tabulate(cells, [*map(markdown_text, header)], tablefmt="pipe", disable_numparse=True)
        parts += ["## Audit of selection", "", f"{markdown_text(_audit_title(audit))}.", "", table, ""]
    for item in content.shown:
        found = item.quotations
        if found is None or not found.cells:
            continue
        parts += [
            f"## Published numbers beside {markdown_text(item.board.title)}",
            "",
            f"{_QUOTED.capitalize()}.",
            "",
        ]
        for name in item.board.info.metrics:
            for title, (header, rows) in (
                (metric(name).title, quoted_cells(item.board, found, name)),
                (f"{metric(name).title}: own results against quotations", deviation_cells(found, name)),
            ):
                if rows:
                    cells = [[markdown_text(cell) for cell in row] for row in rows]
                    table = tabulate(
                        cells, [*map(markdown_text, header)], tablefmt="pipe", disable_numparse=True
                    )
                    parts += [f"### {title}", "", table, ""]
    if content.quotation_warnings:
        parts += ["## Checks of quoted numbers", ""]
        parts += [f"- {markdown_text(text)}" for text in content.quotation_warnings]
    return "\n" + "\n".join(parts).rstrip() + "\n" if parts else ""


def appendix_latex(content: Content) -> str:
    """Audits, and quoted numbers and deviations of the primary metrics, as LaTeX tables."""
    return "\n".join(chain.from_iterable(_latex(content)))


def _audits(content: Content) -> tuple[AuditTable, ...]:
    """Each audit once, though several boards may share it."""
    found = {(a.comparison_hash, a.data_set): a for item in content.shown if (a := item.audit) is not None}
    return tuple(found.values())


def _audit_title(audit: AuditTable) -> str:
    unit = "points" if metric(audit.metric).percent else "units"
    return (
        f"Audit of selection on {audit.data_set}: {unit} of {metric(audit.metric).title} that choosing the "
        "epoch on the test set would have added (mean ± deviation over seeds; a lower bound)"
    )


def _latex(content: Content) -> Iterator[list[str]]:
    for index, audit in enumerate(_audits(content), start=1):
        header, rows = audit_cells(audit)
        label = f"tab:imer-audit-{index}"
        yield [simple_table(header[0], header[1:], rows, f"{_audit_title(audit)}.", label, [])]
    for index, item in enumerate(content.shown, start=1):
        found = item.quotations
        if found is None:
            continue
        name = item.board.info.primary
        about = f"{metric(name).title} on {item.board.data_set}, {_QUOTED}"
        yield _table(quoted_cells(item.board, found, name), f"{about}.", f"tab:imer-quoted-{index}", _last)
        yield _table(
            deviation_cells(found, name),
            f"Own results against quotations: {about}. Interval: from the own interval over dialogues.",
            f"tab:imer-deviations-{index}",
            _first_causes,
        )


def _table(
    found: tuple[list[str], list[list[str]]], caption: str, label: str, sources: Callable[[list[str]], str]
) -> list[str]:
    """Tables that fit a page, with the long texts of each as numbered notes beneath it."""
    header, rows = found
    width = 6 if sources is _first_causes else -1
    tables: list[str] = []
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    for number, own in enumerate(parts, start=1):
        texts = list(dict.fromkeys(sources(row) for row in own))
        cells = [[*row[:width], str(texts.index(sources(row)) + 1)] for row in own]
        notes = [f"({index}) {text}" for index, text in enumerate(texts, start=1)]
        part = f" (Part {number} of {len(parts)}.)" if len(parts) > 1 else ""
        headings = [*header[1:width], "source"]
        tables.append(simple_table(header[0], headings, cells, caption + part, f"{label}-{number}", notes))
    return tables


def _last(row: list[str]) -> str:
    return row[-1]


def _first_causes(row: list[str]) -> str:
    return f"{row[6]}: {row[7]}"
