"""What the data cannot carry: detectable differences and seeds needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
import numpy.typing as npt
import scipy  # loads scipy.stats, which takes a second, when it is used

from .influence import Scores
from .significance import Differences, critical_difference, satterthwaite, seed_part, spread

FloatArray = npt.NDArray[np.float64]

# Numbers of seeds that are tried; the answer is one of them.
SEED_STEPS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)


def detectable_differences(found: Differences, alpha: float, power: float) -> FloatArray:
    """Smallest true differences ``[N]`` found with the given power.

    The critical difference at level alpha, plus the t quantile of the power times the standard error
    (the usual approximation of the non-central distribution; a few per cent too small with three seeds).
    """
    return found.reach(alpha) + scipy.stats.t.ppf(power, np.maximum(found.df, 1)) * found.standard_error


def seeds_needed(
    pairs: Sequence[tuple[Scores, Scores]], target: float, alpha: float, power: float
) -> list[int | None]:
    """Seeds of each row that make ``target`` detectable on this test set; ``None``: over 100, or no number.

    Variances are taken as measured now: seeds' parts shrink with S, and so does the interaction's
    part of the dialogues' variance; the rest of it doesn't.
    """
    if not pairs:
        return []
    dialogues = np.array([len(a.by_dialogue) for a, _ in pairs], dtype=np.float64)
    paired = np.array([np.var(a.by_dialogue - b.by_dialogue, ddof=1) for a, b in pairs]) / dialogues
    variances = np.array([[spread(a), spread(b)] for a, b in pairs])
    rest = np.array([[a.interaction, b.interaction] for a, b in pairs]) / dialogues[:, None]
    now = np.array([[len(a.seeds), len(b.seeds)] for a, b in pairs], dtype=np.float64)
    lasting = np.maximum(paired - (rest / now).sum(axis=1), 0.0)
    answer: list[int | None] = [None] * len(pairs)
    for count in reversed(SEED_STEPS):
        seeds, df = seed_part(variances, np.full_like(now, count))
        future = lasting + rest.sum(axis=1) / count
        parts, dfs = np.stack([seeds, future], axis=-1), np.stack([df, dialogues - 1], axis=-1)
        reach = critical_difference(alpha, seeds, df, future, dialogues - 1)
        extra = scipy.stats.t.ppf(power, np.maximum(satterthwaite(parts, dfs), 1)) * np.sqrt(
            parts.sum(axis=-1)
        )
        enough = reach + extra <= target
        answer = [count if fits else old for fits, old in zip(enough, answer, strict=True)]
        if not enough.any():
            break
    return answer


def smallest_p_of_habitual_tests(seeds: int) -> dict[str, float]:
    """Smallest two-sided p-value that tests on S seeds alone can reach, whatever the data.

    Wilcoxon's signed-rank test and every sign-flip permutation test: 2 / 2^S. Mann-Whitney and every
    permutation test of two groups: 2 / C(2S, S).
    """
    return {
        "Wilcoxon signed-rank": min(1.0, 2.0 / 2**seeds),
        "Mann-Whitney": min(1.0, 2.0 / comb(2 * seeds, seeds)),
    }
