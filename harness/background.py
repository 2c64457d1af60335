"""What runs say of themselves, for reports: protocol, masks, data, environment, publications, audits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .leaderboard.audit import AuditedRun, audit_tables, read_audited
from .leaderboard.bibliography import Source
from .leaderboard.content import Background, MaskDraw
from .registry import known_info
from .store import StoredRun

_DATA = ("name", "fingerprint", "features", "dims", "scale", "mapping", "origin", "licence", "utterances")


def background_of(runs: Sequence[StoredRun], name: str = "") -> Background:
    """Background of the runs behind some boards.

    Args:
        runs: The runs.
        name: Name of the report; the protocol's if empty.
    """
    if not runs:
        return Background(name or "results")
    newest = max(runs, key=lambda run: run.record["timings"]["started"]).record
    records = [run.record for run in runs]
    return Background(
        name=name or newest["identity"]["protocol"],
        protocol=newest["protocol"],
        masks=tuple(_masks(record for record in records if record["status"] == "finished")),
        environments=_distinct(record["environment"] for record in records),
        data=_distinct({name: record["data"].get(name) for name in _DATA} for record in records),
        sources=sources_of(records),
        audits=audit_tables(_audited(runs)),
        notes=_notes(records),
    )


def _audited(runs: Iterable[StoredRun]) -> Iterable[AuditedRun]:
    for run in runs:
        audited = read_audited(run.folder, run.record)
        if audited is not None:
            yield audited


def _distinct(records: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Each record once, with the number of runs that have it."""
    counts: dict[str, int] = {}
    for record in records:
        text = json.dumps(record, default=str)
        counts[text] = counts.get(text, 0) + 1
    return tuple({**json.loads(text), "runs": count} for text, count in counts.items())


def sources_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Source]:
    """Names and publications of the methods of some runs, as far as their code is at hand."""
    found: dict[str, Source] = {}
    for method in dict.fromkeys(record["identity"]["method"] for record in records):
        info = known_info(method)
        if info is not None:  # else it has gone, or is code that only a protocol may import
            found[method] = Source(info.title, info.paper)
    return found


def _masks(records: Iterable[Mapping[str, Any]]) -> Iterable[MaskDraw]:
    drawn: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        identity = record["identity"]
        fold = "" if identity["fold"] is None else f", fold {identity['fold']}"
        for split, conditions in record["masks"].items():
            for condition, draws in conditions.items():
                for draw in draws:
                    seed = "" if split == "train" or draw["seed"] is None else str(draw["seed"])
                    key = (f"{identity['data_set']}{fold}", split, condition, seed)
                    drawn.setdefault(key, []).append(draw)
    for (data_set, split, condition, seed), draws in sorted(drawn.items()):
        hashes = dict.fromkeys(draw["hash"] for draw in draws)
        groups = [draws] if split == "train" else [[d for d in draws if d["hash"] == h] for h in hashes]
        for own in groups:
            yield MaskDraw(
                data_set=data_set,
                split=split,
                condition=condition,
                seed=seed,
                rate=sum(draw["realised_rate"] for draw in own) / len(own),
                per_modality={
                    name: sum(draw["per_modality"][name] for draw in own) / len(own)
                    for name in own[0]["per_modality"]
                },
                hash=own[0]["hash"] if len({draw["hash"] for draw in own}) == 1 else "",
            )


def _notes(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    notes = [
        f"{record['identity']['label']}: {note}" for record in records for note in record["marks"]["notes"]
    ]
    return tuple(dict.fromkeys(notes))
