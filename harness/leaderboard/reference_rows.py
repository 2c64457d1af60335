"""Reference rows: what a table's numbers are worth.

``constant`` is a method like any other: trained, it predicts the majority class or the mean label.
``no information`` knows the TEST labels and nothing else: for each metric the best value that any
constant prediction reaches. On MOSI's test set (zeros left out) the trained constant has 42.2 %
accuracy, the best one 57.8 %; a method below the latter has shown nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..metrics import Outcome, best_constant, metric
from .info import TableInfo

CONSTANT = "constant"
NO_INFORMATION = "no information"


def no_information(test_sets: Iterable[np.ndarray], info: TableInfo) -> Mapping[str, float | None]:
    """Value of the ``no information`` row for each metric; ``None``: not applicable.

    Args:
        test_sets: Test labels ``[N]``; several if a score is the mean of several folds.
        info: Task and metrics.
    """
    labels = list(test_sets)
    values: dict[str, float | None] = {}
    for name in info.metrics:
        found = [best_constant(name, y, info.task, info.classes, info.score_range) for y in labels]
        known = [value for value in found if value is not None]
        values[name] = float(np.mean(known)) if known else None
    return values


def best_constant_outcome(name: str, outcome: Outcome) -> Outcome | None:
    """The constant prediction that reaches ``best_constant`` on these labels; ``None`` if there is none."""
    best = best_constant(name, outcome.y_true, outcome.task, outcome.classes, outcome.score_range)
    if best is None or np.isnan(best):
        return None
    labels, size = outcome.y_true, len(outcome)
    if outcome.task == "regression":
        nonzero = labels[labels != 0]
        middle = [float(np.median(part)) for part in (labels, nonzero) if len(part)]
        scores = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.05, 0.5, 1.0, 2.0, 3.0, *middle]
        candidates = [Outcome(labels, np.full(size, x), score_range=outcome.score_range) for x in scores]
    else:
        rows = np.eye(len(outcome.classes))
        candidates = [
            Outcome(labels, None, np.tile(row, (size, 1)), outcome.task, outcome.classes) for row in rows
        ]
    for candidate in candidates:
        value = metric(name).compute(candidate)
        if value is not None and abs(value - best) < 1e-12:
            return candidate
    return None
