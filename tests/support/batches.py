"""Hand-made data for tests of methods: specs, batches and services without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from imer_bench.harness.batch import Batch
from imer_bench.harness.spec import SENTIMENT_CLASSES, DataSpec, Level, ModalitySpec, Task


def make_spec(
    task: Task = "regression",
    level: Level = "dialogues",
    dims: dict[str, int] | None = None,
    classes: int = 4,
    length: int = 7,
    speakers: int = 2,
) -> DataSpec:
    """A small data spec; frame sequences have different lengths per modality."""
    dims = dims or {"text": 12, "audio": 6, "vision": 8}
    names = {
        "regression": SENTIMENT_CLASSES,
        "binary": ("negative", "positive"),
        "multiclass": tuple(f"class {index}" for index in range(classes)),
    }[task]
    lengths = {name: 1 if level != "sequences" else 5 + index for index, name in enumerate(dims)}
    return DataSpec(
        name="test",
        modalities=tuple(ModalitySpec(name, dim, lengths[name]) for name, dim in dims.items()),
        task=task,
        classes=names,
        score_range=(-3.0, 3.0) if task == "regression" else None,
        longest_dialogue=length,
        speakers=speakers,
        train_utterances=64,
        train_dialogues=12,
        class_counts=() if task == "regression" else tuple([64 // len(names)] * len(names)),
        level=level,
    )


def make_batch(spec: DataSpec, size: int = 5, seed: int = 0, rate: float = 0.3) -> Batch:
    """A random training batch with absent entries already zero, as the harness makes it."""
    generator = torch.Generator().manual_seed(seed)
    dialogues = spec.level == "dialogues"
    lead = (size, spec.longest_dialogue) if dialogues else (size,)
    if dialogues:
        lengths = torch.randint(1, spec.longest_dialogue + 1, (size,), generator=generator)
        lengths[0] = spec.longest_dialogue
        real = torch.arange(spec.longest_dialogue)[None, :] < lengths[:, None]
    else:
        lengths = torch.ones(size, dtype=torch.int64)
        real = torch.ones(lead, dtype=torch.bool)
    count = len(spec.modalities)
    available = torch.rand((*lead, count), generator=generator) >= rate
    kept = torch.randint(0, count, lead, generator=generator)
    available.scatter_(-1, kept[..., None], True)
    available &= real[..., None]
    targets, features, frames, frames_available = {}, {}, {}, {}
    for index, modality in enumerate(spec.modalities):
        shape = (
            (*lead, modality.max_length, modality.dim) if spec.level == "sequences" else (*lead, modality.dim)
        )
        values = torch.randn(shape, generator=generator)
        seen = available[..., index]
        if spec.level == "sequences":
            valid = torch.randint(2, modality.max_length + 1, (size,), generator=generator)
            frames[modality.name] = torch.arange(modality.max_length)[None, :] < valid[:, None]
            frames_available[modality.name] = frames[modality.name] & seen[:, None]
            targets[modality.name] = values * frames[modality.name][..., None]
            features[modality.name] = values * frames_available[modality.name][..., None]
        else:
            targets[modality.name] = values * real[..., None]
            features[modality.name] = values * seen[..., None]
    if spec.task == "regression":
        labels = torch.randint(-15, 16, lead, generator=generator).float() / 5
    else:
        labels = torch.randint(0, len(spec.classes), lead, generator=generator)
    rows = torch.where(real, real.flatten().cumsum(0).reshape(lead) - 1, torch.tensor(-1))
    return Batch(
        features=features,
        available=available,
        real=real,
        speakers=torch.randint(0, spec.speakers, lead, generator=generator) * real,
        lengths=tuple(lengths.tolist()),
        rows=rows,
        labels=labels * real,
        frames=frames or None,
        frames_available=frames_available or None,
        targets=targets,
    )


def with_features(batch: Batch, **features: torch.Tensor) -> Batch:
    """The batch with some modalities' features replaced."""
    return replace(batch, features={**batch.features, **features})


class PlainServices:
    """Services without a harness: named generators, and language models from a dictionary."""

    def __init__(self, seed: int = 0, models: dict[str, Any] | None = None) -> None:
        self.seed = seed
        self.models = models or {}
        self.device = torch.device("cpu")

    def generator(self, name: str) -> torch.Generator:
        """A generator that depends on the seed and the name only."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + sum(name.encode()))

    def language_model(self, name: str) -> Any:
        """The model registered under this name."""
        if name not in self.models:
            raise LookupError(f"no language model {name!r} at hand")
        return self.models[name]
