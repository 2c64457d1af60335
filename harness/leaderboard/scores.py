"""Scores of one comparison: from rows of predictions to one outcome per seed and mask draw.

**Folds.** With cross-validation every utterance is tested once, in its fold. The default pools the
utterances of all folds of one seed into one test set and computes the metric there (``"pool"``): small
folds lack classes, and F1 or a correlation of a small fold is biased. The mean of the folds' own
values (``"mean"``), which many papers print, is the alternative; the two differ.

**Order of averages.** Metric on each (seed, mask draw), mean over mask draws, then mean and standard
deviation (n - 1) over seeds. Means over conditions are taken per seed, within one family.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..metrics import Outcome
from .info import TableInfo
from .table import TableError, class_columns, column, numbers

FoldPolicy = Literal["pool", "mean"]
IntArray = npt.NDArray[np.int64]

_NONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Draw:
    """Predictions of one training seed under one draw of the test masks.

    Attributes:
        label: Row name.
        condition: Test condition.
        seed: Training seed.
        mask_seed: Seed of the test masks; ``None`` where nothing is drawn.
        fold: The fold; ``None`` if there are none or they are pooled.
        folds: Folds that are in it.
        outcome: Labels and predictions of N utterances.
        dialogue: ``[N]`` number of each utterance's dialogue in ``dialogues``.
    """

    label: str
    condition: str
    seed: int
    mask_seed: int | None
    fold: int | None
    folds: tuple[int | None, ...]
    outcome: Outcome
    dialogue: IntArray


def dialogues(frame: pd.DataFrame) -> tuple[str, ...]:
    """Names of all dialogues of a comparison, sorted."""
    return tuple(sorted(map(str, column(frame, "dialogue").unique())))


def draws(frame: pd.DataFrame, info: TableInfo, folds: FoldPolicy = "pool") -> Iterator[Draw]:
    """Outcomes of one comparison, by label, condition, seed and mask seed.

    Args:
        frame: Finished rows of one comparison in which label and condition name one training.
        info: Task of the data.
        folds: Whether folds of one seed are pooled or kept apart.

    Raises:
        TableError: Two runs disagree about the test set, or a run is there twice.
    """
    table = _Sorted(frame, dialogues(frame))
    table.check()
    depth = 4 if folds == "pool" else 5
    starts = table.starts(depth)
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        label, condition, seed, mask_seed, fold = (int(key[start]) for key in table.keys)
        inside = tuple(None if f == _NONE else int(f) for f in np.unique(table.keys[4][start:end]))
        yield Draw(
            label=table.labels[label],
            condition=table.conditions[condition],
            seed=seed,
            mask_seed=None if mask_seed == _NONE else mask_seed,
            fold=None if folds == "pool" or fold == _NONE else fold,
            folds=inside,
            outcome=table.outcome(slice(start, end), info),
            dialogue=table.dialogue[start:end],
        )


def labels_of_test_set(frame: pd.DataFrame, folds: FoldPolicy = "pool") -> list[np.ndarray]:
    """Labels of the test set ``[N]``: of all folds together, or of each fold."""
    own = frame.drop_duplicates(["fold", "dialogue", "utterance"])
    if folds == "pool":
        return [numbers(own, "y_true")]
    return [numbers(part, "y_true") for _, part in own.groupby("fold", dropna=False, observed=True)]


def folds_of_dialogues(frame: pd.DataFrame) -> IntArray | None:
    """Fold of each dialogue in ``dialogues``; ``None`` without folds, or if a dialogue is in several."""
    if column(frame, "fold").isna().any():
        return None
    pairs = frame.loc[:, ["dialogue", "fold"]].drop_duplicates()
    by_name = {str(name): int(fold) for name, fold in pairs.itertuples(index=False)}
    names = dialogues(frame)
    if len(pairs) > len(names):
        return None
    return np.array([by_name[name] for name in names], dtype=np.int64)


class _Sorted:
    """Rows as arrays, sorted by label, condition, seed, mask seed, fold, dialogue and utterance."""

    def __init__(self, frame: pd.DataFrame, names: tuple[str, ...]) -> None:
        label, self.labels = _coded(frame, "label")
        condition, self.conditions = _coded(frame, "test_condition")
        utterance, self.utterances = _coded(frame, "utterance")
        code, found = _coded(frame, "dialogue")
        position = {name: index for index, name in enumerate(names)}
        dialogue = np.array([position[name] for name in found], dtype=np.int64)[code]
        seed = column(frame, "seed").to_numpy(dtype=np.int64)
        mask_seed, fold = (
            column(frame, name).to_numpy(dtype=np.int64, na_value=_NONE) for name in ("mask_seed", "fold")
        )
        keys = (label, condition, seed, mask_seed, fold)
        order = np.lexsort((utterance, dialogue, *reversed(keys)))
        self.keys = tuple(key[order] for key in keys)
        self.dialogue, self.utterance = dialogue[order], utterance[order]
        self.names = names
        self.y_true, self.score = (numbers(frame, name)[order] for name in ("y_true", "score"))
        self.classes = np.stack(
            [numbers(frame, name)[order] for name in class_columns(frame)] or [self.score * np.nan]
        )

    def starts(self, depth: int) -> list[int]:
        """First row of every group that agrees in the first keys."""
        changed = np.zeros(len(self.y_true), dtype=bool)
        changed[:1] = True
        for key in self.keys[:depth]:
            changed[1:] |= key[1:] != key[:-1]
        return np.flatnonzero(changed).tolist()

    def check(self) -> None:
        """Every run and mask draw must have the same utterances and labels in a fold, each once."""
        reference: dict[int, slice] = {}
        starts = self.starts(5)
        for start, end in zip(starts, [*starts[1:], len(self.y_true)], strict=True):
            mine = slice(start, end)
            twice = (np.diff(self.dialogue[mine]) == 0) & (np.diff(self.utterance[mine]) == 0)
            if twice.any():
                at = start + int(np.flatnonzero(twice)[0])
                raise TableError(
                    f"{self._where(start)}: utterance {self.utterances[self.utterance[at]]!r} of dialogue "
                    f"{self.names[self.dialogue[at]]!r} is there twice; is a file given twice?"
                )
            other = reference.setdefault(int(self.keys[4][start]), mine)
            same = end - start == other.stop - other.start and (
                np.array_equal(self.dialogue[mine], self.dialogue[other])
                and np.array_equal(self.utterance[mine], self.utterance[other])
            )
            if not same:
                raise TableError(
                    f"{self._where(start)} has {end - start} test utterances, {self._where(other.start)} has "
                    f"{other.stop - other.start}, and they are not the same; results of different test sets "
                    "can't be compared"
                )
            if not np.array_equal(self.y_true[mine], self.y_true[other]):
                raise TableError(
                    f"{self._where(start)} and {self._where(other.start)} have different labels for the same "
                    "utterances"
                )

    def _where(self, row: int) -> str:
        label, condition, seed, mask_seed, fold = (int(key[row]) for key in self.keys)
        parts = [self.labels[label], self.conditions[condition], f"seed {seed}"]
        parts += [f"mask seed {mask_seed}"] if mask_seed != _NONE else []
        parts += [f"fold {fold}"] if fold != _NONE else []
        return f"({', '.join(parts)})"

    def outcome(self, rows: slice, info: TableInfo) -> Outcome:
        score = self.score[rows]
        used = np.isfinite(self.classes[:, rows]).any(axis=1)
        count = 3 if info.task == "regression" else len(info.classes)
        try:
            return Outcome(
                y_true=self.y_true[rows],
                score=score if np.isfinite(score).any() else None,
                probabilities=self.classes[: max(count, int(used.sum())), rows].T if used.any() else None,
                task=info.task,
                classes=info.classes,
                score_range=info.score_range,
            )
        except ValueError as error:
            raise TableError(f"{self._where(rows.start)}: {error}") from None


def _coded(frame: pd.DataFrame, name: str) -> tuple[IntArray, list[str]]:
    values = pd.Categorical(column(frame, name))
    return np.asarray(values.codes, dtype=np.int64), [str(item) for item in values.categories]
