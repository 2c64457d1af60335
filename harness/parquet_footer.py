"""The footer of a Parquet file, read by ourselves where Arrow must not be asked.

Asking Arrow for the sizes of a column (``metadata.row_group(i).column(j)``) ends the whole process where the
footer contradicts itself: its exception leaves a function that promises none. Two numbers of each column are
needed before anything is unpacked, its codec and its size, so this follows the Thrift compact protocol
through ``FileMetaData`` (https://parquet.apache.org/docs/file-format/metadata/) just as far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Field numbers of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META, _CODEC, _UNCOMPRESSED = 4, 1, 3, 4, 6
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_DEEPEST = 16


@dataclass(frozen=True)
class ColumnChunk:
    """One column of one row group, as the footer states it.

    Attributes:
        codec: How its pages are compressed.
        unpacked: Bytes that they unpack to.
    """

    codec: str
    unpacked: int


def column_chunks(path: Path) -> Iterator[ColumnChunk]:
    """What the footer says of all columns of all row groups.

    Raises:
        ValueError: It is no footer of a Parquet file.
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read(8)
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length > size - 8:
            raise ValueError("it has no footer of a Parquet file")
        file.seek(size - 8 - length)
        content = file.read(length)
    try:
        for group in _Compact(content).struct().get(_ROW_GROUPS, []):
            for chunk in group.get(_COLUMNS, []):
                meta = chunk[_META]
                yield ColumnChunk(_CODECS[meta[_CODEC]], meta[_UNCOMPRESSED])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"its footer is broken: {type(error).__name__}") from None


class _Compact:
    """A reader of Thrift's compact protocol: structs become dictionaries by field number."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            step, kind = kind >> 4, kind & 15
            number = number + step if step else self._signed()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):  # truth values in lists take a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            if count > len(self._content) - self._at:  # each takes a byte at least
                raise ValueError("its footer ends early")
            return [self._item(head & 15, depth) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"its footer holds something of the unknown kind {kind}")

    def _item(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        return self._value(kind, depth + 1)

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._content):
            raise ValueError("its footer ends early")
        return self._content[start : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its footer holds a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
