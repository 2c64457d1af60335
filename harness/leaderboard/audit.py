"""How much test selection would have flattered each method: the field's most common sin, in points.

Runs made with ``compute.audit = true`` keep the test metrics of every epoch in ``audit.jsonl``, which
selection can't read. The inflation of a run is the best of its epochs ON THE TEST SET minus the epoch
that the protocol's rule chose, in the primary metric, counted so that positive is flattering:

    inflation(condition) = max over epochs e of s(e, condition) - s(chosen, condition)

``per condition`` picks an epoch for each condition, as papers with one best number per column do;
``one epoch`` picks the epoch with the best mean over all conditions. Only epochs of the stage that the
chosen epoch belongs to are candidates, so both are lower bounds: other stages, metrics and
hyper-parameters could be chosen on the test set too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import metric
from .table import TableError


@dataclass(frozen=True)
class AuditedRun:
    """Test scores of every epoch of one run.

    Attributes:
        label: Row name.
        data_set: Data set.
        regime: Regime.
        comparison_hash: Comparison.
        seed: Training seed.
        primary: Primary metric.
        chosen: Index of the chosen epoch in ``scores``.
        scores: Per condition, the primary metric after each candidate epoch; nan where undefined.
    """

    label: str
    data_set: str
    regime: str
    comparison_hash: str
    seed: int
    primary: str
    chosen: int
    scores: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Inflation:
    """Mean over seeds, and standard deviation (n - 1); ``None`` with one seed."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class AuditRow:
    """One label.

    Attributes:
        label: Row name.
        runs: Audited runs.
        by_condition: Inflation with an epoch for each condition.
        per_condition: Mean of ``by_condition`` over conditions.
        one_epoch: Inflation of the mean over conditions with one epoch for all.
    """

    label: str
    runs: int
    by_condition: Mapping[str, Inflation]
    per_condition: Inflation
    one_epoch: Inflation


@dataclass(frozen=True)
class AuditTable:
    """Inflation of all audited rows of one comparison, in the metric's own unit.

    Attributes:
        data_set: Data set.
        regime: Regime.
        comparison_hash: Comparison.
        metric: Primary metric.
        conditions: Conditions in order.
        rows: Rows, the most flattered first.
    """

    data_set: str
    regime: str
    comparison_hash: str
    metric: str
    conditions: tuple[str, ...]
    rows: tuple[AuditRow, ...]


def read_audited(folder: Path, record: Mapping[str, Any]) -> AuditedRun | None:
    """The audit of a run folder; ``None`` if the run kept none.

    Args:
        folder: Folder with ``audit.jsonl`` and ``history.jsonl``.
        record: Content of ``run.json``.

    Raises:
        TableError: The files don't fit together.
    """
    file = folder / "audit.jsonl"
    if not file.is_file() or record["status"] != "finished":
        return None
    identity, primary = record["identity"], record["table"]["primary"]
    try:
        stages = {row["step"]: row["stage"] for row in _lines(folder / "history.jsonl")}
        stage = stages[record["best_epoch"]]
        rows = [row for row in _lines(file) if stages[row["step"]] == stage]
        steps = [row["step"] for row in rows]
        conditions = [name for name in rows[0] if name != "step"]
        scores = {
            name: tuple(math.nan if (value := row[name][primary]) is None else value for row in rows)
            for name in conditions
        }
        chosen = steps.index(record["best_epoch"])
    except (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise TableError(f"{file}: the audit doesn't fit the run: {error!r}") from None
    return AuditedRun(
        label=identity["label"],
        data_set=identity["data_set"],
        regime=identity["regime"],
        comparison_hash=record["comparison_hash"],
        seed=identity["seed"],
        primary=primary,
        chosen=chosen,
        scores=scores,
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def audit_tables(runs: Iterable[AuditedRun]) -> tuple[AuditTable, ...]:
    """Inflation per label and condition, one table a comparison.

    Folds and, in the ``matched`` regime, training conditions of one seed are averaged first, then seeds.
    """
    tables: dict[tuple[str, str, str], list[AuditedRun]] = {}
    for run in runs:
        tables.setdefault((run.data_set, run.regime, run.comparison_hash), []).append(run)
    return tuple(_table(key, own) for key, own in tables.items())


def _table(key: tuple[str, str, str], runs: Sequence[AuditedRun]) -> AuditTable:
    conditions = tuple(dict.fromkeys(name for run in runs for name in run.scores))
    sign = 1.0 if metric(runs[0].primary).higher_is_better else -1.0
    labels = dict.fromkeys(run.label for run in runs)
    rows = [_row(label, [run for run in runs if run.label == label], sign) for label in labels]
    rows.sort(key=lambda row: (-row.per_condition.mean, row.label))
    return AuditTable(*key, runs[0].primary, conditions, tuple(rows))


def _row(label: str, runs: Sequence[AuditedRun], sign: float) -> AuditRow:
    by_condition: dict[str, dict[int, list[float]]] = {}
    joint: dict[int, list[float]] = {}
    for run in runs:
        gains = {name: _gain(sign * np.array(scores), run.chosen) for name, scores in run.scores.items()}
        for name, gain in gains.items():
            by_condition.setdefault(name, {}).setdefault(run.seed, []).append(gain)
        mean = np.mean([sign * np.array(scores) for scores in run.scores.values()], axis=0)
        joint.setdefault(run.seed, []).append(_gain(mean, run.chosen))
    known = {name: own for name, own in by_condition.items() if np.isfinite(_seed_means(own)).all()}
    seeds = {seed: [float(np.mean(own[seed])) for own in known.values() if seed in own] for seed in joint}
    return AuditRow(
        label=label,
        runs=len(runs),
        by_condition={name: _inflation(own) for name, own in known.items()},
        per_condition=_inflation(seeds),
        one_epoch=_inflation(joint),
    )


def _gain(scores: np.ndarray, chosen: int) -> float:
    return float(np.nanmax(scores) - scores[chosen]) if np.isfinite(scores[chosen]) else math.nan


def _seed_means(by_seed: Mapping[int, Sequence[float]]) -> np.ndarray:
    return np.array([np.mean(own) if len(own) else math.nan for own in by_seed.values()])


def _inflation(by_seed: Mapping[int, Sequence[float]]) -> Inflation:
    means = _seed_means(by_seed)
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Inflation(float(np.mean(means)), sd, len(means))


def audit_cells(table: AuditTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows in points (per cent metrics) or units, for any kind of table."""
    item = metric(table.metric)

    def text(value: Inflation | None) -> str:
        if value is None or not math.isfinite(value.mean):
            return "n/a"
        scale, form = (100, "+.1f") if item.percent else (1, "+.3f")
        mean = format(scale * value.mean, form)
        return mean if value.sd is None else f"{mean} ± {format(scale * value.sd, form[1:])}"

    header = ["label", *table.conditions, "per condition", "one epoch", "runs"]
    rows = [
        [
            row.label,
            *(text(row.by_condition.get(name)) for name in table.conditions),
            text(row.per_condition),
            text(row.one_epoch),
            str(row.runs),
        ]
        for row in table.rows
    ]
    return header, rows
