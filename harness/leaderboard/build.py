"""Which results share a table, and what stands in its cells.

One ``Board`` per comparison hash, data set and regime (and per training condition where a regime
trains and tests on different grids). Results selected on the test set, and results on generated data,
never share a board with others, whatever their hash says.

Rows are ordered by the mean of the primary metric over the conditions of the first family that there
is of: random, other families, fixed, complete. The order is no claim of a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..metrics import Metric, absent_classes, metric
from .checks import mask_warnings, warnings_of
from .claims import ClaimSettings
from .evidence import DrawValues, Evidence, dialogue_values
from .inference import make_claims
from .info import TableInfo, infer_info
from .intervals import (
    FEW_DIALOGUES,
    FloatArray,
    IntervalSettings,
    mean_replicates,
    percentile_interval,
    resampled_counts,
    sums_by_dialogue,
)
from .records import Board, Cell, Column, Row, columns_of, ranking_column
from .reference_rows import CONSTANT, NO_INFORMATION, best_constant_outcome, no_information
from .robustness import robustness
from .runs import SKIPPED, RunSummary, all_runs, row_runs, runs_in
from .scores import Draw, FoldPolicy, dialogues, draws, folds_of_dialogues, labels_of_test_set
from .statements import with_statements
from .table import FINISHED, UNSTATED, InfoKey, TableError, info_keys, is_validated, rows_of, validate


def build_boards(
    frame: pd.DataFrame,
    info: TableInfo | Mapping[InfoKey, TableInfo] | None = None,
    runs: Sequence[RunSummary] = (),
    *,
    folds: FoldPolicy = "pool",
    intervals: IntervalSettings | None = None,
    claims: ClaimSettings | None = None,
) -> tuple[Board, ...]:
    """Leaderboards of a result table.

    Args:
        frame: Result table; ``concatenate([])`` if every run failed.
        info: What the table is about: one for all rows, or per comparison hash and data set;
            inferred where there is none.
        runs: Every planned run with its status. Runs in the table that are not among them join in,
            with a plan inferred from the table (see ``runs``).
        folds: ``"pool"`` the utterances of all folds of one seed, or take the ``"mean"`` of folds.
        intervals: How intervals over dialogues are made.
        claims: How differences are tested. They always are.

    Raises:
        TableError: Runs disagree about the test set or the task, or are there twice.
    """
    settings = intervals or IntervalSettings()
    claim_settings = claims or ClaimSettings(alpha=1 - settings.confidence)
    if not is_validated(frame):
        frame = validate(frame)
    known = all_runs(frame, runs)
    if not known:
        return ()
    infos = _infos(frame, info, known)
    row_run, _ = row_runs(frame)
    keys = [run.key for run in runs_in(frame)]
    boards: list[Board] = []
    for own in _comparisons(known):
        finished = {run.key for run in own if run.status == FINISHED}
        mine = np.array([key in finished for key in keys], dtype=bool)[row_run] if keys else np.zeros(0, bool)
        table_info = infos[own[0].comparison_hash, own[0].data_set]
        boards.append(_Comparison(frame.loc[mine], table_info, own, folds, settings, claim_settings).board())
    return tuple(boards)


def _infos(
    frame: pd.DataFrame, info: TableInfo | Mapping[InfoKey, TableInfo] | None, runs: Iterable[RunSummary]
) -> dict[InfoKey, TableInfo]:
    wanted = dict.fromkeys((run.comparison_hash, run.data_set) for run in runs)
    if isinstance(info, TableInfo):
        return dict.fromkeys(wanted, info)
    given = dict(info or {})
    for key in info_keys(frame):
        if key not in given:
            given[key] = infer_info(rows_of(frame, key))
    for key in wanted:
        if key not in given:
            raise TableError(
                f"no run of {key[1]!r} ({key[0]}) has predictions, and no TableInfo says its task"
            )
    return given


def _comparisons(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Runs that share a board."""
    tables: dict[tuple[object, ...], list[RunSummary]] = {}
    for run in runs:
        tables.setdefault(run.table, []).append(run)
    found: list[list[RunSummary]] = []
    for own in tables.values():
        if _one_model_per_condition(own):
            found.append(own)
            continue
        trained = dict.fromkeys(run.train_condition for run in own)
        found += [[run for run in own if run.train_condition == train] for train in trained]
    return found


def _one_model_per_condition(runs: Iterable[RunSummary]) -> bool:
    return all([item.name for item in run.conditions] == [run.train_condition] for run in runs)


class _Comparison:
    """One board in the making.

    Args:
        frame: Rows of its finished runs.
        info: Task and metrics.
        runs: All its runs.
        folds: Policy for folds.
        settings: How intervals are made.
        claims: How differences are tested.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        info: TableInfo,
        runs: Sequence[RunSummary],
        folds: FoldPolicy,
        settings: IntervalSettings,
        claims: ClaimSettings,
    ) -> None:
        self.info, self.settings, self.claim_settings = info, settings, claims
        self.frame = frame
        self.folds: FoldPolicy = folds
        self.skipped = [run for run in runs if run.status == SKIPPED]
        self.runs = [run for run in runs if run.status != SKIPPED]
        self.labels = tuple(dict.fromkeys(run.label for run in self.runs))
        self.first = runs[0]
        self.trained_on = "" if _one_model_per_condition(runs) else self.first.train_condition
        self.columns = columns_of(item for run in self.runs for item in run.conditions)
        self.metrics: dict[str, Metric] = {name: metric(name) for name in info.metrics}
        self.dialogues = len(dialogues(frame)) if len(frame) else 0
        self.counts = (
            resampled_counts(self.dialogues, settings, self.first.data_set)
            if self.dialogues > 1 and settings.resamples
            else None
        )
        self.test_sets = labels_of_test_set(frame, folds) if len(frame) else []
        self.no_information: FloatArray | None = None
        self.resampled: dict[str, dict[str, FloatArray]] = {}
        self.draws: dict[tuple[str, str], list[_Scored]] = {}
        for draw in draws(frame, info, folds) if len(frame) else ():
            self.draws.setdefault((draw.label, draw.condition), []).append(self._scored(draw))

    def _scored(self, draw: Draw) -> _Scored:
        primary = self.metrics[self.info.primary]
        values = {name: item.compute(draw.outcome) for name, item in self.metrics.items()}
        sums, by_dialogue = None, None
        terms = primary.sums(draw.outcome)
        if terms is not None:
            sums = sums_by_dialogue(terms, draw.dialogue, self.dialogues)
            by_dialogue = dialogue_values(primary, sums, draw.dialogue) if self.dialogues > 1 else None
        if self.no_information is None and self.folds == "pool" and self.dialogues > 1:
            self.no_information = self._best_constant(draw)
        return _Scored(draw.seed, draw.mask_seed, draw.folds, values, sums, by_dialogue)

    def _best_constant(self, draw: Draw) -> FloatArray | None:
        """Values ``[D]`` of the best constant on the test set, if this draw has all of it."""
        primary = self.metrics[self.info.primary]
        if len(draw.outcome) < sum(map(len, self.test_sets)):
            return None
        best = best_constant_outcome(self.info.primary, draw.outcome)
        terms = None if best is None else primary.sums(best)
        if terms is None:
            return None
        return dialogue_values(primary, sums_by_dialogue(terms, draw.dialogue, self.dialogues), draw.dialogue)

    def board(self) -> Board:
        ranked_by = ranking_column(self.columns)
        rows = [self._row(label) for label in self.labels]
        higher = self.metrics[self.info.primary].higher_is_better

        def place(row: Row) -> tuple[bool, float, str]:
            mean = row.cells[self.info.primary][ranked_by].mean
            return mean is None, 0.0 if mean is None else (-mean if higher else mean), row.label

        methods = sorted((row for row in rows if row.kind == "method"), key=place)
        placed = [
            replace(row, rank=rank) if row.cells[self.info.primary][ranked_by].mean is not None else row
            for rank, row in enumerate(methods, start=1)
        ]
        references = [row for row in rows if row.kind == "constant"]
        if self.test_sets:
            references.append(self._no_information())
        board = Board(
            data_set=self.first.data_set,
            regime=self.first.regime,
            comparison_hash=self.first.comparison_hash,
            trained_on="" if self.trained_on == UNSTATED else self.trained_on,
            test_selected=self.first.selection == "test",
            synthetic=self.first.synthetic,
            info=self.info,
            columns=self.columns,
            ranked_by=ranked_by,
            rows=(*placed, *references),
            notes=tuple(self._notes()),
            folds=self.folds,
            intervals=self.settings,
            utterances=sum(len(labels) for labels in self.test_sets),
            dialogues=self.dialogues,
        )
        return self._with_claims(board)

    def _with_claims(self, board: Board) -> Board:
        """The board with what its numbers can carry."""
        primary = self.metrics[self.info.primary]
        shown = [row for row in board.rows if row.kind != "no information"]
        values = {
            (row.label, column.name): [
                DrawValues(item.seed, item.mask_seed, item.by_dialogue)
                for item in self.draws.get((row.label, column.name), [])
                if item.by_dialogue is not None
            ]
            for row in shown
            for column in board.columns
            if not column.is_mean and row.cells[self.info.primary][column.name].state == "value"
        }
        folds = folds_of_dialogues(self.frame) if len(self.frame) else None
        evidence = Evidence(board.columns, values, self.no_information, folds)
        methods = [row for row in shown if row.kind == "method"]
        labels = [row.label for row in methods]
        columns = evidence.scored_columns(labels)
        claims = make_claims(
            self.info.primary,
            columns,
            self.claim_settings,
            ranked_by=board.ranked_by,
            higher_is_better=primary.higher_is_better,
            components=evidence.components(labels),
        )
        reference = next((row for row in board.rows if row.kind == "no information"), None)
        known = None if reference is None else reference.cells[self.info.primary][board.ranked_by].mean
        bearing = tuple(
            robustness(
                row,
                board,
                evidence,
                self.resampled.get(row.label, {}),
                claims,
                known,
                primary.higher_is_better,
            )
            for row in methods
        )
        warnings = (*warnings_of(board, columns), *mask_warnings(self.frame))
        return with_statements(replace(board, claims=claims, robustness=bearing, warnings=warnings))

    def _row(self, label: str) -> Row:
        own = [run for run in self.runs if run.label == label]
        known = next((run for run in own if run.status == FINISHED), own[0])
        cells: dict[str, dict[str, Cell]] = {name: {} for name in self.metrics}
        resampled: dict[str, FloatArray] = {}
        for column in self.columns:
            if not column.is_mean:
                self._fill(column, own, cells, resampled)
        for column in self.columns:
            if column.is_mean:
                members = [
                    item.name for item in self.columns if item.family == column.family and not item.is_mean
                ]
                self._fill_mean(column, members, cells, resampled)
        self.resampled[label] = resampled
        return Row(
            label=label,
            kind="constant" if known.method == CONSTANT else "method",
            method=known.method or label,
            profile=known.profile,
            context=known.context or self.info.contexts.get(label, ""),
            privileged=tuple(dict.fromkeys(item for run in own for item in run.privileged)),
            remarks=tuple(dict.fromkeys(item for run in own for item in run.remarks)),
            runs_done=sum(run.status == FINISHED for run in own),
            runs_planned=len(own),
            cells=cells,
        )

    def _fill(
        self,
        column: Column,
        runs: Sequence[RunSummary],
        cells: dict[str, dict[str, Cell]],
        resampled: dict[str, FloatArray],
    ) -> None:
        """The cells of one row and condition."""
        planned = {
            (run.fold, run.seed) for run in runs if column.name in {item.name for item in run.conditions}
        }
        scored = self.draws.get((runs[0].label, column.name), [])
        draws_done = {(fold, item.seed, item.mask_seed) for item in scored for fold in item.folds}
        masks = self._mask_seeds(column.name)
        done = {
            (fold, seed)
            for fold, seed in planned
            if masks and all((fold, seed, mask) in draws_done for mask in masks)
        }
        wanted = max(len(planned), self.info.planned.get(runs[0].label, 0))
        if not planned or len(done) < wanted:
            hole = Cell("hole", done=len(done), planned=wanted)
            for name in cells:
                cells[name][column.name] = hole
            return
        for name in cells:
            by_seed: dict[int, list[float | None]] = {}
            for item in scored:
                by_seed.setdefault(item.seed, []).append(item.values[name])
            cells[name][column.name] = _cell(by_seed, len(done), wanted)
        own = [item.sums for item in scored if item.sums is not None]
        if self.counts is not None and own and len(own) == len(scored):
            resampled[column.name] = mean_replicates(self.metrics[self.info.primary], own, self.counts)
            self._add_interval(column.name, cells, resampled)

    def _fill_mean(
        self,
        column: Column,
        members: Sequence[str],
        cells: dict[str, dict[str, Cell]],
        resampled: dict[str, FloatArray],
    ) -> None:
        """The mean over a family: per seed first; a hole if any condition is one."""
        for own in cells.values():
            parts = [own[member] for member in members]
            done, planned = sum(part.done for part in parts), sum(part.planned for part in parts)
            lacking = next((part for part in parts if part.state == "hole"), None)
            lacking = lacking or next((part for part in parts if part.state != "value"), None)
            if lacking is None and any(set(part.by_seed) != set(parts[0].by_seed) for part in parts):
                lacking = Cell("hole")
            if lacking is not None:
                own[column.name] = Cell(lacking.state, done=done, planned=planned)
                continue
            seeds = parts[0].by_seed
            own[column.name] = _cell({s: [part.by_seed[s] for part in parts] for s in seeds}, done, planned)
        if all(member in resampled for member in members):
            resampled[column.name] = np.mean([resampled[member] for member in members], axis=0)
            self._add_interval(column.name, cells, resampled)

    def _add_interval(
        self, name: str, cells: dict[str, dict[str, Cell]], resampled: Mapping[str, FloatArray]
    ) -> None:
        cell = cells[self.info.primary][name]
        if cell.state == "value":
            interval = percentile_interval(resampled[name], self.settings.confidence)
            cells[self.info.primary][name] = replace(cell, interval=interval)

    def _mask_seeds(self, condition: str) -> set[int | None]:
        """Mask draws of a condition: all that any row has, as a row with fewer is no equal."""
        scored = (items for (_, name), items in self.draws.items() if name == condition)
        found = {item.mask_seed for items in scored for item in items}
        if None in found and len(found) > 1:
            raise TableError(f"condition {condition!r}: some rows have a mask_seed and others have none")
        return found

    def _no_information(self) -> Row:
        values = no_information(self.test_sets, self.info)
        cells = {
            name: {
                column.name: Cell("n/a")
                if value is None
                else Cell("undefined" if np.isnan(value) else "value", None if np.isnan(value) else value)
                for column in self.columns
            }
            for name, value in values.items()
        }
        return Row(NO_INFORMATION, "no information", cells=cells)

    def _notes(self) -> Iterator[str]:
        troubled = [run for run in self.runs if run.status != FINISHED]
        for run in troubled:
            yield f"hole: {run.name}: {run.status}{f': {run.message}' if run.message else ''}"
        for (label, reason), count in _counted((run.label, run.message) for run in self.skipped).items():
            yield f"skipped: {label}: {reason or 'not applicable'} ({count} run{'s' if count > 1 else ''})"
        if self.info.task != "regression" and self.test_sets:
            absent = absent_classes(np.concatenate(self.test_sets), self.info.classes)
            if absent:
                yield f"no true test sample: {', '.join(absent)}; UA is the mean over the other classes"
        if any(run.fold is not None for run in self.runs):
            yield (
                "folds: the utterances of all folds of one seed are pooled into one test set"
                if self.folds == "pool"
                else "folds: the metric of each fold, averaged over folds"
            )
        if self.first.comparison_hash == UNSTATED:
            yield "no comparison hash: whether the rows are comparable rests on the author of the table"
        if self.first.selection == UNSTATED:
            yield "the table does not state which data the tested epoch was selected on"
        if self.counts is not None and self.dialogues < FEW_DIALOGUES:
            yield f"only {self.dialogues} dialogues: intervals are too short"


@dataclass(frozen=True)
class _Scored:
    """Metrics of one draw, and of the primary one the sums and jackknife values of each dialogue."""

    seed: int
    mask_seed: int | None
    folds: tuple[int | None, ...]
    values: Mapping[str, float | None]
    sums: FloatArray | None
    by_dialogue: FloatArray | None


def _cell(by_seed: Mapping[int, Sequence[float | None]], done: int, planned: int) -> Cell:
    """Mean within each seed, then mean and standard deviation over seeds."""
    values = [value for own in by_seed.values() for value in own]
    if any(value is None for value in values):
        return Cell("n/a", done=done, planned=planned)
    means = {seed: float(np.mean([v for v in own if v is not None])) for seed, own in sorted(by_seed.items())}
    numbers = np.array(list(means.values()))
    if np.isnan(numbers).any():
        return Cell("undefined", done=done, planned=planned)
    sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return Cell("value", float(np.mean(numbers)), sd, means, done, planned)


def _counted(items: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts
