"""The pre-norm transformer of the multimodal transformer, for self- and cross-attention.

DMD has a dozen small encoders, one per modality or pair of them. Those of one shape run as one: their
weights are stacked and every layer is a batched product over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

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

    Holds the weights; ``encode`` runs the layers of several encoders at once.

    Args:
        width: Width e of query and source.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.packed = nn.Linear(width, 3 * width)  # query, key, value
        self.output = nn.Linear(width, width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        for linear in (self.packed, self.output, self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)


@dataclass(frozen=True)
class Dropouts:
    """Dropout rates of an encoder.

    Attributes:
        attention: Of attention weights.
        relu: Inside the feed-forward parts.
        residual: Of both residual branches.
        embedding: Of embedded inputs.
    """

    attention: float = 0.0
    relu: float = 0.0
    residual: float = 0.0
    embedding: float = 0.0


class Encoder(nn.Module):
    """A stack of layers over an embedded query and an embedded source (spec section 5).

    Keys and values are the embedded source in every layer, with dropout masks of their own.

    Args:
        width: Width e.
        heads: Attention heads; must divide the width.
        layers: Number of layers.
        longest: Longest sequence.
        dropouts: Dropout rates.
        causal: Whether step i sees source steps up to i + |T_k - T_q| only.
    """

    positions: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        longest: int,
        dropouts: Dropouts | None = None,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.dropouts = dropouts or Dropouts()
        self.causal = causal
        self.layers = nn.ModuleList(EncoderLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", sinusoidal_table(longest + 1, width), persistent=False)

    def forward(
        self,
        query: Tensor,
        source: Tensor | None = None,
        query_valid: Tensor | None = None,
        source_valid: Tensor | None = None,
    ) -> Tensor:
        """Encodes one query alone; arguments as in ``Reading``."""
        return encode([Reading(self, query, source, query_valid, source_valid)])[0]


@dataclass(frozen=True)
class Reading:
    """What one encoder reads.

    Attributes:
        encoder: The encoder.
        query: ``[B, T_q, e]``.
        source: ``[B, T_k, e]``; ``None``: the query itself.
        query_valid: ``[B, T_q]`` bool, False where position 0 (padding) is meant; without it,
            padding is where channel 0 is exactly zero.
        source_valid: The same for the source.
    """

    encoder: Encoder
    query: Tensor
    source: Tensor | None = None
    query_valid: Tensor | None = None
    source_valid: Tensor | None = None

    @property
    def shape(self) -> tuple[object, ...]:
        """What readings must agree in to run as one; those of one attention dropout are neighbours."""
        encoder, source = self.encoder, self.source
        rest = (encoder.dropouts.relu, encoder.dropouts.residual, encoder.dropouts.embedding)
        lengths = (self.query.shape[1], -1 if source is None else source.shape[1])
        return (
            encoder.width,
            encoder.heads,
            len(encoder.layers),
            encoder.causal,
            encoder.training,
            lengths,
            rest,
        )


def encode(readings: Sequence[Reading], last: bool = False) -> list[Tensor]:
    """Runs encoders, those of one shape together.

    Args:
        readings: What each encoder reads.
        last: Whether only the last step is wanted, which spares the last layer all others.

    Returns:
        ``[B, T_q, e]`` for every reading; ``[B, 1, e]`` of the last step.
    """
    found: dict[int, Tensor] = {}
    order = sorted(
        range(len(readings)), key=lambda i: (readings[i].shape, readings[i].encoder.dropouts.attention)
    )
    for _, alike in groupby(order, key=lambda i: readings[i].shape):
        places = list(alike)
        found.update(zip(places, _encode([readings[i] for i in places], last), strict=True))
    return [found[i] for i in range(len(readings))]


def _encode(readings: list[Reading], last: bool) -> Tensor:
    """``[N, B, T_q, e]`` of N readings of one shape."""
    first = readings[0].encoder
    training, drop = first.training, first.dropouts
    x = _embed([(r.encoder, r.query, r.query_valid) for r in readings])
    x = functional.dropout(x, drop.embedding, training)
    key = value = None
    keys = x.shape[2]
    if readings[0].source is not None:
        embedded = _embed([(r.encoder, r.source, r.source_valid) for r in readings if r.source is not None])
        key = _normed(functional.dropout(embedded, drop.embedding, training))
        value = _normed(functional.dropout(embedded, drop.embedding, training)) if training else key
        keys = key.shape[2]
    mask = _mask(x.shape[2], keys, first.causal, x)
    rates = [r.encoder.dropouts.attention if training else 0.0 for r in readings]
    for number in range(len(first.layers)):
        layers = [r.encoder.layers[number] for r in readings]
        final = last and number == len(first.layers) - 1
        normed = _normed(x)
        if final:
            x, mask = x[:, :, -1:], None  # the last step sees everything
        packed, biases = _behind_norm(layers, "attention_norm", "packed")
        attended = _attention(
            _affine(normed[:, :, -1:] if final else normed, *_third(packed, biases, 0)),
            _affine(normed if key is None else key, *_third(packed, biases, 1)),
            _affine(normed if value is None else value, *_third(packed, biases, 2)),
            first.heads,
            rates,
            mask,
        )
        output = _stacked(layers, "output")
        x = x + functional.dropout(_affine(attended, *output), drop.residual, training)
        inner = functional.relu(_affine(_normed(x), *_behind_norm(layers, "feed_forward_norm", "inner")))
        inner = functional.dropout(inner, drop.relu, training)
        x = x + functional.dropout(_affine(inner, *_stacked(layers, "outer")), drop.residual, training)
    gain, shift = _stacked([r.encoder for r in readings], "norm")
    return torch.addcmul(shift[:, None, None], _normed(x), gain[:, None, None])


def _embed(inputs: Sequence[tuple[Encoder, Tensor, Tensor | None]]) -> Tensor:
    """Scaled inputs with their positions, ``[N, B, T, e]``."""
    x = torch.stack([values for _, values, _ in inputs])
    valid = torch.stack([values[..., 0] != 0 if known is None else known for _, values, known in inputs])
    encoder = inputs[0][0]
    rows = encoder.positions[1 : x.shape[2] + 1]
    return math.sqrt(encoder.width) * x + torch.where(valid[..., None], rows, 0.0)


def _mask(queries: int, keys: int, causal: bool, like: Tensor) -> Tensor | None:
    """``[T_q, T_k]`` what is added to scores; ``None`` where every step sees everything."""
    reach = abs(keys - queries)
    if not causal or reach >= keys - 1:
        return None
    hidden = like.new_full((queries, keys), -torch.inf)
    return hidden.triu(reach + 1)


def _stacked(modules: Sequence[nn.Module], name: str) -> tuple[Tensor, Tensor]:
    """Weights and biases of a part of every module."""
    parts = [module.get_submodule(name) for module in modules]
    return torch.stack([p.weight for p in parts]), torch.stack([p.bias for p in parts])  # type: ignore[arg-type]


def _behind_norm(layers: Sequence[nn.Module], norm: str, linear: str) -> tuple[Tensor, Tensor]:
    """A linear map that has taken up the gain and shift of the layer norm before it."""
    gain, shift = _stacked(layers, norm)
    weight, bias = _stacked(layers, linear)
    return weight * gain[:, None], bias + (weight @ shift[..., None]).squeeze(-1)


def _third(weight: Tensor, bias: Tensor, index: int) -> tuple[Tensor, Tensor]:
    return weight.chunk(3, dim=1)[index], bias.chunk(3, dim=1)[index]


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``[N, B, T, in]`` through N maps ``[N, out, in]``: ``[N, B, T, out]``."""
    rows = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.mT)
    return rows.unflatten(1, x.shape[1:3])


def _normed(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def _attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, rates: Sequence[float], mask: Tensor | None
) -> Tensor:
    """Multi-head attention ``[N, B, T_q, e]`` with a dropout rate for each of the N."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(2, 3).flatten(0, 1)

    queries, keys, values = split(query), split(key), split(value)
    if not any(rates):
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return _joined(mixed, query)
    scale = 1 / math.sqrt(queries.shape[-1])
    left, right = queries.flatten(0, 1), keys.flatten(0, 1).mT
    scores = scale * (left @ right) if mask is None else torch.baddbmm(mask, left, right, alpha=scale)
    weights = scores.softmax(dim=-1)
    runs = [(rate, len(list(alike))) for rate, alike in groupby(rates)]
    parts = weights.split([many * len(weights) // len(rates) for _, many in runs])
    dropped = [functional.dropout(part, rate) for part, (rate, _) in zip(parts, runs, strict=True)]
    mixed = (torch.cat(dropped) @ values.flatten(0, 1)).unflatten(0, queries.shape[:2])
    return _joined(mixed, query)


def _joined(heads: Tensor, query: Tensor) -> Tensor:
    """``[N B, h, T, d]`` to ``[N, B, T, e]``, the shape of the query."""
    return heads.transpose(1, 2).reshape(query.shape)
