"""Which frames or tokens of a sequence are kept.

Random numbers belong to an utterance, a modality and a place in its sequence; they don't depend on
padding, on other utterances or on their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .draws import IdHashes, Key, stream_of, uniform
from .records import Frames, Schedule, ScheduleError, canonical, check_schedule

_SHARED = "all modalities"


def draw_frames(
    schedule: Schedule,
    *,
    data_set: str,
    ids: Sequence[str] | IdHashes,
    modality_lengths: Mapping[str, np.ndarray],
    max_lengths: Mapping[str, int],
    protected: Mapping[str, np.ndarray] | None = None,
    seed: int,
    epoch: int = 0,
) -> dict[str, np.ndarray]:
    """Draws which frames every utterance keeps.

    Only eligible frames can be lost: real ones (position below the length) that aren't protected
    ([CLS], [SEP]). With E eligible frames and rate r:

    * ``bernoulli``: every eligible frame is lost with probability r, independently, with a stream
      of random numbers for every modality.
    * ``block``: one run of L = floor(r E + 1/2) successive eligible frames; its start is uniform
      on the E - L + 1 possible ones, independent between modalities.
    * ``mixed_burst``: bernoulli at r united with a run of ``block`` E.
    * ``synchronous``, ``synchronous_block``: bernoulli and block over time steps that are eligible
      in every modality; a lost step is lost in all of them.

    ``"uniform"`` draws r for every sample and modality from U(0, 1), ``"uniform_shared"`` for every
    sample. floor(``complete_share`` N + 1/2) samples, picked by rank, lose nothing.

    Args:
        schedule: The schedule; one of another kind loses no frames.
        data_set: Name of the data set.
        ids: Ids of the utterances of the split, or their hashes.
        modality_lengths: Per modality ``[N]``, the number of real frames.
        max_lengths: Per modality T, the width of the mask.
        protected: Per modality ``[N, T]`` bool, frames that are never lost.
        seed: Mask seed.
        epoch: Epoch; ignored by frozen draws.

    Returns:
        Per modality ``[N, T]`` bool: False where a frame is lost. True on padding.

    Raises:
        ScheduleError: The schedule doesn't fit the modalities, an id occurs twice, or synchronous
            loss is asked of sequences that aren't aligned.
    """
    names = tuple(modality_lengths)
    check_schedule(schedule, names)
    now = canonical(schedule, names)
    if not isinstance(now, Frames):
        return {name: np.ones((len(ids), max_lengths[name]), dtype=bool) for name in names}
    hashes = IdHashes.of(ids)
    eligible = {
        name: np.arange(max_lengths[name]) < np.asarray(modality_lengths[name])[:, None] for name in names
    }
    if now.is_synchronous:
        _check_aligned(now, modality_lengths, max_lengths)
    for name, never in (protected or {}).items():
        if name in eligible:
            eligible[name] = eligible[name] & ~never
    key = Key(str(data_set), now.name, int(seed), 0 if now.draw == "frozen" else int(epoch))
    losing = _losing(now, key, hashes.values)
    if now.is_synchronous:
        steps = np.logical_and.reduce(list(eligible.values()))
        kept = ~(_lost(now, key, hashes.values, steps, _SHARED) & losing)
        return {name: kept.copy() for name in names}
    return {name: ~(_lost(now, key, hashes.values, eligible[name], name) & losing) for name in names}


def _losing(schedule: Frames, key: Key, hashes: np.ndarray) -> np.ndarray:
    """``[N, 1]`` bool, False for the exact share of samples that lose nothing."""
    losing = np.ones((len(hashes), 1), dtype=bool)
    whole = int(np.floor(schedule.complete_share * len(hashes) + 0.5))
    losing[key.rank(hashes, "complete")[:whole]] = False
    return losing


def _lost(schedule: Frames, key: Key, hashes: np.ndarray, eligible: np.ndarray, stream: str) -> np.ndarray:
    rate = _rates(schedule, key, hashes, stream)
    if schedule.pattern in ("block", "synchronous_block"):
        return _block(rate, key, hashes, eligible, stream)
    chance = uniform(stream_of(key.mix(hashes, "frames", stream), eligible.shape[1]))
    lost = eligible & (chance < rate[:, None])
    if schedule.pattern == "mixed_burst":
        lost |= _block(np.full(len(hashes), schedule.block), key, hashes, eligible, stream)
    return lost


def _rates(schedule: Frames, key: Key, hashes: np.ndarray, stream: str) -> np.ndarray:
    if schedule.rate == "uniform":
        return uniform(key.mix(hashes, "rates", stream))
    if schedule.rate == "uniform_shared":
        return uniform(key.mix(hashes, "rates", _SHARED))
    rate = schedule.rate[stream] if isinstance(schedule.rate, dict) else schedule.rate
    return np.full(len(hashes), float(rate))


def _block(rate: np.ndarray, key: Key, hashes: np.ndarray, eligible: np.ndarray, stream: str) -> np.ndarray:
    total = eligible.sum(axis=1)
    length = np.floor(rate * total + 0.5 + 1e-9).astype(np.int64)
    start = np.floor(uniform(key.mix(hashes, "start", stream)) * (total - length + 1)).astype(np.int64)
    place = np.cumsum(eligible, axis=1) - 1
    return eligible & (place >= start[:, None]) & (place < (start + length)[:, None])


def _check_aligned(schedule: Frames, lengths: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> None:
    first, *others = lengths
    for other in others:
        different = np.flatnonzero(np.asarray(lengths[first]) != np.asarray(lengths[other]))
        if different.size:
            row = different[0]
            where = f"row {row} has {lengths[first][row]} and {lengths[other][row]} frames"
        elif widths[first] != widths[other]:
            where = f"they are padded to {widths[first]} and {widths[other]} frames"
        else:
            continue
        raise ScheduleError(
            f"{schedule.name}: synchronous loss needs aligned sequences, "
            f"but {first} and {other} differ: {where}"
        )
