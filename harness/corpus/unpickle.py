"""Reads the field's pickles as data: an allow-list, and stand-ins instead of the real constructors.

A pickle is a program. This reader lets it build containers, strings, bytes, numbers, NumPy arrays and
scalars, and, only where a release needs it, torch tensors. Three walls:

1. A scan of the opcodes before anything is built: no persistent ids, no extension registry, no
   out-of-band buffers, no memo positions beyond the length of the program.
2. Every global is looked up in a fixed table by its full name; nothing is imported, dotted names lead
   nowhere, and everything else is a ``ForbiddenGlobal`` that names it.
3. The table holds stand-ins. The real ``numpy.dtype`` and ``numpy.ndarray`` accept states (flags,
   strides, buffers) that break memory safety, so dtypes are rebuilt from their letter codes and
   arrays from bytes of the right length. The stand-ins themselves cannot be changed by a pickle.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from .errors import CorpusError, ForbiddenGlobal

# Opcodes that reach outside the stream, or build instances in ways no release uses.
_REFUSED_OPCODES = {
    "PERSID": "a persistent id",
    "BINPERSID": "a persistent id",
    "EXT1": "the extension registry",
    "EXT2": "the extension registry",
    "EXT4": "the extension registry",
    "NEXT_BUFFER": "an out-of-band buffer",
    "READONLY_BUFFER": "an out-of-band buffer",
}
_PLAIN_CODE = re.compile(r"^(b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}|O8?)$")


def read_pickle(source: Path | bytes, allow_torch: bool = False, encoding: str = "latin1") -> Any:
    """Reads a pickle of plain data.

    Args:
        source: A file, or the pickle itself.
        allow_torch: Rebuild torch tensors, as NumPy arrays; their inner bytes are read by torch's
            own weights-only reader.
        encoding: For the byte strings of Python 2.

    Raises:
        ForbiddenGlobal: The pickle asks for anything outside the allow-list. Nothing was executed.
        CorpusError: The stream is broken or does what no release does.
    """
    name = source.name if isinstance(source, Path) else "the pickle"
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            _scan(stream, name)
            stream.seek(0)
            return _Reader(stream, name, allow_torch, encoding).load()
    except CorpusError:
        raise
    except OSError as error:
        raise CorpusError(f"{source} cannot be read: {error.strerror}") from None
    except (Exception, RecursionError, MemoryError) as error:
        raise CorpusError(f"{name} is not a sound pickle: {type(error).__name__}: {error}") from None


_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}


def _scan(stream: BinaryIO, name: str) -> None:
    count = 0
    largest = -1
    while True:
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise CorpusError(f"{name} is not a sound pickle: it ends early or holds an unknown opcode")
        count += 1
        if opcode.name in _REFUSED_OPCODES:
            raise CorpusError(f"{name} uses {_REFUSED_OPCODES[opcode.name]}, which is refused")
        if opcode.name == "STOP":
            break
        if opcode.name == "STRING":  # the library's own reader takes ASCII only
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                largest = max(largest, int(argument))
    if largest > count:
        raise CorpusError(f"{name} asks for the memo position {largest}, which is refused")


class _Reader(pickle.Unpickler):
    """An unpickler whose globals come from a table."""

    def __init__(self, stream: BinaryIO, name: str, allow_torch: bool, encoding: str) -> None:
        super().__init__(stream, fix_imports=False, encoding=encoding)
        self._source = name
        self._table = _allowed(allow_torch)

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return self._table[module, name]
        except KeyError:
            raise ForbiddenGlobal(f"{module}.{name}", self._source) from None

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise CorpusError(f"{self._source} uses a persistent id, which is refused")


class _StandIn:
    """Something a pickle may call; it has no attributes to set and no state to load."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_StandIn__call", call)

    def __call__(self, *arguments: Any) -> Any:
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


class _Array(np.ndarray):
    """An array that is filled from a checked state."""

    def __setstate__(self, state: Any, /) -> None:
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


def _bytes(value: Any) -> bytes | bytearray:
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
        return shape, raw
    data = _bytes(raw)
    if not dtype.itemsize or len(data) != size * dtype.itemsize:
        raise CorpusError("the pickle holds an array whose bytes don't fit its shape")
    return shape, bytes(data)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    # NumPy always writes an empty array here and fills it from the state.
    if kind is not _NDARRAY or shape not in ((0,), 0):
        raise CorpusError("the pickle builds an array in an unknown way, which is refused")
    return np.empty(0, dtype=np.int8).view(_Array)


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    found = _dtype_of(dtype)
    if found.hasobject or order not in ("C", "F"):
        raise CorpusError("the pickle builds an array from a buffer in an unknown way, which is refused")
    shape, data = _checked(raw, found, shape)
    return np.frombuffer(data, dtype=found).reshape(shape, order=order).view(_Array)


def _scalar(dtype: Any, raw: Any = None) -> Any:
    found = _dtype_of(dtype)
    if found.hasobject:
        raise CorpusError("the pickle builds an object scalar, which is refused")
    return np.frombuffer(_checked(raw, found, ())[1], dtype=found)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if _text(encoding).replace("-", "") not in ("latin1", "utf8", "ascii"):
        raise CorpusError(f"the pickle holds bytes in the encoding {encoding!r}")
    return _text(text).encode(_text(encoding))


def _items(values: Any = ()) -> list[Any]:
    if not isinstance(values, list | tuple | set | frozenset):
        raise CorpusError(f"the pickle builds a collection from {type(values).__name__}")
    return list(values)


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs) if isinstance(pairs, dict) else dict(_items(pairs))


def _allowed(allow_torch: bool) -> dict[tuple[str, str], Any]:
    """The table of globals, made anew for every pickle."""
    table: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): _StandIn(_mapping),
        ("_codecs", "encode"): _StandIn(_encode),
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _StandIn(_dtype),
    }
    for module in ("builtins", "__builtin__"):
        table |= {
            (module, "set"): _StandIn(lambda values=(): set(_items(values))),
            (module, "frozenset"): _StandIn(lambda values=(): frozenset(_items(values))),
            (module, "bytes"): _StandIn(lambda data=b"", *rest: bytes(_bytes(data))),
            (module, "bytearray"): _StandIn(lambda data=b"", *rest: bytearray(_bytes(data))),
        }
    for core in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
        table |= {
            (f"{core}.multiarray", "_reconstruct"): _StandIn(_reconstruct),
            (f"{core}.multiarray", "scalar"): _StandIn(_scalar),
            (f"{core}.numeric", "_frombuffer"): _StandIn(_frombuffer),
        }
    if allow_torch:
        table |= {
            ("torch._utils", "_rebuild_tensor_v2"): _StandIn(_rebuild_tensor),
            ("torch.storage", "_load_from_bytes"): _StandIn(_load_storage),
        }
    return table


class _Storage:
    """A torch storage that was read in weights-only mode."""

    __slots__ = ("storage",)

    def __init__(self, storage: Any) -> None:
        self.storage = storage

    def __setstate__(self, state: Any) -> NoReturn:
        raise CorpusError("the pickle tries to change a storage, which is refused")


def _load_storage(data: Any) -> _Storage:
    import torch

    storage = torch.load(io.BytesIO(_bytes(data)), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage | torch.UntypedStorage):
        raise CorpusError("the pickle holds something else than a storage in a tensor")
    return _Storage(storage)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    import torch

    if not isinstance(storage, _Storage) or not isinstance(storage.storage, torch.storage.TypedStorage):
        raise CorpusError("the pickle holds a tensor without a storage")
    sizes = (offset, *_items(size), *_items(stride))
    if len(size) != len(stride) or not all(type(item) is int and item >= 0 for item in sizes):
        raise CorpusError("the pickle holds a tensor of an unknown shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset
    kind = storage.storage.dtype
    untyped = storage.storage._untyped_storage
    count = untyped.nbytes() // kind.itemsize
    # Overlapping strides would let a few bytes claim any amount of memory.
    if last >= max(count, 1) or math.prod(size) > count:
        raise CorpusError("the pickle holds a tensor beyond its storage")
    tensor = torch.empty(0, dtype=kind).set_(untyped, offset, tuple(size), tuple(stride))
    plain = tensor.float() if kind is torch.bfloat16 else tensor
    return plain.detach().clone().numpy().view(_Array)
