"""The MMSA family: one pickle of padded sequences per data set and alignment.

Used by DMD, IMDer, DiCMoR, TFR-Net, EMT-DLFR, LNLN, MISA and others for CMU-MOSI, CMU-MOSEI and
CH-SIMS. A dictionary of the splits train, valid and test, each a dictionary of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import CorpusError
from ..info import DatasetInfo
from ..native import Contents
from ..records import FeatureSet, LabelInfo, TokenSet
from ..splits import crossing_dialogues
from ..unpickle import read_pickle
from .common import Imported, ImportOptions, array_of, feature_set

SPLITS = ("train", "valid", "test")
UNIMODAL = {"T": "sentiment_text", "A": "sentiment_audio", "V": "sentiment_vision"}
UNKNOWN_TOKEN = 100  # [UNK] of the English and the Chinese BERT vocabulary
ENGLISH = ("bert-base-uncased", 30522)
CHINESE = ("bert-base-chinese", 21128)


def recognises(value: Any) -> bool:
    """Whether an unpickled value looks like this family."""
    return (
        isinstance(value, dict)
        and set(SPLITS) <= set(value)
        and all(isinstance(value[split], dict) for split in SPLITS)
        and {"audio", "vision", "regression_labels"} <= set(value["train"])
    )


def import_mmsa(sources: Sequence[Path], options: ImportOptions) -> Imported:
    """Reads one feature file.

    Raises:
        CorpusError: The file is not of this family or contradicts itself.
    """
    if len(sources) != 1 or not sources[0].is_file():
        raise CorpusError("give one feature file of the MMSA family; import a second one in a second call")
    data = read_pickle(sources[0])
    if not recognises(data):
        raise CorpusError(f"{sources[0].name} is not a feature file of the MMSA family")
    return from_value(data, sources[0].name, options)


def from_value(data: dict[str, Any], source: str, options: ImportOptions) -> Imported:
    """Turns the unpickled dictionary into contents."""
    notes: list[str] = []
    warnings: list[str] = []
    sims = "regression_labels_T" in data["train"]
    table, labels = _table(data, sims, options.info, warnings)
    ids = [str(name) for name in table["id"]]
    blocks = _joined(data, "text_bert") if "text_bert" in data["train"] else None
    text_lengths = None
    if blocks is not None:
        if blocks.ndim != 3 or blocks.shape[1] != 3:
            raise CorpusError(f"{source}: text_bert has the shape {blocks.shape}, [N, 3, L] is needed")
        text_lengths = _mask_lengths(blocks[:, 1], ids)
    aligned = "audio_lengths" not in data["train"] and "vision_lengths" not in data["train"]
    arrays = {
        modality: _joined(data, modality, keep=False)
        for modality in ("text", "audio", "vision")
        if modality in data["train"]
    }
    for modality, values in arrays.items():
        if values.ndim != 3:
            raise CorpusError(f"{source}: {modality} has the shape {values.shape}, [N, L, D] is needed")
    width = arrays["text"].shape[1] if "text" in arrays else (0 if blocks is None else blocks.shape[2])
    same = len({values.shape[1] for values in arrays.values()}) == 1
    name = f"{'aligned' if aligned and same else 'unaligned'}_{width}"
    features: list[FeatureSet] = []
    for modality, values in arrays.items():
        values, note = _repair(values, modality, table["split_standard"].to_numpy())
        notes += note
        if modality == "text" or (aligned and same):
            lengths = text_lengths
        else:
            lengths = _lengths(data, modality, values.shape[1])
        if lengths is None:
            lengths = _length_by_zeros(values)
            warnings.append(f"{modality}: no lengths in the file; zeros at the end are taken for padding")
        if len(lengths) != len(values) or (lengths > values.shape[1]).any() or (lengths < 0).any():
            raise CorpusError(f"{source}: {modality} lengths lie outside 0..{values.shape[1]}")
        item, said = feature_set(modality, name, values, lengths, note=f"MMSA-family file {source}")
        features.append(item)
        notes += [said] if said else []
    return Imported(
        Contents(
            name=options.name,
            utterances=table,
            labels=labels,
            features=tuple(features),
            tokens=_tokens(blocks, text_lengths, sims, source),
            split_columns=("split_standard",),
            origin=f"MMSA-family file {source}",
            licence=options.info.licence if options.info else "",
            notes=tuple(notes),
        ),
        tuple(warnings),
    )


def _joined(data: dict[str, Any], key: str, keep: bool = True) -> np.ndarray:
    """The splits' arrays of one key, one after another; frames take gigabytes and are not kept twice."""
    parts = []
    for split in SPLITS:
        if key not in data[split]:
            raise CorpusError(f"the split {split!r} has no {key!r}")
        value = data[split][key] if keep else data[split].pop(key)
        parts.append(array_of(value, f"{split}/{key}"))
    if len({part.shape[1:] for part in parts}) > 1:
        raise CorpusError(f"{key!r} has different shapes in the splits: {[part.shape for part in parts]}")
    return np.concatenate(parts)


def _strings(data: dict[str, Any], key: str) -> list[str] | None:
    if not all(key in data[split] for split in SPLITS):
        return None
    return [str(value) for split in SPLITS for value in np.asarray(data[split][key], dtype=object).ravel()]


def _table(
    data: dict[str, Any], sims: bool, info: DatasetInfo | None, warnings: list[str]
) -> tuple[pd.DataFrame, tuple[LabelInfo, ...]]:
    names = _strings(data, "id")
    if names is None:
        raise CorpusError("the file has no utterance ids (key 'id')")
    sizes = [len(np.asarray(data[split]["id"], dtype=object).ravel()) for split in SPLITS]
    videos, clips = _videos_and_clips(names)
    table = pd.DataFrame(
        {
            "id": [f"{video}_{clip}" for video, clip in zip(videos, clips, strict=True)],
            "dialogue": videos,
            "index": [int(clip) for clip in clips],
            "speaker": "",
            "split_standard": np.repeat(SPLITS, sizes),
        }
    )
    transcripts = _strings(data, "raw_text")
    if transcripts is not None:
        table["transcript"] = transcripts
    low, high = (info.score_range if info and info.score_range else None) or (
        (-1.0, 1.0) if sims else (-3.0, 3.0)
    )
    columns = {"regression_labels": "sentiment"}
    if sims:
        columns |= {f"regression_labels_{key}": column for key, column in UNIMODAL.items()}
    for key, column in columns.items():
        values = _joined(data, key).reshape(-1).astype(np.float64)
        if len(values) != len(table):
            raise CorpusError(f"{key} has {len(values)} rows for {len(table)} utterances")
        # Labels are float32 in the file; their grid has at most six decimals.
        table[column] = np.round(values, 6)
    _check_annotations(data, table["sentiment"].to_numpy(), warnings)
    crossing = crossing_dialogues(table["dialogue"], table["split_standard"])
    if crossing and sims:
        warnings.append(
            f"the release divides clips, not videos: {len(crossing)} of {len(set(videos))} videos lie in "
            "several splits, so every clip counts as a dialogue of its own (column 'video' keeps the videos)"
        )
        table["video"] = table["dialogue"]
        table["dialogue"] = table["id"]
    return table, tuple(LabelInfo(column, "score", (), low, high) for column in columns.values())


def _videos_and_clips(names: list[str]) -> tuple[list[str], list[str]]:
    videos, clips = [], []
    for name in names:
        video, separator, clip = name.rpartition("$_$" if "$_$" in name else "_")
        if not separator or not clip.isdigit():
            raise CorpusError(f"the utterance id {name!r} is not of the form video$_$clip")
        videos.append(video)
        clips.append(clip)
    return videos, clips


def _check_annotations(data: dict[str, Any], scores: np.ndarray, warnings: list[str]) -> None:
    words = _strings(data, "annotations")
    if words is None or len(words) != len(scores):
        return
    signs = np.array([{"negative": -1, "neutral": 0, "positive": 1}.get(word.lower(), 9) for word in words])
    wrong = int(((signs != np.sign(scores)) & (signs != 9)).sum())
    if wrong:
        warnings.append(
            f"{wrong} annotations (negative, neutral, positive) don't agree with the sign of the score"
        )


def _mask_lengths(mask: np.ndarray, ids: list[str]) -> np.ndarray:
    valid = mask > 0
    lengths = valid.sum(axis=1).astype(np.int64)
    run = np.arange(valid.shape[1])[None, :] < lengths[:, None]
    broken = np.flatnonzero((run != valid).any(axis=1))
    if len(broken):
        raise CorpusError(f"the attention mask of {ids[broken[0]]!r} is not a run of ones from the start")
    return lengths


def _lengths(data: dict[str, Any], modality: str, longest: int) -> np.ndarray | None:
    key = f"{modality}_lengths"
    if not all(key in data[split] for split in SPLITS):
        return None
    return _joined(data, key).reshape(-1).astype(np.int64)


def _length_by_zeros(values: np.ndarray) -> np.ndarray:
    filled = (values != 0).any(axis=2)
    return np.where(filled.any(axis=1), values.shape[1] - filled[:, ::-1].argmax(axis=1), 0)


def _repair(values: np.ndarray, modality: str, splits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Values that are not finite become zero: the family's own loader does so for -inf in audio."""
    finite = np.isfinite(values)
    if finite.all():
        return values, []
    notes = []
    for split in SPLITS:
        cells = int((~finite[splits == split]).sum())
        if cells:
            notes.append(f"{modality}, {split}: {cells} values that were not finite were set to zero")
    return np.where(finite, values, 0), notes


def _tokens(
    blocks: np.ndarray | None, lengths: np.ndarray | None, sims: bool, source: str
) -> TokenSet | None:
    if blocks is None or lengths is None:
        return None
    ids = blocks[:, 0]
    tokenizer, vocabulary = CHINESE if sims else ENGLISH
    if (ids != np.round(ids)).any() or ids.min() < 0 or ids.max() >= vocabulary:
        raise CorpusError(
            f"{source}: token ids lie outside the vocabulary of {tokenizer} (0..{vocabulary - 1})"
        )
    places = np.arange(ids.shape[1])[None, :]
    mask = places < lengths[:, None]
    special = mask & ((places == 0) | (places == lengths[:, None] - 1))
    return TokenSet(
        ids=np.where(mask, ids, 0).astype(np.int32),
        mask=mask,
        unknown=UNKNOWN_TOKEN,
        special=special,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
    )
