"""Errors a user can mend: they end in a clear message and a non-zero exit, never in a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave can't be used; the message says what and what would do."""


class UnknownName(UserError):
    """A name is not known.

    Args:
        kind: What the name stands for, such as ``"method"``.
        name: The unknown name.
        known: All known names; the nearest one is suggested.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{suggestion(name, names)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest valid name, or all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
