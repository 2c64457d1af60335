"""Feature arrays whose rows follow a table: their names, rows, lengths and what is absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...reading import read_npz
from ..errors import CorpusError
from ..records import FeatureSet
from .common import ImportOptions, feature_set, modality_name, numbers, read_npy, repaired

SUFFIXES = (".npy", ".npz", ".safetensors")
RELEASE = "release"  # name of a feature set that has none of its own
_KNOWN = ("text", "audio", "vision")


@dataclass(frozen=True)
class _Placed:
    """An array in the rows of the table."""

    modality: str
    name: str
    values: np.ndarray
    observed: np.ndarray


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npy``, ``.npz`` or safetensors file by name.

    Raises:
        CorpusError: The file is broken or holds pickled objects.
    """
    if path.suffix == ".npy":
        return {path.stem: read_npy(path)}
    try:
        if path.suffix == ".npz":
            return read_npz(path)
        from safetensors.numpy import load_file

        return load_file(path)
    except (Exception, MemoryError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None


def features_of(
    arrays: Mapping[str, np.ndarray], frame: pd.DataFrame, ids: list[str], options: ImportOptions
) -> tuple[tuple[FeatureSet, ...], list[str]]:
    """Feature sets from named arrays.

    Args:
        arrays: Arrays by name, with ``<name>_lengths`` and ``<name>_observed`` beside.
        frame: The table, with the columns ``<name>_row`` and ``available`` where the release has them.
        ids: Utterance ids in the table's order.
        options: What the user says.

    Returns:
        Feature sets and notes.

    Raises:
        CorpusError: A name, shape or number of rows does not fit.
    """
    notes: list[str] = []
    chosen: dict[str, _Placed] = {}
    for key, array in arrays.items():
        if array.ndim == 1 and key in frame.columns and np.isfinite(numbers(frame, key)).any():
            _check_copy(key, array, frame)
            continue
        if key.endswith(("_lengths", "_observed")):
            continue
        modality, name = feature_name(key, options)
        if options.features is not None and name not in options.features:
            continue
        if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
            raise CorpusError(f"the array {key!r} has the shape {array.shape}; [N, d] or [N, T, d] is needed")
        values, observed = _placed(key, modality, array, arrays, frame)
        values, repair = repaired(values, key, ids, options.repair)
        notes += [repair] if repair else []
        chosen[key] = _Placed(modality, name, values, observed)
    windows = _windows(chosen, arrays, notes)
    features: list[FeatureSet] = []
    for key, placed in chosen.items():
        values, lengths = windows.get(key, (placed.values, None))
        item, said = feature_set(placed.modality, placed.name, values, lengths, placed.observed)
        features.append(item)
        notes += [said] if said else []
    features.sort(key=lambda item: (_rank(item.modality), item.name != RELEASE, item.name))
    return tuple(features), notes


def feature_name(key: str, options: ImportOptions) -> tuple[str, str]:
    """Modality and feature set of ``text``, ``text_minilm``, ``audio.wav2vec`` or ``video/release``.

    Raises:
        CorpusError: The name does not tell.
    """
    if key in options.modalities:
        return modality_name(options.modalities[key]), key
    for separator in ("/", ".", "_"):
        first, found, rest = key.partition(separator)
        if found and modality_name(first) in _KNOWN:
            return modality_name(first), rest
    if modality_name(key) in _KNOWN:
        return modality_name(key), RELEASE
    raise CorpusError(
        f"the modality of the array {key!r} is not known from its name; call it text, audio, vision or "
        f"<modality>_<feature set>, or say --modality {key}=text"
    )


def _rank(modality: str) -> int:
    return _KNOWN.index(modality) if modality in _KNOWN else len(_KNOWN)


def _check_copy(key: str, array: np.ndarray, frame: pd.DataFrame) -> None:
    """An array that repeats a column of the table must agree with it."""
    column = numbers(frame, key)
    if len(array) != len(column) or not np.allclose(array.astype(np.float64), column, atol=1e-5):
        raise CorpusError(f"the array {key!r} does not agree with the column {key!r} of the table")


def _placed(
    key: str, modality: str, array: np.ndarray, arrays: Mapping[str, np.ndarray], frame: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """The array in the table's rows: through a column ``<name>_row`` if there is one."""
    observed = np.ones(len(frame), dtype=bool)
    rows = next((name for name in (f"{key}_row", f"{modality}_row") if name in frame.columns), None)
    if rows is not None:
        places = numbers(frame, rows)
        observed = np.isfinite(places)
        whole = np.where(observed, places, 0).astype(np.int64)
        if (whole < 0).any() or (whole >= len(array)).any():
            raise CorpusError(f"column {rows!r} points outside the {len(array)} rows of the array {key!r}")
        array = np.where(observed.reshape(-1, *[1] * (array.ndim - 1)), array[whole], 0)
    if len(array) != len(frame):
        raise CorpusError(f"the array {key!r} has {len(array)} rows for {len(frame)} utterances")
    if f"{key}_observed" in arrays:
        observed = observed & arrays[f"{key}_observed"].astype(bool)
    if "available" in frame.columns:
        listed = [
            not isinstance(value, list) or any(modality_name(str(name)) == modality for name in value)
            for value in frame["available"]
        ]
        observed = observed & np.array(listed)
    return array.astype(np.float32), observed


def _windows(
    chosen: Mapping[str, _Placed], arrays: Mapping[str, np.ndarray], notes: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sequences that start at their first frame, with valid lengths.

    Lengths that are given count. Otherwise sequences of equal length are taken for aligned: steps at
    both ends that are zero in all of them are padding, and all are shifted by the same number of
    steps. A zero frame in between is a frame.
    """
    windows: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    groups: dict[int, list[str]] = {}
    for key, placed in chosen.items():
        if placed.values.ndim != 3:
            continue
        if f"{key}_lengths" in arrays:
            lengths = arrays[f"{key}_lengths"].astype(np.int64)
            longest = placed.values.shape[1]
            if lengths.shape != placed.values.shape[:1] or (lengths < 0).any() or (lengths > longest).any():
                raise CorpusError(f"{key}_lengths must hold one length in 0..{longest} per utterance")
            windows[key] = (placed.values, lengths)
        else:
            groups.setdefault(placed.values.shape[1], []).append(key)
    for longest, keys in groups.items():
        filled = np.any([chosen[key].values.any(axis=2) for key in keys], axis=0)
        some = filled.any(axis=1)
        first = np.where(some, filled.argmax(axis=1), 0)
        last = np.where(some, longest - filled[:, ::-1].argmax(axis=1), 0)
        steps = np.arange(longest)[None, :] + first[:, None]
        inside = steps < last[:, None]
        for key in keys:
            shifted = np.take_along_axis(
                chosen[key].values, np.minimum(steps, longest - 1)[..., None], axis=1
            )
            windows[key] = (shifted * inside[..., None], (last - first).astype(np.int64))
        notes.append(
            f"{', '.join(keys)}: no lengths are given; steps at both ends that are zero in all of them are "
            "padding, and sequences are shifted to start at their first step"
        )
    return windows
