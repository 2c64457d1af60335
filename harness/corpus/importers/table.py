"""Plain tables: one table of utterances and arrays whose rows follow it.

The table is CSV, Parquet or JSON (a list of records, or a dictionary that holds one under
``utterances`` or ``samples``). Features are ``.npy`` files, ``.npz`` or safetensors; the name of a file
or tensor says what it is: ``text``, ``text_minilm``, ``audio.wav2vec``, ``video/release``. A tensor may
have companions ``<name>_lengths`` and ``<name>_observed``. A folder stands for what lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...reading import check_columns, read_json, read_parquet, table_of_records
from ..errors import CorpusError
from ..native import Contents
from ..records import LabelInfo
from .arrays import SUFFIXES, features_of, read_arrays
from .common import Imported, ImportOptions, column_of, numbered_classes, numbers

TABLES = (".csv", ".tsv", ".parquet", ".json")

# Column names met in the field, by ours.
_COLUMNS = {
    "id": ("id", "utterance_id", "utterance", "segment_id", "sample_id", "name"),
    "dialogue": (
        "dialogue",
        "dialogue_id",
        "dialog_id",
        "video_id",
        "video",
        "conversation",
        "conversation_id",
    ),
    "index": ("index", "utterance_index", "utterance_number", "clip", "clip_id", "position"),
    "speaker": ("speaker", "speaker_id"),
    "transcript": ("transcript", "text", "sentence", "raw_text"),
}
_SPLITS = {"train": "train", "training": "train", "dev": "valid", "val": "valid", "valid": "valid",
           "validation": "valid", "test": "test"}  # fmt: skip
# Columns that are taken for labels where neither user nor record name any; the range of other scores
# cannot be known from the data.
_SCORES = {"sentiment": (-3.0, 3.0)}
_CLASSES = ("label", "emotion")


@dataclass(frozen=True)
class _Table:
    frame: pd.DataFrame
    label_names: tuple[str, ...]
    source: str


def recognises(sources: Sequence[Path]) -> bool:
    """Whether there is a table among the sources."""
    return any(path.suffix in TABLES for source in sources for path in _files(source))


def import_table(sources: Sequence[Path], options: ImportOptions) -> Imported:
    """Reads a table and its arrays.

    Raises:
        CorpusError: There is no table, a column is absent, or rows don't fit.
    """
    files = [path for source in sources for path in _files(source)]
    tables = [path for path in files if path.suffix in TABLES]
    given = [path for path in sources if path.suffix in TABLES]
    found = _read_table(_main_table(given or tables))
    warnings: list[str] = []
    frame = found.frame
    table = _columns(frame)
    ids = [str(name) for name in table["id"]]
    labels = _labels(frame, table, found.label_names, options)
    splits, folds, notes = _parts(frame, table)
    arrays: dict[str, np.ndarray] = {}
    for path in files:
        if path.suffix not in SUFFIXES:
            continue
        named = read_arrays(path)
        if path not in sources and not _fits(named, frame):
            sizes = sorted({len(array) for array in named.values() if array.ndim})
            warnings.append(f"{path.name} was left out: {sizes} rows for {len(frame)} utterances")
            continue
        repeated = [name for name in named if name in arrays and name not in table.columns]
        if repeated:
            raise CorpusError(f"{path.name}: the array {repeated[0]!r} was given twice")
        arrays |= named
    features, said = features_of(arrays, frame, ids, options)
    return Imported(
        Contents(
            name=options.name,
            utterances=table,
            labels=labels,
            features=features,
            split_columns=splits,
            fold_columns=folds,
            origin=f"table {found.source}",
            licence=options.info.licence if options.info else "",
            notes=(*notes, *said),
        ),
        tuple(warnings),
    )


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.is_file())
    if not source.exists():
        raise CorpusError(f"{source} does not exist")
    return [source]


def _main_table(tables: list[Path]) -> Path:
    usual = [path for path in tables if path.stem in ("utterances", "samples")]
    found = usual or tables
    if len(found) != 1:
        names = ", ".join(path.name for path in tables) or "none"
        raise CorpusError(
            f"one table of utterances is needed (utterances.csv, .parquet or .json); found: {names}"
        )
    return found[0]


def _read_table(path: Path) -> _Table:
    names: tuple[str, ...] = ()
    try:
        if path.suffix == ".parquet":
            frame = read_parquet(path)
        elif path.suffix == ".json":
            value = read_json(path)
            if isinstance(value, dict):
                names = tuple(str(name).partition(" (")[0] for name in value.get("label_names", ()))
                value = value.get("utterances", value.get("samples"))
            if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
                raise CorpusError(f"{path} holds no list of records (key 'utterances' or 'samples')")
            frame = table_of_records(value)
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            check_columns(path, separator)
            # Text columns stay as they are: "NA" and "null" are words that people say.
            frame = pd.read_csv(path, sep=separator, keep_default_na=False, na_values={}, low_memory=False)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise CorpusError(f"{path} cannot be read as a table: {error}") from None
    if not len(frame):
        raise CorpusError(f"{path} has no rows")
    return _Table(frame, names, path.name)


def _columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The table in our columns; without dialogues every utterance is one of its own."""
    sources = {
        ours: next((name for name in names if name in frame.columns), None)
        for ours, names in _COLUMNS.items()
    }
    if sources["id"] is None:
        raise CorpusError(f"the table has no column 'id' (or {', '.join(_COLUMNS['id'][1:])})")
    table = pd.DataFrame({"id": [str(value) for value in frame[sources["id"]]]})
    dialogue = sources["dialogue"]
    table["dialogue"] = [str(value) for value in frame[dialogue]] if dialogue else table["id"]
    if sources["index"] is not None:
        index = numbers(frame, sources["index"])
        broken = np.flatnonzero(~(index % 1 == 0))
        if len(broken):
            row = table["id"].iloc[int(broken[0])]
            raise CorpusError(f"column {sources['index']!r} of {row!r} is not a whole number")
        table["index"] = index.astype(np.int64)
    else:
        table["index"] = table.groupby("dialogue").cumcount().to_numpy()
    speaker = sources["speaker"]
    table["speaker"] = ["" if pd.isna(value) else str(value) for value in frame[speaker]] if speaker else ""
    if sources["transcript"] is not None:
        table["transcript"] = ["" if pd.isna(value) else str(value) for value in frame[sources["transcript"]]]
    return table


def _labels(
    frame: pd.DataFrame, table: pd.DataFrame, label_names: tuple[str, ...], options: ImportOptions
) -> tuple[LabelInfo, ...]:
    """Label columns: those that the user or the record names, then those that are usual."""
    labels: dict[str, LabelInfo] = {}
    wanted = options.labels or (options.info.labels if options.info else ())
    used: set[str] = set()
    for label in wanted:
        source = label.column
        if source not in frame.columns and label.kind == "class" and "label" in frame.columns:
            source = "label"
        if source not in frame.columns:
            if options.labels:
                raise CorpusError(f"the table has no label column {label.column!r}")
            continue
        table[label.column] = _values(frame, source, label)
        labels[label.column] = label
        used.add(source)
    if not options.labels:
        for column in (*_SCORES, *_CLASSES):
            if column in frame.columns and column not in used and column not in labels:
                label = _guessed(frame, column, label_names)
                if label is not None and not _repeats(frame, column, table, labels):
                    table[column] = _values(frame, column, label)
                    labels[column] = label
    if not labels:
        raise CorpusError(
            "the table has no label column that is known; name one with --label COLUMN:score:LOW:HIGH or "
            "--label COLUMN:class:NAME,NAME,…"
        )
    return tuple(labels.values())


def _guessed(frame: pd.DataFrame, column: str, label_names: tuple[str, ...]) -> LabelInfo | None:
    values = numbers(frame, column)
    numeric = bool(np.isfinite(values).all())
    if column in _SCORES:
        if not numeric:
            return None
        return LabelInfo(column, "score", (), *_SCORES[column])
    if not numeric:
        return LabelInfo(column, "class", tuple(sorted({str(value) for value in frame[column]})))
    count = int(values.max()) + 1
    names = label_names if len(label_names) >= count else ()
    if count == 2 and names in ((), ("negative", "non-negative")):
        names = ("negative", "positive")
    return numbered_classes(column, count, names)


def _repeats(frame: pd.DataFrame, column: str, table: pd.DataFrame, labels: Mapping[str, LabelInfo]) -> bool:
    """Whether the column says the same as a class column that is there."""
    values = numbers(frame, column)
    return any(
        label.kind == "class" and bool((values == table[name].to_numpy()).all())
        for name, label in labels.items()
    )


def _values(frame: pd.DataFrame, column: str, label: LabelInfo) -> np.ndarray:
    """Scores as float64, classes as int64; class names become their numbers."""
    found = numbers(frame, column)
    if label.kind == "class" and not np.isfinite(found).all():
        known = {name: float(index) for index, name in enumerate(label.classes)}
        found = np.array([known.get(str(value), np.nan) for value in frame[column]])
    broken = np.flatnonzero(~np.isfinite(found))
    if len(broken):
        row = int(broken[0])
        value = column_of(frame, column).iloc[row]
        what = "a number" if label.kind == "score" else f"one of {', '.join(label.classes)}"
        raise CorpusError(f"column {column!r}, row {row + 1}: {value!r} is not {what}")
    if label.kind == "class" and (found % 1 != 0).any():
        raise CorpusError(f"column {column!r} holds classes that are not whole numbers")
    return found.astype(np.float64 if label.kind == "score" else np.int64)


def _parts(frame: pd.DataFrame, table: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Split and fold columns, taken over into the table."""
    splits, folds, notes = [], [], []
    for column in (str(name) for name in frame.columns):
        if column == "split" or column.startswith("split_"):
            values = ["" if pd.isna(value) else str(value).lower() for value in frame[column]]
            unknown = [value for value in values if value and value not in _SPLITS]
            if unknown:
                raise CorpusError(f"column {column!r} holds the unknown split {unknown[0]!r}")
            if len(set(values)) == 1:
                notes.append(f"column {column!r} says {values[0]!r} for all utterances and was left out")
                continue
            table[column] = [_SPLITS.get(value, "") for value in values]
            splits.append(column)
        elif column == "fold" or column.endswith("_fold"):
            found = np.nan_to_num(numbers(frame, column), nan=-1.0)
            if (found % 1 != 0).any():
                raise CorpusError(f"column {column!r} holds fold numbers that are not whole")
            table[column] = found.astype(np.int64)
            folds.append(column)
    return tuple(splits), tuple(folds), notes


def _fits(arrays: Mapping[str, np.ndarray], frame: pd.DataFrame) -> bool:
    return any(array.ndim and len(array) == len(frame) for array in arrays.values())
