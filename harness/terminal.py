r"""Text for a terminal: names from files must not move the cursor, hide text or end a line.

Control characters and the marks that turn the direction of writing become their codes (``\x1b``), as do
halves of characters that no encoding has.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO, cast

_KEPT = "\n\t"
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object) -> str:
    """Any text without what a terminal would obey."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(map(_character, plain))


def _character(character: str) -> str:
    if character in _KEPT:
        return character
    if character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character


class _Plain:
    """A text stream that writes ``printable`` text and is the stream itself otherwise."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text."""
        """Writes text."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """What is printed within goes through ``printable``, whoever prints it."""
    with redirect_stdout(cast(TextIO, _Plain(sys.stdout))):
        yield
