"""Runs behind a result table: what was planned, and what became of it.

A result table shows what was predicted, never what is missing. Whoever ran the protocol knows, and
says so in one ``RunSummary`` per planned run. For a user's table the plan is inferred:

- a label was planned with each of ITS seeds in every fold and training condition of the comparison,
- and every run was planned to be tested on every condition that any label shows for its training
  condition.

So a row with three seeds may join a table of five, while a seed that lacks one fold or one condition
leaves a hole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .table import (
    FINISHED,
    UNSTATED,
    Condition,
    TableError,
    class_columns,
    column,
    family_of,
    numbers,
)

SKIPPED = "skipped"
MISSING = "missing"

_RUN_COLUMNS = (
    "comparison_hash",
    "data_set",
    "regime",
    "selection",
    "synthetic",
    "label",
    "train_condition",
    "fold",
    "seed",
)


@dataclass(frozen=True)
class RunSummary:
    """One planned run and what became of it.

    Attributes:
        label: Row name in tables.
        data_set: Name of the data set.
        seed: Training seed.
        train_condition: Name of the training schedule.
        status: ``finished``; ``skipped``: the method does not apply, ``message`` says why; anything
            else (``failed``, ``diverged``, ``missing``) leaves a hole.
        method: Method; the label if empty.
        profile: Preset of the method.
        fold: Test fold, if there are folds.
        regime: Regime of the protocol.
        context: What a prediction looks at: ``utterance`` or ``dialogue``.
        privileged: What the method saw of absent modalities.
        selection: Which epoch was tested.
        synthetic: Whether the data are generated.
        comparison_hash: Results share a ranking if and only if it agrees.
        message: Why it failed or was skipped.
        remarks: What must be said of its row in every table.
        conditions: Test conditions it was planned for; if empty, those that the table shows for its
            training condition (``matched``: the training condition itself).
    """

    label: str
    data_set: str
    seed: int
    train_condition: str = UNSTATED
    status: str = FINISHED
    method: str = ""
    profile: str = ""
    fold: int | None = None
    regime: str = UNSTATED
    context: str = ""
    privileged: tuple[str, ...] = ()
    selection: str = UNSTATED
    synthetic: bool = False
    comparison_hash: str = UNSTATED
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run in words, for notes."""
        fold = [] if self.fold is None else [f"fold {self.fold}"]
        trained = [] if self.train_condition == UNSTATED else [f"trained on {self.train_condition}"]
        return ", ".join([self.label, *fold, *trained, f"seed {self.seed}"])

    @property
    def table(self) -> tuple[str, str, str, bool, bool]:
        """Comparison hash, data set, regime, selected on test, synthetic: they never mix."""
        return self.comparison_hash, self.data_set, self.regime, self.selection == "test", self.synthetic

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it one run."""
        return (*self.table, self.label, self.train_condition, self.fold, self.seed)


def all_runs(frame: pd.DataFrame, given: Sequence[RunSummary] = ()) -> tuple[RunSummary, ...]:
    """Every planned run: those given, those the table shows, those it shows to be missing.

    A run whose predictions are not all finite numbers has failed, whatever its status says. A run
    that is given as finished and is not in the table is missing.

    Args:
        frame: Validated result table.
        given: Summaries of whoever ran them.
    """
    seen = {run.key: run for run in runs_in(frame)}
    joined: dict[tuple[object, ...], RunSummary] = {}
    for run in given:
        observed = seen.get(run.key)
        if run.status != FINISHED:
            joined[run.key] = run
        elif observed is None:
            message = "finished, but its predictions are not in the table"
            joined[run.key] = replace(run, status=MISSING, message=message)
        else:
            joined[run.key] = replace(
                run,
                status=observed.status,
                message=observed.message or run.message,
                method=run.method or observed.method,
                profile=run.profile or observed.profile,
                privileged=run.privileged or observed.privileged,
            )
    planned = {(run.table, run.label) for run in given}
    inferred = [run for key, run in seen.items() if key not in joined]
    joined |= {run.key: run for run in inferred}
    of_unknown_plan = [run for run in inferred if (run.table, run.label) not in planned]
    for run in _missing(of_unknown_plan, list(seen.values())):
        joined.setdefault(run.key, run)
    explicit = {run.key for run in given if run.conditions}
    _check_labels(joined.values())
    return tuple(_with_conditions(joined.values(), seen.values(), explicit))


def _check_labels(runs: Iterable[RunSummary]) -> None:
    """A row of a table is one variant of one method."""
    owner: dict[object, RunSummary] = {}
    for run in runs:
        other = owner.setdefault((run.table, run.label), run)
        for name, mine, theirs in (
            ("methods", run.method, other.method),
            ("profiles", run.profile, other.profile),
        ):
            if mine != theirs and mine and theirs:
                raise TableError(f"label {run.label!r} stands for two {name}, {theirs!r} and {mine!r}")


def runs_in(frame: pd.DataFrame) -> list[RunSummary]:
    """The runs that a validated table shows, in order of appearance."""
    codes, first = row_runs(frame)
    count = len(first)
    broken = np.bincount(codes, weights=_unusable(frame, codes, count), minlength=count)
    rows = np.bincount(codes, minlength=count)
    pairs = pd.DataFrame(
        {"run": codes, "name": column(frame, "test_condition"), "family": column(frame, "family")}
    ).drop_duplicates()
    conditions: dict[int, list[Condition]] = {}
    for run, name, family in pairs.itertuples(index=False):
        conditions.setdefault(int(run), []).append(Condition(str(name), str(family)))
    status = column(frame, "status").to_numpy().astype(str)
    other = {
        int(run): str(word)
        for run, word in zip(codes[status != FINISHED], status[status != FINISHED], strict=True)
    }
    found: list[RunSummary] = []
    for index, record in enumerate(frame.iloc[first].to_dict("records")):
        state, message = other.get(index, FINISHED), ""
        if state == FINISHED and broken[index]:
            state = "failed"
            message = f"{int(broken[index])} of {rows[index]} predictions are missing or not finite"
        found.append(
            RunSummary(
                label=record["label"],
                data_set=record["data_set"],
                seed=int(record["seed"]),
                train_condition=record["train_condition"],
                status=state,
                method=record["method"],
                profile=record["profile"],
                fold=None if pd.isna(record["fold"]) else int(record["fold"]),
                regime=record["regime"],
                privileged=tuple(part.strip() for part in record["privileged"].split(",") if part.strip()),
                selection=record["selection"],
                synthetic=bool(record["synthetic"]),
                comparison_hash=record["comparison_hash"],
                message=message,
                conditions=tuple(conditions[index]),
            )
        )
    return found


def row_runs(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Number of each row's run ``[rows]`` and the first row of each run, in order of appearance."""
    combined = np.zeros(len(frame), dtype=np.int64)
    for name in _RUN_COLUMNS:
        part, values = pd.factorize(column(frame, name), use_na_sentinel=False)
        combined, _ = pd.factorize(combined * max(len(values), 1) + part)
    _, first = np.unique(combined, return_index=True)
    return combined, first


def _unusable(frame: pd.DataFrame, codes: np.ndarray, count: int) -> np.ndarray:
    """1 for rows without a finite prediction of every kind that their run offers."""
    classes = class_columns(frame)
    score = np.isfinite(numbers(frame, "score"))
    scored = np.bincount(codes, weights=score, minlength=count) > 0
    unusable = scored[codes] & ~score
    classified = np.zeros(count, dtype=bool)
    if classes:
        finite = np.stack([np.isfinite(numbers(frame, name)) for name in classes])
        # Tables joined from data sets with fewer classes have empty columns at the end.
        used = np.stack([np.bincount(codes, weights=row, minlength=count) > 0 for row in finite])
        classified = used.any(axis=0)
        unusable |= (used[:, codes] & ~finite).any(axis=0)
    return (unusable | ~(scored | classified)[codes]).astype(np.float64)


def _missing(inferred: Sequence[RunSummary], seen: Sequence[RunSummary]) -> Iterator[RunSummary]:
    """Runs that a table of unknown plan should have had."""
    for pattern in {(run.table, run.label): run for run in inferred}.values():
        comparison = [run for run in seen if run.table == pattern.table]
        trained = dict.fromkeys(run.train_condition for run in comparison)
        folds = dict.fromkeys(run.fold for run in comparison)
        seeds = dict.fromkeys(run.seed for run in comparison if run.label == pattern.label)
        for train, fold, seed in itertools.product(trained, folds, seeds):
            yield replace(
                pattern,
                train_condition=train,
                fold=fold,
                seed=seed,
                status=MISSING,
                message="not in the table",
            )


def _with_conditions(
    runs: Iterable[RunSummary], seen: Iterable[RunSummary], explicit: set[tuple[object, ...]]
) -> Iterator[RunSummary]:
    """Runs with the test conditions they were planned for, as far as these are not explicit."""
    runs = list(runs)
    shown: dict[tuple[object, ...], dict[Condition, None]] = {}
    for run in (*(run for run in runs if run.key in explicit), *seen):
        shown.setdefault((run.table, run.train_condition), {}).update(dict.fromkeys(run.conditions))
        shown.setdefault((run.table,), {}).update(dict.fromkeys(run.conditions))
    for run in runs:
        if run.key in explicit:
            yield run
            continue
        conditions = shown.get((run.table, run.train_condition))
        if conditions is None and run.regime == "matched":
            conditions = {Condition(run.train_condition, family_of(run.train_condition)): None}
        yield replace(run, conditions=tuple(conditions or shown.get((run.table,), ())))
