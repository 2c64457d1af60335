"""Runs the opcodes of a pickle, each one from a table and checked where it acts."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

from ..errors import CorpusError, ForbiddenGlobal
from .stand_ins import Filled, StandIn, plain_key

# Opcodes that reach outside the stream.
_REFUSED_OPCODES = {
    "PERSID": "a persistent id",
    "BINPERSID": "a persistent id",
    "EXT1": "the extension registry",
    "EXT2": "the extension registry",
    "EXT4": "the extension registry",
    "NEXT_BUFFER": "an out-of-band buffer",
    "READONLY_BUFFER": "an out-of-band buffer",
}
# Items and bytes that all calls together may copy.
_WORK_ALWAYS, _WORK_PER_BYTE = 100_000, 2
_COPIED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


class Bounded:
    """A stream that is never asked for more than it has left: a length alone allocates nothing."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        start = stream.tell()
        self._end = stream.seek(0, os.SEEK_END)
        stream.seek(start)

    @property
    def size(self) -> int:
        """Length of the whole stream in bytes."""
        return self._end

    def read(self, count: int = -1) -> bytes:
        """As a file's; a count beyond the end is an ``EOFError``."""
        left = self._end - self._stream.tell()
        if count > left:
            raise EOFError
        return self._stream.read(left if count < 0 else count)

    def readinto(self, buffer: Any) -> int:
        """As a file's."""
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def readline(self) -> bytes:
        """As a file's."""
        return self._stream.readline()


class Reader(pickle._Unpickler):
    """The pure Python unpickler with opcodes and globals from tables."""

    # The machine of the pure Python unpickler: its stack and what it reads with.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(
        self,
        stream: Bounded,
        name: str,
        table: Mapping[tuple[str, str], Any],
        encoding: str = "latin1",
    ) -> None:
        super().__init__(stream, fix_imports=False, encoding=encoding)
        self._source = name
        self._table = table
        self._work_left = _WORK_ALWAYS + _WORK_PER_BYTE * stream.size

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up in the table; nothing is imported.

        Raises:
            ForbiddenGlobal: It is not there.
        """
        try:
            return self._table[module, name]
        except KeyError:
            raise ForbiddenGlobal(f"{module}.{name}", self._source) from None

    def _charge(self, arguments: tuple[Any, ...]) -> None:
        """Counts what a call copies: a part that is given again and again must not be copied for ever."""
        self._work_left -= sum(len(part) for part in arguments if isinstance(part, _COPIED))
        if self._work_left < 0:
            raise CorpusError(f"{self._source} uses the same values over and over, which is refused")

    def _top(self, kind: type, what: str) -> Any:
        if type(self.stack[-1]) is not kind:
            raise CorpusError(f"{self._source} adds items to what is no {what}, which is refused")
        return self.stack[-1]

    def _append_one(self) -> None:
        value = self.stack.pop()
        self._top(list, "list").append(value)

    def _append_many(self) -> None:
        values = self.pop_mark()
        self._top(list, "list").extend(values)

    def _set_one(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict, "dictionary")[plain_key(key)] = value

    def _set_many(self) -> None:
        items = self.pop_mark()
        self._top(dict, "dictionary").update(_pairs(items))

    def _make_dict(self) -> None:
        items = self.pop_mark()
        self.append(_pairs(items))

    def _add_many(self) -> None:
        items = self.pop_mark()
        self._top(set, "set").update(map(plain_key, items))

    def _make_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(plain_key, items)))

    def _make_bytearray(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def _call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, StandIn) or type(arguments) is not tuple:
            raise CorpusError(f"{self._source} calls what is no constructor, which is refused")
        self._charge(arguments)
        self.stack[-1] = function(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        value = self.stack[-1]
        if not isinstance(value, Filled):
            raise CorpusError(f"{self._source} tries to change a constructor or value, which is refused")
        if type(state) is tuple:
            self._charge(state)
        value.__setstate__(state)

    def _make_instance(self) -> NoReturn:
        raise CorpusError(f"{self._source} builds an instance, which is refused")

    def _make_named_instance(self) -> NoReturn:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.find_class(module, name)
        self._make_instance()


def _refusal(what: str) -> Callable[[Reader], None]:
    def refuse(reader: Reader) -> NoReturn:
        raise CorpusError(f"{reader._source} uses {what}, which is refused")

    return refuse


# Opcodes that are checked where they act; the others only move plain values about.
_CHECKED_OPCODES: dict[str, Callable[[Reader], None]] = {
    "APPEND": Reader._append_one,
    "APPENDS": Reader._append_many,
    "SETITEM": Reader._set_one,
    "SETITEMS": Reader._set_many,
    "DICT": Reader._make_dict,
    "ADDITEMS": Reader._add_many,
    "FROZENSET": Reader._make_frozenset,
    "BYTEARRAY8": Reader._make_bytearray,
    "REDUCE": Reader._call,
    "BUILD": Reader._build,
    "OBJ": Reader._make_instance,
    "NEWOBJ": Reader._make_instance,
    "NEWOBJ_EX": Reader._make_instance,
    "INST": Reader._make_named_instance,
    **{name: _refusal(what) for name, what in _REFUSED_OPCODES.items()},
}
_PLAIN_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_LIST", "LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_SET"),
    *("GLOBAL", "STACK_GLOBAL"),
)


def _code(name: str) -> int:
    return getattr(pickle, name)[0]


_TABLE: Any = {_code(name): pickle._Unpickler.dispatch[_code(name)] for name in _PLAIN_OPCODES} | {
    _code(name): function for name, function in _CHECKED_OPCODES.items()
}
Reader.dispatch = _TABLE


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {plain_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}
