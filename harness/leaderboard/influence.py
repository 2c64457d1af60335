"""What each dialogue contributes to a score: jackknife values of any metric.

F1, correlations and means over several draws are no means over dialogues, but they are smooth
functions of sums over samples. The delete-one jackknife turns them into D numbers whose mean is the
score and whose spread over dialogues gives its standard error (Efron and Stein 1981; Miller 1974)::

    x_d = theta + (D - 1) * (mean_j theta_(-j) - theta_(-d))

theta_(-d) is the metric without dialogue d. Averages over masks, seeds, conditions and differences of
rows are then plain averages and differences of x, on the same dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def jackknife_values(value: Callable[[FloatArray], FloatArray], sums: FloatArray) -> FloatArray:
    """Jackknife values of a metric, centred on the metric itself.

    Args:
        value: The metric as a function of sums ``[..., K]``.
        sums: ``[..., D, K]`` sums of each dialogue.

    Returns:
        ``[..., D]`` with mean ``value(sums.sum(-2))``. A dialogue without which the metric is undefined
        (the only one with a class) gets that mean, so that it adds no variance.
    """
    total = sums.sum(axis=-2)
    score = value(total)
    dialogues = sums.shape[-2]
    without = value(total[..., None, :] - sums)
    deviation = -(dialogues - 1) * (without - np.nanmean(without, axis=-1, keepdims=True))
    # Not finite means undefined without this dialogue; the mean of the others stays as it is.
    return score[..., None] + np.where(np.isfinite(deviation), deviation, 0.0)


@dataclass(frozen=True, eq=False)
class Scores:
    """One row in one column, as far as tests need it.

    Attributes:
        seeds: Training seeds, S of them.
        by_seed: ``[S]`` score of each seed, masks averaged.
        by_dialogue: ``[D]`` jackknife values, seeds and masks averaged; their mean is the score.
        interaction: Mean square of seed x dialogue: what is left of the ``[S, D]`` jackknife values
            after their row and column means, over (S - 1)(D - 1); 0 with one seed.
        trained: Whether another training could have given another score. Reference rows without
            training have one "seed" and no seed variance.
    """

    seeds: tuple[int, ...]
    by_seed: FloatArray
    by_dialogue: FloatArray
    interaction: float
    trained: bool = True

    @property
    def mean(self) -> float:
        """The score."""
        return float(self.by_seed.mean())

    @property
    def testable(self) -> bool:
        """Whether the seed variance is known."""
        return (len(self.seeds) > 1 or not self.trained) and len(self.by_dialogue) > 1


def scores(seeds: Sequence[int], values: FloatArray, trained: bool = True) -> Scores:
    """Summary of jackknife values ``[S, D]``."""
    by_seed, by_dialogue = values.mean(axis=-1), values.mean(axis=-2)
    return Scores(tuple(seeds), by_seed, by_dialogue, float(interaction_mean_square(values)), trained)


def interaction_mean_square(values: FloatArray) -> FloatArray:
    """Mean square of the interaction of a crossed table ``[..., S, D]``: ``[...]``; 0 if S or D is 1."""
    seeds, dialogues = values.shape[-2:]
    if min(seeds, dialogues) < 2:
        return np.zeros(values.shape[:-2])
    rest = values - values.mean(axis=-1, keepdims=True)
    rest = rest - rest.mean(axis=-2, keepdims=True)
    return np.einsum("...sd,...sd->...", rest, rest) / ((seeds - 1) * (dialogues - 1))
