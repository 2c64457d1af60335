"""Where transcripts, labels and media come from: a table, data that are there, or a corpus' own layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..corpus.importers.common import ImportOptions
from ..corpus.importers.table import import_table
from ..corpus.info import DatasetInfo
from ..corpus.native import Contents, load_contents, ordered
from ..corpus.records import LabelInfo
from ..errors import UnknownName
from ..reading import check_columns, read_json, read_parquet, table_of_records
from .errors import ExtractionError
from .media import FILM, SOUND, WAVE, Recording, picture_files

TABLES = (".csv", ".tsv", ".parquet", ".json")
_AUDIO_COLUMNS = ("audio_path", "audio", "wav")
_VIDEO_COLUMNS = ("video_path", "vision_path", "frames_path")


@dataclass(frozen=True)
class Sources:
    """Utterances and their recordings.

    Attributes:
        contents: The utterances with transcripts, labels and splits, in the order of the native format.
        audio: Sound by utterance id; utterances without an entry have none.
        video: Film or folder of pictures by utterance id.
    """

    contents: Contents
    audio: Mapping[str, Recording] = field(default_factory=dict)
    video: Mapping[str, Recording] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceOptions:
    """What a reader of sources is told.

    Attributes:
        name: Name of the data set.
        info: Record of the data set, if the name is known.
        labels: Label columns of a table, where the record does not tell.
        media: Folders with recordings named by utterance id.
    """

    name: str
    info: DatasetInfo | None = None
    labels: tuple[LabelInfo, ...] = ()
    media: tuple[Path, ...] = ()


Reader = Callable[[Path, SourceOptions], Sources]


def read_sources(layout: str, path: Path, options: SourceOptions) -> Sources:
    """Reads utterances and finds their recordings.

    Args:
        layout: ``"auto"`` or one of ``layouts()``.
        path: A table, a native data folder, or the corpus' folder.
        options: What the user says.

    Raises:
        ExtractionError: The layout is not known, or files of it are absent.
        CorpusError: The table or data folder is broken.
    """
    readers = layouts()
    if layout == "auto":
        layout = detect_layout(path)
    if layout not in readers:
        raise UnknownName("layout", layout, readers)
    if not path.exists():
        raise ExtractionError(f"{path} does not exist")
    found = readers[layout](path, options)
    found = replace(found, contents=ordered(found.contents))
    if options.media:
        audio, video = find_media(options.media, [str(name) for name in found.contents.utterances["id"]])
        found = replace(found, audio={**found.audio, **audio}, video={**found.video, **video})
    return found


def layouts() -> Mapping[str, Reader]:
    """Readers by the name of their layout."""
    from .layouts import read_cmu, read_iemocap, read_meld, read_mmsa

    return {
        "table": read_table,
        "native": read_native,
        "meld": read_meld,
        "iemocap": read_iemocap,
        "mmsa": read_mmsa,
        "cmu": read_cmu,
    }


def detect_layout(path: Path) -> str:
    """The layout of a source by the files that are there.

    Raises:
        ExtractionError: It is none of the known ones.
    """
    if path.is_file() and path.suffix.lower() in TABLES:
        return "table"
    if (path / "manifest.json").is_file():
        return "native"
    if any(path.rglob("*_sent_emo.csv")):
        return "meld"
    if any(path.glob("Session*/dialog/EmoEvaluation/*.txt")):
        return "iemocap"
    if (path / "label.csv").is_file() and (path / "Raw").is_dir():
        return "mmsa"
    if any(path.rglob("Transcript/Segmented")):
        return "cmu"
    raise ExtractionError(
        f"no known layout in {path}: a table, a native data folder, or a folder of MELD, IEMOCAP, CMU-MOSI, "
        "CMU-MOSEI or CH-SIMS; docs/extraction.md shows them, --layout chooses one"
    )


def read_table(path: Path, options: SourceOptions) -> Sources:
    """A CSV, TSV, Parquet or JSON table; paths in it are relative to its folder.

    Columns: id, dialogue, index, speaker, transcript, split and labels as for ``data import --format
    table``; ``audio_path`` and ``video_path``; ``start`` and ``end`` in seconds where one file holds
    several utterances; ``half`` (left, right) where the speaker fills half of the picture.
    """
    contents = import_table(
        [path], ImportOptions(name=options.name, info=options.info, labels=options.labels)
    ).contents
    frame = _raw_table(path)
    ids = [str(name) for name in contents.utterances["id"]]
    return Sources(
        contents,
        _recordings(frame, ids, _AUDIO_COLUMNS, path.parent),
        _recordings(frame, ids, _VIDEO_COLUMNS, path.parent),
    )


def _raw_table(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.suffix == ".json":
        value = read_json(path)
        rows = value.get("utterances", value.get("samples")) if isinstance(value, dict) else value
        return table_of_records(rows)
    separator = "\t" if path.suffix == ".tsv" else ","
    check_columns(path, separator)
    return pd.read_csv(path, sep=separator, keep_default_na=False, na_values={})


def _recordings(
    frame: pd.DataFrame, ids: Sequence[str], columns: Sequence[str], base: Path
) -> dict[str, Recording]:
    column = next((name for name in columns if name in frame.columns), None)
    if column is None:
        return {}
    found: dict[str, Recording] = {}
    for name, row in zip(ids, frame.to_dict("records"), strict=True):
        path = row[column]
        if not isinstance(path, str) or not path.strip():
            continue
        half = str(row.get("half") or "")
        if half not in ("", "left", "right"):
            raise ExtractionError(
                f"column 'half' of {name!r} is {half!r}; left, right or nothing is expected"
            )
        found[name] = Recording(
            (base / path).expanduser(), _seconds(row, "start", name), _seconds(row, "end", name), half
        )
    return found


def _seconds(row: Mapping[Any, Any], column: str, name: str) -> float | None:
    value = row.get(column)
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ExtractionError(f"column {column!r} of {name!r} is {value!r}, not seconds") from None


def read_native(path: Path, options: SourceOptions) -> Sources:
    """A native data folder, for its transcripts; recordings come from ``--media``."""
    contents = load_contents(path)
    return Sources(replace(contents, name=options.name))


def find_media(
    folders: Sequence[Path], ids: Sequence[str]
) -> tuple[dict[str, Recording], dict[str, Recording]]:
    """Recordings named ``<id>.*``, ``<video>/<clip>.*`` for the id ``<video>_<clip>``, or folders of frames.

    Returns:
        Sound and films by utterance id; a film also serves as sound where there is no sound file.

    Raises:
        ExtractionError: A folder does not exist, or two files claim one utterance.
    """
    known = set(ids)
    sound: dict[str, Path] = {}
    film: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ExtractionError(f"--media {folder}: there is no such folder")
        for path in sorted(folder.rglob("*")):
            suffix = path.suffix.lower()
            if path.is_dir():
                kind = film if path.name in known and picture_files(path) else None
            else:
                kind = sound if suffix in (*WAVE, *SOUND) else film if suffix in FILM else None
            if kind is None:
                continue
            stem = path.name if path.is_dir() else path.stem
            name = stem if stem in known else f"{path.parent.name}_{stem}"
            if name not in known:
                continue
            if name in kind:
                raise ExtractionError(f"two recordings of {name!r}: {kind[name]} and {path}")
            kind[name] = path
    tracks = {name: path for name, path in film.items() if path.is_file()}
    audio = {name: Recording(path) for name, path in {**tracks, **sound}.items()}
    return audio, {name: Recording(path) for name, path in film.items()}
