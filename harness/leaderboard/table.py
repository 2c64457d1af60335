"""The result table: one row per test utterance and condition, the contract with everything else.

Columns (``?``: may be left out of a user's own table, with the default in brackets):

================  ========  ==========================================================================
comparison_hash   text ?    results share a ranking if and only if it agrees ["unstated"]
data_set          text      name of the data set
fold              integer ? test fold; empty: no folds
regime            text ?    ``matched``, ``single``, ``no_prior`` ["unstated"]
method            text ?    method [the label]
label             text      row name in tables
profile           text ?    preset of the method [""]
seed              integer   training seed
train_condition   text ?    schedule of training ["unstated"]
test_condition    text      condition of the test masks, such as ``random-0.3``
family            text ?    conditions that may be averaged [first part of the condition's name]
mask_seed         integer ? seed of the test masks; empty: nothing is drawn
dialogue          text      dialogue or video, the unit of resampling
utterance         text      utterance
y_true            number    score, or class index 0..C-1
score             number ?  predicted score, on the scale of ``y_true``
class_0, ...      number ?  predicted class probabilities
available         text ?    modalities that were available [""]
synthetic         yes/no ?  generated data [no]
selection         text ?    which epoch was tested: ``best``, ``last``, ``test`` ["unstated"]
privileged        text ?    what the method saw of absent modalities, joined by commas [""]
status            text ?    ``finished``; rows of any other status carry no predictions ["finished"]
================  ========  ==========================================================================

``score`` or the ``class_`` columns may be empty for a method, not both. Other columns are ignored.
What is the same for a whole table (task, classes, metrics) is its ``TableInfo`` (``info``): in Parquet
files it is stored as JSON with the schema version, for other tables it is inferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from ..errors import UserError, suggestion

TABLE_SCHEMA = 1
UNSTATED = "unstated"
FINISHED = "finished"

REQUIRED = ("data_set", "label", "seed", "test_condition", "dialogue", "utterance", "y_true")
TEXT_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "comparison_hash": UNSTATED,
        "regime": UNSTATED,
        "profile": "",
        "train_condition": UNSTATED,
        "available": "",
        "selection": UNSTATED,
        "privileged": "",
        "status": FINISHED,
    }
)
TEXT = ("data_set", "label", "test_condition", "dialogue", "utterance", "method", "family", *TEXT_DEFAULTS)
NULLABLE = ("fold", "mask_seed")
COLUMNS = (
    "comparison_hash", "data_set", "fold", "regime", "method", "label", "profile", "seed",
    "train_condition", "test_condition", "family", "mask_seed", "dialogue", "utterance", "y_true",
    "score", "available", "synthetic", "selection", "privileged", "status",
)  # fmt: skip
_TRUTH = {word: True for word in ("true", "1", "1.0", "yes")} | {
    word: False for word in ("false", "0", "0.0", "no")
}


class TableError(UserError, ValueError):
    """A result table can't be used; the message names the file, column or run."""


# Comparison hash and data set of the rows that an info is about.
InfoKey = tuple[str, str]


@dataclass(frozen=True)
class Condition:
    """A test condition and the family within which averages are allowed."""

    name: str
    family: str


def family_of(condition: str) -> str:
    """Family of a condition that doesn't state one: the first part of its name."""
    return condition.partition("-")[0]


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """One column, typed."""
    return cast(pd.Series, frame[name])


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64, nan where empty."""
    return column(frame, name).to_numpy(dtype=np.float64, na_value=np.nan)


def class_columns(frame: pd.DataFrame) -> tuple[str, ...]:
    """Names of the class columns in label order.

    Raises:
        TableError: A number is left out.
    """
    found = {
        int(name.removeprefix("class_"))
        for name in map(str, frame.columns)
        if name.removeprefix("class_").isdigit() and name.startswith("class_")
    }
    if found != set(range(len(found))):
        missing = min(set(range(max(found) + 1)) - found)
        raise TableError(f"class columns must be class_0, class_1, ... without gaps; no class_{missing}")
    return tuple(f"class_{index}" for index in range(len(found)))


def validate(frame: pd.DataFrame, where: str = "table") -> pd.DataFrame:
    """A result table with all columns in their types, defaults filled in.

    Text becomes categorical, labels and predictions float32, folds and mask seeds nullable integers.

    Args:
        frame: Any table with at least the required columns.
        where: Name of the table in messages, such as its file name.

    Raises:
        TableError: A column is missing, or holds what it can't hold.
    """
    for name in REQUIRED:
        if name not in frame.columns:
            raise TableError(f"{where}: no column {name!r}{_near(name, frame.columns)}")
    try:
        classes = class_columns(frame)
    except TableError as error:
        raise TableError(f"{where}: {error}") from None
    if "score" not in frame.columns and not classes:
        raise TableError(f"{where}: no predictions: neither a column 'score' nor 'class_0', 'class_1', ...")
    if "schema_version" in frame.columns and set(frame["schema_version"]) != {TABLE_SCHEMA}:
        raise TableError(f"{where}: schema_version must be {TABLE_SCHEMA} in every row")
    columns: dict[str, Any] = {name: _text(frame, name, where) for name in TEXT}
    columns["seed"] = _integers(frame, "seed", where).astype(np.int64)
    for name in NULLABLE:
        columns[name] = pd.array(_integers(frame, name, where), dtype="Int64")
    for name in ("y_true", "score", *classes):
        columns[name] = _numbers(frame, name, where).astype(np.float32)
    columns["synthetic"] = _truth(frame, where)
    result = pd.DataFrame({name: columns[name] for name in _ordered(classes)})
    finished = (column(result, "status") == FINISHED).to_numpy()
    unlabelled = int((finished & ~np.isfinite(numbers(result, "y_true"))).sum())
    if unlabelled:
        raise TableError(f"{where}: {unlabelled} finished rows have no finite y_true")
    return result


def is_validated(frame: pd.DataFrame) -> bool:
    """Whether a table is in the form that ``validate`` gives."""
    return all(name in frame.columns for name in COLUMNS) and all(
        isinstance(frame.dtypes[name], pd.CategoricalDtype) for name in TEXT
    )


def _ordered(classes: Iterable[str]) -> list[str]:
    at = COLUMNS.index("available")
    return [*COLUMNS[:at], *classes, *COLUMNS[at:]]


def _near(name: str, columns: Iterable[Any]) -> str:
    clause = suggestion(name, sorted(map(str, columns)))
    return clause if "did you mean" in clause else ""


def _text(frame: pd.DataFrame, name: str, where: str) -> pd.Categorical:
    if name not in frame.columns:
        if name in TEXT_DEFAULTS:
            codes = np.zeros(len(frame), dtype=np.int8)
            return pd.Categorical.from_codes(codes, categories=[TEXT_DEFAULTS[name]])
        source = _text(frame, "label" if name == "method" else "test_condition", where)
        return source if name == "method" else _renamed(source, family_of)
    values = column(frame, name)
    if isinstance(values.dtype, pd.CategoricalDtype):
        found = _renamed(pd.Categorical(values), str)
    else:
        found = pd.Categorical(values.astype("string"))
    empty = np.flatnonzero(found.codes < 0)
    if not len(empty):
        return found
    if name not in TEXT_DEFAULTS:
        raise TableError(f"{where}: column {name!r} is empty in row {empty[0] + 1}")
    default = TEXT_DEFAULTS[name]
    filled = found if default in found.categories else found.add_categories([default])
    codes = np.array(filled.codes, dtype=np.int64)
    codes[empty] = list(filled.categories).index(default)
    return pd.Categorical.from_codes(codes, categories=filled.categories)


def _renamed(source: pd.Categorical, rename: Callable[[str], str]) -> pd.Categorical:
    """Unused categories are dropped; categories that get the same name become one."""
    used = np.unique(source.codes[source.codes >= 0])
    names = [rename(source.categories[code]) for code in used]
    categories = list(dict.fromkeys(names))
    if categories == list(source.categories) and isinstance(source.categories.dtype, pd.StringDtype):
        return source
    table = np.full(len(source.categories) + 1, -1)
    table[used] = [categories.index(name) for name in names]
    return pd.Categorical.from_codes(table[source.codes], categories=pd.Index(categories, dtype="str"))


def _numbers(frame: pd.DataFrame, name: str, where: str) -> np.ndarray:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    try:
        return np.asarray(
            cast(pd.Series, pd.to_numeric(column(frame, name))).to_numpy(dtype=np.float64, na_value=np.nan)
        )
    except (TypeError, ValueError) as error:
        raise TableError(f"{where}: column {name!r} must hold numbers: {error}") from None


def _integers(frame: pd.DataFrame, name: str, where: str) -> np.ndarray:
    values = _numbers(frame, name, where)
    known = values[~np.isnan(values)]
    if (known != np.rint(known)).any():
        raise TableError(f"{where}: column {name!r} must hold integers")
    if len(known) < len(values) and name not in NULLABLE:
        raise TableError(f"{where}: column {name!r} has empty rows")
    return values


def _truth(frame: pd.DataFrame, where: str) -> np.ndarray:
    if "synthetic" not in frame.columns:
        return np.zeros(len(frame), dtype=bool)
    values = column(frame, "synthetic")
    if values.dtype == bool:
        return values.to_numpy()
    words = pd.Categorical(values.astype("string").fillna("no").str.lower())
    for word in words.categories:
        if word not in _TRUTH:
            raise TableError(f"{where}: column 'synthetic' must be true or false, not {word!r}")
    return np.array([_TRUTH[word] for word in words.categories], dtype=bool)[words.codes]


def concatenate(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Joins validated tables, or none; text stays categorical, class columns that one lacks are empty."""
    if not frames:
        return validate(pd.DataFrame({name: [] for name in (*REQUIRED, "score")}))
    if len(frames) == 1:
        return frames[0]
    classes = max((class_columns(frame) for frame in frames), key=len)
    columns: dict[str, Any] = {}
    for name in _ordered(classes):
        if name in TEXT:
            columns[name] = union_categoricals([column(frame, name) for frame in frames])
        elif name in classes:
            columns[name] = np.concatenate([_numbers(frame, name, "") for frame in frames]).astype(np.float32)
        else:
            columns[name] = pd.concat([column(frame, name) for frame in frames], ignore_index=True)
    return pd.DataFrame(columns)


def info_keys(frame: pd.DataFrame) -> list[InfoKey]:
    """Comparison hash and data set of every group of rows that shares an info."""
    pairs = frame.loc[:, ["comparison_hash", "data_set"]].drop_duplicates()
    return [(str(first), str(second)) for first, second in pairs.to_numpy()]


def rows_of(frame: pd.DataFrame, key: InfoKey) -> pd.DataFrame:
    """Rows of one comparison hash and data set."""
    mine = (column(frame, "comparison_hash") == key[0]) & (column(frame, "data_set") == key[1])
    return frame.loc[mine.to_numpy()]
