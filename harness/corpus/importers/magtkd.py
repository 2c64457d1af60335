"""MAGTKD's stage-1 features: one pickled dictionary per split of MELD or IEMOCAP.

Keys ``text, audio, video, audio_kd, video_kd, speakers, labels, vids, dia2utt``; the first seven map a
dialogue to a list over its utterances. ``_kd`` are the students after distillation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import CorpusError
from ..native import Contents
from ..records import FeatureSet, LabelInfo
from ..unpickle import read_pickle
from .common import Imported, ImportOptions, array_of, feature_set, numbered_classes, repaired

# Feature keys of the release, with our modality and feature set.
FEATURES = {
    "text": ("text", "magtkd"),
    "audio": ("audio", "magtkd"),
    "video": ("vision", "magtkd"),
    "audio_kd": ("audio", "magtkd_kd"),
    "video_kd": ("vision", "magtkd_kd"),
}
# The release numbers its classes in these orders.
MELD_ORDER = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
IEMOCAP_ORDER = ("angry", "excited", "frustrated", "happy", "neutral", "sad")

_SPLIT_WORDS = {"train": "train", "dev": "valid", "val": "valid", "valid": "valid", "test": "test"}
_SESSION = re.compile(r"^Ses0?(\d)")


def recognises(value: Any) -> bool:
    """Whether an unpickled value looks like this release: one split, or a dictionary of splits."""
    if not isinstance(value, dict):
        return False
    if {"text", "audio", "labels", "speakers"} <= set(value):
        return isinstance(value["labels"], dict)
    splits = [item for key, item in value.items() if _split_of(str(key))]
    return bool(splits) and all(isinstance(item, dict) and recognises(item) for item in splits)


def import_magtkd(sources: Sequence[Path], options: ImportOptions) -> Imported:
    """Reads the pickles of the splits.

    Args:
        sources: One pickle per split, whose names say which (train, dev or valid, test), a folder of
            them, or one pickle with all splits.
        options: What the user says; the name decides the order of classes.

    Raises:
        CorpusError: A file is not of this release, or its lists have different lengths.
    """
    files = [file for path in sources for file in (sorted(path.glob("*.pkl")) if path.is_dir() else [path])]
    if not files:
        raise CorpusError("no pickle was found in the sources")
    parts: dict[str, Mapping[str, Any]] = {}
    for file in files:
        value = read_pickle(file, allow_torch=True)
        if not recognises(value):
            raise CorpusError(f"{file.name} is not a feature file of this release")
        if "labels" in value:
            split = _split_of(file.stem)
            if split is None:
                raise CorpusError(f"{file.name}: the name must say which split it is: train, dev or test")
            found = {split: value}
        else:
            found = {_split_of(str(key)) or "": item for key, item in value.items() if _split_of(str(key))}
        for split, item in found.items():
            if split in parts:
                raise CorpusError(f"{file.name}: the split {split!r} was given twice")
            parts[split] = item
    return from_parts(parts, ", ".join(file.name for file in files), options)


def from_parts(parts: Mapping[str, Mapping[str, Any]], source: str, options: ImportOptions) -> Imported:
    """Turns the splits' dictionaries into contents."""
    label, order = _label(options, parts)
    rows: list[dict[str, Any]] = []
    vectors: dict[str, list[Any]] = {
        key: [] for key in FEATURES if all(key in part for part in parts.values())
    }
    for split in ("train", "valid", "test"):
        part = parts.get(split, {})
        for dialogue, labels in part.get("labels", {}).items():
            count = len(labels)
            lists = {key: part[key].get(dialogue, ()) for key in ("speakers", *vectors)}
            for key, items in lists.items():
                if len(items) != count:
                    raise CorpusError(
                        f"{split}: dialogue {dialogue!r} has {count} labels and {len(items)} {key} entries"
                    )
            name = _dialogue_name(split, dialogue)
            for position in range(count):
                number = order[_number(labels[position], f"{split}/labels of {dialogue!r}", len(order))]
                rows.append(
                    {
                        "id": f"{name}_utt{position}",
                        "dialogue": name,
                        "index": position,
                        "speaker": str(
                            _number(lists["speakers"][position], f"{split}/speakers of {dialogue!r}")
                        ),
                        "split": split,
                        label.column: number,
                    }
                )
            for key in vectors:
                vectors[key] += list(lists[key])
    table = pd.DataFrame(rows)
    fold_columns: tuple[str, ...] = ()
    sessions = [_SESSION.match(str(name)) for name in table["dialogue"]]
    if all(sessions):
        table["fold"] = [int(found[1]) - 1 for found in sessions if found]
        fold_columns = ("fold",)
    ids = [str(name) for name in table["id"]]
    features: list[FeatureSet] = []
    notes: list[str] = []
    for key, items in vectors.items():
        modality, name = FEATURES[key]
        values = array_of([np.squeeze(item) for item in items], key).astype(np.float32)
        if values.ndim != 2:
            raise CorpusError(f"{key} must hold one vector per utterance, found the shape {values.shape[1:]}")
        values, repair = repaired(values, key, ids, options.repair)
        item, zero = feature_set(modality, name, values, note="MAGTKD stage 1")
        features.append(item)
        notes += [note for note in (repair, zero) if note]
    features.sort(key=lambda item: (("text", "audio", "vision").index(item.modality), item.name))
    return Imported(
        Contents(
            name=options.name,
            utterances=table,
            labels=(label,),
            features=tuple(features),
            split_columns=("split",),
            fold_columns=fold_columns,
            origin=f"MAGTKD stage-1 features, {source}",
            licence=options.info.licence if options.info else "",
            notes=tuple(notes),
        )
    )


def _split_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def _label(
    options: ImportOptions, parts: Mapping[str, Mapping[str, Any]]
) -> tuple[LabelInfo, tuple[int, ...]]:
    """The label column, and our class number for every number of the release."""
    info = options.info
    if info and info.label_info.kind == "class":
        label = info.label_info
        for release in (MELD_ORDER, IEMOCAP_ORDER):
            if set(release) == set(label.classes):
                return label, tuple(label.classes.index(name) for name in release)
        raise CorpusError(f"{options.name!r} has other classes than MELD or IEMOCAP with six emotions")
    classes = 1 + max(
        _number(value, "labels")
        for part in parts.values()
        for values in part["labels"].values()
        for value in values
    )
    return numbered_classes("emotion", classes), tuple(range(classes))


def _number(value: Any, what: str, count: int | None = None) -> int:
    """A class or speaker number: an integer, or the position of the one in a one-hot vector."""
    array = np.asarray(value).ravel() if isinstance(value, np.ndarray | list | int | np.generic) else None
    if array is None or array.dtype.kind not in "biuf" or not array.size:
        raise CorpusError(f"{what} holds {type(value).__name__} where a number belongs")
    number = int(array[0]) if array.size == 1 else int(np.argmax(array))
    if number < 0 or (count is not None and number >= count):
        raise CorpusError(f"{what} holds the number {number}, {count} classes are known")
    return number


def _dialogue_name(split: str, dialogue: Any) -> str:
    """MELD counts its dialogues from 0 in every split."""
    name = str(dialogue)
    return f"{'dev' if split == 'valid' else split}_dia{name}" if name.isdigit() else name
