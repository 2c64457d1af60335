"""Frozen encoders of text, sound and pictures, through the Auto classes of transformers.

An encoder says what decides its values (``identity``), turns an utterance into an input with a
content key without loading its weights, and encodes batches of inputs once ``loaded``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..hashing import address
from .errors import ExtractionError, Unreadable
from .media import Recording, read_frames, read_sound
from .pooling import ABSENT, combined_layers, group_means, normalised, runs
from .pretrained import Checkpoint
from .settings import AudioSettings, Settings, TextSettings, VisionSettings

NUMERICS = 1  # raised when the same input would get other values
_LONGEST_TEXT = 512
# Waveform encoders whose masks keep padding out, checked against single utterances.
_MASKED = ("wav2vec2", "hubert", "wavlm")


@dataclass(frozen=True)
class Utterance:
    """What an encoder may look at.

    Attributes:
        transcript: Transcript; empty if there is none.
        before: Transcripts of the utterances before it in the dialogue, nearest last.
        after: Transcripts of the utterances after it, nearest first.
        recording: Sound or film; ``None`` if there is none.
    """

    transcript: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    recording: Recording | None = None


@dataclass(frozen=True)
class Input:
    """One input of an encoder.

    Attributes:
        key: Address of its content.
        length: Length for batching.
        value: What ``read`` and ``encode`` need.
    """

    key: str
    length: int
    value: Any


class Encoder(Protocol):
    """A frozen encoder of one modality."""

    width: int
    batch: int
    reads_files: bool

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the input that decides a value, as plain values."""
        ...

    def input(self, utterance: Utterance) -> Input:
        """The input of an utterance.

        Raises:
            Unreadable: The utterance has no such modality.
        """
        ...

    def read(self, item: Input) -> Any:
        """Reads what ``encode`` needs; may run in another thread.

        Raises:
            Unreadable: The recording is broken.
        """
        ...

    def encode(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Vectors ``[d]`` or sequences ``[T, d]``, float32, of what ``read`` returned."""
        ...

    def load(self) -> None:
        """Loads the weights."""
        ...

    def unload(self) -> None:
        """Frees the weights."""
        ...


def make_encoder(settings: Settings, checkpoint: Checkpoint, device: str, amp: bool) -> Encoder:
    """The encoder of these settings.

    Args:
        settings: What to extract.
        checkpoint: The model's files.
        device: ``"cpu"`` or ``"cuda"``.
        amp: Compute in float16 where that is safe (CUDA only).

    Raises:
        ExtractionError: Settings and model do not fit, or its tokenizer or preprocessor is absent.
    """
    network = Network(checkpoint, device, amp)
    if isinstance(settings, TextSettings):
        return TextEncoder(settings, network)
    if isinstance(settings, AudioSettings):
        return AudioEncoder(settings, network)
    return VisionEncoder(settings, network)


class Network:
    """The frozen network of a checkpoint, in memory between ``load`` and ``unload`` only."""

    def __init__(self, checkpoint: Checkpoint, device: str, amp: bool) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.amp = amp and self.device.type == "cuda"
        self._module: nn.Module | None = None
        self.config = self.library("AutoConfig")

    def library(self, auto_class: str, **options: Any) -> Any:
        """Something of the checkpoint's folder through an Auto class of transformers.

        Raises:
            ExtractionError: The folder lacks it, or a package that it needs is absent.
        """
        import transformers

        try:
            return getattr(transformers, auto_class).from_pretrained(
                self.checkpoint.folder, local_files_only=True, **options
            )
        except Exception as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ExtractionError(f"encoder {self.checkpoint.name!r}: {auto_class} failed: {text}") from error

    @property
    def part(self) -> Any:
        """The configuration of the part that encodes; CLIP keeps it inside another."""
        return getattr(self.config, "vision_config", self.config)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its outputs."""
        precision = "float16" if self.amp else "float32"
        return {"numerics": NUMERICS, **self.checkpoint.identity, "precision": precision}

    def load(self) -> None:
        """Loads the weights, frozen, in evaluation mode."""
        from transformers import AutoModelForTextEncoding

        text = type(self.config) in AutoModelForTextEncoding._model_mapping
        module = self.library("AutoModelForTextEncoding" if text else "AutoModel", use_safetensors=True)
        if hasattr(self.config, "vision_config"):
            module = module.vision_model
        elif not text and getattr(self.config, "is_encoder_decoder", False):
            module = module.get_encoder()
        self._module = module.float().requires_grad_(False).eval().to(self.device)

    def unload(self) -> None:
        """Frees the weights."""
        self._module = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def module(self) -> Any:
        """The loaded network."""
        if self._module is None:
            raise RuntimeError(f"{self.checkpoint.name} is not loaded")
        return self._module

    def states(self, layers: str, **inputs: Tensor) -> Tensor:
        """Hidden states ``[B, L, d]`` float32; in float32 throughout where float16 overflows."""
        if self.amp:
            with torch.autocast("cuda", torch.float16):
                states = self._states(layers, inputs)
            if torch.isfinite(states).all():
                return states
        return self._states(layers, inputs)

    def _states(self, layers: str, inputs: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            on_device = {name: value.to(self.device) for name, value in inputs.items()}
            answer = self.module(**on_device, output_hidden_states=layers != "last")
            hidden = answer.hidden_states if layers != "last" else None
            return combined_layers(answer.last_hidden_state, hidden, layers)

    def check_layers(self, layers: str) -> None:
        """Refuses more layers than there are."""
        if layers == "last":
            return
        wanted = int(layers.removeprefix("mean").removeprefix("sum"))
        for field in ("encoder_layers", "num_hidden_layers", "num_layers"):
            count = getattr(self.part, field, None)
            if count is not None:
                if wanted > count:
                    name = self.checkpoint.name
                    raise ExtractionError(f"layers = {layers!r}: encoder {name!r} has {count} layers")
                return


class _Frozen:
    """What the encoders of the three modalities share."""

    reads_files = True

    def __init__(self, settings: Settings, network: Network) -> None:
        network.check_layers(settings.layers)
        self.settings = settings
        self.network = network
        self.batch = settings.batch
        self.width = int(getattr(network.part, "hidden_size", 0) or network.part.d_model)

    def load(self) -> None:
        """Loads the weights."""
        self.network.load()

    def unload(self) -> None:
        """Frees the weights."""
        self.network.unload()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the input that decides a value."""
        chosen = self.settings.model_dump(mode="json", exclude={"model", "revision", "name", "batch"})
        return {**self.network.identity, "settings": chosen}

    def _finished(self, steps: Tensor) -> np.ndarray:
        """A sequence ``[T, d]`` as it is, or its mean."""
        pooled = steps if self.settings.sequence else steps.mean(dim=0)
        pooled = normalised(pooled) if self.settings.normalise else pooled
        return pooled.cpu().numpy()


# Text.


@dataclass(frozen=True)
class _Tokens:
    ids: tuple[int, ...]
    groups: tuple[int, ...]


class TextEncoder(_Frozen):
    """Transcripts through a masked language model or sentence encoder.

    The key of an input holds its token ids, so the tokenizer is no part of the identity.
    """

    reads_files = False

    def __init__(self, settings: TextSettings, network: Network) -> None:
        super().__init__(settings, network)
        self.options = settings
        self.tokenizer = network.library("AutoTokenizer")
        if not self.tokenizer.is_fast:
            raise ExtractionError(
                f"encoder {network.checkpoint.name!r}: its tokenizer does not tell where tokens "
                "are in the text; one with tokenizer.json is needed"
            )
        if settings.sequence and settings.pooling == "first":
            raise ExtractionError("text.sequence = true needs text.pooling = mean, content or words")
        limit = min(int(self.tokenizer.model_max_length), self._positions(), _LONGEST_TEXT)
        self.limit = min(settings.max_tokens or limit, self._positions())

    def _positions(self) -> int:
        count = int(getattr(self.network.part, "max_position_embeddings", 0) or 10**6)
        # RoBERTa counts positions from after its padding id.
        offset = (self.network.part.pad_token_id or 0) + 1 if "roberta" in self.network.part.model_type else 0
        return count - offset

    def input(self, utterance: Utterance) -> Input:
        """The input of an utterance."""
        if not utterance.transcript.strip():
            raise Unreadable("no transcript")
        tokens = self._tokens(utterance)
        if not any(group != ABSENT for group in tokens.groups):
            raise Unreadable("the transcript has no tokens")
        if max(tokens.ids) >= self.network.part.vocab_size:
            raise ExtractionError(
                f"encoder {self.network.checkpoint.name!r}: its tokenizer gives the token {max(tokens.ids)}, "
                f"its network knows {self.network.part.vocab_size}; they do not belong together"
            )
        return Input(address([tokens.ids, tokens.groups]), len(tokens.ids), tokens)

    def _tokens(self, utterance: Utterance) -> _Tokens:
        """Tokens of the utterance and of as many neighbours as fit, nearest first."""
        before, after = list(utterance.before), list(utterance.after)
        found = self._encoded(before, utterance.transcript, after)
        while len(found[0]["input_ids"]) > self.limit and (before or after):
            if len(before) >= len(after):
                before.pop(0)
            else:
                after.pop()
            found = self._encoded(before, utterance.transcript, after)
        if len(found[0]["input_ids"]) > self.limit:
            found = self._encoded([], utterance.transcript, [], cut=True)
        context = bool(utterance.before or utterance.after)
        return _Tokens(tuple(found[0]["input_ids"]), self._groups(*found, context=context))

    def _encoded(
        self, before: Sequence[str], text: str, after: Sequence[str], cut: bool = False
    ) -> tuple[Any, str, int, int]:
        """Tokens of the utterance between its neighbours, the text, and where the utterance is in it."""
        join = f" {mark} " if (mark := self.tokenizer.sep_token or self.tokenizer.eos_token) else " "
        lead = "".join(self._clean(sentence) + join for sentence in before if sentence.strip())
        tail = "".join(join + self._clean(sentence) for sentence in after if sentence.strip())
        current = self._clean(text)
        options: dict[str, Any] = {"truncation": True, "max_length": self.limit} if cut else {}
        encoded = self.tokenizer(
            lead + current + tail,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
            **options,
        )
        return encoded, lead + current + tail, len(lead), len(lead) + len(current)

    def _clean(self, text: str) -> str:
        return text.strip().lower() if self.options.lower else text.strip()

    def _groups(self, encoded: Any, text: str, begin: int, end: int, context: bool) -> tuple[int, ...]:
        """The group of each token: what is pooled together, and what is left out."""
        pooling = self.options.pooling
        count = len(encoded["input_ids"])
        if pooling == "first":
            return (0, *[ABSENT] * (count - 1))
        # Special tokens see the neighbours as a whole: with context they are never part of the mean.
        if pooling == "mean" and not context and not self.options.sequence:
            return tuple(range(count))
        words = _word_numbers(text)
        numbers: dict[int, int] = {}
        groups: list[int] = []
        for position, ((first, last), special) in enumerate(
            zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
        ):
            if special or not (first < last and first < end and last > begin):
                groups.append(ABSENT)
                continue
            # A token may begin with the blank before it: its last letter tells the word.
            what = words[last - 1] if pooling == "words" else position
            groups.append(numbers.setdefault(what, len(numbers)))
        return tuple(groups)

    def read(self, item: Input) -> _Tokens:
        """Nothing is left to read."""
        return item.value

    def encode(self, values: Sequence[_Tokens]) -> list[np.ndarray]:
        """Vectors ``[d]`` or sequences ``[T, d]``."""
        longest = max(len(tokens.ids) for tokens in values)
        padding = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(values), longest), padding, dtype=torch.int64)
        mask = torch.zeros(len(values), longest, dtype=torch.int64)
        for row, tokens in enumerate(values):
            ids[row, : len(tokens.ids)] = torch.tensor(tokens.ids)
            mask[row, : len(tokens.ids)] = 1
        states = self.network.states(self.settings.layers, input_ids=ids, attention_mask=mask)
        return [
            self._finished(group_means(row[: len(tokens.groups)], torch.tensor(tokens.groups).to(row.device)))
            for row, tokens in zip(states, values, strict=True)
        ]


def _word_numbers(text: str) -> list[int]:
    """For every letter the number of the word it is in; words are divided by blanks."""
    numbers, word, blank = [], 0, False
    for letter in text:
        word += blank and not letter.isspace()
        blank = letter.isspace()
        numbers.append(word)
    return numbers


# Sound.


class AudioEncoder(_Frozen):
    """Sound through wav2vec 2.0, HuBERT, data2vec-audio, WavLM or the encoder of Whisper."""

    def __init__(self, settings: AudioSettings, network: Network) -> None:
        super().__init__(settings, network)
        self.options = settings
        self.extractor = network.library("AutoFeatureExtractor")
        self.rate = int(self.extractor.sampling_rate)
        self.spectrogram = hasattr(self.extractor, "n_fft")
        if self.spectrogram and settings.max_seconds > self.extractor.chunk_length:
            raise ExtractionError(
                f"audio.max_seconds = {settings.max_seconds:g}: encoder {network.checkpoint.name!r} takes "
                f"{self.extractor.chunk_length} seconds"
            )
        if settings.sequence and settings.pooling == "first":
            raise ExtractionError("audio.sequence = true needs audio.pooling = mean")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the input that decides a value."""
        return {**super().identity, "preprocessing": _plain_preprocessing(self.extractor)}

    def input(self, utterance: Utterance) -> Input:
        """The input of an utterance."""
        if utterance.recording is None:
            raise Unreadable("no file")
        return Input(utterance.recording.content(), utterance.recording.extent(), utterance.recording)

    def read(self, item: Input) -> np.ndarray:
        """Samples ``[n]``."""
        samples = read_sound(item.value, self.rate, self.options.max_seconds)
        if self._frames(len(samples)) < 1:
            raise Unreadable(f"shorter than one frame ({len(samples)} samples)")
        return samples

    def _frames(self, samples: int) -> int:
        """Frames that ``samples`` samples give: the strides of the convolutions, or of the spectrogram."""
        if self.spectrogram:
            return -(-samples // (2 * self.extractor.hop_length))  # the encoder halves the time axis
        length = samples
        for kernel, stride in zip(self.network.part.conv_kernel, self.network.part.conv_stride, strict=True):
            length = (length - kernel) // stride + 1
        return length

    def encode(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Vectors ``[d]`` or sequences ``[T, d]``."""
        results: list[np.ndarray | None] = [None] * len(values)
        for rows in self._batches(values):
            states = self._states([values[row] for row in rows])
            for row, state in zip(rows, states, strict=True):
                frames = state[: self._frames(len(values[row]))]
                results[row] = self._pooled(frames)
        return [result for result in results if result is not None]

    def _batches(self, values: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Rows that may share a batch.

        Encoders that normalise over time (wav2vec 2.0 base, HuBERT base) would see the padding, and
        the stacked position layers of data2vec carry it into the last frames in spite of the mask. For
        them only equal lengths go together, so that no feature depends on its neighbours in a batch.
        """
        masked = self.extractor.return_attention_mask and self.network.part.model_type in _MASKED
        if self.spectrogram or masked:
            yield list(range(len(values)))
            return
        by_length: dict[int, list[int]] = {}
        for row, value in enumerate(values):
            by_length.setdefault(len(value), []).append(row)
        yield from by_length.values()

    def _states(self, values: list[np.ndarray]) -> Tensor:
        options: dict[str, Any] = {} if self.spectrogram else {"padding": True}
        prepared = self.extractor(values, sampling_rate=self.rate, return_tensors="pt", **options)
        names = ("input_features",) if self.spectrogram else ("input_values", "attention_mask")
        inputs = {name: prepared[name] for name in names if name in prepared}
        return self.network.states(self.settings.layers, **inputs)

    def _pooled(self, frames: Tensor) -> np.ndarray:
        if self.options.pooling == "first":
            return self._finished(frames[:1])
        if self.options.sequence and self.options.stride > 1:
            groups = runs(len(frames), self.options.stride).to(frames.device)
            return self._finished(group_means(frames, groups))
        return self._finished(frames)


# Pictures.


class VisionEncoder(_Frozen):
    """Frames through an image encoder (ViT, CLIP), or a clip through VideoMAE or TimeSformer."""

    def __init__(self, settings: VisionSettings, network: Network) -> None:
        super().__init__(settings, network)
        self.options = settings
        import transformers

        # Pillow everywhere: torchvision, where installed, would give other values.
        pillow = int(transformers.__version__.split(".")[0]) >= 5
        self.processor = network.library(
            "AutoImageProcessor", **({"backend": "pil"} if pillow else {"use_fast": False})
        )
        self.clip = getattr(network.part, "num_frames", None)
        if self.clip and settings.frames not in (0, self.clip):
            raise ExtractionError(
                f"vision.frames = {settings.frames}: encoder {network.checkpoint.name!r} takes {self.clip}"
            )
        self.frames = self.clip or settings.frames or 8
        if settings.pooling == "first" and (network.part.model_type == "videomae"):
            raise ExtractionError(
                f"vision.pooling = 'first': encoder {network.checkpoint.name!r} has no class token"
            )
        if settings.sequence and settings.pooling == "first" and self.clip:
            raise ExtractionError("vision.sequence = true needs vision.pooling = mean with a video encoder")

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the input that decides a value."""
        found = super().identity
        found["settings"] |= {"frames": self.frames}
        return {**found, "preprocessing": _plain_preprocessing(self.processor)}

    def input(self, utterance: Utterance) -> Input:
        """The input of an utterance."""
        if utterance.recording is None:
            raise Unreadable("no file")
        return Input(utterance.recording.content(), 0, utterance.recording)

    def read(self, item: Input) -> Tensor:
        """Pixels ``[frames, channels, height, width]``."""
        frames = read_frames(item.value, self.frames)
        pixels = self.processor([frames] if self._nested else frames, return_tensors="pt")["pixel_values"]
        return pixels.reshape(self.frames, *pixels.shape[-3:])

    @property
    def _nested(self) -> bool:
        """Whether the processor takes clips, lists of lists of frames."""
        return type(self.processor).__name__.startswith("VideoMAE")

    def encode(self, values: Sequence[Tensor]) -> list[np.ndarray]:
        """Vectors ``[d]`` or sequences ``[T, d]``."""
        pixels = torch.stack(list(values))
        if self.clip:
            states = self.network.states(self.settings.layers, pixel_values=pixels)
            return [self._finished(self._clip_steps(row)) for row in states]
        flat = pixels.reshape(-1, *pixels.shape[2:])
        states = self.network.states(self.settings.layers, pixel_values=flat)
        prefix = states.shape[1] - self._patches(flat)
        if self.options.pooling == "first" and prefix < 1:
            raise ExtractionError(
                f"vision.pooling = 'first': encoder {self.network.checkpoint.name!r} has no class token"
            )
        steps = states[:, 0] if self.options.pooling == "first" else states[:, prefix:].mean(dim=1)
        return [self._finished(row) for row in steps.reshape(len(values), self.frames, -1)]

    def _patches(self, pixels: Tensor) -> int:
        size = self.network.part.patch_size
        high, wide = (size, size) if isinstance(size, int) else size
        return (pixels.shape[-2] // high) * (pixels.shape[-1] // wide)

    def _clip_steps(self, states: Tensor) -> Tensor:
        """``[T, d]`` steps of a clip: the class token, or the mean over patches of every time step."""
        if self.options.pooling == "first":
            return states[:1]
        if self.network.part.model_type == "timesformer":
            # After the class token, the frames of a patch follow one another.
            return states[1:].reshape(-1, self.frames, states.shape[-1]).mean(dim=0)
        steps = self.frames // int(getattr(self.network.part, "tubelet_size", 1))
        return states.reshape(steps, -1, states.shape[-1]).mean(dim=1)


def _plain_preprocessing(processor: Any) -> dict[str, Any]:
    """The settings of a feature extractor or image processor, without where they were saved."""
    plain = str | int | float | bool | list | tuple | dict | None
    return {"class": type(processor).__name__} | {
        key: value
        for key, value in processor.to_dict().items()
        if isinstance(value, plain) and not key.startswith("_") and key != "processor_class"
    }
