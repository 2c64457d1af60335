"""A/A test: disjoint seeds of one method against itself, where every claim is false."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import UserError
from ..hashing import derive_seed
from .build import build_boards
from .info import TableInfo
from .intervals import IntervalSettings
from .reference_rows import CONSTANT
from .table import FINISHED, InfoKey, column

_HALVES = ("first half", "second half")


@dataclass(frozen=True)
class SelfComparison:
    """One method against itself.

    Attributes:
        label: Row.
        data_set: Data set.
        seeds: Seeds of each half.
        tests: Tests made: splits x columns; they share a test set and are not independent.
        below: Share of p < 0.05.
        claims: Splits with any claim after correction.
        splits: Splits that were made.
        synthetic: Whether the data are generated.
    """

    label: str
    data_set: str
    seeds: int
    tests: int
    below: float
    claims: int
    splits: int
    synthetic: bool


def self_comparison(
    frame: pd.DataFrame,
    infos: Mapping[InfoKey, TableInfo] | None = None,
    *,
    splits: int = 5,
    seed: int = 0,
) -> list[SelfComparison]:
    """Splits the seeds of every row into two halves and compares them by the default test.

    Args:
        frame: Validated result table.
        infos: What it is about.
        splits: Random splits of each row.
        seed: Seed of the splits.

    Raises:
        UserError: No row has four seeds.
    """
    found: list[SelfComparison] = []
    done = frame.loc[(column(frame, "status") == FINISHED).to_numpy()]
    keys = ["comparison_hash", "data_set", "label"]
    for values, part in done.groupby(keys, observed=True, sort=False):
        _, data_set, label = (str(value) for value in values)  # type: ignore[union-attr]
        seeds = np.unique(column(part, "seed").to_numpy(dtype=np.int64))
        half = len(seeds) // 2
        if half < 2 or (column(part, "method") == CONSTANT).any():
            continue
        rng = np.random.default_rng(derive_seed(seed, "self-comparison", data_set, label))
        p: list[float] = []
        claims = 0
        for _ in range(splits):
            mixed = rng.permutation(seeds)
            chosen = [
                part.loc[np.isin(column(part, "seed"), own)] for own in (mixed[:half], mixed[half : 2 * half])
            ]
            joined = pd.concat(
                [
                    own.assign(label=pd.Categorical([name] * len(own), categories=_HALVES))
                    for own, name in zip(chosen, _HALVES, strict=True)
                ],
                ignore_index=True,
            )
            boards = build_boards(joined, infos, intervals=IntervalSettings(resamples=0))
            made = [
                x for board in boards if board.claims for x in board.claims.comparisons if x.p is not None
            ]
            p += [x.p or 0.0 for x in made]
            claims += any(x.significant for x in made)
        synthetic = bool(column(part, "synthetic").any())
        below = float(np.mean(np.array(p) < 0.05)) if p else 0.0
        found.append(SelfComparison(label, data_set, half, len(p), below, claims, splits, synthetic))
    if not found:
        raise UserError("an A/A test needs a method with at least four seeds")
    return found


def render_self_comparison(found: Sequence[SelfComparison]) -> str:
    """The comparisons as a Markdown table."""
    from tabulate import tabulate

    rows = [
        [
            f"{item.label}{' (synthetic data)' if item.synthetic else ''}",
            item.data_set,
            f"{item.seeds} against {item.seeds}",
            f"{100 * item.below:.1f} % of {item.tests}",
            f"{item.claims} of {item.splits}",
        ]
        for item in found
    ]
    header = ["method", "data set", "seeds", "p < 0.05", "splits with a claim"]
    text = tabulate(rows, header, tablefmt="pipe", disable_numparse=True)
    return f"{text}\n\nEvery claim here is false. Tests of one method share its test set and trainings.\n"
