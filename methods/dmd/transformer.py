"""The pre-norm transformer block of the multimodal transformer, for self- and cross-attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sinusoidal_table(rows: int, width: int) -> Tensor:
    """Position table ``[rows, width]``: sines, then cosines; row 0 (padding) is zero.

    Args:
        rows: Number of positions, position 0 included.
        width: Width e, at least 4; an odd one ends with a column of zeros.

    Raises:
        ValueError: ``width`` is below 4.
    """
    half = width // 2
    if half < 2:
        raise ValueError(f"positions need a width of at least 4, not {width}")
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
    angles = torch.arange(rows, dtype=torch.float32)[:, None] * rates
    table = torch.zeros(rows, width)
    table[1:, : 2 * half] = torch.cat([angles.sin(), angles.cos()], dim=1)[1:]
    return table


class EncoderLayer(nn.Module):
    """One layer: attention to a source, then a feed-forward part, both behind a layer norm.

    Args:
        width: Width e of query and source.
        heads: Attention heads; must divide the width.
        attn_dropout: Dropout of attention weights.
        relu_dropout: Dropout inside the feed-forward part.
        res_dropout: Dropout of both residual branches.
    """

    def __init__(
        self, width: int, heads: int, attn_dropout: float, relu_dropout: float, res_dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attn_dropout = attn_dropout
        self.packed = nn.Linear(width, 3 * width)  # query, key, value
        self.output = nn.Linear(width, width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.relu_dropout = nn.Dropout(relu_dropout)
        self.res_dropout = nn.Dropout(res_dropout)
        for linear in (self.packed, self.output, self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, key: Tensor | None, value: Tensor | None, mask: Tensor | None) -> Tensor:
        """Updates ``x [B, T_q, e]`` from a source ``[B, T_k, e]``, or from itself without one."""
        normed = self.attention_norm(x)
        if key is None or value is None:
            queries, keys, values = self.packed(normed).chunk(3, dim=-1)
        else:
            weights, biases = self.packed.weight.chunk(3), self.packed.bias.chunk(3)
            queries = functional.linear(normed, weights[0], biases[0])
            keys = functional.linear(self.attention_norm(key), weights[1], biases[1])
            values = functional.linear(self.attention_norm(value), weights[2], biases[2])
        attended = functional.scaled_dot_product_attention(
            self._split(queries),
            self._split(keys),
            self._split(values),
            attn_mask=mask,
            dropout_p=self.attn_dropout if self.training else 0.0,
        )
        x = x + self.res_dropout(self.output(attended.transpose(1, 2).flatten(2)))
        inner = self.relu_dropout(functional.relu(self.inner(self.feed_forward_norm(x))))
        return x + self.res_dropout(self.outer(inner))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """A stack of layers over an embedded query and an embedded source (spec section 5).

    Keys and values are the embedded source in every layer, with dropout masks of their own.

    Args:
        width: Width e.
        heads: Attention heads.
        layers: Number of layers.
        longest: Longest sequence.
        attn_dropout: Dropout of attention weights.
        relu_dropout: Dropout inside the feed-forward parts.
        res_dropout: Dropout of residual branches.
        embed_dropout: Dropout of embedded inputs.
        causal: Whether step i sees source steps up to i + |T_k - T_q| only.
    """

    positions: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        longest: int,
        attn_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        res_dropout: float = 0.0,
        embed_dropout: float = 0.0,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.scale = math.sqrt(width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, attn_dropout, relu_dropout, res_dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.embed_dropout = nn.Dropout(embed_dropout)
        self.register_buffer("positions", sinusoidal_table(longest + 1, width), persistent=False)

    def forward(
        self,
        query: Tensor,
        source: Tensor | None = None,
        query_valid: Tensor | None = None,
        source_valid: Tensor | None = None,
    ) -> Tensor:
        """Encodes ``query [B, T_q, e]`` with ``source [B, T_k, e]`` (itself if ``None``).

        Args:
            query: Query sequence.
            source: Source sequence.
            query_valid: ``[B, T_q]`` bool, False where position 0 (padding) is meant; without it,
                padding is where channel 0 is exactly zero.
            source_valid: The same for the source.
        """
        x = self.embed_dropout(self._embed(query, query_valid))
        key = value = None
        if source is not None:
            embedded = self._embed(source, source_valid)
            key, value = self.embed_dropout(embedded), self.embed_dropout(embedded)
        mask = self._mask(query.shape[1], (query if source is None else source).shape[1], query.device)
        for layer in self.layers:
            x = layer(x, key, value, mask)
        return self.norm(x)

    def _embed(self, x: Tensor, valid: Tensor | None) -> Tensor:
        valid = x[..., 0] != 0 if valid is None else valid
        rows = self.positions[1 : x.shape[1] + 1]
        return self.scale * x + torch.where(valid[..., None], rows, 0.0)

    def _mask(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        if not self.causal:
            return None
        whole = torch.ones(queries, keys, dtype=torch.bool, device=device)
        return whole.tril(abs(keys - queries))
