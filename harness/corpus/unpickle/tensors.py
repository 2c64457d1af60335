"""Torch tensors in pickles, without torch: a storage in torch's first file format, and the layout in it."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from ..errors import CorpusError
from .reader import Bounded, Reader
from .stand_ins import Array, StandIn, bytes_of, items_of, mapping_of

_TORCH_MAGIC, _TORCH_FORMAT = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper halves of float32 numbers
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _StorageReader(Reader):
    """Takes the one persistent id of a storage for what it is: a tuple of plain values."""

    dispatch: Any = Reader.dispatch | {pickle.BINPERSID[0]: pickle._Unpickler.dispatch[pickle.BINPERSID[0]]}

    def persistent_load(self, pid: Any) -> Any:
        """The tuple itself."""
        return pid


class _StorageKind:
    """Stands for a storage class of torch; it cannot be called."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Storage:
    """The numbers of a torch storage."""

    __slots__ = ("half", "numbers")

    def __init__(self, numbers: np.ndarray, half: bool) -> None:
        self.numbers = numbers
        self.half = half


def _load_storage(data: Any) -> _Storage:
    """What ``torch.storage._load_from_bytes`` reads: five pickles of plain data, then the numbers."""
    raw = bytes(bytes_of(data))
    stream = io.BytesIO(raw)
    table: dict[tuple[str, str], Any] = {("torch", name): _StorageKind(name) for name in _STORAGES}
    table["collections", "OrderedDict"] = StandIn(mapping_of)

    def part() -> Any:
        return _StorageReader(Bounded(stream), "a tensor's storage", table).load()

    magic, version, system, found, keys = (part() for _ in range(5))
    if (magic, version) != (_TORCH_MAGIC, _TORCH_FORMAT) or not isinstance(system, dict):
        raise CorpusError("the pickle holds a tensor in an unknown format")
    if system.get("little_endian") is not True:
        raise CorpusError("the pickle holds a tensor of a big-endian machine")
    if not (isinstance(found, tuple) and len(found) in (5, 6) and found[0] == "storage"):
        raise CorpusError("the pickle holds something else than a storage in a tensor")
    kind, key, count = found[1], found[2], found[4]
    if not isinstance(kind, _StorageKind) or keys != [key] or any(part is not None for part in found[5:]):
        raise CorpusError("the pickle holds a storage in an unknown form")
    dtype = np.dtype(_STORAGES[kind.name])
    body = raw[stream.tell() :]
    if (
        type(count) is not int
        or count < 0
        or body[:8] != count.to_bytes(8, "little")
        or len(body) != 8 + count * dtype.itemsize
    ):
        raise CorpusError("the pickle holds a storage whose bytes don't fit its size")
    return _Storage(np.frombuffer(body, dtype, offset=8), kind.name == "BFloat16Storage")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    if not isinstance(storage, _Storage):
        raise CorpusError("the pickle holds a tensor without a storage")
    sizes = (offset, *items_of(size), *items_of(stride))
    if len(size) != len(stride) or not all(type(item) is int and item >= 0 for item in sizes):
        raise CorpusError("the pickle holds a tensor of an unknown shape")
    numbers = storage.numbers
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset
    # Overlapping strides would let a few bytes claim any amount of memory.
    if last >= max(len(numbers), 1) or math.prod(size) > len(numbers) or len(size) > 8:
        raise CorpusError("the pickle holds a tensor beyond its storage")
    steps = tuple(step * numbers.itemsize for step in stride)
    laid_out = np.ndarray(tuple(size), numbers.dtype, numbers.data, offset * numbers.itemsize, steps)
    plain = (laid_out.astype("<u4") << 16).view("<f4") if storage.half else laid_out.copy()
    return plain.view(Array)


def tensor_constructors() -> dict[tuple[str, str], Any]:
    """What a tensor in a pickle calls."""
    return {
        ("torch._utils", "_rebuild_tensor_v2"): StandIn(_rebuild_tensor),
        ("torch.storage", "_load_from_bytes"): StandIn(_load_storage),
    }
