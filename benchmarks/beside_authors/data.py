"""Batches of generated data in the shapes of the authors' own experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from imer_bench.harness.batch import Batch
from imer_bench.harness.spec import SENTIMENT_CLASSES, DataSpec, Level, ModalitySpec

# Feature widths of GCNet's release, which MoMKE and ComP use as well.
UTTERANCE_WIDTHS = {"audio": 512, "text": 1024, "vision": 1024}
# Word-aligned CMU-MOSI as DMD reads it, the text already encoded.
FRAME_WIDTHS = {"text": 768, "audio": 5, "vision": 20}
FRAMES = 50


@dataclass(frozen=True)
class Data:
    """A spec and one training batch of it, half of the modalities of every utterance lost."""

    spec: DataSpec
    batch: Batch


def _spec(
    widths: Mapping[str, int], level: Level, steps: int, classes: int | None, frames: int = 1
) -> DataSpec:
    regression = classes is None
    names = SENTIMENT_CLASSES if regression else tuple(f"class {index}" for index in range(classes))
    return DataSpec(
        name="generated",
        modalities=tuple(ModalitySpec(name, width, frames) for name, width in widths.items()),
        task="regression" if regression else "multiclass",
        classes=names,
        score_range=(-3.0, 3.0) if regression else None,
        longest_dialogue=steps,
        speakers=2,
        train_utterances=1284,
        train_dialogues=52,
        class_counts=() if regression else tuple(1284 // len(names) for _ in names),
        level=level,
    )


def _available(lead: tuple[int, ...], count: int, generator: torch.Generator) -> torch.Tensor:
    """Every modality of an utterance is lost with probability 1/2, but never all of them."""
    available = torch.rand((*lead, count), generator=generator) < 0.5
    kept = torch.randint(0, count, lead, generator=generator)
    return available.scatter(-1, kept[..., None], True)


def _labels(spec: DataSpec, lead: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if spec.task == "regression":
        return torch.randint(-15, 16, lead, generator=generator).float() / 5
    return torch.randint(0, len(spec.classes), lead, generator=generator)


def dialogues(
    count: int,
    steps: int,
    mean: float | None = None,
    widths: Mapping[str, int] = UTTERANCE_WIDTHS,
    classes: int | None = None,
) -> Data:
    """Dialogues of utterance vectors.

    Args:
        count: Dialogues.
        steps: Utterances of the longest one.
        mean: Mean length of the others; ``None``: all are of the longest one's length.
        widths: Feature widths.
        classes: Number of classes; ``None``: a regression.
    """
    generator = torch.Generator().manual_seed(0)
    spec = _spec(widths, "dialogues", steps, classes)
    lengths = torch.full((count,), steps)
    if mean is not None:
        drawn = mean + 0.45 * mean * torch.randn(count, generator=generator)
        lengths = drawn.round().long().clamp(3, steps)
        lengths[0] = steps
    real = torch.arange(steps) < lengths[:, None]
    available = _available((count, steps), len(widths), generator) & real[..., None]
    true = {
        name: torch.randn(count, steps, width, generator=generator) * real[..., None]
        for name, width in widths.items()
    }
    return Data(
        spec,
        Batch(
            features={n: true[n] * available[..., index, None] for index, n in enumerate(widths)},
            available=available,
            real=real,
            speakers=torch.randint(0, 2, real.shape, generator=generator) * real,
            lengths=tuple(lengths.tolist()),
            rows=torch.where(real, real.flatten().cumsum(0).view_as(real) - 1, -1),
            labels=_labels(spec, (count, steps), generator) * real,
            targets=true,
        ),
    )


def sequences(count: int, widths: Mapping[str, int] = FRAME_WIDTHS, frames: int = FRAMES) -> Data:
    """Utterances of full frame sequences for a regression."""
    generator = torch.Generator().manual_seed(0)
    spec = _spec(widths, "sequences", 1, None, frames)
    available = _available((count,), len(widths), generator)
    seen = {n: available[:, index, None].expand(count, frames) for index, n in enumerate(widths)}
    true = {n: torch.randn(count, frames, width, generator=generator) for n, width in widths.items()}
    return Data(
        spec,
        Batch(
            features={name: true[name] * seen[name][..., None] for name in widths},
            available=available,
            real=torch.ones(count, dtype=torch.bool),
            speakers=torch.zeros(count, dtype=torch.int64),
            lengths=(1,) * count,
            rows=torch.arange(count),
            labels=_labels(spec, (count,), generator),
            frames={name: torch.ones(count, frames, dtype=torch.bool) for name in widths},
            frames_available=seen,
            targets=true,
        ),
    )
