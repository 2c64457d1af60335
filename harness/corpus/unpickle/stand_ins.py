"""What a pickle may call, instead of the real constructors of Python and NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from ..errors import CorpusError

_PLAIN_CODE = re.compile(r"^(b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}|O8?)$")
_LONGEST_KEY = 16  # parts of a tuple


def plain_key(value: Any) -> Any:
    """A key of a dictionary or set: plain, so that hashing it takes no time and keys hardly collide.

    Nested tuples may hash for ever; whole numbers far beyond any id can be made to share one hash.
    """
    parts = value if type(value) is tuple and len(value) <= _LONGEST_KEY else (value,)
    for part in parts:
        if part is None or isinstance(part, str | bytes):
            continue
        if isinstance(part, int | np.integer) and abs(int(part)) < 2**61 - 1:
            continue
        raise CorpusError(f"the pickle uses a {type(part).__name__} as a key, which is refused")
    return value


class StandIn:
    """Something a pickle may call; it has no attributes to set and no state to load."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_StandIn__call", call)

    def __call__(self, *arguments: Any) -> Any:
        """Calls what it stands for."""
        return self.__call(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise CorpusError("the pickle tries to change a constructor, which is refused")

    def __setstate__(self, state: Any) -> NoReturn:
        raise CorpusError("the pickle tries to change a constructor, which is refused")


class _NdarrayName:
    """Stands for ``numpy.ndarray`` as an argument of ``_reconstruct``; it cannot be called."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> NoReturn:
        raise CorpusError("the pickle tries to change numpy.ndarray, which is refused")


_NDARRAY = _NdarrayName()
_UNFILLED = np.dtype("V1")  # no pickled array has this dtype


class _DType:
    """A dtype by letter code; its pickled state may set the byte order and nothing else."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise CorpusError("the pickle holds a structured or unknown dtype, which is refused")
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise CorpusError(f"the pickle holds a dtype of unknown byte order {order!r}")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class Array(np.ndarray):
    """An array that is filled once, from a checked state."""

    def __setstate__(self, state: Any, /) -> None:
        if self.dtype != _UNFILLED:
            raise CorpusError("the pickle fills an array twice, which is refused")
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise CorpusError("the pickle holds an array with an unknown state")
        shape, dtype, fortran, raw = state[-4:]
        found = _dtype_of(dtype)
        shape, data = _checked(raw, found, shape)
        # NumPy's own __setstate__ sees checked parts and a dtype that this module made.
        checked: Any = (1, shape, found, bool(fortran), data)
        super().__setstate__(checked)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise CorpusError(f"the pickle holds {type(value).__name__} where text belongs")
    return value


def bytes_of(value: Any) -> bytes | bytearray:
    """Bytes from bytes or from text that stands for them."""
    if isinstance(value, str):  # byte strings of Python 2, read as latin1
        return value.encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise CorpusError(f"the pickle holds {type(value).__name__} where bytes belong")
    return value


def _dtype(code: Any, *_: Any) -> _DType:
    letters = _text(code).lstrip("<>|=")
    if not _PLAIN_CODE.match(letters):
        raise CorpusError(f"the pickle holds an array of the dtype {letters!r}, which is refused")
    return _DType(letters)


def _dtype_of(value: Any) -> np.dtype:
    if not isinstance(value, _DType):
        raise CorpusError("the pickle holds an array without a plain dtype")
    return value.dtype


def _checked(raw: Any, dtype: np.dtype, shape: Any) -> tuple[Any, Any]:
    """The shape, and the bytes (or the list, for objects) if they fit it exactly."""
    shape = (shape,) if type(shape) is int else shape
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise CorpusError("the pickle holds an array of an unknown shape")
    if len(shape) > 8:
        raise CorpusError(f"the pickle holds an array of {len(shape)} dimensions")
    size = math.prod(shape)
    if dtype.hasobject:
        if not isinstance(raw, list) or len(raw) != size:
            raise CorpusError("the pickle holds an object array whose items don't fit its shape")
        # NumPy frees nested object arrays by recursion, which a deep nest would overflow.
        if any(isinstance(i, np.ndarray) and (i.dtype.hasobject or i.dtype == _UNFILLED) for i in raw):
            raise CorpusError("the pickle holds object arrays in object arrays, which is refused")
        return shape, raw
    data = bytes_of(raw)
    if not dtype.itemsize or len(data) != size * dtype.itemsize:
        raise CorpusError("the pickle holds an array whose bytes don't fit its shape")
    return shape, bytes(data)


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    # NumPy always writes an empty array here and fills it from the state.
    if kind is not _NDARRAY or shape not in ((0,), 0):
        raise CorpusError("the pickle builds an array in an unknown way, which is refused")
    return np.empty(0, dtype=_UNFILLED).view(Array)


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    found = _dtype_of(dtype)
    if found.hasobject or order not in ("C", "F"):
        raise CorpusError("the pickle builds an array from a buffer in an unknown way, which is refused")
    shape, data = _checked(raw, found, shape)
    return np.frombuffer(data, dtype=found).reshape(shape, order=order).view(Array)


def _scalar(dtype: Any, raw: Any = None) -> Any:
    found = _dtype_of(dtype)
    if found.hasobject:
        raise CorpusError("the pickle builds an object scalar, which is refused")
    return np.frombuffer(_checked(raw, found, ())[1], dtype=found)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if _text(encoding).replace("-", "") not in ("latin1", "utf8", "ascii"):
        raise CorpusError(f"the pickle holds bytes in the encoding {encoding!r}")
    return _text(text).encode(_text(encoding))


def items_of(values: Any = ()) -> list[Any]:
    """The items of a plain collection."""
    if not isinstance(values, list | tuple | set | frozenset):
        raise CorpusError(f"the pickle builds a collection from {type(values).__name__}")
    return list(values)


def _unique(values: Any = ()) -> Iterable[Any]:
    return map(plain_key, items_of(values))


def mapping_of(pairs: Any = ()) -> dict[Any, Any]:
    """A dictionary from pairs."""
    if isinstance(pairs, dict):
        return dict(pairs)
    items = [items_of(pair) for pair in items_of(pairs)]
    return {plain_key(key): value for key, value in items}


def plain_constructors() -> dict[tuple[str, str], Any]:
    """The table of globals, made anew for every pickle."""
    table: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): StandIn(mapping_of),
        ("_codecs", "encode"): StandIn(_encode),
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): StandIn(_dtype),
    }
    for module in ("builtins", "__builtin__"):
        table |= {
            (module, "set"): StandIn(lambda values=(): set(_unique(values))),
            (module, "frozenset"): StandIn(lambda values=(): frozenset(_unique(values))),
            (module, "bytes"): StandIn(lambda data=b"", *rest: bytes(bytes_of(data))),
            (module, "bytearray"): StandIn(lambda data=b"", *rest: bytearray(bytes_of(data))),
        }
    for core in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
        table |= {
            (f"{core}.multiarray", "_reconstruct"): StandIn(_reconstruct),
            (f"{core}.multiarray", "scalar"): StandIn(_scalar),
            (f"{core}.numeric", "_frombuffer"): StandIn(_frombuffer),
        }
    return table


Filled = Array | _DType  # what a pickle may give a state
