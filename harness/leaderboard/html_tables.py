"""Tables and lists of a report page: escaped, and sortable by a click on their header."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def escaped(text: object) -> str:
    """Any text as HTML; control characters, which HTML has no form of, become blanks."""
    plain = "".join(c if c.isprintable() or c in "\n\t" else " " for c in str(text))
    return html.escape(plain, quote=True)


def bullets(lines: Iterable[str], kind: str = "statements") -> str:
    """A list of sentences."""
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


class Tables:
    """Makes tables with ids of their own, to which a link can refer."""

    def __init__(self) -> None:
        self._count = 0

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        text_columns: frozenset[int] = frozenset({0}),
        wrapped: frozenset[int] = frozenset(),
    ) -> str:
        """A table of plain texts."""
        body = []
        for row in rows:
            cells = []
            for index, value in enumerate(row):
                kind = " ".join(
                    name
                    for name, applies in (("text", index in text_columns), ("wrap", index in wrapped))
                    if applies
                )
                number = "" if index in text_columns else f' data-v="{_sortable(value)}"'
                cells.append(f'<td class="{kind}"{number}>{escaped(value)}</td>')
            body.append(f"<tr>{''.join(cells)}</tr>")
        heads = "".join(head_cell(name, index, index in text_columns) for index, name in enumerate(header))
        return self.wrapped_rows(f"<tr>{heads}</tr>", body)

    def wrapped_rows(self, head: str, body: Iterable[str]) -> str:
        """A table of rows that are HTML already."""
        self._count += 1
        return (
            f'<div class=scroll><table id="table-{self._count}"><thead>{head}</thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )


def head_cell(name: str, index: int, text: bool) -> str:
    """A header cell that sorts its column."""
    return f'<th data-sort="{index}"{" class=text" if text else ""}>{escaped(name)}</th>'


def _sortable(value: str) -> str:
    """The number a cell begins with, for sorting; empty if it begins with none."""
    start = value.strip().lstrip("[+").replace("−", "-").split(" ")[0].split("/")[0].rstrip("%;,")
    try:
        return f"{float(start):.9g}"
    except ValueError:
        return ""
