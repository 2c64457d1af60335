"""Results per class and confusion matrices, on demand: which classes a method confuses under a condition.

A sentiment score counts as two classes, negative and positive, over utterances with non-zero labels, as
in the primary metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..metrics import confusion_matrix, per_class_f1, per_class_recall
from .info import TableInfo
from .table import FINISHED, class_columns, numbers


@dataclass(frozen=True)
class ClassResult:
    """One method under one condition.

    Attributes:
        label: Row name.
        condition: Test condition.
        classes: Class names.
        confusion: ``[C, C]`` utterances, true class first; mean over seeds and mask draws, folds
            added up.
        recall: ``[C]`` recall of each class; nan for a class without a true sample.
        f1: ``[C]`` F1 of each class.
    """

    label: str
    condition: str
    classes: tuple[str, ...]
    confusion: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def per_class(frame: pd.DataFrame, info: TableInfo, condition: str) -> tuple[ClassResult, ...]:
    """Per-class results of every method of one comparison under one condition.

    Recall and F1 are those of the mean confusion matrix.

    Args:
        frame: Validated result table of one comparison hash and data set.
        info: Its task and classes.
        condition: Test condition.
    """
    wanted = (frame["test_condition"] == condition) & (frame["status"] == FINISHED)
    rows = frame.loc[wanted]
    regression = info.task == "regression"
    classes = ("negative", "positive") if regression else info.classes
    results = []
    for label, part in rows.groupby("label", observed=True):
        draws = part.groupby(["seed", "mask_seed"], observed=True, dropna=False).ngroups
        truth, predicted = _decisions(part, regression)
        confusion = confusion_matrix(truth, predicted, len(classes)) / draws
        results.append(
            ClassResult(
                label=str(label),
                condition=condition,
                classes=classes,
                confusion=confusion,
                recall=per_class_recall(confusion),
                f1=per_class_f1(confusion),
            )
        )
    return tuple(results)


def _decisions(part: pd.DataFrame, regression: bool) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted class of each row; zero scores are left out."""
    names = [name for name in class_columns(part) if np.isfinite(numbers(part, name)).all()]
    truth = part["y_true"].to_numpy(dtype=np.float64)
    if not regression:
        return truth.astype(np.int64), part[names].to_numpy(dtype=np.float64).argmax(axis=1)
    score = part["score"].to_numpy(dtype=np.float64)
    if np.isnan(score).any():  # classes negative, neutral, positive stand in for a score
        probabilities = part[names].to_numpy(dtype=np.float64)
        score = probabilities[:, -1] - probabilities[:, 0]
    kept = truth != 0
    return (truth[kept] > 0).astype(np.int64), (score[kept] > 0).astype(np.int64)


def render_per_class(results: Sequence[ClassResult]) -> str:
    """The results as text: a table of recall and F1, then a confusion matrix per method."""
    if not results:
        return "no finished run has this condition"
    classes = results[0].classes
    header = ["label", *(f"recall {name}" for name in classes), *(f"F1 {name}" for name in classes)]
    rows = [[item.label, *(100 * item.recall), *(100 * item.f1)] for item in results]
    parts = [f"per class under {results[0].condition}, per cent, seeds and mask draws averaged"]
    parts.append(tabulate(rows, headers=header, floatfmt=".1f", tablefmt="simple", missingval="n/a"))
    for item in results:
        body = [[f"true {name}", *row] for name, row in zip(classes, item.confusion, strict=True)]
        columns = [item.label, *(f"predicted {name}" for name in classes)]
        parts.append(tabulate(body, headers=columns, floatfmt=".1f", tablefmt="simple"))
    return "\n\n".join(parts)
