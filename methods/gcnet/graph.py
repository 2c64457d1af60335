"""The two conversation graphs and the network that runs on each.

Dialogues are short (IEMOCAP's longest has 110 utterances), so graphs are dense: one batched matrix
product per convolution, deterministic on every device, without edge lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .packing import Packing


def window_band(steps: int, past: int, future: int) -> Tensor:
    """Pairs of positions that the windows connect.

    Source j sends to every target i with ``j − past ≤ i ≤ j + future``; -1 means no limit.

    Returns:
        ``[steps, steps]`` bool, target by source; the diagonal is always true.
    """
    ahead = positions_ahead(steps)
    band = torch.ones(steps, steps, dtype=torch.bool)
    if past >= 0:
        band &= ahead >= -past
    if future >= 0:
        band &= ahead <= future
    return band


def positions_ahead(steps: int) -> Tensor:
    """How many positions the target comes after the source: i − j, ``[target i, source j]``."""
    position = torch.arange(steps)
    return position[:, None] - position[None, :]


def temporal_relations(steps: int) -> Tensor:
    """``[target, source]`` int64: 0 the message comes from the past, 1 now, 2 the future."""
    return 1 - positions_ahead(steps).sign()


def speaker_relations(speakers: Tensor, count: int) -> Tensor:
    """Who speaks to whom: ``count · speaker(target) + speaker(source)``.

    Args:
        speakers: ``[B, S]`` int64 speaker numbers. Numbers from ``count`` on share the last one.
        count: Speakers told apart.

    Returns:
        ``[B, S, S]`` int64, target by source, 0 to count² − 1.
    """
    known = speakers.clamp(max=count - 1)
    return count * known[:, :, None] + known[:, None, :]


@dataclass(frozen=True)
class Graph:
    """One typed graph per dialogue, with R relations.

    Attributes:
        edges: ``[B, S, S]`` 0/1, target by source.
        relations: ``[S, S]`` or ``[B, S, S]`` int64, relation of every pair, edge or not.
        means: ``[B, S, S·R]``, target by (source, relation): 1 / (number of the target's
            neighbours of that relation) where there is such an edge, else 0.
    """

    edges: Tensor
    relations: Tensor
    means: Tensor

    @classmethod
    def of(cls, edges: Tensor, relations: Tensor, count: int, dtype: torch.dtype) -> Graph:
        """Builds the graph.

        Args:
            edges: ``[B, S, S]`` bool, target by source.
            relations: ``[S, S]`` or ``[B, S, S]`` int64.
            count: Number of relations R.
            dtype: Of the result.
        """
        kinds = torch.arange(count, device=edges.device)
        typed = ((relations[..., None] == kinds) & edges[..., None]).to(dtype)
        means = typed / typed.sum(dim=2, keepdim=True).clamp(min=1)
        return cls(edges.to(dtype), relations, means.flatten(2))


class RelationalConvolution(nn.Module):
    """c_i = X_i·W_root + b + Σ_r mean over neighbours j of relation r of X_j·W_r.

    Schlichtkrull et al., ESWC 2018, without basis decomposition or activation.
    """

    def __init__(self, inputs: int, outputs: int, relations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(relations, inputs, outputs))
        self.root = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = math.sqrt(6 / (inputs + outputs))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.root, -bound, bound)

    def forward(self, nodes: Tensor, packing: Packing, graph: Graph) -> Tensor:
        """Rows ``[N, inputs]`` to rows ``[N, outputs]``."""
        relations, inputs, outputs = self.weight.shape
        # Transformed before averaged: outputs are narrower than inputs.
        every_relation = self.weight.transpose(0, 1).reshape(inputs, relations * outputs)
        messages = packing.pad(nodes @ every_relation)
        batch, steps = packing.shape
        received = graph.means @ messages.reshape(batch, steps * relations, outputs)
        return torch.addmm(self.bias, nodes, self.root) + packing.pack(received)


class PlainConvolution(nn.Module):
    """c_i = W_nb·(Σ over neighbours j of X_j) + b_nb + W_own·X_i, self-loop in the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(width, width)
        self.own = nn.Linear(width, width, bias=False)

    def forward(self, nodes: Tensor, packing: Packing, graph: Graph) -> Tensor:
        """Rows ``[N, width]`` to rows ``[N, width]``."""
        received = packing.pack(graph.edges @ packing.pad(nodes))
        return self.neighbours(received) + self.own(nodes)


class DialogueAttention(nn.Module):
    """Attention over the dialogue with bounded scores: e_ts = tanh((W_q·O_t + b_q)·O_s)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)

    def forward(self, states: Tensor, packing: Packing, real: Tensor) -> Tensor:
        """Rows ``[N, width]`` to rows; every query sees the real positions of its dialogue."""
        keys = packing.pad(states)
        scores = torch.tanh(packing.pad(self.query(states)) @ keys.transpose(1, 2))
        weights = scores.masked_fill(~real[:, None, :], -torch.inf).softmax(dim=-1)
        return packing.pack(weights @ keys)


@dataclass(frozen=True)
class GraphStates:
    """What a graph network computes, as rows ``[N, …]``.

    Attributes:
        relational: c1, ``None`` without convolutions.
        plain: c2, ``None`` without convolutions.
        sequence: O, output of the recurrent stack, before any attention.
        hidden: G, ``[N, D_h]``.
    """

    relational: Tensor | None
    plain: Tensor | None
    sequence: Tensor
    hidden: Tensor


class GraphNetwork(nn.Module):
    """Convolutions on one graph, then a recurrent stack over the dialogue (section 3.3).

    Args:
        inputs: Width of the node features D1.
        width: Width of the convolutions Dg; 0 leaves them out.
        relations: Number of relations R.
        dropout: Between the two recurrent layers.
        attention: Whether the dialogue attention is used.
    """

    def __init__(self, inputs: int, width: int, relations: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.relational = RelationalConvolution(inputs, width, relations) if width else None
        self.plain = PlainConvolution(width) if width else None
        hidden = inputs + width
        self.sequence = nn.LSTM(hidden, hidden, num_layers=2, bidirectional=True, dropout=dropout)
        self.attention = DialogueAttention(2 * hidden) if attention else None
        self.projection = nn.Linear(2 * hidden, hidden)

    def forward(self, nodes: Tensor, packing: Packing, graph: Graph | None, real: Tensor) -> GraphStates:
        """Runs the network.

        Args:
            nodes: ``[N, D1]``.
            packing: Layout of the rows.
            graph: The graph; not needed without convolutions.
            real: ``[B, S]`` bool.
        """
        relational = plain = None
        fused = nodes
        if self.relational is not None and self.plain is not None:
            assert graph is not None
            relational = self.relational(nodes, packing, graph)
            plain = self.plain(relational, packing, graph)
            fused = torch.cat([nodes, plain], dim=-1)
        # Where the padding is computed at all (not packed), it enters the recurrent stack as zero.
        fused = torch.where(packing.pack(real)[:, None], fused, 0.0)
        sequence = states = packing.run(self.sequence, fused)
        if self.attention is not None:
            states = self.attention(states, packing, real)
        return GraphStates(relational, plain, sequence, torch.relu(self.projection(states)))
