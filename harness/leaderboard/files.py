"""Result tables on disk: Parquet with its information inside, and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..files import written_whole
from ..reading import check_columns, frame_of, read_arrow
from .info import TableInfo, infer_info
from .table import TEXT, InfoKey, TableError, concatenate, info_keys, rows_of, validate

METADATA_KEY = b"imer_bench"


@dataclass(frozen=True)
class PredictionTable:
    """A validated result table.

    Attributes:
        frame: The rows, in the columns and types of this module.
        infos: What holds for the rows of one comparison hash and data set.
    """

    frame: pd.DataFrame
    infos: Mapping[InfoKey, TableInfo]


def read_predictions(paths: str | Path | Iterable[str | Path]) -> PredictionTable:
    """Reads one or many result tables, Parquet (``.parquet``) or CSV (anything else).

    Raises:
        TableError: A file can't be read, is no result table, or two of them disagree.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise TableError("no result table given")
    frames: list[pd.DataFrame] = []
    infos: dict[InfoKey, TableInfo] = {}
    guessed: list[pd.DataFrame] = []
    for file in files:
        frame, info = _read(file)
        frames.append(frame)
        if info is None:
            guessed.append(frame)
            continue
        for key in info_keys(frame):
            infos[key] = infos[key].merged(info) if key in infos else info
    if guessed:
        joined = concatenate(guessed)
        for key in info_keys(joined):
            if key not in infos:
                infos[key] = infer_info(rows_of(joined, key))
    return PredictionTable(concatenate(frames), infos)


def _read(file: Path) -> tuple[pd.DataFrame, TableInfo | None]:
    if not file.is_file():
        raise TableError(f"no result table {str(file)!r}")
    try:
        if file.suffix == ".parquet":
            table = read_arrow(file)
            metadata = table.schema.metadata or {}
            info = TableInfo.from_json(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
            return validate(frame_of(table), file.name), info
        check_columns(file)
        header = pd.read_csv(file, nrows=0).columns
        text = {name: str for name in header if name in (*TEXT, "synthetic")}
        empty = {name: [""] if name in text else ["", "nan", "NaN", "NA", "n/a", "null"] for name in header}
        frame = pd.read_csv(file, dtype=text, keep_default_na=False, na_values=empty)
        return validate(frame, file.name), None
    except UserError as error:
        message = str(error)
        raise TableError(message if message.startswith(file.name) else f"{file.name}: {message}") from None
    # Libraries answer a broken file with almost anything.
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
        OverflowError,
        MemoryError,
    ) as error:
        raise TableError(f"{file.name}: not a readable result table: {error}") from None


def write_predictions(path: Path, frame: pd.DataFrame, info: TableInfo) -> None:
    """Writes a result table as Parquet, whole or not at all.

    Args:
        path: Target; its folder is made.
        frame: Rows; missing optional columns get their defaults.
        info: What holds for the whole table.

    Raises:
        TableError: The rows are no result table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(validate(frame, path.name), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: info.to_json().encode()}
    with written_whole(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
