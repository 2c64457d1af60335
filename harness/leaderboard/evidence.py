"""From predictions to what tests need: jackknife values by row, column, seed and mask draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..metrics import Metric
from .claims import Component
from .inference import ScoredColumn, sources_of_variation
from .influence import Scores, jackknife_values, scores
from .records import Column

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DrawValues:
    """Jackknife values ``[D]`` of one training seed, mask draw and (if kept apart) fold."""

    seed: int
    mask_seed: int | None
    values: FloatArray


def dialogue_values(metric: Metric, sums: FloatArray, dialogue: IntArray) -> FloatArray:
    """Jackknife values over all D dialogues of a comparison, of a draw that may hold only some of them.

    The values of a fold are spread so that the mean over folds of such arrays has the score of the mean of
    folds and its variance: the deviations of the fold's D_f dialogues are multiplied by D / D_f.

    Args:
        metric: The metric.
        sums: ``[D, K]`` sums of terms of each dialogue.
        dialogue: Dialogue of each utterance of the draw.
    """
    present = np.unique(dialogue)
    inside = jackknife_values(metric.value, sums[present])
    score = inside.mean()
    values = np.full(len(sums), score)
    values[present] += (inside - score) * (len(sums) / len(present))
    return values


class Evidence:
    """All draws of the primary metric of one board.

    Args:
        columns: Columns of the board.
        draws: Draws by label and condition; only rows and conditions without a hole.
        no_information: ``[D]`` jackknife values of the best constant prediction.
        folds: ``[D]`` fold of each dialogue; ``None`` without folds.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        draws: Mapping[tuple[str, str], Sequence[DrawValues]],
        no_information: FloatArray | None = None,
        folds: IntArray | None = None,
    ) -> None:
        self.columns, self.folds = columns, folds
        self._by_seed = {key: _by_seed(own) for key, own in draws.items() if own}
        self._by_draw = {key: _by_draw(own) for key, own in draws.items() if own}
        self.no_information = (
            None if no_information is None else scores([0], no_information[None], trained=False)
        )

    def members(self, column: Column) -> list[str]:
        """Conditions that a column is made of."""
        if not column.is_mean:
            return [column.name]
        return [item.name for item in self.columns if item.family == column.family and not item.is_mean]

    def combined(self, label: str, weights: Mapping[str, float]) -> Scores | None:
        """A weighted sum over conditions, seed by seed; ``None`` if one is missing or seeds differ."""
        parts = [self._by_seed.get((label, name)) for name in weights]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or any(part[0] != known[0][0] for part in known):
            return None
        total = sum(weight * part[1] for weight, part in zip(weights.values(), known, strict=True))
        return scores(known[0][0], np.asarray(total))

    def scores(self, label: str, column: Column) -> Scores | None:
        """A row in a column; ``None`` for a hole."""
        names = self.members(column)
        return self.combined(label, dict.fromkeys(names, 1 / len(names)))

    def scored_columns(self, labels: Iterable[str]) -> tuple[ScoredColumn, ...]:
        """All columns with the rows that have a value in them."""
        labels = list(labels)
        found: list[ScoredColumn] = []
        for column in self.columns:
            own = {label: self.scores(label, column) for label in labels}
            known = {label: item for label, item in own.items() if item is not None}
            found.append(ScoredColumn(column.name, column.family, column.is_mean, known, self.no_information))
        return tuple(found)

    def components(self, labels: Iterable[str]) -> dict[str, dict[str, tuple[Component, ...]]]:
        """Sources of variation of every row and column."""
        found: dict[str, dict[str, tuple[Component, ...]]] = {}
        for label in labels:
            for column in self.columns:
                own = self.scores(label, column)
                if own is not None:
                    parts = sources_of_variation(own, self._draw_scores(label, column), self.folds)
                    found.setdefault(label, {})[column.name] = parts
        return found

    def _draw_scores(self, label: str, column: Column) -> FloatArray | None:
        """``[S, M]`` score of each seed and mask draw, averaged over the column's conditions."""
        parts = [self._by_draw.get((label, name)) for name in self.members(column)]
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts) or any(part.shape != known[0].shape for part in known):
            return None
        return np.mean(known, axis=0)


def _by_seed(draws: Sequence[DrawValues]) -> tuple[tuple[int, ...], FloatArray]:
    """Seeds and values ``[S, D]``, averaged over masks and folds."""
    seeds = tuple(sorted({item.seed for item in draws}))
    return seeds, np.stack(
        [np.mean([item.values for item in draws if item.seed == seed], axis=0) for seed in seeds]
    )


def _by_draw(draws: Sequence[DrawValues]) -> FloatArray | None:
    """Score ``[S, M]`` of each seed and mask draw, folds averaged; ``None`` if not every seed has all."""
    seeds = sorted({item.seed for item in draws})
    masks = sorted({item.mask_seed for item in draws if item.mask_seed is not None})
    table = np.full((len(seeds), len(masks)), np.nan)
    for i, seed in enumerate(seeds):
        for j, mask in enumerate(masks):
            own = [x.values.mean() for x in draws if x.seed == seed and x.mask_seed == mask]
            table[i, j] = np.mean(own) if own else np.nan
    return table if table.size and np.isfinite(table).all() else None
