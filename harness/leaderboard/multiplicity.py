"""Many tests at once: corrections of p-values, and multiple comparisons with the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.stats, which takes a second, when it is used

from .claims import Correction

FloatArray = npt.NDArray[np.float64]


def adjust(p: npt.ArrayLike, correction: Correction) -> FloatArray:
    """Adjusted p-values ``[N]`` by ``"holm"`` or ``"bh"``."""
    return holm(p) if correction == "holm" else benjamini_hochberg(p)


def holm(p: npt.ArrayLike) -> FloatArray:
    """Holm (1979): max over the smaller ones of (N - rank + 1) p; family-wise error, any dependence."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty(len(values))
    result[order] = np.minimum(steps, 1.0)
    return result


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """Benjamini and Hochberg (1995): min over the larger ones of N p / rank; false discovery rate."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")[::-1]
    steps = np.minimum.accumulate(values[order] * len(values) / np.arange(len(values), 0, -1))
    result = np.empty(len(values))
    result[order] = np.minimum(steps, 1.0)
    return result


def intersection_union(p: Sequence[float], values: Sequence[float]) -> float:
    """p-value of "better in every one": the largest, if all differences point the same way, else 1.

    Berger (1982): no correction is needed, as every single hypothesis must be rejected.
    """
    signs = np.sign(values)
    return float(max(p)) if len(set(signs.tolist())) == 1 and signs[0] != 0 else 1.0


def not_worse_p(one_sided: npt.ArrayLike, correlation: FloatArray, draws: FloatArray) -> float:
    """p-value of "this row is the best", against rivals that score better (Hsu 1984; Dunnett 1955).

    The smallest one-sided p-value, corrected for its rivals being many, through the joint normal
    distribution of the differences to the same row (a Gaussian copula of the single tests).

    Args:
        one_sided: ``[J]`` p-values of "rival j is better than this row".
        correlation: ``[J, J]`` correlation of the differences.
        draws: ``[R, >= J]`` standard normal draws.

    Returns:
        Share of the draws whose largest coordinate exceeds what was seen.
    """
    seen = scipy.stats.norm.isf(np.clip(np.min(one_sided), 1e-300, 1.0))
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    largest = (draws[:, : len(correlation)] @ root.T).max(axis=1)
    # The Monte Carlo share can't resolve small probabilities; the single p-value is below any of them.
    return float(max(np.mean(largest >= seen), np.min(one_sided)))
