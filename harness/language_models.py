"""Frozen language models by name: real encoders, and small random ones that need no files.

A model is loaded once per process by the ``LanguageModels`` that the engine owns, stays outside
every method's registered modules (and so outside its checkpoints), and is known in records by its
name and the hash of its weights.

Names:
    * a Hugging Face id (``"google-t5/t5-base"``) or a local folder with ``config.json``, weights
      as safetensors and a tokenizer. ``"<name>@<first digits of a SHA-256>"`` insists on weights;
    * ``"random-<family>"`` or ``"random:<seed>:<family>"``: a small encoder of a real class, built
      from a configuration with a fixed seed. It has no language knowledge and says so;
    * ``"random:<seed>:<id or folder>"``: configuration and tokenizer of that model, random weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import ROOT_VARIABLE, model_folder, weight_files, weights_sha256

# Small configurations of the random encoders; 259 = 256 bytes and three special tokens.
RANDOM_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "t5-tiny": {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "bert-tiny": {
        "model_type": "bert",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
}
_VOCABULARY = 259
_PAD, _END, _SPECIAL = 0, 1, 3
_RANDOM = re.compile(r"random(?:-(?P<plain>[a-z0-9-]+)|:(?P<seed>\d+):(?P<family>.+))")
_PINNED = re.compile(r"(?P<name>.+)@(?P<digits>[0-9a-f]{8,64})")
# Sequences are short, and the fused kernels read the mask back from the device at every call.
_ATTENTION = "eager"


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of several texts.

    Attributes:
        ids: ``[N, L]`` int64.
        mask: ``[N, L]`` bool, True for real tokens.
    """

    ids: Tensor
    mask: Tensor


Tokenizer = Callable[[Sequence[str], bool], tuple[list[list[int]], int]]


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen encoder in evaluation mode.

    It is a plain record, not a module: a method that keeps one neither registers nor saves it.

    Attributes:
        name: Name it was asked for by.
        encoder: The network; called with ``inputs_embeds`` and ``attention_mask``.
        width: Width d_L of word embeddings and hidden states.
        weights_hash: SHA-256 of the weight files; of a random encoder, over names, shapes and values.
        random: True for a random encoder ("no language knowledge").
        device: Where the weights are.
        tokenizer: Texts and whether to add special tokens to ragged ids and the padding id.
    """

    name: str
    encoder: nn.Module
    width: int
    weights_hash: str
    random: bool
    device: torch.device
    tokenizer: Tokenizer = field(repr=False)

    @property
    def word_embeddings(self) -> Tensor:
        """The table of word embeddings ``[V, d_L]``."""
        return self.encoder.get_input_embeddings().weight  # type: ignore[operator]

    def tokenize(self, texts: Sequence[str], special: bool = True) -> TokenBatch:
        """Token ids of texts, padded to the longest.

        Args:
            texts: One or more texts.
            special: Whether to add the special tokens of the model ([CLS], end of sequence).
        """
        ragged, pad = self.tokenizer(texts, special)
        longest = max(len(row) for row in ragged)
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in ragged], dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in ragged])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        return TokenBatch(ids.to(self.device), mask.to(self.device))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Word embeddings ``[..., d_L]`` of token ids ``[...]``."""
        return nn.functional.embedding(ids, self.word_embeddings)

    def encode_embeddings(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden states of sequences of input embeddings; gradients reach the embeddings.

        Args:
            inputs_embeds: ``[N, L, d_L]``.
            attention_mask: ``[N, L]`` bool, True where a position counts.

        Returns:
            ``[N, L, d_L]``.
        """
        answer = self.encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask.to(torch.int64))
        return answer.last_hidden_state

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Last hidden states ``[N, L, d_L]`` of texts and their mask ``[N, L]``, without gradients."""
        tokens = self.tokenize(texts)
        with torch.no_grad():
            return self.encode_embeddings(self.embed_tokens(tokens.ids), tokens.mask), tokens.mask


class LanguageModels:
    """Holds the language models of one process; owned by the engine, shared by its runs."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], LanguageModel] = {}

    def resolve(self, name: str, device: torch.device | str = "cpu") -> LanguageModel:
        """The model of this name on this device, loaded at the first call (see ``resolve``)."""
        key = (name, str(torch.device(device)))
        if key not in self._held:
            self._held[key] = resolve(name, device)
        return self._held[key]

    @property
    def held(self) -> tuple[LanguageModel, ...]:
        """The models loaded so far."""
        return tuple(self._held.values())


def is_random(name: str) -> bool:
    """Whether a name asks for a random encoder, which has no language knowledge."""
    return _RANDOM.fullmatch(name) is not None


def resolve(name: str, device: torch.device | str = "cpu") -> LanguageModel:
    """Loads a frozen language model.

    A local folder is looked at first, then ``IMER_PRETRAINED``, then the local cache; the network only
    if offline mode (``HF_HUB_OFFLINE``) is off and the hub answers within seconds.

    Args:
        name: Hugging Face id, local folder, or name of a random encoder.
        device: Where to put the weights.

    Raises:
        LookupError: The model is not at hand; the message names it and the ways out.
        ValueError: The model has other weights than its name insists on, or reads from left to right
            only, so that its first position, which methods read, cannot see the rest of the sequence.
    """
    random = is_random(name)
    encoder, tokenizer, digest = (*_random_encoder(name), "") if random else _pretrained(name)
    return freeze(name, encoder, tokenizer, random, torch.device(device), digest)


def freeze(
    name: str, encoder: nn.Module, tokenizer: Tokenizer, random: bool, device: torch.device, digest: str = ""
) -> LanguageModel:
    """Wraps an encoder of the transformers library; its weights are hashed where no hash is given."""
    encoder = encoder.float().requires_grad_(False).eval()
    digest = digest or weights_hash(encoder)
    width = int(encoder.get_input_embeddings().weight.shape[1])  # type: ignore[operator]
    model = LanguageModel(name, encoder.to(device), width, digest, random, device, tokenizer)
    _check_bidirectional(model)
    return model


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values of a module's weights, in order of name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def byte_tokenizer(texts: Sequence[str], special: bool) -> tuple[list[list[int]], int]:
    """UTF-8 bytes as tokens, the way ByT5 does: id = byte + 3, then the end token 1; padding 0."""
    end = [_END] if special else []
    return [[byte + _SPECIAL for byte in text.encode()] + end for text in texts], _PAD


def _check_bidirectional(model: LanguageModel) -> None:
    probe = torch.zeros(2, 3, model.width, device=model.device)
    probe[:, 0] = 1.0
    probe[0, 2, ::2], probe[1, 2, 1::2] = 1.0, 1.0
    with torch.no_grad():
        first = model.encode_embeddings(probe, torch.ones(2, 3, dtype=torch.bool, device=model.device))[:, 0]
    if torch.equal(first[0], first[1]):
        raise ValueError(
            f"language model {model.name!r} reads from left to right only: its first position does not "
            "see the rest of the sequence. Choose an encoder (T5, BERT or sentence-encoder families)."
        )


def _random_encoder(name: str) -> tuple[nn.Module, Tokenizer]:
    matched = _RANDOM.fullmatch(name)
    assert matched is not None
    family = matched["plain"] or matched["family"]
    if family in RANDOM_FAMILIES:
        from transformers import AutoConfig

        settings = dict(RANDOM_FAMILIES[family])
        config = AutoConfig.for_model(
            settings.pop("model_type"),
            vocab_size=_VOCABULARY,
            pad_token_id=_PAD,
            eos_token_id=_END,
            **settings,
        )
        tokenizer: Tokenizer = byte_tokenizer
    elif matched["plain"]:
        raise LookupError(
            f"no random language model {name!r}; known families: {', '.join(RANDOM_FAMILIES)} "
            '(names such as "random-t5-tiny", "random:7:t5-tiny" or "random:7:google-t5/t5-base")'
        )
    else:
        folder = _folder(family)
        config, tokenizer = _config(folder), _tokenizer(folder)
    # The library initialises from the global generator: fork it, so that no run's numbers move.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(matched["seed"] or 0))
        encoder = encoder_from_config(config)
    return encoder, tokenizer


def encoder_from_config(config: Any) -> nn.Module:
    """A randomly initialised encoder of a transformers configuration (no decoder is built)."""
    from transformers import AutoModel, AutoModelForTextEncoding

    if type(config) in AutoModelForTextEncoding._model_mapping:
        return AutoModelForTextEncoding.from_config(config, attn_implementation=_ATTENTION)
    model = AutoModel.from_config(config, attn_implementation=_ATTENTION)
    return model.get_encoder() if config.is_encoder_decoder else model


def _pretrained(name: str) -> tuple[nn.Module, Tokenizer, str]:
    """Encoder, tokenizer and hash of the weights."""
    from transformers import AutoModel, AutoModelForTextEncoding

    pinned = _PINNED.fullmatch(name)
    folder = _folder(pinned["name"] if pinned else name)
    if not weight_files(folder):
        raise LookupError(_not_at_hand(name, f"{folder} has no safetensors weights"))
    digest = weights_sha256(folder)
    if pinned and not digest.startswith(pinned["digits"]):
        raise ValueError(f"language model {name!r}: the weights in {folder} have the SHA-256 {digest}")
    config = _config(folder)
    # Weights as safetensors only: a pickle could run code.
    options: dict[str, Any] = {"config": config, "local_files_only": True, "use_safetensors": True}
    options["attn_implementation"] = _ATTENTION
    if type(config) in AutoModelForTextEncoding._model_mapping:
        encoder = AutoModelForTextEncoding.from_pretrained(folder, **options)
    else:
        encoder = AutoModel.from_pretrained(folder, **options)
        encoder = encoder.get_encoder() if config.is_encoder_decoder else encoder
    return encoder, _tokenizer(folder), digest


def _folder(name: str) -> Path:
    try:
        return model_folder(name)
    except LookupError as error:
        raise LookupError(_not_at_hand(name, str(error))) from None


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def _tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    library = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def tokenizer(texts: Sequence[str], special: bool) -> tuple[list[list[int]], int]:
        encoded = library(list(texts), add_special_tokens=special, padding=False, truncation=False)
        return encoded["input_ids"], library.pad_token_id or 0

    return tokenizer


def _not_at_hand(name: str, reason: str) -> str:
    return (
        f"no language model {name!r} at hand: {reason}. Ways out: fetch it into the Hugging Face cache on "
        f"a machine with a network (`hf download {name}`, then copy the cache or set HF_HOME); set "
        f"{ROOT_VARIABLE} to a folder that holds it under this name, or name a local folder, with "
        "config.json, model.safetensors and tokenizer files; choose class prototypes that need "
        'no language model where the method offers them (prototypes = "learned" or "given"); or name a '
        'random encoder such as "random-t5-tiny", which has no language knowledge and is marked so'
    )
