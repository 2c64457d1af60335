"""Ranks over independent data sets (Demšar 2006): Friedman's test and Nemenyi's comparison.

Only for data sets. Conditions of one data set share test dialogues and trainings; Friedman's test over
them treats one lucky training as many and rejects a true null most of the time. Within one data set
ranks describe and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.stats, which takes a second, when it is used

from ..errors import UserError
from ..metrics import metric
from .claims import AcrossDataSets
from .records import Board

FloatArray = npt.NDArray[np.float64]

FEWEST_DATA_SETS = 5
# Largest number of rank tables that are enumerated for an exact p-value.
_ENUMERABLE = 2_000_000


def friedman(scores: npt.ArrayLike) -> tuple[float, float, bool]:
    """Friedman's statistic (ties corrected), its p-value, and whether that is exact.

    Exact: over all permutations of each data set's ranks, the first one held fixed; feasible for
    few rows and data sets. Otherwise chi-squared with k - 1 df.

    Args:
        scores: ``[data sets, rows]``, higher is better.
    """
    ranks = scipy.stats.rankdata(-np.asarray(scores, dtype=np.float64), axis=1)
    blocks, rows = ranks.shape
    seen = _friedman_statistic(ranks)
    if not math.isfinite(seen):
        return 0.0, 1.0, True
    if math.factorial(rows) ** (blocks - 1) > _ENUMERABLE:
        return seen, float(scipy.stats.chi2.sf(seen, rows - 1)), False
    # Distribution of the vector of rank sums, block by block; equal vectors are joined.
    sums = {tuple(ranks[0].tolist()): 1.0}
    for block in ranks[1:]:
        orders = list(itertools.permutations(block.tolist()))
        joined: dict[tuple[float, ...], float] = {}
        for total, weight in sums.items():
            for order in orders:
                key = tuple(a + b for a, b in zip(total, order, strict=True))
                joined[key] = joined.get(key, 0.0) + weight / len(orders)
        sums = joined
    centre = blocks * (rows + 1) / 2
    observed = float(((ranks.sum(axis=0) - centre) ** 2).sum())
    extreme = sum(w for key, w in sums.items() if sum((k - centre) ** 2 for k in key) >= observed - 1e-9)
    return seen, min(float(extreme), 1.0), True


def _friedman_statistic(ranks: FloatArray) -> float:
    blocks, rows = ranks.shape
    spread = float((ranks**2).sum() - blocks * rows * (rows + 1) ** 2 / 4)
    between = float(((ranks.sum(axis=0) - blocks * (rows + 1) / 2) ** 2).sum())
    return (rows - 1) * between / spread if spread > 0 else math.nan


def critical_rank_difference(rows: int, data_sets: int, alpha: float) -> float:
    """Nemenyi's critical difference of mean ranks: q sqrt(k (k + 1) / (6 N))."""
    quantile = float(scipy.stats.studentized_range.isf(alpha, rows, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(rows * (rows + 1) / (6 * data_sets))


def nemenyi_p(difference: float, rows: int, data_sets: int) -> float:
    """p-value of a difference of mean ranks."""
    statistic = abs(difference) / math.sqrt(rows * (rows + 1) / (6 * data_sets))
    return float(scipy.stats.studentized_range.sf(statistic * math.sqrt(2), rows, np.inf))


def across_data_sets(boards: Sequence[Board], alpha: float = 0.05) -> AcrossDataSets:
    """Ranks the rows that all boards share, one board per data set, by their ranking columns' means.

    Raises:
        UserError: There are fewer than five data sets, boards must not be mixed, or fewer than two
            rows have a value in all of them.
    """
    names = [board.data_set for board in boards]
    if len(set(names)) < len(names):
        raise UserError("ranks over data sets need one board per data set; some data set is there twice")
    if len(names) < FEWEST_DATA_SETS:
        raise UserError(
            f"ranks over data sets need {FEWEST_DATA_SETS} independent ones, not {len(names)}; within one "
            "data set ranks are descriptive"
        )
    for trait in ("regime", "trained_on", "test_selected", "synthetic", "ranked_by"):
        if len({getattr(board, trait) for board in boards}) > 1:
            raise UserError(f"boards that differ in {trait} can't be ranked together")
    if len({board.info.primary for board in boards}) > 1:
        raise UserError("boards that differ in the primary metric can't be ranked together")
    sign = 1 if metric(boards[0].info.primary).higher_is_better else -1
    tables = [_means(board) for board in boards]
    labels = [label for label in tables[0] if all(label in table for table in tables)]
    if len(labels) < 2:
        raise UserError("fewer than two rows have a value in every data set")
    scores = np.array([[sign * table[label] for label in labels] for table in tables])
    statistic, p, exact = friedman(scores)
    mean = scipy.stats.rankdata(-scores, axis=1).mean(axis=0)
    ranks = dict(sorted(zip(labels, mean.tolist(), strict=True), key=lambda item: item[1]))
    reach = critical_rank_difference(len(labels), len(names), alpha)
    pairs = {
        (a, b): nemenyi_p(ranks[a] - ranks[b], len(labels), len(names))
        for a, b in itertools.combinations(ranks, 2)
    }
    return AcrossDataSets(
        tuple(names), boards[0].ranked_by, tuple(ranks), ranks, statistic, p, exact, reach, pairs,
        groups_within(ranks, reach),
    )  # fmt: skip


def groups_within(ranks: dict[str, float], reach: float) -> tuple[tuple[str, ...], ...]:
    """Largest runs of rows, in order of rank, whose mean ranks differ by less than ``reach``."""
    ordered = sorted(ranks, key=lambda label: ranks[label])
    found: list[tuple[str, ...]] = []
    for index, first in enumerate(ordered):
        own = tuple(label for label in ordered[index:] if ranks[label] - ranks[first] < reach)
        if len(own) > 1 and not (found and set(own) <= set(found[-1])):
            found.append(own)
    return tuple(found)


def _means(board: Board) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in board.rows:
        cell = row.cells[board.info.primary][board.ranked_by]
        if row.kind == "method" and cell.mean is not None:
            found[row.label] = cell.mean
    return found
