"""Hidden states to utterance vectors and sequences: small pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ABSENT = -1  # group of a position that is not pooled


def combined_layers(last: Tensor, hidden: Sequence[Tensor] | None, rule: str) -> Tensor:
    """The encoder's output, or the mean or sum of its last hidden states.

    Args:
        last: ``[..., d]`` output.
        hidden: Hidden states of all layers, embeddings first; needed for ``meanK`` and ``sumK``.
        rule: ``"last"``, ``"meanK"`` or ``"sumK"``.

    Returns:
        ``[..., d]`` float32.

    Raises:
        ValueError: The encoder has fewer than K layers.
    """
    if rule == "last":
        return last.float()
    count = int(rule.removeprefix("mean").removeprefix("sum"))
    if hidden is None or count > len(hidden) - 1:
        raise ValueError(f"layers = {rule!r}, but the encoder has {len(hidden or ()) - 1} layers")
    stacked = torch.stack([layer.float() for layer in hidden[-count:]])
    return stacked.mean(dim=0) if rule.startswith("mean") else stacked.sum(dim=0)


def group_means(states: Tensor, groups: Tensor) -> Tensor:
    """Means of the positions of each group, in order of group number.

    Args:
        states: ``[L, d]``.
        groups: ``[L]`` int64; positions with ``ABSENT`` are left out, numbers 0..G-1 all occur.

    Returns:
        ``[G, d]``.
    """
    kept = groups != ABSENT
    states, groups = states[kept], groups[kept]
    if not len(groups):
        return states.new_zeros(0, states.shape[1])
    count = int(groups.max()) + 1
    # A matrix product instead of index_add: the same bits in every run, on CUDA as well.
    members = torch.nn.functional.one_hot(groups, count).to(states.dtype).T
    return (members @ states) / members.sum(dim=1, keepdim=True)


def normalised(vectors: Tensor) -> Tensor:
    """Vectors ``[..., d]`` of unit length; zero vectors stay zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def runs(length: int, stride: int) -> Tensor:
    """Groups ``[length]`` of ``stride`` neighbours each; the last one may be smaller."""
    return torch.arange(length) // stride
