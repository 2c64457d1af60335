"""Random numbers of stacked networks: each run draws its own, as it would alone.

Inside ``torch.vmap`` one draw would serve all runs, and its numbers would depend on which runs are
together. Here dropout and normal or uniform noise are drawn from a generator per run. Everything else
that is random raises an error there.

What a network draws is the same in every call with the same shapes. The first call notes it (slow, as it
draws in the middle of ``vmap``), later ones are given it beforehand, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Kind = Literal["kept", "normal", "uniform"]


@dataclass(frozen=True)
class Draw:
    """One draw of every run.

    Attributes:
        kind: ``"kept"`` (bool, True with a probability), ``"normal"`` or ``"uniform"``.
        share: Probability of True.
        size: Shape of a run's numbers.
        stride: How they lie in memory, which is the order in which they are drawn.
        dtype: Their type.
        device: Where they are.
    """

    kind: Kind
    share: float
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def like(cls, tensor: Tensor, kind: Kind, share: float) -> Draw:
        """A draw for every element of a tensor."""
        numbers = torch.empty_like(tensor, dtype=torch.bool if kind == "kept" else None)
        return cls(kind, share, tuple(numbers.shape), numbers.stride(), numbers.dtype, numbers.device)

    def of(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The numbers of all runs ``[K, ...]``."""
        shape, step = (len(generators), *self.size), math.prod(self.size)
        numbers = torch.empty_strided(shape, (step, *self.stride), dtype=self.dtype, device=self.device)
        for own, generator in zip(numbers.unbind(), generators, strict=True):
            if self.kind == "kept":
                own.bernoulli_(self.share, generator=generator)
            elif self.kind == "normal":
                own.normal_(generator=generator)
            else:
                own.uniform_(generator=generator)
        return numbers


class DrawsChanged(Exception):
    """A network drew something else than in the call before."""


@dataclass(eq=False)
class _Now:
    """Where to draw from, and where to note it; ``vmap`` would take lists apart."""

    generators: Sequence[torch.Generator]
    noted: list[Draw]


class OwnDraws(TorchFunctionMode):
    """While entered inside ``vmap``, every run of a stack draws from its own generator.

    Args:
        generators: One per run.
        run: Position of the run that is computed: under ``vmap``, all of them.
        noted: Takes what is drawn, if nothing was drawn beforehand.
        drawn: What was drawn beforehand, as noted by an earlier call.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        run: Tensor,
        noted: list[Draw],
        drawn: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._run = run
        self._now = _Now(generators, noted)
        self._drawn: Iterator[tuple[Draw, Tensor]] | None = None
        if drawn is not None:
            self._drawn = iter(zip(noted, drawn, strict=True))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _RANDOM:
            return func(*args, **(kwargs or {}))
        options = dict(kwargs or {})
        if func in _DROPOUTS:
            return self._dropout(*args, **options)
        if func is functional.scaled_dot_product_attention:
            rate = args[4] if len(args) > 4 else options.get("dropout_p", 0.0)
            return self._attention(*args, **options) if rate > 0 else func(*args, **options)
        if options.get("generator") is not None:
            return func(*args, **options)
        like = args[0] if isinstance(args[0], Tensor) else _empty(args, options)
        return self._draw(like, _NOISE[func])

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return input
        if p == 1.0:
            return input * 0.0
        # The order of torch's own dropout on a CPU.
        dropped = input * self._draw(input, "kept", 1 - p) * (1 / (1 - p))
        return input.copy_(dropped) if inplace else dropped

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Attention with dropout on its weights, which fused kernels would draw for themselves."""
        if is_causal:
            raise NotImplementedError("causal attention with dropout in stacked runs")
        scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
        if attn_mask is not None:
            chosen = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if chosen else scores + attn_mask
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value

    def _draw(self, like: Tensor, kind: Kind, share: float = 0.0) -> Tensor:
        if self._drawn is None:
            return _DrawNow.apply(like, self._run, kind, share, self._now)  # type: ignore[no-any-return]
        draw, numbers = next(self._drawn, (None, None))
        if draw is None or numbers is None or (draw.kind, draw.share, draw.size) != (kind, share, like.shape):
            raise DrawsChanged(f"{kind} {tuple(like.shape)} is drawn, where it was {draw} before")
        return numbers


class _DrawNow(torch.autograd.Function):
    """A draw for every run of a stack in the middle of ``vmap``; it is noted."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        raise NotImplementedError("draws of stacked runs need vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None,) * 5

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        like, _, kind, share, now = args
        dim = in_dims[0]
        draw = Draw.like(like if dim is None else like.detach().select(dim, 0), kind, share)
        now.noted.append(draw)
        return draw.of(now.generators), 0


def _empty(size: tuple[Any, ...], options: Mapping[str, Any]) -> Tensor:
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return torch.empty(shape, dtype=options.get("dtype"), device=options.get("device"))


_DROPOUTS = frozenset({functional.dropout, torch.dropout})
_NOISE: Mapping[Any, Literal["normal", "uniform"]] = {
    torch.randn: "normal",
    torch.randn_like: "normal",
    torch.rand: "uniform",
    torch.rand_like: "uniform",
}
_RANDOM = _DROPOUTS | {functional.scaled_dot_product_attention, *_NOISE}
