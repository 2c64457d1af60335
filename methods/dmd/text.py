"""Text features from token ids, by a language model that is frozen or trained along."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def trainable_copy(encoder: nn.Module) -> nn.Module:
    """A copy of a frozen encoder that is trained with the method."""
    ours = copy.deepcopy(encoder)
    if getattr(ours, "pooler", None) is not None:
        ours.pooler = None  # type: ignore[assignment]  # Its output is not used: nothing would train it.
    return ours.requires_grad_(True)


def encode(encoder: nn.Module, tokens: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
    """Last hidden states ``[B, L, D]`` of all positions.

    Args:
        encoder: An encoder of the transformers library.
        tokens: ``[B, L]`` int64 token ids.
        mask: ``[B, L]`` bool, True for real tokens; at least one per row.
        segments: ``[B, L]`` int64 segment ids, where the model has them.
    """
    given = {} if segments is None else {"token_type_ids": segments}
    return encoder(input_ids=tokens, attention_mask=mask.long(), **given).last_hidden_state


class FrozenText:
    """A frozen encoder that remembers what it has encoded.

    It is no module, so that neither the optimiser nor a checkpoint sees the encoder. An utterance
    costs one forward pass per run, whatever the number of epochs.

    Args:
        encoder: The encoder, in evaluation mode.
        limit_bytes: Size of the memory; utterances beyond it are encoded anew each time.
    """

    def __init__(self, encoder: nn.Module, limit_bytes: int = 2**31) -> None:
        self._encoder = encoder
        self._room = limit_bytes
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states ``[B, L, D]``; arguments as in ``encode``."""
        # Padding ids can't matter to the encoder, but its output there can: they are part of the key.
        packed = torch.where(mask, tokens, -1 - tokens).cpu().numpy()
        keys = [row.tobytes() for row in packed]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        fresh: dict[bytes, Tensor] = {}
        if new:
            rows = torch.tensor(list(new.values()), device=tokens.device)
            fresh = dict(zip(new, encode(self._encoder, tokens[rows], mask[rows]), strict=True))
            for key, states in fresh.items():
                if (size := states.numel() * states.element_size()) <= self._room:
                    self._known[key] = states.clone()
                    self._room -= size
        return torch.stack([self._known[key] if key in self._known else fresh[key] for key in keys])
