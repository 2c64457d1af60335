"""The masks of a run drawn again: from names and seeds alone, or with the data at hand.

What a run had (``available``) is what the schedule left of what was observed; a row of which nothing
would be left keeps all that was observed. Predictions state ``available`` of every utterance, not what
was observed. But whatever was observed of an utterance shows under some condition, or under none of
them: so with U, the union of ``available`` over all conditions, every condition must have
``drawn & U``, or U where that is empty. This holds exactly, and needs no data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..hashing import derive_seed
from ..protocol.schema import Protocol
from ..run_file import RUN_FILE
from ..schedules import IdHashes, MaskSummary, Schedule, describe, draw_availability, pattern_label
from .files import PREDICTIONS
from .findings import Finding
from .predictions import Block

# Subsets of so many modalities are counted out.
_MOST_MODALITIES = 12


class Draws:
    """Draws of schedules, each made once for all runs that share it."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], np.ndarray] = {}
        self._hashes: dict[tuple[str, ...], IdHashes] = {}

    def drawn(
        self,
        schedule: Schedule,
        data_set: str,
        ids: tuple[str, ...],
        modalities: Sequence[str],
        seed: int | None,
    ) -> np.ndarray:
        """``[N, M]`` bool: what the schedule leaves, in the first epoch."""
        key = (repr(schedule), data_set, ids, tuple(modalities), seed)
        if key not in self._made:
            self._made[key] = draw_availability(
                schedule, data_set=data_set, ids=self.hashes(ids), modalities=modalities, seed=seed or 0
            )
        return self._made[key]

    def hashes(self, ids: tuple[str, ...]) -> IdHashes:
        """Hashes of ids."""
        if ids not in self._hashes:
            self._hashes[ids] = IdHashes.of(ids)
        return self._hashes[ids]


def check_test_masks(
    blocks: Sequence[Block], record: Mapping[str, Any], schedules: Sequence[Schedule], draws: Draws
) -> Iterator[Finding]:
    """The test masks of a run, from its predictions, its schedules and its mask seeds."""
    modalities = tuple(record["data"]["features"])
    data_set = record["identity"]["data_set"]
    by_name = {schedule.name: schedule for schedule in schedules}
    if set(by_name) != set(record["identity"]["test_conditions"]):
        yield Finding("altered", RUN_FILE, "was tested under other conditions than its protocol names")
        return
    if not 1 < len(modalities) <= _MOST_MODALITIES:
        yield Finding("altered", RUN_FILE, f"has {len(modalities)} modalities")
        return
    parsed = [_parsed(block.available, modalities) for block in blocks]
    available = [mask for mask in parsed if mask is not None]
    if len(available) < len(parsed):
        yield Finding("altered", PREDICTIONS, "'available' names modalities that the data don't have")
        return
    observed = np.logical_or.reduce(available)
    places: dict[str, int] = {}
    for block, mask in zip(blocks, available, strict=True):
        place = places.setdefault(block.condition, 0)
        places[block.condition] += 1
        schedule = by_name[block.condition]
        where = f"test masks of {block.condition}" + (f", seed {block.mask_seed}" if block.mask_seed else "")
        if schedule.kind == "frames":
            continue  # what is lost inside sequences shows with the data only
        left = draws.drawn(schedule, data_set, block.ids, modalities, block.mask_seed) & observed
        left[~left.any(axis=1)] = observed[~left.any(axis=1)]
        wrong = np.flatnonzero((left != mask).any(axis=1))
        if len(wrong):
            text = f"{len(wrong)} of {len(mask)} utterances had not what the schedule leaves, the first is "
            yield Finding("altered", where, f"{text}{block.ids[wrong[0]]}")
        entry = record["masks"]["test"][block.condition][place]
        yield from compare_entry(where, entry, describe(mask, modalities, draws.hashes(block.ids)))


def check_seeds(
    record: Mapping[str, Any],
    protocol: Protocol,
    train: Schedule,
    validation: Sequence[Schedule],
    test: Sequence[Schedule],
) -> Iterator[Finding]:
    """Mask seeds are those of the protocol, and of the training seed."""
    own = derive_seed(record["identity"]["seed"], "training masks")
    expected = {
        "train": {train.name: [own]},
        "validation": _seeds(validation, protocol.validation.mask_seeds),
        "test": _seeds(test, protocol.test.mask_seeds),
    }
    for part, conditions in expected.items():
        found = {
            name: [draw["seed"] for draw in drawn] for name, drawn in record["masks"].get(part, {}).items()
        }
        if found != conditions:
            yield Finding(
                "altered", RUN_FILE, f"{part} masks are not of the conditions and seeds of its protocol"
            )


def _seeds(schedules: Sequence[Schedule], seeds: Sequence[int]) -> dict[str, list[int | None]]:
    return {schedule.name: list(seeds) if schedule.is_random else [None] for schedule in schedules}


def _parsed(labels: np.ndarray, modalities: Sequence[str]) -> np.ndarray | None:
    """``[N, M]`` bool from labels such as ``"ta"``; ``None`` if one is unknown."""
    known = {
        pattern_label(subset): [name in subset for name in modalities]
        for size in range(len(modalities) + 1)
        for subset in combinations(modalities, size)
    }
    names, index = np.unique(labels, return_inverse=True)
    if any(name not in known for name in names.tolist()):
        return None
    return np.array([known[name] for name in names.tolist()], dtype=bool)[index.reshape(-1)]


def compare_entry(where: str, entry: Mapping[str, Any], again: MaskSummary) -> Iterator[Finding]:
    """Hash and realised rates of a draw, as recorded and as drawn again."""
    if entry["hash"] != again.hash:
        yield Finding(
            "altered", where, f"hash {entry['hash'][:16]}… is recorded, {again.hash[:16]}… comes out"
        )
        return
    pairs = [(entry["realised_rate"], again.rate)]
    for recorded, found in ((entry["per_modality"], again.rates), (entry["patterns"], again.shares)):
        if set(recorded) != set(found):
            yield Finding("altered", where, "rates of other modalities or patterns are recorded")
            return
        pairs += [(recorded[name], found[name]) for name in found]
    if any(abs(one - other) > 1e-12 for one, other in pairs):
        yield Finding("altered", where, "other realised rates are recorded than come out")
