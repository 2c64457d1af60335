"""Class prototypes per level: M modalities, then the fused level (section 3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...harness.language_models import LanguageModel

Pooling = Literal["mean", "first"]
Levels = Literal["modality", "shared"]

# The documentation speaks of an audio and a video; the fused level's word is our addition.
_WORDS = {"vision": "video"}
FUSED_WORD = "multimodal"


def class_descriptions(classes: Sequence[str]) -> tuple[str, ...]:
    """Descriptions such as "negative emotion"."""
    return tuple(f"{name} emotion" for name in classes)


def modality_word(name: str) -> str:
    """The word of a modality's [MOD] token."""
    return _WORDS.get(name, name)


def modality_sentence(word: str) -> str:
    """Sentences such as "This is an audio."."""
    article = "an" if word[0].lower() in "aeiou" else "a"
    return f"This is {article} {word}."


def class_texts(word: str, classes: Sequence[str]) -> list[str]:
    """The text prompts of one level, one per class."""
    return [f"{modality_sentence(word)} The emotion is {text}." for text in class_descriptions(classes)]


def level_words(modalities: Sequence[str], fused: str) -> list[str]:
    """Words of the M + 1 levels."""
    return [*map(modality_word, modalities), fused]


def pool(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """States ``[N, L, d]`` to ``[N, d]``: mean over unmasked positions, or the first position."""
    if how == "first":
        return states[:, 0]
    weight = mask.to(states.dtype)[..., None]
    return (weight * states).sum(dim=1) / weight.sum(dim=1)


def prompt_sequence(prompts: Tensor, modality: Tensor, class_tokens: Tensor) -> Tensor:
    """Prompt tokens, [MOD], class tokens.

    Args:
        prompts: ``[C, k, d_L]``.
        modality: ``[L, d_L]`` the [MOD] token of each level.
        class_tokens: ``[C, s, d_L]``.

    Returns:
        ``[L, C, k + 1 + s, d_L]``.
    """
    levels, classes = len(modality), len(prompts)
    return torch.cat(
        [
            prompts.expand(levels, *prompts.shape),
            modality[:, None, None].expand(-1, classes, 1, -1),
            class_tokens.expand(levels, *class_tokens.shape),
        ],
        dim=2,
    )


class PromptPrototypes(nn.Module):
    """Learnable tokens through the frozen encoder; gradients flow to the tokens.

    All tokens are shared by the levels: prototypes train through the completion only, which reads
    the fused level, so that tokens of a modality's own would never train (S25).

    Args:
        language_model: The frozen encoder; not registered, so never saved.
        modalities: Modality names in mask order.
        classes: Class names.
        shared_dim: Shared width D.
        prompt_len: k.
        cls_len: s.
        levels: A [MOD] word per level, or the fused level's for all.
        class_tokens: Learned, or fixed at the descriptions' embeddings.
        pooling: Mean over positions or first position.
    """

    class_tokens: Tensor
    words: Tensor

    def __init__(
        self,
        language_model: LanguageModel,
        modalities: Sequence[str],
        classes: Sequence[str],
        shared_dim: int,
        prompt_len: int,
        cls_len: int,
        levels: Levels = "modality",
        class_tokens: Literal["learned", "fixed"] = "learned",
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.pooling: Pooling = pooling
        width = language_model.width
        spread = language_model.word_embeddings.std().item()
        self.prompts = nn.Parameter(spread * torch.randn(len(classes), prompt_len, width))
        described = torch.stack([self._slots(text, cls_len) for text in class_descriptions(classes)])
        if class_tokens == "learned":
            self.class_tokens = nn.Parameter(described)
        else:
            self.register_buffer("class_tokens", described)
        words = level_words(modalities, FUSED_WORD)
        if levels == "shared":
            words = [FUSED_WORD] * len(words)
        self.register_buffer("words", torch.stack([self._slots(word, 1)[0] for word in words]))
        self.modality_offset = nn.Parameter(torch.zeros(width))
        self.to_shared = nn.Linear(width, shared_dim)

    def _slots(self, text: str, slots: int) -> Tensor:
        """Word embeddings of a text, pooled into slots (repeated if it is shorter): ``[s, d_L]``."""
        model = self.language_model
        embedded = model.embed_tokens(model.tokenize([text], special=False).ids[0]).detach().cpu()
        return nn.functional.adaptive_avg_pool1d(embedded.T[None], slots)[0].T.contiguous()

    def sequence(self) -> Tensor:
        """Input embeddings of all levels and classes ``[M + 1, C, k + 1 + s, d_L]``."""
        return prompt_sequence(self.prompts, self.words + self.modality_offset, self.class_tokens)

    def forward(self) -> Tensor:
        """Prototypes ``[M + 1, C, D]``; one pass of (M + 1) C sequences."""
        tokens = self.sequence()
        flat = tokens.flatten(0, 1)
        mask = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
        states = pool(self.language_model.encode_embeddings(flat, mask), mask, self.pooling)
        return self.to_shared(states).unflatten(0, tokens.shape[:2])


class GivenPrototypes(nn.Module):
    """Constant tensors, as they are or through a linear map.

    Args:
        values: ``[C, d]`` for all levels, or ``[M + 1, C, d]``.
        levels: M + 1.
        shared_dim: Shared width D.
        linear: Whether a linear map follows; one always does where d is not D.
    """

    values: Tensor

    def __init__(self, values: Tensor, levels: int, shared_dim: int, linear: bool = False) -> None:
        super().__init__()
        values = values.float()
        self.register_buffer("values", values if values.dim() == 3 else values.expand(levels, -1, -1).clone())
        width = values.shape[-1]
        linear = linear or width != shared_dim
        self.to_shared = nn.Linear(width, shared_dim) if linear else nn.Identity()

    def forward(self) -> Tensor:
        """Prototypes ``[M + 1, C, D]``."""
        return self.to_shared(self.values)


class LearnedPrototypes(nn.Module):
    """Free parameters: the ablation without a language model."""

    def __init__(self, levels: int, classes: int, shared_dim: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(levels, classes, shared_dim))

    def forward(self) -> Tensor:
        """Prototypes ``[M + 1, C, D]``."""
        return self.values


def text_states(
    language_model: LanguageModel,
    modalities: Sequence[str],
    classes: Sequence[str],
    levels: Levels = "modality",
    pooling: Pooling = "mean",
) -> Tensor:
    """Pooled encoder states of the text prompts ``[M + 1, C, d_L]``; constants.

    With shared levels every level has the first modality's sentence, as released.
    """
    words = level_words(modalities, f"{FUSED_WORD} sample")
    if levels == "shared":
        words = [words[0]] * len(words)
    texts = [text for word in words for text in class_texts(word, classes)]
    states, mask = language_model.encode_texts(texts)
    return pool(states, mask, pooling).cpu().unflatten(0, (len(words), len(classes)))


def read_prototypes(file: str, sha256: str, levels: int, classes: int) -> Tensor:
    """Reads the tensor ``prototypes`` of a safetensors file.

    Raises:
        ValueError: The file is another one than its hash says, or its shape does not fit.
    """
    from safetensors.torch import load

    content = Path(file).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ValueError(f"prototypes file {file}: SHA-256 is {found}, expected {sha256}")
    tensors = load(content)
    if "prototypes" not in tensors:
        raise ValueError(f"prototypes file {file}: no tensor 'prototypes', only {sorted(tensors)}")
    values = tensors["prototypes"]
    if tuple(values.shape[:-1]) not in ((classes,), (levels, classes)):
        raise ValueError(
            f"prototypes file {file}: shape {tuple(values.shape)}, expected [{classes}, d] or "
            f"[{levels}, {classes}, d]"
        )
    return values
