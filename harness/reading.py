"""Files that others wrote, read within limits: a small file never takes much memory or time.

Everything here raises ``Unreadable`` with a reason; who reads says which file it was and what for.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .parquet_footer import column_chunks

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

# Protocols have a few kilobytes. TOML's keys of many parts take time that grows with their square.
LARGEST_TOML = 256 << 10
LARGEST_JSON = 1 << 30
# A table has an utterance a row and a handful of columns.
MOST_COLUMNS = 1000
# Parquet stores repeated values once: cells and text that a file may hold for its size, and in any case.
CELLS_PER_BYTE, CELLS_ALWAYS = 500, 10_000_000
TEXT_PER_BYTE, TEXT_ALWAYS = 1000, 100 << 20
_PARQUET_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4", "LZ4_RAW")


class Unreadable(ValueError):
    """A file is not what it should be, or would take more than its size allows."""


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file of at most ``most`` bytes; devices and pipes are not read.

    Raises:
        Unreadable: It is something else or larger.
        OSError: It can't be read.
    """
    if path.exists() and not path.is_file():
        raise Unreadable("it is no regular file")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise Unreadable(f"it is larger than {most >> 10} KiB")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        Unreadable: It is not TOML, too large, or nested too deeply.
        OSError: It can't be read.
    """
    return parse_toml(_text(read_bytes(path, LARGEST_TOML)))


def parse_toml(text: str) -> dict[str, Any]:
    """TOML, with every way in which it can be broken as one error.

    Raises:
        Unreadable: It is not TOML, or nested too deeply.
    """
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:  # also numbers of thousands of digits
        raise Unreadable(str(error)) from None
    _check_depth(document)
    return document


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        Unreadable: It is not JSON, too large, or nested too deeply.
        OSError: It can't be read.
    """
    return parse_json(_text(read_bytes(path, LARGEST_JSON)))


def parse_json(text: str | bytes) -> Any:
    """JSON, with every way in which it can be broken as one error.

    Raises:
        Unreadable: It is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    _check_depth(value)
    return value


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8: {error.reason} at byte {error.start}") from None


def _check_depth(value: Any, deepest: int = 60) -> None:
    """Refuses values that later recursions could not walk through."""
    level = [value]
    for _ in range(deepest):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise Unreadable(f"it is nested more than {deepest} levels deep")


def read_parquet(path: Path) -> pd.DataFrame:
    """The flat columns of a Parquet file; columns of lists and records are left out.

    Raises:
        Unreadable: It is no Parquet file, or its cells or text are far larger than it is.
        OSError: It can't be read.
    """
    return frame_of(read_arrow(path))


def frame_of(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as pandas has it by the types of its columns; nothing else is asked.

    Raises:
        Unreadable: A column holds what pandas can't.
    """
    import pyarrow as pa

    try:
        return table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}".splitlines()[0]) from None


def read_arrow(path: Path) -> pa.Table:
    """As ``read_parquet``, as an Arrow table with the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = path.stat().st_size
    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            flat = _flat_columns(file, path, size)
            text = [name for name in flat if _is_text(file.schema_arrow.field(name).type)]
            dictionaries = pq.ParquetFile(path, read_dictionary=text)
        with dictionaries as file:
            table = file.read(columns=flat, use_threads=False)
            table.validate(full=True)  # what is to be text may be no UTF-8
            return _plain_text(table, text, size)
    except Unreadable:
        raise
    except (pa.ArrowException, ValueError, KeyError, MemoryError) as error:
        # ArrowKeyError and the like are no OSErrors; their messages may have many lines.
        raise Unreadable(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _flat_columns(file: pq.ParquetFile, path: Path, size: int) -> list[str]:
    """Names of the columns that are neither lists nor records, if the file may hold so many cells."""
    import pyarrow as pa

    meta = file.metadata
    flat = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
    if len(flat) != len(set(flat)):
        raise Unreadable("two columns have the same name")
    if len(file.schema_arrow) > MOST_COLUMNS:
        raise Unreadable(f"it has {len(file.schema_arrow)} columns, at most {MOST_COLUMNS} are read")
    if meta.num_rows < 0 or meta.num_rows * max(len(flat), 1) > CELLS_ALWAYS + CELLS_PER_BYTE * size:
        raise Unreadable(f"{size} bytes claim to hold {meta.num_rows} rows of {len(flat)} columns")
    unpacked = 0
    for chunk in column_chunks(path):
        unpacked += max(chunk.unpacked, 0)
        if chunk.codec not in _PARQUET_CODECS:
            raise Unreadable(f"it is compressed with {chunk.codec}, which is not read")
    if unpacked > TEXT_ALWAYS + TEXT_PER_BYTE * size:
        raise Unreadable(f"{size} bytes claim to hold {unpacked} bytes")
    return flat


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)


def _plain_text(table: pa.Table, names: Iterable[str], size: int) -> pa.Table:
    """Text columns written out, if a value that is stored once is not repeated without bound."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in names:
        column = table.column(name)
        if not pa.types.is_dictionary(column.type):
            continue
        total = 0
        for chunk in column.chunks:
            lengths = pc.fill_null(pc.call_function("binary_length", [chunk.dictionary]), 0)
            total += pc.call_function("sum", [pc.take(lengths, chunk.indices)]).as_py() or 0
        if total > TEXT_ALWAYS + TEXT_PER_BYTE * size:
            raise Unreadable(f"{size} bytes would become {total} bytes of text in column {name!r}")
        table = table.set_column(
            table.schema.get_field_index(name), name, pc.cast(column, column.type.value_type)
        )
    return table


def check_columns(path: Path, separator: str = ",") -> None:
    """Refuses a CSV file of very many columns: a reader fills them in every row.

    Raises:
        Unreadable: It has more than ``MOST_COLUMNS``.
        OSError: It can't be read.
    """
    if path.exists() and not path.is_file():
        raise Unreadable("it is no regular file")
    with path.open("rb") as lines:
        widest = max((line.count(separator.encode()) for line in lines), default=0)
    if widest >= MOST_COLUMNS:
        raise Unreadable(f"it has {widest + 1} columns, at most {MOST_COLUMNS} are read")


def table_of_records(rows: Any) -> pd.DataFrame:
    """A table from a list of records, as JSON holds it.

    Raises:
        Unreadable: It is no list of records, or they have very many different keys.
    """
    import pandas as pd

    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unreadable("it holds no list of records")
    columns = {key for row in rows for key in row}
    if len(columns) > MOST_COLUMNS:
        raise Unreadable(f"it has {len(columns)} columns, at most {MOST_COLUMNS} are read")
    return pd.DataFrame(rows)


def read_npy(path: Path) -> np.ndarray:
    """One ``.npy`` file of plain values.

    Raises:
        Unreadable: It is something else, holds pickled objects, or is shorter than it says.
        OSError: It can't be read.
    """
    with path.open("rb") as stream:
        return _npy(stream, path.stat().st_size)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file of plain values.

    Raises:
        Unreadable: It is something else, holds pickled objects, or unpacks to more than it can hold.
        OSError: It can't be read.
    """
    import zipfile
    import zlib

    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # NumPy writes these two; others unpack a few bytes to gigabytes, as do members that overlap.
            if any(m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for m in members):
                raise Unreadable("it is compressed in a way that NumPy does not use")
            if sum(member.compress_size for member in members) > size:
                raise Unreadable("its members overlap")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names):
                raise Unreadable("two of its arrays have the same name")
            found = {}
            for name, member in zip(names, members, strict=True):
                if member.file_size > 1100 * member.compress_size + 1000:
                    raise Unreadable(f"its array {name!r} claims {member.file_size} bytes")
                with archive.open(member) as stream:
                    found[name] = _npy(stream, member.file_size)
            return found
    except Unreadable:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise Unreadable(str(error)) from None


def _npy(stream: Any, size: int) -> np.ndarray:
    """One array whose bytes are all there: its header alone allocates nothing."""
    import numpy as np
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(stream)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise Unreadable(f"format {version} is not read")
        shape, fortran, dtype = readers[version](stream)
        if dtype.hasobject or dtype.fields is not None or not dtype.itemsize:
            raise Unreadable(f"it holds values of the type {dtype}, not plain ones")
        count = 1
        for length in shape:
            count *= int(length)
        if min(shape, default=0) < 0 or max(shape, default=0) > sys.maxsize or count * dtype.itemsize > size:
            raise Unreadable(f"{size} bytes claim an array of the shape {_short(shape)}")
        content = stream.read(count * dtype.itemsize)
        if len(content) < count * dtype.itemsize:
            raise Unreadable("it ends early")
        array = np.frombuffer(content, dtype=dtype, count=count)
        return array.reshape(shape, order="F" if fortran else "C").copy()
    except Unreadable:
        raise
    except (Exception, RecursionError, MemoryError) as error:  # a header is a Python expression
        raise Unreadable(f"{type(error).__name__}: {error}".splitlines()[0]) from None


def _short(shape: Iterable[int]) -> str:
    text = str(tuple(shape)[:8])
    return text if len(text) < 100 else f"{text[:97]}..."
