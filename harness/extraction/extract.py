"""Extraction: which inputs, which are known, encode the rest batch by batch, gather the features.

Batches are planned over all inputs, known ones included, and written whole. So a killed extraction
continues with the batches that are not there, in the composition that the unbroken one would have
used, and ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..corpus.records import FeatureSet
from .cache import FeatureCache
from .encoders import Encoder, Input, Utterance, make_encoder
from .errors import ExtractionError, Unreadable
from .pretrained import Checkpoint, find_checkpoint
from .settings import Settings, TextSettings
from .sources import Sources

LARGEST = 16 * 2**30  # bytes of one feature set; the native format holds it in memory
_READERS = 4


class Progress(Protocol):
    """What an extraction tells while it works."""

    def begin(self, modality: str, total: int, done: int) -> None:
        """``done`` of ``total`` inputs of a modality are known already."""
        ...

    def advance(self, count: int) -> None:
        """``count`` more inputs are done."""
        ...


@dataclass(frozen=True)
class Extracted:
    """What was done for one modality.

    Attributes:
        modality: Name of the modality.
        name: Name of the feature set.
        model: The encoder, as it was asked for.
        revision: Its commit on the hub; empty for a local folder.
        weights: Hash of its weights.
        width: Width of a vector.
        longest: Longest sequence; 1 for vectors.
        utterances: Number of utterances.
        observed: Utterances that have the modality.
        computed: Different inputs that were encoded now.
        known: Different inputs that were in the cache.
        absent: Reason by utterance id, where the modality is absent.
        settings: Settings, as plain values.
        precision: float32 or float16.
        versions: Versions of torch and transformers.
    """

    modality: str
    name: str
    model: str
    revision: str
    weights: str
    width: int
    longest: int
    utterances: int
    observed: int
    computed: int
    known: int
    absent: Mapping[str, str]
    settings: Mapping[str, Any]
    precision: str
    versions: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON, without what differs between a first and a second call."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key not in ("computed", "known")}

    def note(self) -> str:
        """What a reader of results must know of these features."""
        said = [f"{self.modality}/{self.name}: {Path(self.model).name}"]
        said += [f"revision {self.revision[:12]}"] if self.revision else []
        chosen = ", ".join(
            f"{key} {value}"
            for key, value in self.settings.items()
            if key not in ("model", "revision", "name", "batch") and value not in (False, 0, "")
        )
        said.append(f"weights {self.weights[:12]}, frozen; {chosen}")
        context = self.settings.get("context", 0)
        if context:
            said.append(
                f"the encoder read {context} neighbours on each side: these vectors hold words of other "
                "utterances, which an absent transcript does not take away"
            )
        return "; ".join(said)


def extract(
    sources: Sources,
    settings: Mapping[str, Settings],
    cache_root: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[tuple[FeatureSet, ...], tuple[Extracted, ...]]:
    """Extracts one feature set per modality.

    All encoders are looked for before anything is computed; then one at a time is in memory.

    Args:
        sources: Utterances with transcripts and recordings.
        settings: Settings per modality.
        cache_root: Folder of the caches.
        device: ``"cpu"`` or ``"cuda"``; on CUDA in float16 where that does not overflow.
        progress: Told what is done.

    Returns:
        Feature sets, and what was done for each.

    Raises:
        EncoderNotFound: An encoder is not at hand.
        ExtractionError: Settings do not fit, no utterance has the modality, or features are too large.
    """
    encoders: list[tuple[str, Settings, Checkpoint, Encoder]] = []
    for modality, chosen in settings.items():
        checkpoint = find_checkpoint(chosen.model, chosen.revision)
        encoders.append(
            (modality, chosen, checkpoint, make_encoder(chosen, checkpoint, device, amp=device == "cuda"))
        )
    features, reports = [], []
    for modality, chosen, checkpoint, encoder in encoders:
        found, report = _extract_one(modality, chosen, checkpoint, encoder, sources, cache_root, progress)
        features.append(found)
        reports.append(report)
    return tuple(features), tuple(reports)


def _extract_one(
    modality: str,
    settings: Settings,
    checkpoint: Checkpoint,
    encoder: Encoder,
    sources: Sources,
    cache_root: Path,
    progress: Progress | None,
) -> tuple[FeatureSet, Extracted]:
    ids = [str(name) for name in sources.contents.utterances["id"]]
    inputs: dict[str, Input] = {}
    absent: dict[str, str] = {}
    context = settings.context if isinstance(settings, TextSettings) else 0
    for name, utterance in zip(ids, utterances_of(sources, modality, context), strict=True):
        try:
            inputs[name] = encoder.input(utterance)
        except Unreadable as error:
            absent[name] = error.reason
    cache = FeatureCache(cache_root, encoder.identity)
    unique = {item.key: item for item in inputs.values()}
    known = sum(key in cache for key in unique)
    if progress:
        progress.begin(modality, len(unique), known)
    lost = _encode_missing(encoder, planned(list(unique.values()), encoder.batch), cache, progress)
    lost = {**cache.unreadable, **lost}
    absent |= {name: lost[item.key] for name, item in inputs.items() if item.key in lost}
    vectors = cache.read([item.key for name, item in inputs.items() if name not in absent])
    rows = [vectors[inputs[name].key] if name not in absent else None for name in ids]
    item = _gathered(modality, settings, rows, encoder.width, absent)
    import torch
    import transformers

    report = Extracted(
        modality=modality,
        name=item.name,
        model=checkpoint.name,
        revision=checkpoint.revision,
        weights=checkpoint.weights,
        width=item.dim,
        longest=item.max_length,
        utterances=len(ids),
        observed=int(item.observed.sum()),
        computed=len(unique) - known,
        known=known,
        absent={name: absent[name] for name in ids if name in absent},
        settings=settings.model_dump(mode="json"),
        precision=str(encoder.identity["precision"]),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )
    return replace(item, note=report.note()), report


def utterances_of(sources: Sources, modality: str, context: int) -> Iterator[Utterance]:
    """What an encoder of this modality may look at, in the order of the table.

    Args:
        sources: Utterances.
        modality: ``"text"``, ``"audio"`` or ``"vision"``.
        context: Neighbours on each side in the same dialogue, for text.
    """
    table = sources.contents.utterances
    ids = [str(name) for name in table["id"]]
    if modality != "text":
        recordings = sources.audio if modality == "audio" else sources.video
        yield from (Utterance(recording=recordings.get(name)) for name in ids)
        return
    texts = [str(text) for text in table["transcript"]] if "transcript" in table else [""] * len(ids)
    dialogues = [str(name) for name in table["dialogue"]]
    for row, text in enumerate(texts):
        before = [i for i in range(max(0, row - context), row) if dialogues[i] == dialogues[row]]
        after = [i for i in range(row + 1, row + 1 + context) if dialogues[i : i + 1] == [dialogues[row]]]
        yield Utterance(text, tuple(texts[i] for i in before), tuple(texts[i] for i in after))


def planned(inputs: Sequence[Input], batch: int) -> list[list[Input]]:
    """Batches of inputs of similar length; the plan depends on the set of inputs only."""
    ranked = sorted(inputs, key=lambda item: (item.length, item.key))
    return [ranked[first : first + batch] for first in range(0, len(ranked), batch)]


def _encode_missing(
    encoder: Encoder, batches: Sequence[Sequence[Input]], cache: FeatureCache, progress: Progress | None
) -> dict[str, str]:
    """Encodes and stores what is not in the cache.

    Returns:
        Reasons by content key, for inputs that could not be read today (no reader is installed).
    """
    lost: dict[str, str] = {}
    todo = [missing for batch in batches if (missing := [item for item in batch if item.key not in cache])]
    loaded = False
    try:
        for batch, values in _read_ahead(encoder, todo):
            good = {
                item.key: value
                for item, value in zip(batch, values, strict=True)
                if not isinstance(value, Unreadable)
            }
            broken: dict[str, str] = {}
            for item, value in zip(batch, values, strict=True):
                if isinstance(value, Unreadable):
                    (broken if value.permanent else lost)[item.key] = value.reason
            encoded: dict[str, np.ndarray] = {}
            if good:
                if not loaded:
                    encoder.load()
                    loaded = True
                encoded = dict(zip(good, encoder.encode(list(good.values())), strict=True))
            for key, value in list(encoded.items()):
                if not np.isfinite(value).all():
                    del encoded[key]
                    broken[key] = "the encoder's values are not finite"
            cache.write(encoded, broken)
            if progress:
                progress.advance(len(batch))
    finally:
        if loaded:
            encoder.unload()
    return lost


def _read_ahead(
    encoder: Encoder, batches: Sequence[Sequence[Input]]
) -> Iterator[tuple[Sequence[Input], list[Any]]]:
    """Batches with what was read of each input; files of the next batch are read meanwhile."""

    def read(item: Input) -> Any:
        try:
            return encoder.read(item)
        except Unreadable as error:
            return error

    if not encoder.reads_files:
        for batch in batches:
            yield batch, [read(item) for item in batch]
        return
    with ThreadPoolExecutor(_READERS) as pool:
        ahead: list[Future[Any]] = []
        for number, batch in enumerate(batches):
            reading = ahead or [pool.submit(read, item) for item in batch]
            following = batches[number + 1] if number + 1 < len(batches) else ()
            ahead = [pool.submit(read, item) for item in following]
            yield batch, [future.result() for future in reading]


def _gathered(
    modality: str,
    settings: Settings,
    rows: Sequence[np.ndarray | None],
    width: int,
    absent: Mapping[str, str],
) -> FeatureSet:
    """The feature set of an utterance table; absent rows are zero and not observed."""
    observed = np.array([row is not None for row in rows])
    if not observed.any():
        reasons = "; ".join(dict.fromkeys(absent.values()))
        raise ExtractionError(f"no utterance has {modality}: {reasons}")
    name = settings.feature_name()
    if not settings.sequence:
        values = np.zeros((len(rows), width), dtype=np.float32)
        for place, row in enumerate(rows):
            if row is not None:
                values[place] = row
        return FeatureSet(modality, name, values, None, observed)
    lengths = np.array([0 if row is None else len(row) for row in rows], dtype=np.int64)
    shape = (len(rows), int(lengths.max()), width)
    size = 4 * shape[0] * shape[1] * shape[2]
    if size > LARGEST:
        raise ExtractionError(
            f"sequences of {modality}/{name} would take {size / 2**30:.1f} GiB as {list(shape)} float32; "
            "shorten them (audio.stride, audio.max_seconds, text.max_tokens, vision.frames) or store vectors"
        )
    values = np.zeros(shape, dtype=np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            values[place, : len(row)] = row
    return FeatureSet(modality, name, values, lengths, observed)
