"""The completion loss of GCNet (section 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(
    reconstruction: Tensor, targets: Tensor, missing: Tensor, scale: Tensor, total: int
) -> Tensor:
    """Squared error of the reconstructed absent modalities.

    (1/n) Σ over utterances Σ over their absent modalities k of ‖x̂_k − x_k‖² / D_k. Only counted
    entries are read: the others may hold anything.

    Args:
        reconstruction: x̂, ``[N, ΣD_k]``.
        targets: x, ``[N, ΣD_k]``, the true features of all modalities.
        missing: ``[N, ΣD_k]`` bool, True for the columns of modalities that count.
        scale: ``[ΣD_k]``, 1 / D_k in the columns of modality k.
        total: Number of real utterances n.
    """
    errors = torch.where(missing, reconstruction - targets, 0.0).square()
    return (errors * scale).sum() / total


def counted_by_release(real: Tensor) -> Tensor:
    """Positions that the released code's reconstruction counts.

    It flattens the padding mask ``[B, S]`` row by row and reads it as if it were ``[S, B]``, so
    that with unequal lengths padding is counted and real utterances are not.

    Args:
        real: ``[B, S]`` bool.

    Returns:
        ``[B, S]`` bool.
    """
    batch, steps = real.shape
    return real.reshape(steps, batch).T
