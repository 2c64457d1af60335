"""The GCNet family: a label pickle, and a folder of ``.npy`` files per extractor.

Used by GCNet, MoMKE, ComP, SDR-GNN and others for CMU-MOSI, CMU-MOSEI and IEMOCAP. The label file is
a list of seven dictionaries and sets (MOSI, MOSEI) or six (IEMOCAP): utterance ids, labels, speakers,
transcripts, and the ids of the splits.
"""

from __future__ import annotations

import bisect
import itertools
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
from .common import Imported, ImportOptions, class_labels, feature_set, modality_of, read_npy, repaired

_LABEL_FILE = re.compile(r"_features_raw_\dway\.pkl$")
_SESSION = re.compile(r"^Ses0?(\d)")


def recognises(sources: Sequence[Path]) -> bool:
    """Whether the sources look like this family: a label file, or a folder that holds one."""
    return any(
        _LABEL_FILE.search(path.name) or (path.is_dir() and any(path.glob("*_features_raw_*way.pkl")))
        for path in sources
    )


def import_gcnet(sources: Sequence[Path], options: ImportOptions) -> Imported:
    """Reads a label file and feature folders.

    Args:
        sources: The data set's folder, or the label file and folders of features.
        options: What the user says.

    Raises:
        CorpusError: The release is incomplete or contradicts itself.
    """
    label_file = _label_file(sources, options)
    parts = read_pickle(label_file)
    if not isinstance(parts, list) or len(parts) not in (6, 7):
        raise CorpusError(f"{label_file.name} is not a label file of this family: not a list of 6 or 7")
    table, label, warnings = _table(parts, label_file.name, options)
    ids = [str(name) for name in table["id"]]
    speakers = [str(name) for name in table["speaker"]]
    features: list[FeatureSet] = []
    notes: list[str] = []
    for folder in _feature_folders(sources, ids, options):
        modality = modality_of(folder.name, options)
        item, said, warned = _read_folder(folder, modality, ids, speakers, options)
        features.append(item)
        notes += said
        warnings += warned
    order = ("text", "audio", "vision")
    features.sort(key=lambda item: order.index(item.modality) if item.modality in order else len(order))
    if not features:
        warnings.append("no feature folder was found: the data have labels and transcripts only")
    return Imported(
        Contents(
            name=options.name,
            utterances=table,
            labels=(label,),
            features=tuple(features),
            split_columns=tuple(column for column in ("split_standard", "split") if column in table),
            fold_columns=("fold",) if "fold" in table else (),
            origin=f"GCNet-family release, label file {label_file.name}",
            licence=options.info.licence if options.info else "",
            notes=tuple(notes),
        ),
        tuple(warnings),
    )


def _label_file(sources: Sequence[Path], options: ImportOptions) -> Path:
    files: list[Path] = []
    for path in sources:
        if not path.exists():
            raise CorpusError(f"{path} does not exist")
        files += [path] if path.is_file() else sorted(path.glob("*_features_raw_*way.pkl"))
    if len(files) > 1 and options.name.startswith("iemocap"):  # 4way and 6way lie side by side
        files = [path for path in files if f"_{options.name[-1]}way" in path.name]
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise CorpusError(f"one label file (*_features_raw_*way.pkl) is needed; found: {names}")
    return files[0]


def _feature_folders(sources: Sequence[Path], ids: list[str], options: ImportOptions) -> list[Path]:
    """Folders whose entries are utterances: the sources themselves, or what lies in them."""
    found: dict[str, Path] = {}
    for source in sources:
        if not source.is_dir():
            continue
        folder = source / "features" if (source / "features").is_dir() else source
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
        for candidate in [folder] if _holds_utterances(folder, ids) else inner:
            if _holds_utterances(candidate, ids):
                found[candidate.name] = candidate
    if options.features is None:
        return list(found.values())
    for name in options.features:
        if name not in found:
            at_hand = ", ".join(sorted(found)) or "none"
            raise CorpusError(f"there is no feature folder {name!r}; at hand: {at_hand}")
    return [found[name] for name in options.features]


def _holds_utterances(folder: Path, ids: list[str]) -> bool:
    names = sorted(path.name.removesuffix(".npy") for path in folder.iterdir())
    starts = (bisect.bisect_left(names, utterance) for utterance in ids)
    return any(
        start < len(names) and names[start].startswith(utterance)
        for start, utterance in zip(starts, ids, strict=True)
    )


def _table(parts: list[Any], name: str, options: ImportOptions) -> tuple[pd.DataFrame, LabelInfo, list[str]]:
    ids, labels, speakers, sentences = parts[:4]
    for number, part in enumerate(parts[:4]):
        if not isinstance(part, dict) or list(part) != list(ids):
            raise CorpusError(f"{name}: element {number} is not a dictionary over the same dialogues")
    splits = _splits(parts[4:], set(ids), name)
    rows: list[dict[str, Any]] = []
    for dialogue in sorted(ids):
        members = [list(part[dialogue]) for part in (ids, labels, speakers, sentences)]
        if len({len(member) for member in members}) > 1:
            raise CorpusError(f"{name}: the lists of dialogue {dialogue!r} have different lengths")
        numbers = _numbers(str(dialogue), members[0])
        for position, (utterance, label, speaker, sentence) in enumerate(zip(*members, strict=True)):
            rows.append(
                {
                    "id": str(utterance),
                    "dialogue": str(dialogue),
                    "index": numbers[position] if numbers else position,
                    "speaker": str(speaker),
                    "transcript": str(sentence),
                    "label": label,
                }
            )
    table = pd.DataFrame(rows)
    values = table.pop("label")
    if all(isinstance(value, int | np.integer) for value in values):
        label = class_labels(options, "emotion", int(max(values)) + 1)
        table[label.column] = values.astype(np.int64)
    else:
        known = options.info.label_info if options.info else None
        label = known if known and known.kind == "score" else LabelInfo("sentiment", "score", (), -3.0, 3.0)
        table[label.column] = values.astype(np.float64)
    warnings: list[str] = []
    sessions = [_SESSION.match(str(dialogue)) for dialogue in table["dialogue"]]
    if all(sessions):
        table["fold"] = [int(found[1]) - 1 for found in sessions if found]
    else:
        column = options.info.part_column if options.info else "split_standard"
        column = column if column.startswith("split") else "split_standard"
        table[column] = [splits[str(dialogue)] for dialogue in table["dialogue"]]
    return table, label, warnings


def _numbers(dialogue: str, utterances: list[Any]) -> list[int] | None:
    """The numbers in ``<dialogue>_<n>`` if they increase; the order of the file counts otherwise."""
    numbers = []
    for utterance in utterances:
        rest = str(utterance).removeprefix(f"{dialogue}_")
        if not rest.isdigit():
            return None
        numbers.append(int(rest))
    return numbers if all(a < b for a, b in itertools.pairwise(numbers)) else None


def _splits(sets: list[Any], dialogues: set[Any], name: str) -> Mapping[str, str]:
    names = ("train", "valid", "test") if len(sets) == 3 else ("train", "test")
    splits: dict[str, str] = {}
    for split, members in zip(names, sets, strict=True):
        if not isinstance(members, set | frozenset | list | tuple):
            raise CorpusError(f"{name}: the {split} ids are not a set")
        for dialogue in members:
            if dialogue not in dialogues:
                raise CorpusError(f"{name}: the {split} dialogue {dialogue!r} has no utterances")
            if splits.setdefault(str(dialogue), split) != split:
                raise CorpusError(
                    f"{name}: dialogue {dialogue!r} is in {splits[str(dialogue)]} and in {split}"
                )
    left = sorted(str(dialogue) for dialogue in dialogues if str(dialogue) not in splits)
    if left:
        raise CorpusError(f"{name}: dialogue {left[0]!r} is in no split")
    return splits


def _read_folder(
    folder: Path, modality: str, ids: list[str], speakers: list[str], options: ImportOptions
) -> tuple[FeatureSet, list[str], list[str]]:
    entries = {
        path.name.removesuffix(".npy"): path for path in folder.iterdir() if not path.name.startswith(".")
    }
    names = sorted(entries)
    vectors: list[np.ndarray | None] = []
    used: set[str] = set()
    missing: list[str] = []
    for utterance, speaker in zip(ids, speakers, strict=True):
        entry = _entry(utterance, entries, names, folder)
        if entry is None:
            missing.append(utterance)
            vectors.append(None)
            continue
        used.add(entry)
        vectors.append(_vector(entries[entry], speaker))
    if missing and not options.allow_missing:
        raise CorpusError(
            f"{folder}: {len(missing)} of {len(ids)} utterances have no file, first {missing[0]!r}; "
            "--allow-missing takes them as absent"
        )
    widths = {len(vector) for vector in vectors if vector is not None}
    if len(widths) != 1:
        raise CorpusError(f"{folder}: vectors must have one width, found {sorted(widths) or 'none'}")
    values = np.zeros((len(ids), widths.pop()), dtype=np.float64)
    observed = np.array([vector is not None for vector in vectors])
    for row, vector in enumerate(vectors):
        if vector is not None:
            values[row] = vector
    values, repair = repaired(values, f"{modality}/{folder.name}", ids, options.repair)
    item, zero = feature_set(modality, folder.name, values, observed=observed, note="GCNet-family vectors")
    empty = int((~observed).sum()) - len(missing)
    notes = [note for note in (repair, zero) if note]
    if empty:
        notes.append(f"{modality}/{folder.name}: {empty} utterances have an empty folder and count as absent")
    if missing:
        notes.append(f"{modality}/{folder.name}: {len(missing)} utterances have no file and count as absent")
    unused = len(entries) - len(used)
    warned = [f"{folder.name}: {unused} entries belong to no utterance"] if unused else []
    return item, notes, warned


def _entry(utterance: str, entries: Mapping[str, Path], names: list[str], folder: Path) -> str | None:
    """The entry of an utterance: its id, or the only entry that starts with it."""
    if utterance in entries:
        return utterance
    start = bisect.bisect_left(names, utterance)
    found = []
    while start < len(names) and names[start].startswith(utterance):
        found.append(names[start])
        start += 1
    if len(found) > 1:
        raise CorpusError(f"{folder}: the entries {found[0]!r} and {found[1]!r} both fit {utterance!r}")
    return found[0] if found else None


def _vector(path: Path, speaker: str) -> np.ndarray | None:
    """One vector: matrices and folders of frames are averaged over time; ``None`` for an empty folder."""
    if path.is_file():
        return _averaged(read_npy(path), path)
    files = sorted(path.glob("*.npy"))
    if speaker in ("F", "M"):
        # IEMOCAP films both parties; the letter in the file name says whose face it is.
        files = [file for file in files if ("F" in file.stem) == (speaker == "F")]
    if not files:
        return None
    frames = [_averaged(read_npy(file), file) for file in files]
    if len({len(frame) for frame in frames}) > 1:
        raise CorpusError(f"{path}: the frames have different widths")
    return np.mean(frames, axis=0)


def _averaged(array: np.ndarray, path: Path) -> np.ndarray:
    array = np.squeeze(array).astype(np.float64)
    if array.ndim == 2:
        return array.mean(axis=0)
    if array.ndim != 1:
        raise CorpusError(f"{path} has the shape {array.shape}; a vector or frames of vectors are needed")
    return array
