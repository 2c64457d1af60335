"""Random numbers of stacked networks: each run draws its own, as it would alone.

Inside ``torch.vmap`` one draw would serve all runs, and its numbers would depend on which runs are
together. Here dropout and normal or uniform noise are drawn from a generator per run. Everything else
that is random raises an error there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Fill = Callable[[Tensor, torch.Generator], Tensor]


class OwnDraws(TorchFunctionMode):
    """While entered inside ``vmap``, every run of a stack draws from its own generator.

    Args:
        generators: One per run.
        run: Position of the run that is computed: under ``vmap``, all of them.
    """

    def __init__(self, generators: Sequence[torch.Generator], run: Tensor) -> None:
        super().__init__()
        self._generators = generators
        self._run = run

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in _DROPOUTS:
            return self._dropout(*args, **options)
        if func is functional.scaled_dot_product_attention and _rate(args, options) > 0:
            return self._attention(*args, **options)
        if func in _NOISE and options.get("generator") is None:
            like = args[0] if isinstance(args[0], Tensor) else _empty(args, options)
            return self._draw(like, _NOISE[func])
        return func(*args, **options)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return input
        if p == 1.0:
            return input * 0.0
        kept = self._draw(input, lambda like, source: _kept(like, 1 - p, source))
        # The order of torch's own dropout on a CPU.
        dropped = input * kept * (1 / (1 - p))
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
            scores = (
                scores.masked_fill(~attn_mask, -math.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value

    def _draw(self, like: Tensor, fill: _Fill) -> Tensor:
        return _Draw.apply(like, self._run, fill, self._generators)  # type: ignore[no-any-return]


class _Draw(torch.autograd.Function):
    """A draw for every run of a stack, each from its own generator."""

    @staticmethod
    def forward(like: Tensor, run: Tensor, fill: _Fill, generators: Sequence[torch.Generator]) -> Tensor:
        return fill(like, generators[int(run)])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        like, _, fill, generators = args
        dim = in_dims[0]
        own = [like] * info.batch_size if dim is None else like.detach().unbind(dim)
        return torch.stack([fill(one, source) for one, source in zip(own, generators, strict=True)]), 0


def _kept(like: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like, dtype=torch.bool).bernoulli_(share, generator=generator)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).uniform_(generator=generator)


def _empty(size: tuple[Any, ...], options: Mapping[str, Any]) -> Tensor:
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return torch.empty(shape, dtype=options.get("dtype"), device=options.get("device"))


def _rate(args: tuple[Any, ...], options: Mapping[str, Any]) -> float:
    return float(args[4] if len(args) > 4 else options.get("dropout_p", 0.0))


_DROPOUTS = (functional.dropout, torch.dropout)
_NOISE: Mapping[Any, _Fill] = {
    torch.randn: _normal,
    torch.randn_like: _normal,
    torch.rand: _uniform,
    torch.rand_like: _uniform,
}
