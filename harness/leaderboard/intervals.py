"""Intervals by resampling dialogues.

Utterances of one dialogue (video) are not independent, so whole dialogues are drawn with
replacement, as many as there are; the metric is computed on the utterances of the draw, for every
seed and mask draw on the SAME dialogues, and averaged over seeds and masks. The interval holds the
middle share of the results (percentile bootstrap; Davison and Hinkley 1997, section 5.3).

It says how far another sample of dialogues would move the row. It does not cover another training
seed (see the standard deviation beside the mean), and the overlap of two intervals is no test of a
difference: rows share dialogues. With few dialogues percentile intervals are too short: roughly by
the factor sqrt((D - 1) / D), and by the normal instead of the t quantile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..hashing import derive_seed
from ..metrics import Metric, Outcome

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

# Below this many dialogues a table warns that intervals are too short.
FEW_DIALOGUES = 20


@dataclass(frozen=True)
class IntervalSettings:
    """How intervals are made.

    Attributes:
        confidence: Level, such as 0.95.
        resamples: Number of resamples R; 0: no intervals.
        seed: Seed of the resampling.
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


def resampled_counts(dialogues: int, settings: IntervalSettings, data_set: str) -> FloatArray:
    """How often each resample has each dialogue, ``[R, D]``; rows sum to D.

    The draw depends on the seed, the data set and D alone, so that it is the same in every table.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "leaderboard", "dialogues", data_set))
    shares = np.full(dialogues, 1 / dialogues)
    counts = rng.multinomial(dialogues, shares, size=settings.resamples)
    return counts.astype(np.float64)


def sums_by_dialogue(terms: FloatArray, dialogue: npt.NDArray[np.int64], dialogues: int) -> FloatArray:
    """Adds up terms ``[N, K]`` of samples within each of D dialogues: ``[D, K]``."""
    sums = np.zeros((dialogues, terms.shape[1]))
    for k, term in enumerate(terms.T):
        sums[:, k] = np.bincount(dialogue, weights=term, minlength=dialogues)
    return sums


def replicates(
    metric: Metric, outcome: Outcome, dialogue: npt.NDArray[np.int64], counts: FloatArray
) -> FloatArray | None:
    """The metric on every resample, ``[R]``; ``None`` where it is not applicable.

    Args:
        metric: Any metric; its value is a function of sums over samples.
        outcome: Labels and predictions of N utterances.
        dialogue: ``[N]`` dialogue of each utterance, 0..D-1.
        counts: ``[R, D]`` from ``resampled_counts``.
    """
    terms = metric.sums(outcome)
    if terms is None:
        return None
    return metric.value(counts @ sums_by_dialogue(terms, dialogue, counts.shape[1]))


def mean_replicates(metric: Metric, sums: Sequence[FloatArray], counts: FloatArray) -> FloatArray:
    """Mean over B draws of the metric on every resample, ``[R]``.

    Args:
        metric: Any metric.
        sums: Sums of each dialogue ``[D, K]`` of every draw.
        counts: ``[R, D]`` from ``resampled_counts``.
    """
    # One product for all draws: single ones would read the counts from memory for a few columns each.
    joined = counts @ np.concatenate(sums, axis=1)
    return metric.value(joined.reshape(len(counts), len(sums), -1)).mean(axis=1)


def percentile_interval(values: FloatArray, confidence: float) -> Interval | None:
    """The middle share of replicates ``[R]``; ``None`` if the metric is undefined in over 5 % of them."""
    known = values[np.isfinite(values)]
    if len(known) < 0.95 * len(values) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
