"""One cross-modal block: an anchor stream asks a source stream (spec sections 3.1 and 3.2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def position_table(rows: int, width: int) -> Tensor:
    """Sinusoidal table ``[rows, width]``: sines in even, cosines in odd columns, from position 0."""
    columns = torch.arange(0, width, 2, dtype=torch.float32)
    angles = torch.arange(rows, dtype=torch.float32)[:, None] * torch.exp(
        columns * -(math.log(10000.0) / width)
    )
    table = torch.zeros(rows, width)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table


class Attention(nn.Module):
    """Multi-head attention with biases.

    Args:
        width: Width H.
        heads: Number of heads.
        dropout: Dropout of attention weights.
        form: ``"masked"`` or ``"published"`` (see ``MAGTKDParameters.attention``).
    """

    def __init__(self, width: int, heads: int, dropout: float, form: Literal["masked", "published"]) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.form = form
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, anchor: Tensor, source: Tensor, keys: Tensor) -> Tensor:
        """What the anchor learns from the source; zero in dialogues without any key.

        Args:
            anchor: ``[B, T, H]`` queries.
            source: ``[B, T, H]`` keys and values.
            keys: ``[B, T]`` bool, positions of the source that count.
        """
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.query, anchor), (self.key, source), (self.value, source))
        )
        rate = self.dropout if self.training else 0.0
        if self.form == "published":
            scores = (query @ key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
            leaked = torch.where(keys[:, None, None, :], 0.0, functional.relu(scores))
            mixed = functional.dropout(torch.softmax(leaked, dim=-1), rate) @ value
        else:
            some = keys.any(dim=1, keepdim=True)
            mask = (keys | ~some)[:, None, None, :]
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        if self.form == "published":
            return mixed
        return torch.where(keys.any(dim=1)[:, None, None], mixed, 0.0)


class Block(nn.Module):
    """Attention with a residual on the anchor, then a feed-forward part behind a layer norm.

    Args:
        width: Width H.
        heads: Number of heads.
        inner: Inner width of the feed-forward part.
        dropout: Dropout rate.
        form: Form of the attention.
    """

    def __init__(
        self, width: int, heads: int, inner: int, dropout: float, form: Literal["masked", "published"]
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout, form)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, anchor: Tensor, source: Tensor, keys: Tensor, same: bool) -> Tensor:
        """Runs the block.

        Args:
            anchor: ``[B, T, H]``, position and speaker added; also the residual.
            source: ``[B, T, H]``, likewise.
            keys: ``[B, T]`` bool, positions of the source that count.
            same: Whether source and anchor are one stream: its embedding is then not dropped out.
        """
        if not same:
            anchor, source = self.dropout(anchor), self.dropout(source)
        x = anchor + self.dropout(self.attention(anchor, source, keys))
        inner = self.dropout(functional.gelu(self.inner(self.norm(x))))
        return x + self.dropout(self.outer(inner))


class Gate(nn.Module):
    """Element-wise gate (spec section 3.3).

    Args:
        width: Width H.
        floor: Whether a ReLU before the sigmoid keeps the factor at 0.5 or more, as released.
    """

    def __init__(self, width: int, floor: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """The factor on ``x``, in its shape, between 0 (0.5) and 1."""
        raw = self.linear(x)
        return torch.sigmoid(functional.relu(raw) if self.floor else raw)
