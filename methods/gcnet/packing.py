"""Layout of a batch of dialogues without its padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


@dataclass(frozen=True)
class Packing:
    """Which positions ``[B, S]`` of a batch are computed, as rows ``[N]`` in time-major order.

    Rows are ordered as recurrent layers want them: position by position, the longest dialogue
    first. Layers that look at one utterance at a time then never touch the padding.

    Attributes:
        places: ``[N]`` int64, flat index ``b·S + t`` of every row.
        batch_sizes: ``[S']`` int64 on the CPU, rows of every time step.
        shape: (B, S).
    """

    places: Tensor
    batch_sizes: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, lengths: tuple[int, ...], steps: int, device: torch.device) -> Packing:
        """The packing of dialogues with these lengths, padded to ``steps`` positions.

        Lengths are known on the host, so nothing is read back from the device.
        """
        counts = np.array(lengths)
        order = np.argsort(-counts, kind="stable")
        visited = np.arange(steps)[:, None] < counts[order]
        time, rank = visited.nonzero()
        places = torch.from_numpy(order[rank] * steps + time)
        sizes = torch.from_numpy(visited.sum(axis=1))
        return cls(places.to(device, non_blocking=True), sizes[: max(lengths)], (len(lengths), steps))

    def pack(self, padded: Tensor) -> Tensor:
        """``[B, S, …]`` to rows ``[N, …]``."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, rows: Tensor) -> Tensor:
        """Rows ``[N, …]`` to ``[B, S, …]``, zero at positions that are not computed."""
        batch, steps = self.shape
        padded = rows.new_zeros(batch * steps, *rows.shape[1:])
        return padded.index_copy(0, self.places, rows).unflatten(0, (batch, steps))

    def run(self, recurrent: nn.LSTM | nn.GRU, rows: Tensor) -> Tensor:
        """Output rows ``[N, 2·hidden]`` of a bidirectional stack over every dialogue."""
        return recurrent(PackedSequence(rows, self.batch_sizes))[0].data
