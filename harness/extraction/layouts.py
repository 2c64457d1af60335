"""The directory layouts in which the corpora of the field are distributed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..corpus.info import DatasetInfo
from ..corpus.native import Contents
from ..corpus.records import LabelInfo
from ..corpus.splits import crossing_dialogues
from .errors import ExtractionError
from .media import Recording
from .sources import SourceOptions, Sources

# MELD


_MELD_TABLES = {"train": "train_sent_emo.csv", "dev": "dev_sent_emo.csv", "test": "test_sent_emo.csv"}
_MELD_CLASSES = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
# Punctuation of Windows-1252 that was stored as control characters.
_CONTROL = {code: bytes([code]).decode("cp1252", errors="replace") for code in range(0x80, 0xA0)}


def read_meld(path: Path, options: SourceOptions) -> Sources:
    """MELD.Raw: ``*_sent_emo.csv`` and films ``dia<d>_utt<u>.mp4`` in a folder per split.

    The folders are those of the release (``train_splits``, ``dev_splits_complete``,
    ``output_repeated_splits_test``) wherever they lie below ``path``. Ids are
    ``<split>_dia<d>_utt<u>``; the test folder's ``final_videos_test`` doubles are not used.
    """
    rows, video = [], {}
    films = _meld_films(path)
    for split, name in _MELD_TABLES.items():
        tables = sorted(path.rglob(name))
        if not tables:
            continue
        frame = pd.read_csv(tables[0], encoding="utf-8", keep_default_na=False)
        needed = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
        _need_columns(tables[0], frame, needed)
        for row in frame.to_dict("records"):
            place = f"dia{int(row['Dialogue_ID'])}_utt{int(row['Utterance_ID'])}"
            emotion = str(row["Emotion"]).lower()
            if emotion not in _MELD_CLASSES:
                raise ExtractionError(f"{tables[0]}: {place} has the unknown emotion {emotion!r}")
            rows.append(
                {
                    "id": f"{split}_{place}",
                    "dialogue": f"{split}_dia{int(row['Dialogue_ID'])}",
                    "index": int(row["Utterance_ID"]),
                    "speaker": str(row["Speaker"]),
                    "transcript": str(row["Utterance"]).translate(_CONTROL),
                    "emotion": _MELD_CLASSES.index(emotion),
                    "split": "valid" if split == "dev" else split,
                }
            )
            film = films.get((split, place))
            if film:
                video[f"{split}_{place}"] = Recording(film)
    if not rows:
        raise ExtractionError(f"{path} has none of {', '.join(_MELD_TABLES.values())}")
    label = LabelInfo("emotion", "class", classes=_MELD_CLASSES)
    several = len({row["split"] for row in rows}) > 1
    return _sources(rows, (label,), options, ("split",) if several else (), video, video)


def _meld_films(path: Path) -> dict[tuple[str, str], Path]:
    films: dict[tuple[str, str], Path] = {}
    for film in sorted(path.rglob("dia*_utt*.mp4")):
        if not re.fullmatch(r"dia\d+_utt\d+", film.stem):
            continue
        folder = film.parent.name.lower()
        split = next((split for split in _MELD_TABLES if split in folder), None)
        if split:
            films.setdefault((split, film.stem), film)
    return films


# IEMOCAP

_IEMOCAP_NAMES = {
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
}
_LABEL_LINE = re.compile(r"\[(\d+\.\d+) - (\d+\.\d+)\]\t(\S+)\t(\w+)\t")
_SPOKEN = re.compile(r"(Ses\S+_[FM]\d+) \[[^\]]*\]: ?(.*)")


def read_iemocap(path: Path, options: SourceOptions) -> Sources:
    """IEMOCAP_full_release: ``Session<k>/dialog`` and ``Session<k>/sentences/wav``.

    Classes are those of the data set's record; where it knows no ``excited``, those utterances count as
    happy (four classes). Other emotions are left out. The index counts all transcribed turns of the
    dialogue, so that gaps stay visible. Pictures are cut from the dialogue's film, the half that shows
    the speaker: the party with the motion sensors, the sixth letter of the dialogue's name, is left.
    """
    classes = _iemocap_classes(options.info)
    rows: list[dict[str, object]] = []
    audio, video = {}, {}
    for evaluation in sorted(path.glob("Session*/dialog/EmoEvaluation/Ses*.txt")):
        session = evaluation.parents[2]
        dialogue = evaluation.stem
        spoken = _iemocap_transcripts(session / "dialog" / "transcriptions" / f"{dialogue}.txt")
        places = {name: place for place, name in enumerate(spoken)}
        film = next(iter(sorted((session / "dialog" / "avi").rglob(f"{dialogue}.avi"))), None)
        text = evaluation.read_text(encoding="utf-8", errors="replace")
        for start, end, name, short in _LABEL_LINE.findall(text):
            emotion = _IEMOCAP_NAMES.get(short, "")
            if emotion == "excited" and "excited" not in classes:
                emotion = "happy"
            if emotion not in classes:
                continue
            speaker = name.rpartition("_")[2][0]
            rows.append(
                {
                    "id": name,
                    "dialogue": dialogue,
                    "index": places.get(name, -1),
                    "start": float(start),
                    "speaker": speaker,
                    "transcript": spoken.get(name, ""),
                    "emotion": classes.index(emotion),
                    "fold": int(session.name.removeprefix("Session")) - 1,
                }
            )
            sound = session / "sentences" / "wav" / dialogue / f"{name}.wav"
            if sound.is_file():
                audio[name] = Recording(sound)
            if film is not None:
                half = "left" if speaker == dialogue[5] else "right"
                video[name] = Recording(film, float(start), float(end), half)
    if not rows:
        raise ExtractionError(f"{path} has no labelled utterances in Session*/dialog/EmoEvaluation/*.txt")
    _place_untranscribed(rows)
    label = LabelInfo("emotion", "class", classes=classes)
    found = _sources(rows, (label,), options, (), audio, video, folds=("fold",))
    return found


def _iemocap_classes(info: DatasetInfo | None) -> tuple[str, ...]:
    if info is not None and info.classes:
        return info.classes
    return ("happy", "sad", "neutral", "angry", "excited", "frustrated")


def _iemocap_transcripts(path: Path) -> dict[str, str]:
    """Transcripts by id, in the file's order, which all published results use."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = (_SPOKEN.match(line) for line in lines)
    return {found[1]: found[2].strip() for found in matches if found}


def _place_untranscribed(rows: list[dict[str, object]]) -> None:
    """Gives turns without a transcript a place at the end of their dialogue, in order of time."""
    last: dict[object, int] = {}
    for row in rows:
        last[row["dialogue"]] = max(last.get(row["dialogue"], -1), int(str(row["index"])))
    for row in sorted(rows, key=lambda row: (str(row["dialogue"]), float(str(row["start"])))):
        if row["index"] == -1:
            last[row["dialogue"]] += 1
            row["index"] = last[row["dialogue"]]
        del row["start"]


# MMSA's raw layout: CMU-MOSI, CMU-MOSEI, CH-SIMS

_SCORES = {"label": "sentiment", "label_T": "sentiment_T", "label_A": "sentiment_A", "label_V": "sentiment_V"}
_SPLITS = {"train": "train", "valid": "valid", "test": "test"}


def read_mmsa(path: Path, options: SourceOptions) -> Sources:
    """``label.csv`` (video_id, clip_id, text, label, mode) and ``Raw/<video_id>/<clip_id>.mp4``.

    Where the release divides clips and not videos (CH-SIMS), every clip counts as a dialogue of its
    own, as in the import of the MMSA feature files.
    """
    file = path / "label.csv"
    if not file.is_file():
        raise ExtractionError(f"{path} has no label.csv")
    frame = pd.read_csv(
        file, dtype={"video_id": str, "clip_id": str}, keep_default_na=False, encoding="utf-8-sig"
    )
    _need_columns(file, frame, ("video_id", "clip_id", "text", "label"))
    rows: list[dict[str, object]] = []
    video = {}
    columns = {ours: name for name, ours in _SCORES.items() if name in frame.columns}
    for row in frame.to_dict("records"):
        name = f"{row['video_id']}_{row['clip_id']}"
        if not str(row["clip_id"]).isdigit():
            raise ExtractionError(f"{file}: the clip_id of {name!r} is not a number")
        rows.append(
            {
                "id": name,
                "dialogue": str(row["video_id"]),
                "index": int(row["clip_id"]),
                "speaker": "",
                "transcript": str(row["text"]),
                **{ours: float(row[column]) for ours, column in columns.items()},
                **({"split_standard": _SPLITS.get(str(row["mode"]), "")} if "mode" in frame.columns else {}),
            }
        )
        film = path / "Raw" / str(row["video_id"]) / f"{row['clip_id']}.mp4"
        if film.is_file():
            video[name] = Recording(film)
    table = pd.DataFrame(rows)
    splits = ("split_standard",) if "split_standard" in table else ()
    if splits and crossing_dialogues(table["dialogue"], table["split_standard"]):
        table["video"] = table["dialogue"]
        table["dialogue"] = table["id"]
    low, high = (options.info.score_range if options.info else None) or (
        float(np.floor(table["sentiment"].min())),
        float(np.ceil(table["sentiment"].max())),
    )
    labels = tuple(LabelInfo(name, "score", (), low, high) for name in columns)
    return _sources(table.to_dict("records"), labels, options, splits, video, video)


# The layout of the CMU multimodal SDK: CMU-MOSI, CMU-MOSEI


def read_cmu(path: Path, options: SourceOptions) -> Sources:
    """``Raw/Transcript/Segmented``, ``Audio`` and ``Video`` folders; labels from ``labels.csv``.

    CMU-MOSI: ``<video>.annotprocessed`` with lines ``<n>_DELIM_<text>``, segmented sound and film
    ``<video>_<n>.wav``, ``.mp4``. CMU-MOSEI: ``<video>.txt`` with lines
    ``<video>___<n>___<start>___<end>___<text>`` and whole recordings. The scores are not in these
    folders: ``labels.csv`` (id, sentiment, split) has to lie beside them. To extract for data that
    were imported already, name the data folder instead, with ``--media``.
    """
    labels_file = next(iter(sorted(path.rglob("labels.csv"))), None)
    if labels_file is None:
        raise ExtractionError(
            f"{path} holds transcripts and media, no scores: put labels.csv (id, sentiment, split) there, or "
            "import a release with labels first (bench.py data import) and extract with "
            "SOURCE = the data folder and --media = this folder"
        )
    frame = pd.read_csv(labels_file, dtype={"id": str}, keep_default_na=False)
    _need_columns(labels_file, frame, ("id", "sentiment"))
    spoken, times = _cmu_transcripts(path)
    recordings = {kind: _cmu_recordings(path, suffix) for kind, suffix in (("wav", ".wav"), ("mp4", ".mp4"))}
    rows: list[dict[str, object]] = []
    audio, video = {}, {}
    for row in frame.to_dict("records"):
        name = str(row["id"])
        owner, _, number = name.rpartition("_")
        if not owner or not number.isdigit():
            raise ExtractionError(f"{labels_file}: the id {name!r} is not of the form <video>_<n>")
        rows.append(
            {
                "id": name,
                "dialogue": owner,
                "index": int(number),
                "speaker": "",
                "transcript": spoken.get(name, ""),
                "sentiment": float(row["sentiment"]),
                **({"split_standard": str(row["split"])} if "split" in frame.columns else {}),
            }
        )
        for kind, target in (("wav", audio), ("mp4", video)):
            if name in recordings[kind]:
                target[name] = Recording(recordings[kind][name])
            elif owner in recordings[kind] and name in times:
                target[name] = Recording(recordings[kind][owner], *times[name])
    label = LabelInfo("sentiment", "score", (), -3.0, 3.0)
    splits = ("split_standard",) if "split" in frame.columns else ()
    return _sources(rows, (label,), options, splits, {**video, **audio}, video)


def _cmu_transcripts(path: Path) -> tuple[dict[str, str], dict[str, tuple[float, float]]]:
    spoken: dict[str, str] = {}
    times: dict[str, tuple[float, float]] = {}
    for folder in sorted(path.rglob("Transcript/Segmented")):
        for file in sorted((*folder.rglob("*.annotprocessed"), *folder.rglob("*.txt"))):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if "_DELIM_" in line:
                    number, _, text = line.partition("_DELIM_")
                    spoken[f"{file.stem}_{number.strip()}"] = text.strip()
                elif line.count("___") >= 4:
                    owner, number, start, end, text = line.split("___", 4)
                    name = f"{owner.strip()}_{number.strip()}"
                    spoken[name] = text.strip()
                    times[name] = (float(start), float(end))
    return spoken, times


def _cmu_recordings(path: Path, suffix: str) -> dict[str, Path]:
    """Recordings by file name; segmented ones and whole videos have different names."""
    found: dict[str, Path] = {}
    for file in sorted(path.rglob(f"*{suffix}")):
        found.setdefault(file.stem, file)
    return found


# What they share.


def _need_columns(path: Path, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise ExtractionError(f"{path} has no column {absent[0]!r}")


def _sources(
    rows: Sequence[Mapping[str, object]] | list[dict],
    labels: tuple[LabelInfo, ...],
    options: SourceOptions,
    splits: tuple[str, ...],
    audio: Mapping[str, Recording],
    video: Mapping[str, Recording],
    folds: tuple[str, ...] = (),
) -> Sources:
    contents = Contents(
        name=options.name,
        utterances=pd.DataFrame(list(rows)),
        labels=labels,
        features=(),
        split_columns=splits,
        fold_columns=folds,
        origin="extracted from the corpus' own files",
        licence=options.info.licence if options.info else "",
    )
    return Sources(contents, audio, video)
