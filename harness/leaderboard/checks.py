"""What looks wrong in the results themselves: sanity checks that a reviewer would make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # loads scipy.stats, which takes a second, when it is used
from pandas.util import hash_array

from ..metrics import metric
from .inference import ScoredColumn
from .records import Board, Row
from .significance import spread
from .table import column

# Level of the test for too small a seed variance: rare enough to stay silent over a whole table.
_SUSPICIOUS = 1e-4


def warnings_of(board: Board, columns: Sequence[ScoredColumn]) -> tuple[str, ...]:
    """Warnings about a board's numbers."""
    return (*_equal_columns(board), *_equal_rows(board), *_constant_scores(board), *_small_spread(columns))


def _equal_columns(board: Board) -> Iterator[str]:
    """Two conditions with the same scores of every seed in every metric."""
    for row in board.rows:
        if row.kind != "method":
            continue
        names = [item.name for item in board.columns if not item.is_mean]
        for first, second in combinations(names, 2):
            if _same(row, first, row, second):
                yield f"{row.label}: {first} and {second} are equal in every metric and seed"


def _equal_rows(board: Board) -> Iterator[str]:
    methods = [row for row in board.rows if row.kind == "method"]
    for first, second in combinations(methods, 2):
        names = [item.name for item in board.columns if not item.is_mean]
        equal = [name for name in names if _same(first, name, second, name)]
        if equal:
            yield (
                f"{first.label} and {second.label} are equal in every metric and seed under "
                f"{', '.join(equal)}: is it one method under two names?"
            )


def _same(a: Row, first: str, b: Row, second: str) -> bool:
    compared = 0
    for name, cells in a.cells.items():
        one, two = cells[first], b.cells[name][second]
        if one.state != two.state:
            return False
        if one.state == "value":
            if not one.by_seed or dict(one.by_seed) != dict(two.by_seed):
                return False
            compared += 1
    return compared > 0


def _constant_scores(board: Board) -> Iterator[str]:
    """A method that scores exactly what a constant prediction does."""
    name = board.info.primary
    references = [row for row in board.rows if row.kind != "method"]
    for row in board.rows:
        if row.kind != "method":
            continue
        for item in board.columns:
            mean = row.cells[name][item.name].mean
            same = [
                other.label
                for other in references
                if mean is not None
                and (value := other.cells[name][item.name].mean) is not None
                and abs(mean - value) < 1e-12
            ]
            if same and not item.is_mean:
                yield (
                    f"{row.label}: its {metric(name).title} under {item.name} is that of a constant "
                    f"prediction ({', '.join(same)})"
                )


def _small_spread(columns: Sequence[ScoredColumn]) -> Iterator[str]:
    """Less variance over seeds than their disagreement about single dialogues makes inevitable.

    Without any seed effect, MS_seed / MS_rest of the crossed table has the F distribution; a ratio far in
    its lower tail, or equal scores of all seeds, has not come from independent trainings.
    """
    for item in columns:
        if item.is_mean:
            continue
        for label, own in item.scores.items():
            seeds, dialogues = len(own.seeds), len(own.by_dialogue)
            if seeds < 3 or not own.trained:
                continue
            if spread(own) == 0:
                yield f"{label}: all {seeds} seeds score the same under {item.name}"
            elif own.interaction > 0:
                ratio = spread(own) * dialogues / own.interaction
                if scipy.stats.f.cdf(ratio, seeds - 1, (seeds - 1) * (dialogues - 1)) < _SUSPICIOUS:
                    yield (
                        f"{label}: suspiciously small deviation over {seeds} seeds under {item.name} "
                        f"({spread(own) ** 0.5:.2g}), given how much they differ within dialogues"
                    )


def mask_warnings(frame: pd.DataFrame) -> tuple[str, ...]:
    """Rows of a board whose test masks differ from their rivals' under the same condition and mask seed.

    Args:
        frame: Finished rows of one board. Where no row states what was available nothing is compared.
    """
    states = column(frame, "available")
    if not len(frame) or (states == "").all():
        return ()
    keys = ["test_condition", "mask_seed", "fold"]
    mark = np.zeros(len(frame), dtype=np.uint64)
    for name in ("dialogue", "utterance", "available"):
        mark = _mixed(mark ^ _hashed(column(frame, name)))
    # The sum of well mixed marks doesn't depend on the order of utterances.
    sums = (
        frame.loc[:, ["label", "seed", *keys]]
        .assign(mark=mark.view(np.int64))
        .groupby(["label", "seed", *keys], dropna=False, observed=True, sort=False)["mark"]
        .sum()
        .reset_index()
    )
    found: dict[tuple[str, str], None] = {}
    for values, group in sums.groupby(keys, dropna=False, observed=True, sort=False):
        marks = group["mark"].to_numpy()
        known, counts = np.unique(marks, return_counts=True)
        if len(known) > 1:
            usual = known[np.argmax(counts)]
            for label in dict.fromkeys(group.loc[(marks != usual).tolist(), "label"]):
                found[str(label), str(values[0] if isinstance(values, tuple) else values)] = None
    by_label: dict[str, list[str]] = {}
    for label, condition in found:
        by_label.setdefault(label, []).append(condition)
    return tuple(
        f"{label}: other test masks than its rivals under {', '.join(names)}; not comparable there"
        for label, names in by_label.items()
    )


def _hashed(values: pd.Series) -> npt.NDArray[np.uint64]:
    codes = pd.Categorical(values)
    hashes = hash_array(np.asarray(codes.categories.astype(str), dtype=object))  # type: ignore[operator]
    return np.append(hashes, np.uint64(0))[codes.codes]


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def f1_ceiling(accuracy: float, share: float) -> float:
    """Largest weighted F1 of two classes at a given accuracy.

    With the share n of the upper class and hits h of it, hits of the lower one are accuracy - h; the
    weighted F1 is n 2h / (n + p) + (1 - n) 2 (accuracy - h) / (1 - n + 1 - p) with
    p = h + (1 - n) - (accuracy - h) predicted as upper. Its largest value over all possible h.

    Args:
        accuracy: Accuracy, 0..1.
        share: Share of true samples of one class.
    """
    low, high = max(0.0, accuracy - (1 - share)), min(share, accuracy)
    hits = np.linspace(low, high, 4001)
    other = accuracy - hits
    predicted = hits + (1 - share) - other
    upper = np.divide(2 * hits, share + predicted, out=np.zeros_like(hits), where=share + predicted > 0)
    rest = 2 - share - predicted
    lower = np.divide(2 * other, rest, out=np.zeros_like(hits), where=rest > 0)
    return float((share * upper + (1 - share) * lower).max())


def f1_above_accuracy(scores: Mapping[str, float], share: float, tolerance: float = 5e-4) -> str | None:
    """A message if a weighted F1 can't go with its accuracy, for quoted or hand-made tables.

    Args:
        scores: Fractions by metric: ``acc2`` (or ``acc``) and ``wf1`` of two classes.
        share: Share of true samples of one class.
        tolerance: Rounding of the quoted numbers.
    """
    accuracy = scores.get("acc2", scores.get("acc"))
    f1 = scores.get("wf1")
    if accuracy is None or f1 is None:
        return None
    most = f1_ceiling(accuracy, share)
    if f1 <= most + tolerance:
        return None
    return (
        f"weighted F1 {100 * f1:.2f} is more than accuracy {100 * accuracy:.2f} allows ({100 * most:.2f}): "
        "swapped arguments, or two different sets of samples"
    )
