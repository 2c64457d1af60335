"""Reference rows: what a table's numbers are worth.

``constant`` is a method like any other: trained, it predicts the majority class or the mean label.
``no information`` knows the TEST labels and nothing else: for each metric the best value that any
constant prediction reaches. On MOSI's test set (zeros left out) the trained constant has 42.2 %
accuracy, the best one 57.8 %; a method below the latter has shown nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..metrics import best_constant
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
