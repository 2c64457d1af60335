"""What the importers share: what they are asked, what they return, and stated repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...reading import read_npy as read_plain_npy
from ..errors import CorpusError
from ..info import DatasetInfo
from ..native import Contents
from ..records import FeatureSet, LabelInfo

# Words in the names of extractors, by the modality they belong to. Audio first: the names of some
# audio models contain those of text models.
_EXTRACTORS = {
    "audio": ("wav2vec", "hubert", "whisper", "opensmile", "egemaps", "is09", "is13", "vggish", "covarep",
              "mel", "audio", "acoustic", "wavlm", "data2vec-audio"),
    "vision": ("manet", "resnet", "senet", "densenet", "clip", "dino", "videomae", "openface", "facet",
               "vision", "video", "visual", "emonet", "face", "timesformer"),
    "text": ("deberta", "roberta", "bert", "glove", "gpt", "minilm", "text", "electra", "xlnet", "bge",
             "sentence", "language"),
}  # fmt: skip
# A class number is a number of the release's; a broken one must not make as many names.
MOST_CLASSES = 1000
_MODALITY_NAMES = {"video": "vision", "visual": "vision", "acoustic": "audio", "language": "text"}


@dataclass(frozen=True)
class ImportOptions:
    """What a user may tell an importer.

    Attributes:
        name: Name of the data set.
        info: Record of the data set, if the name is known.
        modalities: Modality per feature name, where the name does not tell.
        labels: Label columns of a table, where the record does not tell.
        repair: Set values that are not finite to zero and say so, instead of refusing them.
        allow_missing: Take utterances without a feature file as absent instead of refusing them.
        features: Names of the feature folders to take; ``None``: all.
    """

    name: str
    info: DatasetInfo | None = None
    modalities: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[LabelInfo, ...] = ()
    repair: bool = False
    allow_missing: bool = False
    features: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """What an importer found.

    Attributes:
        contents: The data.
        warnings: What a user should look at.
    """

    contents: Contents
    warnings: tuple[str, ...] = ()


def modality_of(name: str, options: ImportOptions) -> str:
    """The modality of a feature set by the name of its extractor.

    Raises:
        CorpusError: The name does not tell; the user has to.
    """
    if name in options.modalities:
        return options.modalities[name]
    lowered = name.lower()
    for modality, words in _EXTRACTORS.items():
        if any(word in lowered for word in words):
            return modality
    raise CorpusError(
        f"the modality of the features {name!r} is not known from their name; say --modality {name}=text "
        "(or audio, vision)"
    )


def modality_name(name: str) -> str:
    """Our name of a modality: ``video`` and ``visual`` are ``vision``."""
    return _MODALITY_NAMES.get(name, name)


def repaired(
    values: np.ndarray, name: str, ids: Sequence[str], allowed: bool
) -> tuple[np.ndarray, str | None]:
    """Values without NaN and infinities.

    Args:
        values: ``[N, ...]``, returned unchanged if all are finite.
        name: Name for messages.
        ids: Utterance ids of the rows.
        allowed: Whether to repair: values that are not finite become zero.

    Returns:
        The values, and a note that says what was repaired.

    Raises:
        CorpusError: There are such values and repairing them is not allowed.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values, None
    rows = ~finite.reshape(len(values), -1).all(axis=1)
    count = int((~finite).sum())
    if not allowed:
        first = ids[int(np.flatnonzero(rows)[0])]
        raise CorpusError(
            f"{name}: {count} values in {int(rows.sum())} utterances are not finite, first in {first!r}; "
            "--repair sets them to zero and records it"
        )
    return np.where(finite, values, 0), f"{name}: {count} values that were not finite were set to zero"


def feature_set(
    modality: str,
    name: str,
    values: np.ndarray,
    lengths: np.ndarray | None = None,
    observed: np.ndarray | None = None,
    note: str = "",
) -> tuple[FeatureSet, str | None]:
    """A feature set in which rows that are zero throughout count as absent, and a note if there are any."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    present = values.reshape(len(values), -1).any(axis=1)
    given = np.ones(len(values), dtype=bool) if observed is None else np.asarray(observed, dtype=bool)
    zero = int((given & ~present).sum())
    said = f"{modality}/{name}: {zero} utterances are zero throughout and count as absent" if zero else None
    return FeatureSet(modality, name, values, lengths, given & present, note), said


def class_labels(options: ImportOptions, column: str, count: int) -> LabelInfo:
    """The class label of the data set's record, or one with numbered classes."""
    if options.info and options.info.label_info.kind == "class":
        label = options.info.label_info
        if len(label.classes) < count:
            raise CorpusError(
                f"the release has {count} classes, the data set {options.name!r} has {len(label.classes)}"
            )
        return label
    return numbered_classes(column, count)


def numbered_classes(column: str, count: int, names: Sequence[str] = ()) -> LabelInfo:
    """A class label with names, or numbers where there are none.

    Raises:
        CorpusError: There are no classes, or so many that the numbers must mean something else.
    """
    if not 0 < count <= MOST_CLASSES:
        raise CorpusError(
            f"column {column!r} holds class numbers up to {count - 1}; classes are numbered from 0, "
            f"and at most {MOST_CLASSES} are read"
        )
    return LabelInfo(column, "class", tuple(names) or tuple(f"class {index}" for index in range(count)))


def array_of(value: Any, what: str) -> np.ndarray:
    """A numeric array from an array, or from a list of arrays or numbers of one shape.

    Raises:
        CorpusError: It is something else, or the shapes differ.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        array = np.asarray(value)
    else:
        items = list(value) if isinstance(value, list | tuple | np.ndarray) else None
        if items is None or not all(
            isinstance(item, np.ndarray | int | float | np.generic | list) for item in items
        ):
            raise CorpusError(f"{what} is not an array of numbers")
        if len({np.shape(item) if not isinstance(item, list) else (len(item),) for item in items}) > 1:
            raise CorpusError(f"{what}: the rows have different shapes")
        try:
            array = np.asarray(items)
        except ValueError:
            raise CorpusError(f"{what}: the rows have different shapes") from None
    if array.dtype.kind not in "biuf":
        raise CorpusError(f"{what} is not an array of numbers")
    return array


def read_npy(path: Path) -> np.ndarray:
    """One ``.npy`` file of numbers; pickled objects are refused.

    Raises:
        CorpusError: The file is broken or holds something else than numbers.
    """
    try:
        array = read_plain_npy(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is not a plain .npy array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise CorpusError(f"{path} does not hold an array of numbers")
    return array


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """One column as a series."""
    return pd.Series(frame[name])


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """One column as float64, NaN where it holds no number."""
    return np.array(pd.to_numeric(column_of(frame, name), errors="coerce"), dtype=np.float64)
