"""From the store to leaderboards: which runs belong to a table, and what was planned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from pydantic import ValidationError

from .errors import UnknownName, UserError
from .leaderboard import (
    Board,
    ClaimSettings,
    Condition,
    IntervalSettings,
    PredictionTable,
    RunSummary,
    TableError,
    TableInfo,
    build_boards,
    concatenate,
    read_predictions,
)
from .protocol.plan import Plan, PlannedRun, tuned_profile
from .protocol.schema import LeaderboardEntry
from .registry import FOREIGN_CODE
from .run_file import RUN_FILE
from .store import DAMAGED, Store, StoredRun, damaged


def boards_of_plan(plan: Plan, store: Store) -> tuple[Board, ...]:
    """Leaderboards of a plan and of what else the store has of the same comparison.

    A row takes in runs of earlier commands if they were computed with the same method and settings
    (more seeds), and rows of methods that this plan leaves out stay. Runs of a row with other
    settings stay in the store and out of the table.

    Args:
        plan: The whole plan, all shards together.
        store: Results of the protocol.
    """
    unreadable: list[StoredRun] = []
    stored = list(store.runs(unreadable.append))
    by_address = {run.address: run for run in (*stored, *unreadable)}
    summaries = [_planned_summary(run, by_address.get(run.address)) for run in plan.runs]
    chosen = [
        (by_address[run.address], run.variant.label)
        for run in plan.runs
        if run.address in by_address and by_address[run.address].readable
    ]
    for run in _joining(plan, stored):
        chosen.append((run, run.record["identity"]["label"]))
        summaries.append(_stored_summary(run))
    planned = {run.address for run in plan.runs}
    return _boards(
        chosen,
        summaries,
        plan.protocol.leaderboard,
        [run for run in unreadable if run.address not in planned],
    )


def planned(plan: Plan) -> Iterator[tuple[str, str, RunSummary]]:
    """What ``boards_of_plan`` takes from a plan for each run: address, variant, and what is planned."""
    return ((run.address, run.variant_address, _planned_summary(run, None)) for run in plan.runs)


def boards_of_store(store: Store) -> tuple[Board, ...]:
    """Leaderboards of everything in a store, without its protocol; plans are inferred."""
    unreadable: list[StoredRun] = []
    newest = _newest_variants(store.runs(unreadable.append))
    settings = _leaderboard_entry(newest[-1]) if newest else LeaderboardEntry()
    chosen = [(run, run.record["identity"]["label"]) for run in newest]
    return _boards(chosen, [_stored_summary(run) for run in newest], settings, unreadable)


def _leaderboard_entry(run: StoredRun) -> LeaderboardEntry:
    try:
        return LeaderboardEntry.model_validate(run.record["protocol"].get("leaderboard", {}))
    except ValidationError as error:
        where = run.folder / RUN_FILE
        raise UserError(f"{where}: key protocol.leaderboard: {error.errors()[0]['msg']}") from None


def boards_of_two(first: Store, second: Store, a: str = "", b: str = "") -> tuple[Board, ...]:
    """Boards of two rows each, for ``compare``.

    Args:
        first: Store of the first rows.
        second: Store of the second rows; may be the same.
        a: Label in ``first``; if empty, every label that both have is compared with its namesake.
        b: Label in ``second``; that of ``a`` if empty.

    Raises:
        UnknownName: A store has no such label.
        UserError: The stores share no label, their results are of different comparisons, or a run is
            damaged.
    """
    here, there = _newest_variants(first.runs()), _newest_variants(second.runs())
    for run in (*here, *there):
        if run.status == DAMAGED:
            raise UserError(run.record["error"]["message"])
    labels = {_label(run): None for run in here}, {_label(run): None for run in there}
    pairs = [(a, b or a)] if a else [(label, label) for label in labels[0] if label in labels[1]]
    if not pairs:
        raise UserError(f"{first.folder} and {second.folder} have no label in common")
    for label, known in zip(pairs[0], labels, strict=True):
        if label not in known:
            raise UnknownName("label", label, known)
    found: list[Board] = []
    for one, two in pairs:
        mine = [run for run in here if _label(run) == one]
        theirs = [run for run in there if _label(run) == two]
        # Hashes and marks of the two sides must agree, or they would be two boards of one row.
        names = (one, two) if one != two else (f"{one} (first)", f"{two} (second)")
        chosen = [(run, names[0]) for run in mine] + [(run, names[1]) for run in theirs]
        summaries = [replace(_stored_summary(run), label=label) for run, label in chosen]
        boards = _boards(chosen, summaries, _leaderboard_entry(chosen[-1][0]))
        shared = [board for board in boards if len([x for x in board.rows if x.kind != "no information"]) > 1]
        if not shared:
            raise UserError(
                f"{names[0]} and {names[1]} were not compared under the same conditions: their comparison "
                "hashes (data, masks, regime, selection, metrics) differ"
            )
        found += shared
    return tuple(found)


def _label(run: StoredRun) -> str:
    return run.record["identity"]["label"]


def _boards(
    chosen: Iterable[tuple[StoredRun, str]],
    summaries: list[RunSummary],
    settings: LeaderboardEntry,
    unreadable: Sequence[StoredRun] = (),
) -> tuple[Board, ...]:
    """Boards of runs; damaged ones are holes, and those that can't be told a place are warnings."""
    broken: list[tuple[StoredRun, str]] = []
    table = _table(chosen, lambda run, label: broken.append((run, label)))
    for run, label in broken:
        mine = replace(_stored_summary(run), label=label)
        summaries = [
            replace(item, status=DAMAGED, message=mine.message) if item.key == mine.key else item
            for item in summaries
        ]
    if unreadable and not table.infos:
        raise UserError(unreadable[0].record["error"]["message"])
    intervals = IntervalSettings(
        confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    )
    claims = ClaimSettings(
        alpha=settings.alpha,
        correction=settings.correction,
        family=settings.family,
        relevant_difference=settings.relevant_difference,
    )
    boards = build_boards(table.frame, table.infos, summaries, intervals=intervals, claims=claims)
    left_out = tuple(f"a run that is in no table: {run.record['error']['message']}" for run in unreadable)
    return tuple(replace(board, warnings=(*board.warnings, *left_out)) for board in boards)


def _table(
    chosen: Iterable[tuple[StoredRun, str]], broken: Callable[[StoredRun, str], None] | None = None
) -> PredictionTable:
    """The predictions of stored runs as one table, under the row names that are given.

    Args:
        chosen: Runs and row names.
        broken: Called with a run whose predictions turn out to be damaged, and its row name.

    Raises:
        TableError: Predictions are damaged, and nobody asked for such runs.
    """
    frames: list[pd.DataFrame] = []
    infos: dict[tuple[str, str], TableInfo] = {}
    for run, label in chosen:
        infos[run.record["comparison_hash"], run.record["identity"]["data_set"]] = _info(run)
        try:
            if run.status == DAMAGED:
                raise TableError(run.record["error"]["message"])
            if run.status == "finished":
                frame = _predictions(run)
                frames.append(frame.assign(label=pd.Categorical([label] * len(frame))))
        except TableError as error:
            if broken is None:
                raise
            broken(damaged(run, str(error)), label)
    return PredictionTable(concatenate(frames), infos)


def _predictions(run: StoredRun) -> pd.DataFrame:
    """Predictions of a finished run.

    Raises:
        TableError: They can't be read, or are those of another run.
    """
    try:
        frame = read_predictions(run.predictions).frame
    except TableError as error:
        raise TableError(f"{run.folder}: {error}") from None
    identity = run.record["identity"]
    expected = {"comparison_hash": run.record["comparison_hash"]} | {
        name: identity[name] for name in ("data_set", "fold", "regime", "seed", "train_condition")
    }
    for name, value in expected.items():
        found = [None if pd.isna(item) else item for item in frame[name].unique()]
        if found != [value]:
            raise TableError(f"{run.predictions}: {name} is {_few(found)}, in {RUN_FILE} it is {value!r}")
    return frame


def _few(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values[:3]) or "in no row"


def table_of_store(store: Store) -> PredictionTable:
    """The predictions of everything in a store, of every row those with the settings used last."""
    return _table((run, run.record["identity"]["label"]) for run in _newest_variants(store.runs()))


def _joining(plan: Plan, stored: Iterable[StoredRun]) -> list[StoredRun]:
    """Stored runs that the plan does not name and that belong to its tables."""
    hashes = {run.comparison_hash for run in plan.runs}
    planned = {run.address for run in plan.runs if run.address}
    variants = {run.variant.label: run.variant_address for run in plan.runs}
    others = [
        run
        for run in stored
        if run.record["comparison_hash"] in hashes and run.address not in planned and run.status == "finished"
    ]
    same = [
        run
        for run in others
        if variants.get(run.record["identity"]["label"]) == run.record["identity"]["variant"]
    ]
    left_out = [run for run in others if run.record["identity"]["label"] not in variants]
    return same + _newest_variants(left_out)


def _newest_variants(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Of every row only the runs with the settings that were used last."""
    runs = list(runs)
    newest: dict[tuple[str, str, str], tuple[str, str]] = {}
    for run in runs:
        identity, started = run.record["identity"], run.record["timings"]["started"]
        row = run.record["comparison_hash"], identity["data_set"], identity["label"]
        newest[row] = max(newest.get(row, ("", "")), (started, identity["variant"]))
    return [
        run
        for run in runs
        if run.record["identity"]["variant"]
        == newest[
            run.record["comparison_hash"],
            run.record["identity"]["data_set"],
            run.record["identity"]["label"],
        ][1]
    ]


def _info(run: StoredRun) -> TableInfo:
    table = run.record["table"]
    score_range = table["score_range"]
    return TableInfo(
        task=table["task"],
        classes=tuple(table["classes"]),
        score_range=None if score_range is None else (score_range[0], score_range[1]),
        primary=table["primary"],
        metrics=tuple(table["metrics"]),
    )


def _planned_summary(run: PlannedRun, stored: StoredRun | None) -> RunSummary:
    """A planned run and what became of it so far."""
    status, message = "missing", "not computed yet"
    if run.skip:
        status, message = "skipped", run.skip
    elif stored is not None:
        status, message = _status(stored.record)
    return RunSummary(
        label=run.variant.label,
        data_set=run.data.samples.corpus.name,
        seed=run.seed,
        train_condition=run.train.name,
        status=status,
        method=run.variant.info.name,
        profile=run.variant.shown_profile,
        fold=run.fold,
        regime=run.regime,
        context=run.variant.info.context,
        privileged=run.parameters.privileged(),
        selection=run.selection,
        synthetic=run.data.samples.corpus.synthetic,
        comparison_hash=run.comparison_hash,
        message=message,
        conditions=tuple(Condition(schedule.name, schedule.family) for schedule in run.test),
        remarks=() if stored is None else _remarks(stored.record),
    )


def _stored_summary(run: StoredRun) -> RunSummary:
    record = run.record
    identity, marks = record["identity"], record["marks"]
    status, message = _status(record)
    return RunSummary(
        label=identity["label"],
        data_set=identity["data_set"],
        seed=identity["seed"],
        train_condition=identity["train_condition"],
        status=status,
        method=identity["method"],
        profile=_shown_profile(record),
        fold=identity["fold"],
        regime=identity["regime"],
        context=marks["context"],
        privileged=tuple(marks["privileged"]),
        selection=marks["selection"],
        synthetic=marks["synthetic"],
        comparison_hash=record["comparison_hash"],
        message=message,
        conditions=tuple(Condition(*item) for item in identity["test_conditions"].items()),
        remarks=_remarks(record),
    )


# Names of random language models; their module is not asked, as it imports torch.
_RANDOM_ENCODER = re.compile(r"random[:-]")


def _remarks(record: dict[str, Any]) -> tuple[str, ...]:
    """What must be said of a row in every table."""
    models = record.get("language_models") or {}
    random = any(_RANDOM_ENCODER.match(name) for name in models)
    foreign = tuple(note for note in _run_notes(record) if note.startswith(FOREIGN_CODE))
    return (*(("random encoder: no language knowledge",) if random else ()), *foreign)


def _shown_profile(record: dict[str, Any]) -> str:
    profile, tuned = record["identity"]["profile"], record["marks"].get("tuned")
    return profile if tuned is None else tuned_profile(profile, tuned["trials"])


def _status(record: dict[str, Any]) -> tuple[str, str]:
    error = record["error"]
    return record["status"], f"{error['type']}: {error['message']}" if error else ""


def _run_notes(record: dict[str, Any]) -> list[str]:
    return record.get("marks", {}).get("notes", [])
