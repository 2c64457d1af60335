"""What a mask turned out to be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .draws import IdHashes
from .records import pattern_label, standard_order


@dataclass(frozen=True)
class MaskSummary:
    """Realised rates, patterns and content hash of a mask.

    Attributes:
        count: Number of utterances N.
        rate: Realised missing rate: share of absent (utterance, modality) cells; for frames the
            mean of ``rates``.
        rates: Realised missing rate of every modality; for frames the share of its eligible frames
            that are lost.
        shares: Share of every pattern that occurs, by label (``"ta"``: text and audio available,
            ``"none"``: nothing); empty for frames.
        hash: SHA-256 in hexadecimal of ids and mask, whatever the order of rows and columns.
    """

    count: int
    rate: float
    rates: Mapping[str, float]
    shares: Mapping[str, float]
    hash: str


def describe(mask: np.ndarray, modalities: Sequence[str], ids: Sequence[str] | IdHashes) -> MaskSummary:
    """Summarises an availability mask.

    Args:
        mask: ``[N, M]`` bool, True where available.
        modalities: Names of the columns.
        ids: Ids of the rows, or their hashes.

    Raises:
        ValueError: Shapes disagree, or an id occurs twice.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != (len(ids), len(modalities)):
        raise ValueError(
            f"a mask of {len(ids)} utterances and {len(modalities)} modalities can't have shape {mask.shape}"
        )
    names = standard_order(modalities)
    mask = mask[:, [list(modalities).index(name) for name in names]]
    codes, counts = np.unique(mask @ (1 << np.arange(len(names))), return_counts=True)
    labels = [
        pattern_label(name for bit, name in enumerate(names) if code >> bit & 1) for code in codes.tolist()
    ]
    count = max(len(mask), 1)
    found = sorted(zip(labels, counts.tolist(), strict=True), key=lambda item: (len(item[0]), item[0]))
    return MaskSummary(
        count=len(mask),
        rate=float((~mask).sum() / max(mask.size, 1)),
        rates={name: float((~mask[:, column]).sum() / count) for column, name in enumerate(names)},
        shares={label: times / count for label, times in found},
        hash=_content({"available": mask}, names, ids),
    )


def describe_frames(
    kept: Mapping[str, np.ndarray],
    *,
    ids: Sequence[str] | IdHashes,
    modality_lengths: Mapping[str, np.ndarray],
    protected: Mapping[str, np.ndarray] | None = None,
) -> MaskSummary:
    """Summarises the frame masks of ``draw_frames``; padding counts neither in rates nor in the hash.

    Args:
        kept: Per modality ``[N, T]`` bool.
        ids: Ids of the rows, or their hashes.
        modality_lengths: Per modality ``[N]``, the number of real frames.
        protected: Per modality ``[N, T]`` bool, frames that are never lost.
    """
    names = standard_order(kept)
    rates, lost = {}, {}
    for name in names:
        real = np.arange(kept[name].shape[1]) < np.asarray(modality_lengths[name])[:, None]
        lost[name] = real & ~kept[name]
        eligible = real & ~protected[name] if protected and name in protected else real
        rates[name] = float(lost[name].sum() / max(eligible.sum(), 1))
        width = int(real.sum(axis=1).max(initial=0))
        lost[name] = lost[name][:, :width]
    return MaskSummary(
        count=len(ids),
        rate=float(np.mean(list(rates.values()))),
        rates=rates,
        shares={},
        hash=_content(lost, names, ids),
    )


def _content(masks: Mapping[str, np.ndarray], names: Sequence[str], ids: Sequence[str] | IdHashes) -> str:
    hashes = IdHashes.of(ids).values
    order = np.argsort(hashes)
    digest = hashlib.sha256(repr(tuple(names)).encode())
    digest.update(hashes[order].astype("<u8").tobytes())
    for name, mask in masks.items():
        digest.update(repr((name, mask.shape)).encode())
        digest.update(np.packbits(mask[order], axis=1).tobytes())
    return digest.hexdigest()
