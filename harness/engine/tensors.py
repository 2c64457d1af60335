"""A split on the device: features, masks and batches by index selection.

The data sets of the field are small, so everything lives on the device for the whole run. A batch
is an index selection, made for many batches at once; no worker process, no per-sample Python, no
read-back from the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..corpus.records import Corpus
from ..schedules import IdHashes
from ..spec import Level

# Features that are gathered at once for batches to come.
_BYTES_AT_ONCE = 16 * 2**20
# Rows of a gathered batch are a multiple of 16, so that each starts on a boundary of 64 bytes, as a
# tensor of its own would: kernels may round by where a tensor starts.
_ROWS_ALIGNED = 16


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation per feature column of each modality; identity where ``None``.

    Attributes:
        mean: Per modality ``[d]`` float64.
        deviation: Per modality ``[d]`` float64, 1 for constant columns.
    """

    mean: Mapping[str, np.ndarray]
    deviation: Mapping[str, np.ndarray]


def fit_scaling(corpus: Corpus, rows: np.ndarray, kind: str) -> Scaling | None:
    """Fits feature scaling on observed training rows (valid frames of sequences).

    Args:
        corpus: The data.
        rows: Training rows.
        kind: ``"none"`` or ``"standard"``.
    """
    if kind == "none":
        return None
    mean, deviation = {}, {}
    for name, features in corpus.features.items():
        chosen = rows[features.observed[rows]]
        values = features.values[chosen]
        if features.lengths is not None:
            valid = np.arange(values.shape[1])[None, :] < features.lengths[chosen][:, None]
            values = values[valid]
        values = values.astype(np.float64)
        if len(values) == 0:
            mean[name], deviation[name] = np.zeros(features.dim), np.ones(features.dim)
            continue
        spread = values.std(axis=0)
        mean[name] = values.mean(axis=0)
        # A column that is constant up to rounding is centred, not blown up.
        deviation[name] = np.where(spread > 1e-6 * (1 + np.abs(mean[name])), spread, 1.0)
    return Scaling(mean, deviation)


@dataclass(frozen=True)
class Masks:
    """What is available of a split: drawn by the schedule and really observed.

    Attributes:
        available: ``[N, M]`` bool.
        frames: Per modality ``[N, T]`` bool, kept by a frame-level schedule; ``None`` otherwise.
        pooled: Per modality ``[N, d]`` mean over the kept frames, for methods that take vectors;
            ``None`` without a frame-level schedule.
        repaired: Utterances of which nothing would be left; they keep all that was observed.
    """

    available: Tensor
    frames: Mapping[str, Tensor] | None = None
    pooled: Mapping[str, Tensor] | None = None
    repaired: int = 0


@dataclass(frozen=True)
class _Place:
    """Rows of a batch to be gathered.

    Attributes:
        rows: ``[B]`` or ``[B, S]``, -1 on padding; on the CPU.
        lengths: Utterances per dialogue.
    """

    rows: Tensor
    lengths: tuple[int, ...]

    @property
    def size(self) -> int:
        """Rows it takes, aligned."""
        return -(-self.rows.numel() // _ROWS_ALIGNED) * _ROWS_ALIGNED

    def of(self, gathered: Tensor) -> Tensor:
        """The batch's tensor from its gathered rows ``[size, ...]``."""
        if gathered.shape[:1] == self.rows.shape:
            return gathered
        return gathered[: self.rows.numel()].view(*self.rows.shape, *gathered.shape[1:])


class SplitTensors:
    """One split of a corpus on a device, at the level that a method takes.

    Args:
        corpus: The data.
        rows: Rows of the split.
        targets: ``[N]`` labels of these rows.
        level: What a batch holds.
        device: Where the tensors live.
        scaling: Feature scaling, or ``None``.
        tokens: Whether to carry token ids.
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: np.ndarray,
        targets: np.ndarray,
        level: Level,
        device: torch.device,
        scaling: Scaling | None = None,
        tokens: bool = False,
    ) -> None:
        self.level = level
        self.device = device
        self.modalities = tuple(corpus.features)
        self.utterances = corpus.utterances.iloc[rows]
        self.ids: list[str] = self.utterances["id"].tolist()
        self.id_hashes = IdHashes.of(self.ids)
        self._observed = np.stack([corpus.features[name].observed[rows] for name in self.modalities], axis=1)
        self._values: dict[str, Tensor] = {}
        self._sequences: dict[str, Tensor] = {}  # frames of modalities that are pooled to vectors
        self.frames: dict[str, Tensor] = {}
        for name, features in corpus.features.items():
            values = features.values[rows].astype(np.float32, copy=True)
            lengths = np.ones(len(rows), int) if features.lengths is None else features.lengths[rows]
            if scaling is not None:
                values = ((values - scaling.mean[name]) / scaling.deviation[name]).astype(np.float32)
            if values.ndim == 2 and level == "sequences":
                values = values[:, None, :]
            if values.ndim == 3:
                valid = np.arange(values.shape[1])[None, :] < lengths[:, None]
                values[~valid] = 0.0
                self.frames[name] = torch.from_numpy(valid).to(device)
            values[~features.observed[rows]] = 0.0
            tensor = torch.from_numpy(values).to(device)
            if values.ndim == 3 and level != "sequences":
                self._sequences[name] = tensor
                tensor = masked_mean(tensor, self.frames[name])
            if level != "sequences":  # a row of zeros in the end, for what is absent
                tensor = torch.cat([tensor, tensor.new_zeros(1, tensor.shape[1])])
            self._values[name] = tensor
        self.sequence_lengths = {
            name: frames.sum(dim=1).cpu().numpy() for name, frames in self.frames.items()
        }
        self.max_lengths = {name: frames.shape[1] for name, frames in self.frames.items()}
        self.protected = self._protected_tokens(corpus, rows)
        dtype = np.float32 if targets.dtype.kind == "f" else np.int64
        self.labels = torch.from_numpy(targets.astype(dtype)).to(device)
        self.order = _dialogue_rows(self.utterances["dialogue"].to_numpy())
        self._speakers = torch.from_numpy(
            local_speakers(self.utterances["dialogue"].to_numpy(), self.utterances["speaker"].to_numpy())
        ).to(device)
        self._dialogue_rows = _padded(self.order) if level == "dialogues" else None
        row_bytes = sum(values[0].nbytes for values in self._values.values()) if len(self.ids) else 1
        self._rows_at_once = _BYTES_AT_ONCE // max(row_bytes, 1)
        self._tokens = None
        if tokens and corpus.tokens is not None:
            ids = torch.from_numpy(corpus.tokens.ids[rows].astype(np.int64)).to(device)
            self._tokens = (
                ids,
                torch.from_numpy(corpus.tokens.mask[rows]).to(device),
                torch.from_numpy(corpus.tokens.special[rows]).to(device),
                corpus.tokens.unknown,
            )

    def __len__(self) -> int:
        return len(self.ids)

    def _protected_tokens(self, corpus: Corpus, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Text frames that stand for special tokens, where frames and tokens are aligned."""
        tokens = corpus.tokens
        if tokens is None or tokens.special.shape[1] != self.max_lengths.get("text"):
            return {}
        return {"text": tokens.special[rows]}

    @property
    def units(self) -> int:
        """Number of batch units: dialogues or utterances."""
        return len(self.order) if self.level == "dialogues" else len(self)

    def masks(self, drawn: np.ndarray, frames: Mapping[str, np.ndarray] | None = None) -> Masks:
        """Joins a draw with what was really observed and moves it to the device.

        Args:
            drawn: ``[N, M]`` bool, True where the schedule keeps the modality.
            frames: Per modality ``[N, T]`` bool, True where a frame is kept.
        """
        available = drawn & self._observed
        kept: dict[str, np.ndarray] = {}
        if frames is not None:
            kept = {name: frames[name] & valid.cpu().numpy() for name, valid in self.frames.items()}
            for index, name in enumerate(self.modalities):
                if name in kept:
                    available[:, index] &= kept[name].any(axis=1)
        empty = ~available.any(axis=1)
        available[empty] = self._observed[empty]
        for name, mask in kept.items():
            mask[empty] = self.frames[name].cpu().numpy()[empty]
        on_device = {name: torch.from_numpy(mask).to(self.device) for name, mask in kept.items()}
        pooled = None
        if on_device and self.level != "sequences":
            pooled = {name: masked_mean(self._sequences[name], mask) for name, mask in on_device.items()}
        return Masks(torch.from_numpy(available).to(self.device), on_device or None, pooled, int(empty.sum()))

    def everything(self) -> Masks:
        """Masks that leave all that was observed."""
        return Masks(torch.from_numpy(self._observed.copy()).to(self.device))

    def stacked(self, masks: Sequence[Masks]) -> Masks:
        """Masks for a split that is seen several times, under one after the other.

        Unit ``u`` under the masks of index ``k`` has position ``k * units + u`` in ``batches``.
        """
        if len(masks) == 1:
            return masks[0]

        def joined(parts: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Tensor] | None:
            given = [part for part in parts if part is not None]
            if len(given) < len(parts):
                if given:
                    raise ValueError("masks with and without frames can't be stacked")
                return None
            return {name: torch.cat([part[name] for part in given]) for name in given[0]}

        return Masks(
            torch.cat([one.available for one in masks]),
            joined([one.frames for one in masks]),
            joined([one.pooled for one in masks]),
            sum(one.repaired for one in masks),
        )

    def _is_stacked(self, masks: Masks) -> bool:
        return len(masks.available) > len(self)

    def batch(self, units: Tensor, masks: Masks, labels: bool, targets: bool) -> Batch:
        """One batch; see ``batches``."""
        (only,) = self.batches([units], masks, labels, targets)
        return only

    def batches(self, units: Iterable[Tensor], masks: Masks, labels: bool, targets: bool) -> Iterator[Batch]:
        """Batches of some dialogues or utterances.

        On small data an operation costs as much for one batch as for a hundred, so rows are gathered
        for many batches at once, as far as memory is cheap, and a batch is a view of them.

        Args:
            units: Positions of the dialogues or utterances of each batch, on the CPU; see ``stacked``.
            masks: What is available.
            labels: Whether to give labels.
            targets: Whether to give the true features of absent modalities.
        """
        group: list[_Place] = []
        rows, stacked = 0, self._is_stacked(masks)
        for chosen in units:
            place = self._place(chosen, stacked)
            if group and rows + place.size > self._rows_at_once:
                yield from self._cut(group, masks, labels, targets)
                group, rows = [], 0
            group.append(place)
            rows += place.size
        if group:
            yield from self._cut(group, masks, labels, targets)

    def _place(self, units: Tensor, stacked: bool) -> _Place:
        if self._dialogue_rows is None:
            return _Place(units, (1,) * len(units))
        dialogues = units % len(self.order) if stacked else units
        lengths = tuple(len(self.order[dialogue]) for dialogue in dialogues.tolist())
        rows = self._dialogue_rows[dialogues, : max(lengths)]
        if stacked:
            before = len(self) * (units // len(self.order))
            rows = torch.where(rows < 0, -1, rows + before[:, None])
        return _Place(rows, lengths)

    def _cut(self, group: Sequence[_Place], masks: Masks, labels: bool, targets: bool) -> Iterator[Batch]:
        """Gathers the rows of a group of batches and cuts them apart."""
        sizes = [place.size for place in group]
        rows = torch.full((sum(sizes),), -1, dtype=torch.int64)
        for place, part in zip(group, rows.split(sizes), strict=True):
            part[: place.rows.numel()] = place.rows.reshape(-1)
        gathered = self._gather(rows.to(self.device), masks, labels, targets)

        def parts(tensor: Tensor) -> list[Tensor]:
            return [place.of(piece) for place, piece in zip(group, tensor.split(sizes), strict=True)]

        # Every field of the batches, apart: a list of tensors, or a list of tensors per modality.
        fields: dict[str, Any] = {}
        for name, value in vars(gathered).items():
            if isinstance(value, Tensor):
                fields[name] = parts(value)
            elif isinstance(value, Mapping):
                apart = {key: parts(tensor) for key, tensor in value.items()}
                fields[name] = [{key: own[i] for key, own in apart.items()} for i in range(len(group))]
        for index, place in enumerate(group):
            own = {name: pieces[index] for name, pieces in fields.items()}
            yield Batch(**own, lengths=place.lengths)

    def _gather(self, rows: Tensor, masks: Masks, labels: bool, targets: bool) -> Batch:
        """A batch of these rows ``[R]``; -1 is padding, and rows of stacked masks go on counting."""
        real = rows >= 0
        masked = rows.clamp(min=0)
        safe = masked % len(self) if self._is_stacked(masks) else masked
        available = masks.available[masked] & real[:, None]
        features: dict[str, Tensor] = {}
        true: dict[str, Tensor] = {}
        frames: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        nothing = len(self)  # the row of zeros
        for index, name in enumerate(self.modalities):
            values, present = self._values[name], available[:, index]
            if self.level == "sequences":
                valid = self.frames[name][safe]
                seen = valid & present[:, None]
                if masks.frames is not None:
                    seen = seen & masks.frames[name][masked]
                frames[name], kept[name] = valid, seen
                features[name] = values.index_select(0, safe)
                if targets:
                    true[name] = features[name].clone()
                features[name].masked_fill_(~seen[..., None], 0.0)
                continue
            if targets:
                true[name] = values.index_select(0, torch.where(real, safe, nothing))
            if masks.pooled is not None and name in masks.pooled:
                pooled = masks.pooled[name].index_select(0, masked)
                features[name] = pooled.masked_fill_(~present[:, None], 0.0)
            else:
                features[name] = values.index_select(0, torch.where(present, safe, nothing))
        token_ids = token_mask = None
        if self._tokens is not None:
            token_ids, token_mask = self._token_batch(safe, masked, available, masks)
        return Batch(
            features=features,
            available=available,
            real=real,
            speakers=torch.where(real, self._speakers[safe], 0),
            lengths=(),
            rows=torch.where(real, safe, -1),
            labels=torch.where(real, self.labels[safe], 0) if labels else None,
            frames=frames or None,
            frames_available=kept or None,
            targets=true if targets else None,
            tokens=token_ids,
            token_mask=token_mask,
        )

    def _token_batch(
        self, rows: Tensor, masked: Tensor, available: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor]:
        """Token ids with lost tokens, or the tokens of absent text, replaced by the unknown token."""
        assert self._tokens is not None
        ids, real, special, unknown = self._tokens
        seen = available[..., self.modalities.index("text"), None].expand(ids[rows].shape)
        if masks.frames is not None and "text" in masks.frames:
            kept = masks.frames["text"][masked]
            if kept.shape == seen.shape:
                seen = seen & kept
        keep = seen | special[rows] | ~real[rows]
        return torch.where(keep, ids[rows], unknown), real[rows]


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid frames; zero where there is none.

    Args:
        values: ``[..., T, d]``.
        valid: ``[..., T]`` bool.
    """
    weights = valid[..., None].to(values.dtype)
    total = torch.where(valid[..., None], values, 0.0).sum(dim=-2)
    return total / weights.sum(dim=-2).clamp(min=1.0)


def local_speakers(dialogues: Sequence[str], speakers: Sequence[str]) -> np.ndarray:
    """Speaker numbers local to each dialogue, by order of first appearance.

    Args:
        dialogues: ``[N]`` dialogue of each utterance, in order.
        speakers: ``[N]`` speaker name of each utterance.
    """
    known: dict[str, dict[str, int]] = {}
    numbers = np.zeros(len(dialogues), dtype=np.int64)
    for row, (dialogue, speaker) in enumerate(zip(dialogues, speakers, strict=True)):
        seen = known.setdefault(dialogue, {})
        numbers[row] = seen.setdefault(speaker, len(seen))
    return numbers


def _dialogue_rows(dialogues: Sequence[str]) -> list[list[int]]:
    """Rows of each dialogue, dialogues in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, dialogue in enumerate(dialogues):
        rows.setdefault(dialogue, []).append(row)
    return list(rows.values())


def _padded(order: Sequence[Sequence[int]]) -> Tensor:
    """``[D, S]`` rows of each dialogue, -1 on padding."""
    longest = max((len(rows) for rows in order), default=1)
    table = torch.full((len(order), longest), -1, dtype=torch.int64)
    for index, rows in enumerate(order):
        table[index, : len(rows)] = torch.tensor(rows)
    return table
