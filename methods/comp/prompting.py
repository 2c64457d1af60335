"""Prototypes and prompts: how one modality speaks to another (section 3.4 of the specification)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._blocks import MLP

NORM_EPSILON = 1e-8
QUIRK = -1e4


@dataclass(frozen=True)
class PromptRule:
    """How prompts are read; the switches of the same names.

    Attributes:
        pooled: Whether all dialogues of the batch share their prototypes.
        zero_readout: Whether an utterance without the modality reads none.
        mask_quirk: Whether similarities are rounded as in the released code.
    """

    pooled: bool
    zero_readout: bool
    mask_quirk: bool


class PrototypeGenerator(MLP):
    """A = MLP(Zᵀ)ᵀ along the sequence: S utterances to c prototypes.

    Args:
        length: S.
        count: c.
        dropout: Dropout.
    """

    def __init__(self, length: int, count: int, dropout: float) -> None:
        super().__init__(length, count, count, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, D]`` to ``[B, c, D]``."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PromptBlock(nn.Module):
    """Prompt of an utterance: MLP(readout of the prototypes) + Linear(features).

    Args:
        width: D.
        prompt: p.
        dropout: Dropout.
        reads: Whether there are prototypes to read.
    """

    def __init__(self, width: int, prompt: int, dropout: float, reads: bool) -> None:
        super().__init__()
        self.describe = MLP(width, prompt, prompt, dropout) if reads else None
        self.direct = nn.Linear(width, prompt)

    def forward(self, x: Tensor, prototypes: Tensor | None, valid: Tensor, rule: PromptRule) -> Tensor:
        """Prompts of one modality.

        Args:
            x: ``[B, S, D]`` features.
            prototypes: ``[B, c, D]``, if there are any.
            valid: ``[B, S]`` bool, utterances that have the modality.
            rule: How prototypes are read.

        Returns:
            ``[B, S, p]``.
        """
        prompt = self.direct(x)
        if self.describe is None or prototypes is None:
            return prompt
        return self.describe(readout(x, prototypes, valid, rule)) + prompt


def readout(x: Tensor, prototypes: Tensor, valid: Tensor, rule: PromptRule) -> Tensor:
    """Prototypes weighed by the softmax of their cosine similarity with each utterance.

    Args:
        x: ``[B, S, D]`` features.
        prototypes: ``[B, c, D]``.
        valid: ``[B, S]`` bool.
        rule: How prototypes are read.

    Returns:
        ``[B, S, D]``.
    """
    shape = x.shape
    known = prototypes
    if rule.pooled:
        x, known = x.flatten(0, 1)[None], prototypes.flatten(0, 1)[None]
    similarity = functional.normalize(x, dim=-1, eps=NORM_EPSILON) @ functional.normalize(
        known, dim=-1, eps=NORM_EPSILON
    ).transpose(1, 2)
    if rule.mask_quirk:
        # Constant along the softmax, so that only rounding is left of it, and in the wrong order:
        # flattened time-major for rows that are batch-major.
        rows = valid.transpose(0, 1).reshape(similarity.shape[0], -1, 1)
        similarity = similarity + torch.where(rows, 0.0, QUIRK)
    read = (similarity.softmax(dim=-1) @ known).view(shape)
    return torch.where(valid[..., None], read, 0.0) if rule.zero_readout else read
