"""What a leaderboard is made of: boards, rows, columns, cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .claims import Claims, Robustness
from .info import TableInfo
from .intervals import Interval, IntervalSettings
from .scores import FoldPolicy
from .table import UNSTATED, Condition

CellState = Literal["value", "hole", "undefined", "n/a"]
RowKind = Literal["method", "constant", "no information"]


@dataclass(frozen=True)
class Cell:
    """One metric of one row under one condition, or its mean over a family.

    Attributes:
        state: ``"value"``; ``"hole"``: a planned run is missing or has failed; ``"undefined"``: the
            metric has no value on these data; ``"n/a"``: not applicable to the method's predictions.
        mean: Mean over seeds (mask draws averaged first); ``None`` unless there is a value.
        sd: Standard deviation over seeds (n - 1); ``None`` with fewer than two seeds.
        by_seed: Value of each seed.
        done: Runs that are there.
        planned: Runs that should be.
        interval: Percentile interval over dialogues; primary metric only.
    """

    state: CellState
    mean: float | None = None
    sd: float | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)
    done: int = 0
    planned: int = 0
    interval: Interval | None = None


@dataclass(frozen=True)
class Column:
    """One column: a test condition, or the mean over the conditions of a family."""

    name: str
    family: str
    is_mean: bool = False


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        label: Row name.
        kind: A method, the trained ``constant``, or ``no information``.
        method: Method.
        profile: Preset of the method.
        context: What a prediction looks at: ``utterance`` or ``dialogue``; empty if unknown.
        privileged: What the method saw of absent modalities in training.
        remarks: What else must be said of it in every table, such as the use of a random encoder.
        runs_done: Finished runs.
        runs_planned: Planned runs, skipped ones not counted.
        rank: Place by the primary metric, from 1; ``None`` for references and rows with a hole.
        cells: Per metric, per column name.
    """

    label: str
    kind: RowKind
    method: str = ""
    profile: str = ""
    context: str = ""
    privileged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    runs_done: int = 0
    runs_planned: int = 0
    rank: int | None = None
    cells: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """One leaderboard.

    Attributes:
        data_set: Name of the data set.
        regime: Regime of the protocol.
        comparison_hash: What all rows share.
        trained_on: Training condition; empty where each condition has models of its own.
        test_selected: Whether epochs were selected on the test set.
        synthetic: Whether the data are generated.
        info: Task and metrics.
        columns: Complete data, then family after family, each with its mean.
        ranked_by: Column that rows are ordered by.
        rows: Methods in order, then the reference rows.
        notes: What a reader must know.
        folds: ``"pool"`` or ``"mean"``; see ``scores``.
        intervals: How intervals were made.
        utterances: Size of the test set, all folds together.
        dialogues: Number of its dialogues.
        claims: What the numbers can carry; ``None`` if it was not asked for or nothing has a value.
        robustness: How each row bears missing modalities.
        warnings: What looks wrong in the results themselves.
    """

    data_set: str
    regime: str
    comparison_hash: str
    trained_on: str
    test_selected: bool
    synthetic: bool
    info: TableInfo
    columns: tuple[Column, ...]
    ranked_by: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    folds: FoldPolicy
    intervals: IntervalSettings
    utterances: int
    dialogues: int
    claims: Claims | None = None
    robustness: tuple[Robustness, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_intervals(self) -> bool:
        """Whether any cell has an interval."""
        return any(cell.interval for row in self.rows for own in row.cells.values() for cell in own.values())

    @property
    def title(self) -> str:
        """Title in words."""
        parts = [self.data_set]
        if self.regime != UNSTATED:
            parts.append(f"{self.regime} regime")
        if self.trained_on:
            parts.append(f"trained on {self.trained_on}")
        if self.test_selected:
            parts.append("SELECTED ON TEST DATA")
        if self.synthetic:
            parts.append("SYNTHETIC DATA")
        return ", ".join(parts)


def columns_of(conditions: Iterable[Condition]) -> tuple[Column, ...]:
    """Columns of a board: complete first, then family by family, each with its mean.

    Conditions keep their order, but for numbers in their names, which are sorted. A family of one
    condition needs no mean.
    """
    families: dict[str, list[str]] = {}
    for item in dict.fromkeys(conditions):
        families.setdefault(item.family, [])
        if item.name not in families[item.family]:
            families[item.family].append(item.name)
    found: list[Column] = []
    for family in sorted(families, key=_family_order):
        names = families[family]
        if all(re.search(r"\d", name) for name in names):
            names = sorted(names, key=_natural)
        found += [Column(name, family) for name in names]
        if len(names) > 1:
            found.append(Column(f"mean {family}", family, is_mean=True))
    return tuple(found)


def _family_order(family: str) -> tuple[int, str]:
    return {"complete": 0, "random": 1, "fixed": 2}.get(family, 3), family


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Sorts numbers by value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(1, float(part), "") if index % 2 else (0, 0.0, part) for index, part in enumerate(parts)]


def ranking_column(columns: Sequence[Column]) -> str:
    """The mean over random conditions if there are any; else other families; complete data last."""
    if not columns:
        return ""
    incomplete = [column for column in columns if column.family != "complete"]
    if not incomplete:
        return columns[0].name
    order = {"random": 0, "fixed": 2}
    family = min(incomplete, key=lambda column: order.get(column.family, 1)).family
    own = [column for column in columns if column.family == family]
    return next((column.name for column in own if column.is_mean), own[0].name)
