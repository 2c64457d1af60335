"""What holds for a whole result table: task, classes, metrics, plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from ..metrics import SIMS_RANGE, ScoreRange, metric, metrics_for, primary_metric
from ..reading import parse_json
from ..spec import SENTIMENT_CLASSES, Task
from .table import FINISHED, TABLE_SCHEMA, TableError, class_columns, column, numbers


@dataclass(frozen=True)
class TableInfo:
    """What holds for a whole table of one data set.

    Attributes:
        task: Task of the data.
        classes: Class names in label order; negative, neutral, positive on a sentiment regression.
        score_range: Lowest and highest possible score; ``None`` if labels are classes.
        primary: Metric that rows are ordered by.
        metrics: Metrics that are reported, the primary one among them.
        planned: Planned runs per condition of each label, where the plan is larger than what the
            table and the summaries of runs show.
        contexts: What a prediction of each label looks at: ``utterance`` or ``dialogue``.
    """

    task: Task
    classes: tuple[str, ...] = SENTIMENT_CLASSES
    score_range: ScoreRange = None
    primary: str = ""
    metrics: tuple[str, ...] = ()
    planned: Mapping[str, int] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        primary = self.primary or primary_metric(self.task)
        chosen = self.metrics or metrics_for(self.task, self.score_range)
        for name in (primary, *chosen):
            metric(name)
        object.__setattr__(self, "primary", primary)
        object.__setattr__(self, "metrics", (primary, *(name for name in chosen if name != primary)))
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.score_range is not None:
            object.__setattr__(self, "score_range", (float(self.score_range[0]), float(self.score_range[1])))

    def merged(self, other: TableInfo) -> TableInfo:
        """One info for two tables of one comparison.

        Raises:
            TableError: They disagree about the task.
        """
        for name in ("task", "classes", "score_range", "primary"):
            if getattr(self, name) != getattr(other, name):
                raise TableError(
                    f"two tables of one comparison disagree about {name}: "
                    f"{getattr(self, name)!r} and {getattr(other, name)!r}"
                )
        return replace(
            self,
            metrics=tuple(dict.fromkeys((*self.metrics, *other.metrics))),
            planned={**self.planned, **other.planned},
            contexts={**self.contexts, **other.contexts},
        )

    def to_json(self) -> str:
        """JSON as it is stored in Parquet files, schema version included."""
        return json.dumps({"schema": TABLE_SCHEMA, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> TableInfo:
        """Reads ``to_json`` back.

        Raises:
            TableError: The schema is not one this version reads, or a key is missing.
        """
        record: dict[str, Any] = parse_json(text)
        if not isinstance(record, dict):
            raise TableError("the table's information is no record")
        schema = record.pop("schema", None)
        if schema != TABLE_SCHEMA:
            raise TableError(f"result table of schema {schema!r}; this version reads schema {TABLE_SCHEMA}")
        known = {item.name for item in fields(cls)}
        try:
            return cls(**{name: _tuples(value) for name, value in record.items() if name in known})
        except TypeError as error:
            raise TableError(f"the table's information is incomplete: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def infer_info(frame: pd.DataFrame) -> TableInfo:
    """Guesses what a validated table of one data set is about.

    - A regression if any row has a score or any label is no class index (negative or not whole); then
      the score range is [-1, 1] (CH-SIMS) if no label lies outside it, else [-3, 3].
    - Else classes: binary with two class columns, multiclass with more.

    Write the table as Parquet with a ``TableInfo``, or pass one, where the guess would be wrong.
    """
    finished = frame.loc[(column(frame, "status") == FINISHED).to_numpy()]
    labels = numbers(finished, "y_true")
    used = [name for name in class_columns(frame) if np.isfinite(numbers(finished, name)).any()]
    no_class = bool(((labels < 0) | (labels != np.rint(labels))).any())
    if np.isfinite(numbers(finished, "score")).any() or no_class or not used:
        sims = len(labels) > 0 and float(np.abs(labels).max()) <= 1
        return TableInfo("regression", SENTIMENT_CLASSES, SIMS_RANGE if sims else (-3.0, 3.0))
    names = tuple(f"class {index}" for index in range(len(used)))
    return TableInfo("binary" if len(used) == 2 else "multiclass", names)
