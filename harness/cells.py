"""Free text in cells of CSV and Markdown tables: names may hold anything, and must stay names."""

from __future__ import annotations

import re
from typing import Any

# What starts a formula in Excel, LibreOffice or Google Sheets, also behind blanks.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_cell(value: Any) -> Any:
    """A value for a CSV file; numbers and empty cells stay as they are.

    Text that starts like a formula gets an apostrophe before it, which spreadsheets take for the mark of
    text; text without one is unchanged. NUL, which no reader of CSV files takes, becomes a blank.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\0", " ").encode("utf-8", "replace").decode()
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


# Brackets of intervals stay: a link needs more than a number in brackets.
_LINK = re.compile(r"\[(?![\d+−.\-])|(?<=\])(?=[(\[])")


def markdown_text(text: str) -> str:
    """Text in a Markdown page: nothing in it ends a cell or starts markup, a link or an entity."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for character in "\\|*_`~":
        plain = plain.replace(character, f"\\{character}")
    plain = _LINK.sub(lambda found: "\\" + found[0], plain)
    return plain.replace("&", "&amp;").replace("<", "&lt;")
