"""What can be checked only with the data at hand: splits, true labels, and all masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..hashing import canonical, derive_seed
from ..protocol.data import DataSource, load_data
from ..protocol.plan import DataPlan, data_identity
from ..protocol.schema import Protocol
from ..schedules import Schedule, describe
from .addresses import Schedules
from .files import PREDICTIONS
from .findings import Finding
from .masks import Draws, compare_entry
from .predictions import Block


@dataclass(frozen=True)
class Absent:
    """The data of a run are not at hand, or not those that it was computed on."""

    finding: Finding


class DataAtHand:
    """Data sets of protocols, each loaded once.

    Args:
        source: Where data are looked for; whether a run is on generated data, its record says.
        wanted: Whether data are looked for at all.
    """

    def __init__(self, source: DataSource, wanted: bool = True) -> None:
        self._source = source
        self._wanted = wanted
        self._loaded: dict[str, DataPlan | Absent] = {}
        self._identities: dict[tuple[int, int | None], dict[str, Any]] = {}

    def of(self, record: Mapping[str, Any], protocol: Protocol) -> DataPlan | Absent:
        """The data that a run was computed on."""
        if not self._wanted:
            return Absent(Finding("unchecked", "data", "not looked for"))
        name, fingerprint = record["data"]["name"], record["data"]["fingerprint"]
        found: DataPlan | Absent = Absent(
            Finding("unchecked", "data", f"the protocol has no data set {name!r}")
        )
        for entry in protocol.data:
            if entry.set != name:
                continue
            found = self._load(protocol.model_copy(update={"data": (entry,)}), record["marks"]["synthetic"])
            if isinstance(found, Absent):
                continue
            here = found.samples.corpus.fingerprint
            if here == fingerprint:
                return found
            text = f"the data at hand are others: fingerprint {here[:12]}…, not {fingerprint[:12]}…"
            found = Absent(Finding("unchecked", "data", text))
        return found

    def _load(self, protocol: Protocol, synthetic: bool) -> DataPlan | Absent:
        shown = protocol.model_dump(mode="json", include={"data", "comparison", "test", "literature"})
        key = canonical([shown, synthetic])
        if key not in self._loaded:
            source = DataSource(self._source.root, synthetic, self._source.scale)
            try:
                self._loaded[key] = load_data(protocol, source)[0]
            except UserError as error:
                text = f"not at hand: {str(error).splitlines()[0]}"
                self._loaded[key] = Absent(Finding("unchecked", "data", text))
        return self._loaded[key]

    def identity(self, data: DataPlan, fold: int | None) -> dict[str, Any]:
        """``data_identity``, made once per fold."""
        key = (id(data), fold)
        if key not in self._identities:
            self._identities[key] = data_identity(data, fold)
        return self._identities[key]


def check_against_data(
    record: Mapping[str, Any], schedules: Schedules, data: DataPlan, blocks: Sequence[Block], draws: Draws
) -> Iterator[Finding]:
    """Test utterances, labels and what was observed; validation masks and the first training masks."""
    fold = record["identity"]["fold"]
    if fold not in data.splits:
        yield Finding("altered", "data", f"the protocol has no fold {fold}")
        return
    split = data.splits[fold]
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    sizes = {name: len(rows) for name, rows in parts.items()}
    if record["data"]["utterances"] != sizes:
        yield Finding("altered", "data", f"the splits have {sizes} utterances")
    table = data.samples.corpus.utterances
    if blocks:
        first = blocks[0]
        rows = table.iloc[split.test]
        if list(first.ids) != rows["id"].tolist() or list(first.dialogues) != rows["dialogue"].tolist():
            yield Finding("altered", PREDICTIONS, "the utterances are not those of the test split")
            return
        labels = data.samples.targets[split.test].astype(np.float32)
        if (first.labels.astype(np.float32) != labels).any():
            wrong = int((first.labels.astype(np.float32) != labels).sum())
            yield Finding("altered", PREDICTIONS, f"{wrong} true labels are not those of the data")
    seed = derive_seed(record["identity"]["seed"], "training masks")
    yield from _check_part(record, "train", [schedules.train], data, split.train, draws, seed)
    yield from _check_part(record, "validation", schedules.validation, data, split.valid, draws)
    yield from _check_part(record, "test", schedules.test, data, split.test, draws)


def _check_part(
    record: Mapping[str, Any],
    part: str,
    schedules: Sequence[Schedule],
    data: DataPlan,
    rows: np.ndarray,
    draws: Draws,
    seed: int | None = None,
) -> Iterator[Finding]:
    corpus = data.samples.corpus
    ids = tuple(corpus.utterances["id"].iloc[rows].tolist())
    observed = np.stack([corpus.features[name].observed[rows] for name in data.modalities], axis=1)
    for schedule in schedules:
        for entry in record["masks"].get(part, {}).get(schedule.name, []):
            drawn_with = entry["seed"] if seed is None else seed
            where = f"{part} masks of {schedule.name}" + (f", seed {drawn_with}" if part != "train" else "")
            if schedule.kind == "frames":
                summary, repaired = _frames(record, schedule, data, rows, drawn_with)
            else:
                drawn = draws.drawn(schedule, data.info.name, ids, data.modalities, drawn_with)
                mask = drawn & observed
                empty = ~mask.any(axis=1)
                mask[empty] = observed[empty]
                repaired = int(empty.sum())
                summary = describe(mask, data.modalities, draws.hashes(ids))
            yield from compare_entry(where, entry, summary)
            if entry["repaired"] != repaired:
                yield Finding(
                    "altered", where, f"{entry['repaired']} repaired rows are recorded, {repaired} come out"
                )


def _frames(
    record: Mapping[str, Any], schedule: Schedule, data: DataPlan, rows: np.ndarray, seed: int | None
):
    """Frame masks need the engine, which knows lengths and special tokens."""
    import torch

    from ..engine.masking import draw, summarise
    from ..engine.tensors import SplitTensors

    level = record["identity"]["level"]
    corpus, targets = data.samples.corpus, data.samples.targets[rows]
    split = SplitTensors(corpus, rows, targets, level, torch.device("cpu"))
    masks = draw(split, schedule, data.info.name, seed or 0)
    return summarise(split, masks), masks.repaired
