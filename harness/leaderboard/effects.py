"""How large a difference is, beside how sure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def standardised_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Mean over standard deviation (n - 1) of paired differences ``[S]`` (Cohen's d_z).

    ``None`` with fewer than two pairs or without spread.
    """
    pairs = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if len(pairs) < 2 or np.ptp(pairs) == 0:
        return None
    return float(pairs.mean() / pairs.std(ddof=1))


def probability_of_improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """P(a > b) + P(a = b)/2 over all pairs of runs: the Mann-Whitney statistic over S_A S_B."""
    first, second = np.asarray(a, dtype=np.float64)[:, None], np.asarray(b, dtype=np.float64)[None, :]
    return float(np.mean((first > second) + 0.5 * (first == second)))


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is cut off at each end."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def interquartile_mean_interval(
    values: npt.ArrayLike, rng: np.random.Generator, *, resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean over runs (Agarwal et al. 2021).

    Args:
        values: ``[S, C]`` scores of S seeds under C conditions; seeds are resampled within each condition.
        rng: Source of randomness.
        resamples: Number of resamples.
        confidence: Level.
    """
    scores = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, conditions = scores.shape
    chosen = rng.integers(seeds, size=(resamples, seeds, conditions))
    drawn = np.take_along_axis(scores[None], chosen, axis=1)
    means = [interquartile_mean(part) for part in drawn]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def signed_rank_posterior(
    differences: npt.ArrayLike, rope: float, rng: np.random.Generator, *, draws: int = 50_000
) -> tuple[float, float, float]:
    """Bayesian signed-rank test (Benavoli et al. 2017): P(b better), P(equivalent), P(a better).

    Dirichlet weights on the differences and on one pseudo-observation at 0 (prior strength 0.5); a draw
    votes for the region that holds most of the mass of Walsh sums (d_i + d_j)/2.

    Args:
        differences: ``[K]`` independent differences a - b, one per DATA SET; seeds or conditions of one
            data set are not independent.
        rope: Half width of the region of practical equivalence.
        rng: Source of randomness.
        draws: Posterior draws.
    """
    values = np.concatenate([[0.0], np.asarray(differences, dtype=np.float64)])
    weights = rng.dirichlet([0.5, *np.ones(len(values) - 1)], size=draws)
    walsh = values[:, None] + values[None, :]
    masses = [
        np.einsum("ri,ij,rj->r", weights, part.astype(np.float64), weights, optimize=True)
        for part in (walsh < -2 * rope, np.abs(walsh) <= 2 * rope, walsh > 2 * rope)
    ]
    winner = np.argmax(masses, axis=0)
    below, inside, above = (float(np.mean(winner == index)) for index in range(3))
    return below, inside, above
