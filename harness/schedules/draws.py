"""Which modalities an utterance keeps: masks as pure functions of names and numbers.

Every draw ranks the utterances by a keyed hash of their ids and deals out exact numbers of
patterns along that ranking. The key is made of the data set's name, the schedule's name, the mask
seed and the epoch. So a mask does not depend on the order of utterances or modalities, on batches,
processes, machines or feature sets, and it is the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import comb

import numpy as np

from .records import (
    Complete,
    Fixed,
    Frames,
    Imbalanced,
    Random,
    Schedule,
    ScheduleError,
    at_epoch,
    canonical,
    check_schedule,
    standard_order,
)
from .shares import imbalanced_shares, size_shares, subsets

# Raised by every change that changes masks; part of every key.
MASK_VERSION = 1

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MAX_ATTEMPTS = 10_000


@dataclass(frozen=True, eq=False)
class IdHashes:
    """Hashes of utterance ids, computed once per corpus.

    Attributes:
        values: ``[N]`` uint64, the first 8 bytes (little-endian) of BLAKE2b of the id in UTF-8.
    """

    values: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[str] | IdHashes) -> IdHashes:
        """Hashes ids.

        Raises:
            ScheduleError: An id occurs twice.
        """
        if isinstance(ids, IdHashes):
            return ids
        hashed = b"".join([blake2b(name.encode(), digest_size=8).digest() for name in ids])
        values = np.frombuffer(hashed, dtype="<u8").astype(np.uint64)
        order = np.argsort(values)
        twice = np.flatnonzero(values[order[1:]] == values[order[:-1]])
        if twice.size:
            raise ScheduleError(f"the utterance id {list(ids)[order[twice[0]]]!r} occurs more than once")
        return cls(values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | np.ndarray | Sequence[int]) -> IdHashes:
        """The hashes of some rows, such as those of a split."""
        return IdHashes(self.values[rows])


@dataclass(frozen=True)
class Key:
    """What a draw depends on besides the ids.

    Attributes:
        data_set: Name of the data set.
        condition: Name of the schedule at its current rate.
        seed: Mask seed.
        epoch: Epoch; 0 for everything that isn't drawn anew.
    """

    data_set: str
    condition: str
    seed: int
    epoch: int

    def words(self, *stream: str | int) -> tuple[np.uint64, np.uint64]:
        """Two 64-bit words for a named stream of random numbers."""
        text = repr((MASK_VERSION, self.data_set, self.condition, self.seed, self.epoch, *stream))
        words = np.frombuffer(blake2b(text.encode(), digest_size=16).digest(), dtype="<u8").astype(np.uint64)
        return words[0], words[1]

    def mix(self, values: np.ndarray, *stream: str | int) -> np.ndarray:
        """Random-looking uint64 of the same shape: two keyed rounds of the splitmix64 finaliser."""
        first, second = self.words(*stream)
        return finalise(finalise(values + first) ^ second)

    def rank(self, values: np.ndarray, *stream: str | int) -> np.ndarray:
        """Rows in their keyed order: a uniformly random permutation of the SET of values.

        Raises:
            ScheduleError: Two rows have the same id.
        """
        mixed = self.mix(values, *stream)
        order = np.argsort(mixed)
        ranked = mixed[order]
        if np.any(ranked[1:] == ranked[:-1]):  # mixing is a bijection, so the ids are equal
            raise ScheduleError("an utterance id occurs more than once among the rows of a draw")
        return order


def finalise(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), a bijection of uint64."""
    values = values.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


def uniform(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) from the upper 53 bits."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stream_of(values: np.ndarray, length: int) -> np.ndarray:
    """splitmix64 started at every value: ``[N]`` to ``[N, length]`` uint64.

    Entry t doesn't depend on ``length``, so a mask doesn't depend on the padding of a feature set.
    """
    steps = np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN
    return finalise(values[:, None] + steps)


def draw_availability(
    schedule: Schedule,
    *,
    data_set: str,
    ids: Sequence[str] | IdHashes,
    modalities: Sequence[str],
    seed: int,
    epoch: int = 0,
) -> np.ndarray:
    """Draws which modalities every utterance of a split keeps.

    A pure function of the data set's name, the set of ids, the schedule, the seed and the epoch.
    For ``random`` schedules the number of utterances with k modalities is the formula of
    ``size_shares`` times N, rounded by largest remainder, and is spread evenly over the C(M, k)
    subsets of that size; so the realised rate misses the formula's by less than M / (4 N). For
    ``imbalanced`` the number of losses of every modality is exact (see ``imbalanced_counts``).

    Args:
        schedule: The schedule; a frame schedule loses no modality.
        data_set: Name of the data set.
        ids: Ids of the utterances of the split, or their hashes.
        modalities: Names of the columns.
        seed: Mask seed.
        epoch: Epoch; ignored by frozen draws.

    Returns:
        ``[N, M]`` bool, True where the modality is available; every row has at least one.

    Raises:
        ScheduleError: The schedule doesn't fit the modalities, or an id occurs twice.
    """
    check_schedule(schedule, modalities)
    epoch = 0 if isinstance(schedule, Complete | Fixed) or schedule.draw == "frozen" else epoch
    now = canonical(at_epoch(schedule, epoch), modalities)
    if isinstance(now, Complete | Frames):
        return np.ones((len(ids), len(modalities)), dtype=bool)
    if isinstance(now, Fixed):
        return np.tile(np.isin(modalities, now.available), (len(ids), 1))
    names = standard_order(modalities)
    columns = [names.index(name) for name in modalities]
    key = Key(str(data_set), now.name, int(seed), int(epoch))
    hashes = IdHashes.of(ids).values
    if isinstance(now, Random) and now.pattern == "gcnet_legacy":
        return _draw_gcnet(now, key, hashes, len(names))[:, columns]
    if isinstance(now, Random):
        counts = random_counts(now, names, len(hashes), key)
    else:
        counts = imbalanced_counts(now, len(hashes), key)
    patterns = np.array([[name in subset for name in names] for subset in counts], dtype=bool)
    mask = np.empty((len(hashes), len(names)), dtype=bool)
    mask[key.rank(hashes, "rows")] = np.repeat(patterns, list(counts.values()), axis=0)
    return mask[:, columns]


def largest_remainder(shares: np.ndarray, total: int, key: Key, *stream: str | int) -> np.ndarray:
    """Whole numbers near ``shares * total`` that add up to ``total``.

    Every number is rounded down, and those with the largest remainders get one more; equal
    remainders are ordered by the key, so that no pattern is favoured by its place.

    Args:
        shares: ``[K]``, adding up to 1.
        total: What the numbers add up to.
        key: Key of the draw.
        stream: Name of the choice.
    """
    exact = shares * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.round(exact - counts, 9)  # rounding error must not break ties
    chance = key.mix(np.arange(len(shares), dtype=np.uint64), "ties", *stream)
    order = np.lexsort((chance, -remainders))
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def random_counts(
    schedule: Random, names: Sequence[str], rows: int, key: Key
) -> Mapping[tuple[str, ...], int]:
    """Exact number of utterances with every set of available modalities.

    First the numbers with 1, ..., M modalities, then, within each, an even split over subsets;
    both by largest remainder.
    """
    count = len(names)
    sizes = largest_remainder(np.array(size_shares(schedule, count)), rows, key, "sizes")
    counts: dict[tuple[str, ...], int] = {}
    for size, total in enumerate(sizes.tolist(), start=1):
        even = np.full(comb(count, size), 1 / comb(count, size))
        counts |= zip(
            subsets(names, size), largest_remainder(even, total, key, "subsets", size).tolist(), strict=True
        )
    return counts


def imbalanced_counts(schedule: Imbalanced, rows: int, key: Key) -> Mapping[tuple[str, ...], int]:
    """Exact number of utterances with every set of available modalities.

    The number of losses c_m of modality m is r_m N, rounded down or up by largest remainder such
    that the sum over modalities is the rounded sum of the rates. Patterns get the whole part of
    N p(K) (``imbalanced_shares``). The few utterances that remain (fewer than 2^M) take the losses
    that remain: modality after modality, each on the next utterances in a circle. No utterance
    loses everything, since a circle spreads the losses evenly and at most M - 1 per utterance
    remain; no modality is lost twice, since at most one per utterance remains.
    """
    names = standard_order(schedule.rates)
    rates = np.array([schedule.rates[name] for name in names])
    losses = np.zeros(len(names), dtype=np.int64)
    if rates.sum() > 0:
        total = min(int(np.floor(rates.sum() * rows + 0.5)), (len(names) - 1) * rows)
        losses = np.floor(rates * rows + 1e-9).astype(np.int64)
        remainders = np.round(rates * rows - losses, 9)
        chance = key.mix(np.arange(len(names), dtype=np.uint64), "ties", "losses")
        losses[np.lexsort((chance, -remainders))[: total - int(losses.sum())]] += 1
    shares = imbalanced_shares(schedule.rates)
    counts = {subset: int(np.floor(share * rows * (1 - 1e-12))) for subset, share in shares.items()}
    rest = rows - sum(counts.values())
    kept: list[set[str]] = [set(names) for _ in range(rest)]
    place = 0
    for name, lost in zip(names, losses.tolist(), strict=True):
        remaining = lost - sum(number for subset, number in counts.items() if name not in subset)
        for step in range(remaining):
            kept[(place + step) % rest].discard(name)
        place += remaining
    for subset in kept:
        counts[standard_order(subset)] += 1
    return counts


def gcnet_random_mask(
    rows: int,
    views: int,
    rate: float,
    integers: Callable[[int, int, int], np.ndarray],
    attempts: int = _MAX_ATTEMPTS,
) -> np.ndarray:
    """GCNet's rejection sampler of random-missing masks.

    With p = 1 - r and V views: r = 0 keeps everything; p <= 1 / V keeps one view per row.
    Otherwise N = max(rows, 32) rows are drawn until accepted. (a) One guaranteed view per row. (b)
    K = V N p - N further ones are wanted; a trial draw at floor(100 K / (V N)) per cent counts the
    overlap a with the guaranteed cells. (c) A fresh draw at floor(100 K / (1 - a / K) / (V N)) per
    cent. (d) The mask is guaranteed OR fresh, accepted if its mean is within 0.005 of p. The first
    ``rows`` rows are returned. A trial with a = K (a division by zero in the reference) is
    rejected.

    Args:
        rows: Number of rows.
        views: Number of modalities V.
        rate: Missing rate r.
        integers: ``integers(high, rows, columns)`` draws integers in [0, high). In the reference's
            order of calls, so that the same generator gives the same mask.
        attempts: Draws after which the search is given up.

    Returns:
        ``[rows, V]`` bool.

    Raises:
        ScheduleError: No draw was accepted: the rate lies between those the rule can reach, or
            there are many more rows than in the batches it was made for.
    """
    present = 1 - rate
    if rate == 0:
        return np.ones((rows, views), dtype=bool)
    if present <= 1 / views:
        return np.arange(views) == integers(views, rows, 1)
    drawn = max(rows, 32)
    wanted = views * drawn * present - drawn
    trial_percent = int(100 * wanted / (views * drawn))
    for _ in range(attempts):
        guaranteed = np.arange(views) == integers(views, drawn, 1)
        overlap = int(np.sum(guaranteed & (integers(100, drawn, views) < trial_percent)))
        if overlap == wanted:
            continue
        percent = int(100 * (wanted / (1 - overlap / wanted)) / (views * drawn))
        mask = guaranteed | (integers(100, drawn, views) < percent)
        if abs(mask.mean() - present) < 0.005:
            return mask[:rows]
    raise ScheduleError(
        f"GCNet's sampler found no mask of rate {rate:g} for {rows} rows in {attempts} attempts; it was made "
        "for batches of some thousand rows, and never accepts rates in (0.6567, 0.6617]"
    )


def _draw_gcnet(schedule: Random, key: Key, hashes: np.ndarray, views: int) -> np.ndarray:
    assert isinstance(schedule.rate, float)
    key.rank(hashes, "rows")  # finds repeated ids
    calls = 0

    def integers(high: int, rows: int, columns: int) -> np.ndarray:
        nonlocal calls
        calls += 1
        values = np.concatenate([hashes, np.arange(rows - len(hashes), dtype=np.uint64)])
        return (stream_of(key.mix(values, "gcnet", calls), columns) % np.uint64(high)).astype(np.int64)

    return gcnet_random_mask(len(hashes), views, schedule.rate, integers)
