"""Adapters, pseudo-labels and fusion (sections 2.1, 2.2 and 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoded:
    """A batch after the encoder; L = M levels, one per modality, in mask order.

    Attributes:
        features: ``[M, B, D]`` z, zero where absent.
        log_p: ``[M, B, C]`` log pseudo-labels; finite but meaningless where absent.
        available: ``[M, B]`` bool.
        fused: ``[B, D]`` u.
        fused_p: ``[B, C]`` fused pseudo-label, a distribution; zero where nothing is available.
    """

    features: Tensor
    log_p: Tensor
    available: Tensor
    fused: Tensor
    fused_p: Tensor

    @property
    def valid(self) -> Tensor:
        """``[B]`` bool, whether any modality is there at all."""
        return self.available.any(dim=0)

    @property
    def incomplete(self) -> Tensor:
        """``[B]`` bool, whether any modality is absent (delta of section 4.4)."""
        return ~self.available.all(dim=0)


class ModalityEncoder(nn.Module):
    """One two-layer adapter and one linear pseudo-label classifier per modality (section 2.1).

    Args:
        dims: Feature width of each modality, in mask order.
        shared_dim: Shared width D.
        classes: Number of classes C.
        temperature: tau_p of the pseudo-labels.
        dropout: Dropout between the layers of an adapter.
    """

    def __init__(
        self, dims: Mapping[str, int], shared_dim: int, classes: int, temperature: float, dropout: float
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.adapters = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(dim, shared_dim),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(shared_dim, shared_dim),
                )
                for name, dim in dims.items()
            }
        )
        self.classifiers = nn.ModuleDict({name: nn.Linear(shared_dim, classes) for name in dims})

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes the modalities.

        Args:
            features: Per modality ``[B, d_m]``; whatever stands at absent entries is ignored.
            available: ``[M, B]`` bool.

        Returns:
            z ``[M, B, D]`` and log p ``[M, B, C]``.
        """
        encoded, log_p = [], []
        for (name, adapter), there in zip(self.adapters.items(), available, strict=True):
            # Selected, not multiplied: an absent entry may hold anything, NaN included.
            z = adapter(torch.where(there[:, None], features[name], 0.0))
            z = torch.where(there[:, None], z, 0.0)
            encoded.append(z)
            log_p.append(torch.log_softmax(self.classifiers[name](z) / self.temperature, dim=-1))
        return torch.stack(encoded), torch.stack(log_p)


def fusion_weights(available: Tensor, smoothing: float) -> Tensor:
    """Alpha of section 2.2 at the available modalities, zero elsewhere.

    Args:
        available: ``[M, B]`` bool.
        smoothing: lambda.

    Returns:
        ``[M, B]``; the sum over modalities is below 1 for incomplete samples, as documented.
    """
    count = available.sum(dim=0)
    weight = (1.0 + smoothing) / (count + smoothing * available.shape[0]).clamp(min=1e-8)
    return available * weight


def fuse(features: Tensor, available: Tensor, smoothing: float) -> Tensor:
    """Fusion u ``[B, D]`` of z ``[M, B, D]`` over the available modalities (section 2.2)."""
    return torch.einsum("mb,mbd->bd", fusion_weights(available, smoothing), features)


def fused_pseudo_labels(log_p: Tensor, available: Tensor, how: Literal["mean", "first"]) -> Tensor:
    """Fused pseudo-label p^f ``[B, C]`` (section 2.5).

    Args:
        log_p: ``[M, B, C]``.
        available: ``[M, B]`` bool.
        how: ``"mean"`` over the available modalities, or the ``"first"`` available in mask order.
    """
    if how == "first":
        there = available.to(torch.int8)
        weight = (available & (there.cumsum(dim=0) == 1)).to(log_p.dtype)
    else:
        weight = available / available.sum(dim=0).clamp(min=1)
    return torch.einsum("mb,mbc->bc", weight, log_p.exp())


def entropy(p: Tensor) -> Tensor:
    """H = -sum_c p_c log(p_c + 1e-8) over the last axis (section 3.2)."""
    return -(p * torch.log(p + 1e-8)).sum(dim=-1)
