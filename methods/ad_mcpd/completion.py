"""Completion of incomplete samples (section 4.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...harness.language_models import LanguageModel


class PromptCompletion(nn.Module):
    """zhat: state of [CLS] after the frozen language model has read a sample and the prototypes.

    Args:
        language_model: The frozen encoder; not registered, so never saved.
        shared_dim: Shared width D.
        cls_token: [CLS] learned, or a constant zero.
        absent: Absent modalities masked in their slots, or moved behind the sequence.
        input_map: Linear map D to d_L, or none.
    """

    cls: Tensor

    def __init__(
        self,
        language_model: LanguageModel,
        shared_dim: int,
        cls_token: Literal["learned", "zero"] = "learned",
        absent: Literal["masked", "dropped"] = "masked",
        input_map: Literal["linear", "identity"] = "linear",
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.absent = absent
        if cls_token == "learned":
            self.cls = nn.Parameter(torch.randn(shared_dim))
        else:
            self.register_buffer("cls", torch.zeros(shared_dim), persistent=False)
        self.placeholder = nn.Parameter(torch.randn(1, shared_dim))
        width = language_model.width
        self.to_language = nn.Linear(shared_dim, width) if input_map == "linear" else nn.Identity()
        self.to_shared = nn.Linear(width, shared_dim)

    def sequence(self, features: Tensor, available: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS], the modalities, [H_miss] and the prototypes of every sample.

        Args:
            features: ``[M, B, D]`` z.
            available: ``[M, B]`` bool.
            prototypes: ``[C, D]``.

        Returns:
            ``[B, 1 + M + 1 + C, D]`` and the mask of what counts ``[B, 1 + M + 1 + C]``.
        """
        size = features.shape[1]

        def every(rows: Tensor) -> Tensor:
            return rows.expand(size, *rows.shape)

        tokens = torch.cat(
            [every(self.cls[None]), features.transpose(0, 1), every(self.placeholder), every(prototypes)],
            dim=1,
        )
        there = available.T
        always = torch.ones_like(there[:, :1])
        mask = torch.cat([always, there, always, always.expand(-1, len(prototypes))], dim=1)
        if self.absent == "dropped":
            order = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)
            tokens = tokens.gather(1, order[..., None].expand_as(tokens))
            mask = mask.gather(1, order)
        return tokens, mask

    def forward(self, features: Tensor, available: Tensor, prototypes: Tensor) -> Tensor:
        """Zhat ``[B, D]`` for z ``[M, B, D]`` under ``available`` ``[M, B]``."""
        tokens, mask = self.sequence(features, available, prototypes)
        states = self.language_model.encode_embeddings(self.to_language(tokens), mask)
        return self.to_shared(states[:, 0])


class PatternCompletion(nn.Module):
    """Ablation: zhat is one learned constant per availability pattern, no language model."""

    def __init__(self, modalities: int, shared_dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(2**modalities, shared_dim)

    def forward(self, features: Tensor, available: Tensor, prototypes: Tensor) -> Tensor:
        """Zhat ``[B, D]``; only ``available`` ``[M, B]`` matters."""
        place = 2 ** torch.arange(len(available), device=available.device)
        return self.table((available * place[:, None]).sum(dim=0))


class NoCompletion(nn.Module):
    """Ablation: zhat = 0."""

    def forward(self, features: Tensor, available: Tensor, prototypes: Tensor) -> Tensor:
        """Zeros ``[B, D]``."""
        return torch.zeros_like(features[0])
