"""How large a value is when it is written out: small files must not claim much memory or time.

A list that holds another one twice, which holds another one twice, and so on, takes a few bytes a level;
an array or a text made from it takes twice as much a level. What any reader of the value would walk
through is counted here, once for every distinct part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import CorpusError

# Releases nest lists in dictionaries in lists: a handful of levels.
DEEPEST = 64
# Values that share parts may be so many times larger than what is stored of them, and in any case this
# large (in items, about eight bytes each).
LARGEST_SHARE, ALWAYS_ALLOWED = 16, 10_000_000


def check_expansion(value: Any, name: str) -> None:
    """Refuses a value that holds itself, nests too deeply, or is far larger than what is stored of it.

    Args:
        value: Containers, texts, numbers and arrays.
        name: Name for the message.

    Raises:
        CorpusError: It does.
    """
    measure = _Measure(name)
    expanded = measure.size(value, 0)
    if expanded > ALWAYS_ALLOWED + LARGEST_SHARE * measure.stored:
        raise CorpusError(
            f"{name} holds values that share their parts and would grow without bound when they are read, "
            "which is refused"
        )


class _Measure:
    """Sizes in items, by the identity of the value: every distinct one is looked at once."""

    def __init__(self, name: str) -> None:
        self.stored = 0
        self._name = name
        self._sizes: dict[int, int] = {}

    def size(self, item: Any, level: int) -> int:
        """Number of items that a reader of the whole value meets."""
        if item is None or isinstance(item, int | float):
            self.stored += 1
            return 1
        key = id(item)
        if key in self._sizes:
            if not self._sizes[key]:
                raise CorpusError(
                    f"{self._name} holds a {type(item).__name__} that holds itself, which is refused"
                )
            return self._sizes[key]
        if level > DEEPEST:
            raise CorpusError(
                f"{self._name} nests its values more than {DEEPEST} levels deep, which is refused"
            )
        self._sizes[key] = 0
        own = _own_size(item)
        self.stored += own
        self._sizes[key] = own + sum(self.size(part, level + 1) for part in _parts(item))
        return self._sizes[key]


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        for pair in item.items():
            yield from pair
    elif isinstance(item, list | tuple | set | frozenset):
        yield from item
    elif isinstance(item, np.ndarray) and item.dtype.hasobject:
        yield from item.reshape(-1)


def _own_size(item: Any) -> int:
    if isinstance(item, np.ndarray):
        return 1 + item.size
    if isinstance(item, str | bytes | bytearray):
        return 1 + len(item) // 8
    return 1
