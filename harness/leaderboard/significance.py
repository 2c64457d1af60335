"""The default test of a difference: seeds and dialogues crossed, Behrens-Fisher tails.

Row A has S_A trainings, row B has S_B, all tested on the same D dialogues. With jackknife values
``x[s, d]`` (``influence``) the difference of the two scores is the mean of a random seed effect per row,
a dialogue effect that both share in part, and seed x dialogue interactions. Its variance is estimated
by two independent parts:

- Seeds: V_s = s_A^2/S_A + s_B^2/S_B, s^2 the variance (n - 1) of scores over seeds. Trainings of A and
  B are independent, so the rows' variances add. Where equal seeds share training masks they are
  positively correlated, and the sum is too large, never too small.
- Dialogues: V_d = s_D^2/D, s_D^2 the variance over dialogues of the seed-averaged paired difference.
  Test masks are drawn utterance by utterance, so their variance is in it, over the number of draws.

Both contain the interaction once. It is NOT taken off again: the variance is then too large by the
interaction's share, but never negative, and the test keeps its level with three seeds.

Under the null the difference is distributed as sqrt(V_s) t(df_s) + sqrt(V_d) t(D - 1), two independent
Student variables (Behrens and Fisher; Welch 1947 discusses it). The usual short cut, one t with
Satterthwaite's degrees of freedom, is as good at the 5 % level, but far out, where corrections for
hundreds of comparisons look, it rejects up to ten times too often with three seeds.
``docs/statistics.md`` has the measurements behind each of these choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.stats, which takes a second, when it is used

from .influence import Scores

FloatArray = npt.NDArray[np.float64]

# Nodes of the quadrature over the two chi-squared variables, in logits of their probabilities. The
# lower tail is that of small variance estimates, which makes the p-values far out.
_SEED_NODES = np.linspace(-22.0, 14.0, 28)
_DIALOGUE_NODES = np.linspace(-16.0, 11.0, 17)


@dataclass(frozen=True, eq=False)
class Differences:
    """N differences of scores with the parts of their variances, arrays ``[N]``.

    Attributes:
        value: Score of a minus score of b.
        seed_variance: V_s.
        seed_df: Degrees of freedom of V_s; 1 where V_s is 0 and nothing was trained.
        dialogue_variance: V_d.
        dialogue_df: Degrees of freedom of V_d.
    """

    value: FloatArray
    seed_variance: FloatArray
    seed_df: FloatArray
    dialogue_variance: FloatArray
    dialogue_df: FloatArray

    @property
    def standard_error(self) -> FloatArray:
        """sqrt(V_s + V_d)."""
        return np.sqrt(self.seed_variance + self.dialogue_variance)

    @property
    def df(self) -> FloatArray:
        """Satterthwaite's degrees of freedom, for description only."""
        return satterthwaite(
            np.stack([self.seed_variance, self.dialogue_variance], axis=-1),
            np.stack([self.seed_df, self.dialogue_df], axis=-1),
        )

    @property
    def p(self) -> FloatArray:
        """Two-sided p-values; 1 for no difference without any variance."""
        return two_sided_p(
            self.value, self.seed_variance, self.seed_df, self.dialogue_variance, self.dialogue_df
        )

    def reach(self, alpha: float) -> FloatArray:
        """Half the width of the intervals of level 1 - alpha."""
        return critical_difference(
            alpha, self.seed_variance, self.seed_df, self.dialogue_variance, self.dialogue_df
        )


def differences(pairs: list[tuple[Scores, Scores]]) -> Differences:
    """Differences of pairs of testable scores on the same dialogues."""
    rows = [_difference(a, b) for a, b in pairs]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 5).T
    return Differences(*table)


def _difference(a: Scores, b: Scores) -> tuple[float, float, float, float, float]:
    count = len(a.by_dialogue)
    seeds, df = seed_part(
        np.array([spread(a), spread(b)]), np.array([len(a.seeds), len(b.seeds)], dtype=np.float64)
    )
    dialogues = float(np.var(a.by_dialogue - b.by_dialogue, ddof=1)) / count
    return a.mean - b.mean, float(seeds), float(df), dialogues, count - 1


def spread(scores: Scores) -> float:
    """Variance (n - 1) of scores over seeds; 0 for rows without training."""
    return float(np.var(scores.by_seed, ddof=1)) if len(scores.seeds) > 1 else 0.0


def seed_part(variances: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """V_s and its degrees of freedom.

    With equal numbers of seeds S the df are 2 (S - 1): the variance of a difference of two means of
    equal size is robust to unequal variances. Otherwise they are Welch's. A row whose score doesn't
    move with the seed has no part in them.

    Args:
        variances: ``[..., 2]`` variance (n - 1) over seeds of each row.
        counts: ``[..., 2]`` numbers of seeds.
    """
    parts, free = variances / counts, np.maximum(counts - 1, 1)
    moving = variances > 0
    pooled = np.maximum(np.where(moving, free, 0.0).sum(axis=-1), 1.0)
    same = moving.all(axis=-1) & (counts[..., 0] == counts[..., 1])
    welch = satterthwaite(parts, free)
    df = np.where(same, pooled, np.where(moving.any(axis=-1), np.minimum(welch, pooled), 1.0))
    return parts.sum(axis=-1), df


def satterthwaite(parts: FloatArray, dfs: FloatArray) -> FloatArray:
    """Degrees of freedom of a sum of independent variance estimates, over the last axis.

    (sum V_i)^2 / sum(V_i^2 / df_i) (Satterthwaite 1946); infinite if all parts are 0.
    """
    below = (parts**2 / dfs).sum(axis=-1)
    above = parts.sum(axis=-1) ** 2
    return np.divide(above, below, out=np.full(np.shape(below), np.inf), where=below > 0)


def two_sided_p(
    value: npt.ArrayLike,
    seed_variance: npt.ArrayLike,
    seed_df: npt.ArrayLike,
    dialogue_variance: npt.ArrayLike,
    dialogue_df: npt.ArrayLike,
) -> FloatArray:
    """P(|sqrt(V_s) t(df_s) + sqrt(V_d) t(df_d)| >= |value|), elementwise.

    Given the two chi-squared variables inside, the sum is normal with variance
    V_s df_s/X_s + V_d df_d/X_d; the probability is its expectation over both, by the trapezoid rule in
    logits of their probabilities. Accurate to about 1 % of p down to 1e-8.
    """
    size, *arguments = np.broadcast_arrays(
        np.abs(value), seed_variance, seed_df, dialogue_variance, dialogue_df
    )
    shape = size.shape
    size, seeds, df_s, dialogues, df_d = (np.asarray(x, dtype=np.float64).ravel() for x in (size, *arguments))
    ratio_s, weight_s = _mixture(_SEED_NODES, df_s)
    ratio_d, weight_d = _mixture(_DIALOGUE_NODES, df_d)
    result = np.zeros(len(size))
    for i, weight in enumerate(weight_s):
        variance = (seeds * ratio_s[i]) + dialogues * ratio_d
        argument = np.divide(
            size,
            np.sqrt(2 * variance),
            out=np.where(size > 0, np.inf, 0.0) + 0 * variance,
            where=variance > 0,
        )
        result += weight * (weight_d @ scipy.special.erfc(argument))
    return np.minimum(result, 1.0).reshape(shape)


def _mixture(logits: FloatArray, df: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Df / chi-squared quantiles ``[nodes, N]`` and the weights of nodes."""
    probability = scipy.special.expit(logits)
    weights = probability * (1 - probability)
    known, inverse = np.unique(df, return_inverse=True)
    ratio = known / scipy.stats.chi2.ppf(probability[:, None], known)
    return ratio[:, inverse], weights / weights.sum()


def critical_difference(
    alpha: npt.ArrayLike,
    seed_variance: npt.ArrayLike,
    seed_df: npt.ArrayLike,
    dialogue_variance: npt.ArrayLike,
    dialogue_df: npt.ArrayLike,
) -> FloatArray:
    """The difference whose two-sided p-value is alpha, by bisection."""
    parts = np.broadcast_arrays(seed_variance, seed_df, dialogue_variance, dialogue_df)
    seeds, df_s, dialogues, df_d = (np.asarray(part, dtype=np.float64) for part in parts)
    level = np.asarray(alpha, dtype=np.float64)
    # The larger of both quantiles for half the level each is out of reach of the sum.
    high = np.sqrt(seeds) * scipy.stats.t.isf(level / 4, df_s) + np.sqrt(dialogues) * scipy.stats.t.isf(
        level / 4, df_d
    )
    low = np.zeros(np.shape(high))
    for _ in range(26):
        middle = (low + high) / 2
        above = two_sided_p(middle, seeds, df_s, dialogues, df_d) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
