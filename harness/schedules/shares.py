"""How often every pattern of available modalities occurs: closed forms, no random numbers.

M: number of modalities; r: missing rate, the share of absent (utterance, modality) cells. Every
distribution but ``imbalanced`` treats modalities alike: given that k of them are available, all
C(M, k) subsets are equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb, prod

from .records import (
    IMDER_SHARES,
    Complete,
    Fixed,
    Frames,
    Imbalanced,
    Random,
    Schedule,
    ScheduleError,
    at_epoch,
    check_schedule,
    pattern_label,
    standard_order,
)


def subsets(modalities: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All subsets of a size, in the standard order."""
    return list(combinations(standard_order(modalities), size))


def size_shares(schedule: Random, count: int) -> tuple[float, ...]:
    """Shares of utterances with 1, 2, ..., M available modalities.

    * ``keep_one`` (GCNet, ComP, HME, CyIN): one modality is kept uniformly at random, each other
      one with probability q = 1 - r M / (M - 1). With B the binomial probability,
      share(k) = B(k - 1; M - 1, q). Expected missing rate r.
    * ``imder`` (IMDer, DiCMoR; M = 3): share(1) = a, share(2) = b, share(3) = 1 - a - b by table,
      2a + b = 3 r.
    * ``independent``: every cell is lost with probability r, all-missing is redrawn:
      share(k) = B(k; M, 1 - r) / (1 - r^M). Expected missing rate (r - r^M) / (1 - r^M), below r.
    * ``instance`` (MissMAC, CyIN): an utterance is hit with probability p = ``rate`` and then gets
      one of the 2^M - 2 incomplete patterns: share(M) = 1 - p, share(k) = p C(M, k) / (2^M - 2).
      Expected missing rate p / 2.
    * ``gcnet_legacy``: approximately those of ``keep_one``; the reference's rejection sampler
      misses by some thousandths, depending on the number of utterances.

    Args:
        schedule: A random schedule with one rate.
        count: Number of modalities M.
    """
    if not isinstance(schedule.rate, float):
        raise ScheduleError(f"{schedule.name}: the rate changes over epochs; pick one with at_epoch")
    rate = schedule.rate
    match schedule.pattern:
        case "keep_one" | "gcnet_legacy":
            kept = max(0.0, 1 - rate * count / (count - 1)) if rate else 1.0
            return tuple(_binomial(k - 1, count - 1, kept) for k in range(1, count + 1))
        case "imder":
            two_lost, one_lost = IMDER_SHARES[rate]
            return two_lost, one_lost, max(0.0, 1 - two_lost - one_lost)
        case "independent":
            some = 1 - rate**count
            return tuple(_binomial(k, count, 1 - rate) / some for k in range(1, count + 1))
        case "instance":
            hit = rate / (2**count - 2) if rate else 0.0
            return (*(hit * comb(count, k) for k in range(1, count)), 1 - rate)


def _binomial(successes: int, trials: int, probability: float) -> float:
    return comb(trials, successes) * probability**successes * (1 - probability) ** (trials - successes)


def imbalanced_shares(rates: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    """Share of every set of available modalities under rates of their own.

    Modalities are lost independently and all-missing is redrawn, where the underlying rates are
    chosen such that the RESULTING rates are the requested ones. With s_m = 1 - r_m the share of
    the available set K is::

        p(K) = b^(|K| - 1) * prod_{m in K} s_m * prod_{m not in K} (1 - b s_m)

    where b in [0, 1] is the root of (1 - prod_m (1 - b s_m)) / b = 1 (b: share of utterances that
    a single independent draw would not leave empty). Among all distributions with these rates and
    without empty utterances it is the one of largest entropy. It exists if and only if the rates
    add up to at most M - 1, and there (b = 0) every utterance keeps exactly one modality.

    Args:
        rates: Missing rate per modality.
    """
    names = standard_order(rates)
    kept = {name: 1 - rates[name] for name in names}

    def not_empty(b: float) -> float:
        # (1 - prod(1 - b s)) / b without dividing by b: sum_i s_i * prod_{j < i} (1 - b s_j)
        values = [kept[name] for name in names]
        return sum(s * prod(1 - b * earlier for earlier in values[:i]) for i, s in enumerate(values))

    low, high = 0.0, 1.0
    for _ in range(100):  # the function falls from sum(s) >= 1 to at most 1
        middle = (low + high) / 2
        low, high = (middle, high) if not_empty(middle) > 1 else (low, middle)
    b = high
    return {
        subset: b ** (size - 1) * prod(kept[name] if name in subset else 1 - b * kept[name] for name in names)
        for size in range(1, len(names) + 1)
        for subset in subsets(names, size)
    }


def pattern_shares(
    schedule: Schedule, modalities: Sequence[str], epoch: int = 0
) -> dict[tuple[str, ...], float]:
    """Expected share of every set of available modalities; frame schedules lose no modality.

    Raises:
        ScheduleError: The schedule doesn't fit the modalities.
    """
    check_schedule(schedule, modalities)
    now = at_epoch(schedule, epoch)
    match now:
        case Complete() | Frames():
            return {standard_order(modalities): 1.0}
        case Fixed():
            return {now.available: 1.0}
        case Imbalanced():
            return imbalanced_shares(now.rates)
        case Random():
            sizes = size_shares(now, len(modalities)) if now.is_random else None
            if sizes is None:
                return {standard_order(modalities): 1.0}
            return {
                subset: share / comb(len(modalities), size)
                for size, share in enumerate(sizes, start=1)
                for subset in subsets(modalities, size)
            }


def expected_pattern_shares(
    schedule: Schedule, modalities: Sequence[str], epoch: int = 0
) -> dict[str, float]:
    """Expected share of every pattern by its label, such as ``{"t": .25, "ta": .1, ...}``.

    Patterns that can't occur are left out.

    Args:
        schedule: Any schedule.
        modalities: Modalities of the data set.
        epoch: Epoch of a rate that changes.
    """
    shares = pattern_shares(schedule, modalities, epoch)
    return {pattern_label(subset): share for subset, share in shares.items() if share > 0}


def nominal_rate(schedule: Schedule, modalities: int | Sequence[str], epoch: int = 0) -> float:
    """Expected missing rate in [0, 1]: share of absent cells (or, for frames, of lost frames).

    For ``independent`` and ``instance`` this is not the number in the name, and for the
    literature's 0.7 it is 2/3. Frame rates per modality are averaged over modalities; of
    ``mixed_burst`` it is 1 - (1 - r)(1 - block).

    Args:
        schedule: Any schedule.
        modalities: The modalities, or their number M.
        epoch: Epoch of a rate that changes.
    """
    now = at_epoch(schedule, epoch)
    count = modalities if isinstance(modalities, int) else len(modalities)
    if not isinstance(modalities, int):
        check_schedule(now, modalities)
    match now:
        case Complete():
            return 0.0
        case Fixed():
            return 1 - len(now.available) / count
        case Imbalanced():
            return sum(now.rates.values()) / len(now.rates)
        case Random():
            if not now.is_random:
                return 0.0
            sizes = size_shares(now, count)
            return sum(share * (count - k) / count for k, share in enumerate(sizes, start=1))
        case Frames():
            rates = list(now.rate.values()) if isinstance(now.rate, dict) else [now.rate]
            means = [0.5 if isinstance(rate, str) else rate for rate in rates]
            if now.pattern == "mixed_burst":
                means = [1 - (1 - rate) * (1 - now.block) for rate in means]
            return (1 - now.complete_share) * sum(means) / len(means)
