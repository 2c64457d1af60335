"""The predictions of a run against the contract of the result table, and its metrics computed again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError
from ..leaderboard.files import read_predictions
from ..leaderboard.info import TableInfo
from ..leaderboard.table import class_columns, column, numbers
from ..metrics import Outcome, evaluate, mean_over
from ..run_file import RUN_FILE
from .files import PREDICTIONS
from .findings import Finding

# Metrics are computed again from what they were computed from; only the order of sums may differ.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Block:
    """Predictions under one draw of one test condition, in row order.

    Attributes:
        condition: Test condition.
        mask_seed: Seed of the draw; ``None`` where nothing is drawn.
        ids: Utterances.
        dialogues: Their dialogues.
        labels: ``[N]`` true labels.
        available: ``[N]`` what was available, as labels such as ``"ta"``.
        outcome: Labels and predictions.
    """

    condition: str
    mask_seed: int | None
    ids: tuple[str, ...]
    dialogues: tuple[str, ...]
    labels: np.ndarray
    available: np.ndarray
    outcome: Outcome


@dataclass(frozen=True)
class Contradiction(Exception):
    """Predictions contradict the record, so that nothing more can be compared."""

    text: str


def check_predictions(folder: Path, record: Mapping[str, Any]) -> tuple[list[Block], list[Finding]]:
    """Reads the predictions of a finished run, by draw of the test masks, and computes its metrics."""
    try:
        table = read_predictions(folder / PREDICTIONS)
    except UserError as error:
        return [], [Finding("damaged", PREDICTIONS, str(error).removeprefix(f"{PREDICTIONS}: "))]
    except MemoryError:
        return [], [Finding("damaged", PREDICTIONS, "needs more memory than there is")]
    info = recorded_info(record)
    stated = list(table.infos.values())
    try:
        if info is None:
            raise Contradiction(f"{RUN_FILE} names no task, classes and metrics that there are")
        if stated != [info]:
            raise Contradiction(f"says another task, classes or metrics than {RUN_FILE}")
        _check_constants(table.frame, record)
        blocks = list(_blocks(table.frame, record, info))
    except Contradiction as error:
        return [], [Finding("altered", PREDICTIONS, error.text)]
    except UserError as error:
        return [], [Finding("altered", PREDICTIONS, str(error))]
    return blocks, list(_check_metrics(blocks, record, info))


def recorded_info(record: Mapping[str, Any]) -> TableInfo | None:
    """What the record says of the table; ``None`` if it is impossible."""
    table = record["table"]
    low_high = table["score_range"]
    try:
        return TableInfo(
            task=table["task"],
            classes=tuple(table["classes"]),
            score_range=None if low_high is None else (low_high[0], low_high[1]),
            primary=table["primary"],
            metrics=tuple(table["metrics"]),
        )
    except UserError:
        return None


def _check_constants(frame: pd.DataFrame, record: Mapping[str, Any]) -> None:
    identity, marks = record["identity"], record["marks"]
    names = ("data_set", "fold", "regime", "method", "label", "profile", "seed", "train_condition")
    expected = {name: identity[name] for name in names} | {
        "comparison_hash": record["comparison_hash"],
        "synthetic": marks["synthetic"],
        "selection": marks["selection"],
        "privileged": ",".join(marks["privileged"]),
        "status": "finished",
    }
    for name, value in expected.items():
        found = [None if pd.isna(item) else item for item in column(frame, name).unique()]
        if found != [value]:
            shown = ", ".join(str(item) for item in found[:3]) or "in no row"
            raise Contradiction(f"{name} is {shown}, in {RUN_FILE} it is {value}")


def _blocks(frame: pd.DataFrame, record: Mapping[str, Any], info: TableInfo) -> Iterator[Block]:
    drawn = record["masks"].get("test", {})
    families = record["identity"]["test_conditions"]
    expected = [(name, draw["seed"]) for name in families for draw in drawn.get(name, [])]
    count = record["data"]["utterances"].get("test", 0)
    if len(frame) != count * len(expected) or not count:
        raise Contradiction(
            f"has {len(frame)} rows; {count} test utterances under {len(expected)} draws make "
            f"{count * len(expected)}"
        )
    conditions = column(frame, "test_condition").to_numpy().astype(str)
    family = column(frame, "family").to_numpy().astype(str)
    seeds = numbers(frame, "mask_seed")
    ids, dialogues, available = (
        column(frame, name).to_numpy().astype(str) for name in ("utterance", "dialogue", "available")
    )
    labels, scores = numbers(frame, "y_true"), numbers(frame, "score")
    classes = np.stack([numbers(frame, name) for name in class_columns(frame)] or [scores * np.nan], axis=1)
    for index, (name, seed) in enumerate(expected):
        rows = slice(index * count, (index + 1) * count)
        same_seed = np.isnan(seeds[rows]) if seed is None else seeds[rows] == seed
        if not (
            (conditions[rows] == name).all() and same_seed.all() and (family[rows] == families[name]).all()
        ):
            raise Contradiction(f"rows {rows.start} to {rows.stop} are not all of {name}, mask seed {seed}")
        if (ids[rows] != ids[:count]).any() or (dialogues[rows] != dialogues[:count]).any():
            raise Contradiction(f"{name}, mask seed {seed}: other utterances than under the first condition")
        if (labels[rows] != labels[:count]).any():
            raise Contradiction(f"{name}, mask seed {seed}: other true labels than under the first condition")
        yield Block(
            name,
            seed,
            tuple(ids[rows].tolist()),
            tuple(dialogues[rows].tolist()),
            labels[rows],
            available[rows],
            _outcome(labels[rows], scores[rows], classes[rows], info),
        )


def _outcome(labels: np.ndarray, scores: np.ndarray, classes: np.ndarray, info: TableInfo) -> Outcome:
    if info.score_range is not None and info.task == "regression":
        low, high = info.score_range
        # Labels are stored in single precision.
        if labels.min() < low - 1e-6 or labels.max() > high + 1e-6:
            raise Contradiction(f"a true label lies outside [{low:g}, {high:g}]")
    try:
        return Outcome(
            y_true=labels,
            score=scores if np.isfinite(scores).any() else None,
            probabilities=classes if np.isfinite(classes).any() else None,
            task=info.task,
            classes=info.classes,
            score_range=info.score_range,
        )
    except ValueError as error:
        raise Contradiction(str(error)) from None


def _check_metrics(blocks: list[Block], record: Mapping[str, Any], info: TableInfo) -> Iterator[Finding]:
    by_condition: dict[str, list[Mapping[str, float | None]]] = {}
    for block in blocks:
        by_condition.setdefault(block.condition, []).append(evaluate(block.outcome, info.metrics))
    recorded = record["metrics"]["test"]
    if set(recorded) != set(by_condition):
        yield Finding("altered", RUN_FILE, "has metrics of other test conditions than it has predictions of")
        return
    for name, scores in by_condition.items():
        again = mean_over(scores)
        if set(again) != set(recorded[name]):
            yield Finding("altered", RUN_FILE, f"{name}: has other metrics than its table names")
            continue
        for metric, value in again.items():
            if not same(recorded[name][metric], value):
                text = f"{metric} under {name} is {recorded[name][metric]}, its predictions give {value}"
                yield Finding("altered", RUN_FILE, text)


def same(recorded: float | None, again: float | None) -> bool:
    """Whether two values agree up to the order of sums; an undefined one is recorded as none."""
    again = None if again is None or math.isnan(again) else again
    if recorded is None or again is None:
        return recorded is again
    return abs(recorded - again) <= _TOLERANCE * max(1.0, abs(again))
