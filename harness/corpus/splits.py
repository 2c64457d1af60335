"""Training, validation and test rows from a rule, always by whole dialogues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..errors import suggestion
from .errors import CorpusError
from .info import SplitRule
from .records import Corpus

SPLIT_VALUES = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Row positions in the utterance table, int64 and increasing.

    Attributes:
        train: Rows of the training split.
        valid: Rows of the validation split.
        test: Rows of the test split.
        fold: Number of the test fold; ``None`` for a split column.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    fold: int | None = None


def fold_numbers(rule: SplitRule, utterances: pd.DataFrame) -> tuple[int | None, ...]:
    """The folds that a rule runs over: ``(None,)`` for a split column.

    Raises:
        CorpusError: The column is absent, holds no folds, or lacks a fold that the rule names.
    """
    column = _column(rule, utterances)
    if rule.kind == "column":
        return (None,)
    present = _folds(rule, column)
    if rule.folds is None:
        return present
    absent = sorted(set(rule.folds) - set(present))
    if absent:
        raise CorpusError(f"column {rule.column!r} has the folds {list(present)}, not {absent}")
    return rule.folds


def make_split(rule: SplitRule, utterances: pd.DataFrame, fold: int | None = None) -> Split:
    """Divides the rows of an utterance table.

    Args:
        rule: The rule.
        utterances: Table with ``dialogue`` and the rule's column.
        fold: Test fold, for rules over folds.

    Raises:
        CorpusError: A column, fold or part is absent, or a dialogue would cross the split.
    """
    column = _column(rule, utterances)
    dialogues = utterances["dialogue"].to_numpy(dtype=object)
    part = np.full(len(utterances), "", dtype=object)
    if rule.kind == "column":
        values = column.to_numpy(dtype=object)
        for name in SPLIT_VALUES:
            part[values == name] = name
        if not (part == "valid").any():
            _draw_validation(part, dialogues, rule)
        fold = None
    else:
        folds = _folds(rule, column)
        if fold not in folds:
            raise CorpusError(f"column {rule.column!r} has the folds {list(folds)}, not {fold}")
        values = column.to_numpy(dtype=np.int64)
        part[values >= 0] = "train"
        part[values == fold] = "test"
        if rule.kind == "nested_folds":
            part[values == folds[(folds.index(fold) + 1) % len(folds)]] = "valid"
        else:
            _draw_validation(part, dialogues, rule)
    crossing = crossing_dialogues(utterances["dialogue"], part)
    if crossing:
        raise CorpusError(f"by column {rule.column!r} the dialogue {crossing[0]!r} would be in two splits")
    rows = {name: np.flatnonzero(part == name) for name in SPLIT_VALUES}
    for name, found in rows.items():
        if not len(found):
            raise CorpusError(f"by column {rule.column!r} the {name} split is empty")
    return Split(rows["train"], rows["valid"], rows["test"], fold)


def with_split_column(corpus: Corpus, rule: SplitRule, folds: int = 5) -> Corpus:
    """Generated data with the column that a rule names, so that they can stand in for any data set.

    A column that is absent is made from the dialogues' ids: equal folds, or six, two and two tenths.

    Args:
        corpus: The data.
        rule: The rule.
        folds: Number of folds where the rule doesn't name them.
    """
    if rule.column in corpus.utterances.columns:
        return corpus
    dialogues = corpus.utterances["dialogue"]
    order = drawn_dialogues(dialogues, 1.0, rule.seed)
    if rule.kind == "column":
        values = [SPLIT_VALUES[0 if 10 * i < 6 * len(order) else 1 + i % 2] for i in range(len(order))]
    else:
        count = folds if rule.folds is None else max(rule.folds) + 1
        values = [i % max(count, 3) for i in range(len(order))]
    part_of = dict(zip(order, values, strict=True))
    column = [part_of[dialogue] for dialogue in dialogues]
    return replace(corpus, utterances=corpus.utterances.assign(**{rule.column: column}))


def crossing_dialogues(dialogues: Iterable[str], parts: Iterable[object]) -> tuple[str, ...]:
    """Dialogues whose utterances lie in more than one part."""
    found: dict[str, set[object]] = {}
    for dialogue, part in zip(dialogues, parts, strict=True):
        found.setdefault(dialogue, set()).add(part)
    return tuple(sorted(dialogue for dialogue, values in found.items() if len(values) > 1))


def drawn_dialogues(dialogues: Iterable[str], share: float, seed: int) -> tuple[str, ...]:
    """A fixed share of the dialogues (rounded, at least one), by ranking a keyed hash of their ids.

    The draw depends on the set of ids and the seed only, not on their order.
    """
    names = sorted(set(dialogues))
    count = max(1, round(share * len(names)))
    key = seed.to_bytes(8, "little")
    ranked = sorted(names, key=lambda name: hashlib.blake2b(name.encode(), key=key, digest_size=16).digest())
    return tuple(ranked[:count])


def _draw_validation(part: np.ndarray, dialogues: np.ndarray, rule: SplitRule) -> None:
    training = part == "train"
    if not training.any():
        return  # the empty training split is reported by the caller
    drawn = drawn_dialogues(dialogues[training], rule.validation_share, rule.seed)
    part[training & np.isin(dialogues, np.array(drawn, dtype=object))] = "valid"


def _column(rule: SplitRule, utterances: pd.DataFrame) -> pd.Series:
    if rule.column not in utterances.columns:
        known = [str(name) for name in utterances.columns if "split" in str(name) or "fold" in str(name)]
        raise CorpusError(f"the data have no column {rule.column!r}{suggestion(rule.column, known)}")
    return pd.Series(utterances[rule.column])


def _folds(rule: SplitRule, column: pd.Series) -> tuple[int, ...]:
    if not pd.api.types.is_integer_dtype(column):
        raise CorpusError(f"column {rule.column!r} holds no fold numbers")
    folds = tuple(int(value) for value in np.unique(column.to_numpy()) if value >= 0)
    least = 3 if rule.kind == "nested_folds" else 2
    if len(folds) < least:
        raise CorpusError(
            f"column {rule.column!r} has {len(folds)} folds, {rule.kind} takes at least {least}"
        )
    return folds
