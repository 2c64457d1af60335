"""What is compared: a method at one size, in one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import authors, ours
from .data import Data, dialogues, sequences
from .timing import Step


@dataclass(frozen=True)
class Case:
    """A comparison.

    Attributes:
        method: Name of the method.
        title: Size and stage.
        ours: Makes our steps, by name of the profile.
        authors: Makes the authors' step from their checkout; ``None``: their code is not run here.
        quoted: The authors' step as the method's specification has it, from another machine.
    """

    method: str
    title: str
    ours: Callable[[], Mapping[str, Step]]
    authors: Callable[[Path], Step] | None = None
    quoted: str = ""


def _profiles(
    method: str, data: Callable[[], Data], settings: Mapping[str, Any], stage: str | None = None
) -> Mapping[str, Step]:
    made = data()
    return {
        profile: ours.training_step(method, made, profile, settings, stage)
        for profile in ("published", "default")
    }


def _gcnet(title: str, data: Callable[[], Data], hidden: int, attention: bool, quoted: str) -> Case:
    shape = {"hidden": hidden, "window_past": 2, "window_future": 2, "time_attn": attention}
    return Case(
        "gcnet",
        f"{title}, hidden {hidden}" + ", attention" * attention,
        lambda: _profiles("gcnet", data, shape),
        lambda folder: authors.gcnet(folder, data(), shape),
        quoted,
    )


def _stage(
    method: str,
    steps: int,
    name: str,
    first: bool,
    build: Callable[[Path, Data, Mapping[str, Any]], Step],
    quoted: str = "",
) -> Case:
    """One of two stages at the published size."""
    shape = {"hidden": 256, "depth": 4, "heads": 2}
    data = partial(dialogues, 32, steps, mean=24)
    return Case(
        method,
        f"32 MOSI dialogues, {name}",
        lambda: _profiles(method, data, shape, name),
        lambda folder: build(folder, data(), {**shape, "first_stage": first}),
        quoted,
    )


def _magtkd(width: int, steps: int, quoted: str) -> Case:
    data = partial(dialogues, 16, steps, widths={"text": 768, "audio": 768, "vision": 768}, classes=6)
    title = f"16 dialogues of {steps}, H = {width}"
    return Case("magtkd", title, lambda: _profiles("magtkd", data, {"hidden_dim": width}), quoted=quoted)


def _graph(size: int, quoted: str) -> Case:
    """AD-MCPD's graph alone: the rest of its release does not run without downloads."""

    def inputs() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        return {
            "width": 512,
            "classes": 3,
            "values": torch.randn(3, size, 512, generator=generator),
            "logits": torch.randn(3, size, 3, generator=generator),
        }

    return Case(
        "ad_mcpd",
        f"graph, B = {size}, D = 512",
        lambda: {"default": ours.ad_mcpd_graph(**inputs())},
        lambda folder: authors.ad_mcpd_graph(folder, inputs()),
        quoted,
    )


_MOSI = partial(dialogues, 32, 63, mean=24)
_IEMOCAP = partial(dialogues, 32, 110, mean=50, classes=6)

CASES: tuple[Case, ...] = (
    _gcnet("32 MOSI dialogues", _MOSI, 200, False, "3 - 4 s"),
    _gcnet("32 MOSI dialogues", _MOSI, 200, True, "4.5 - 8.5 s"),
    _gcnet("32 MOSI dialogues", _MOSI, 50, False, "0.45 s"),
    _gcnet("32 IEMOCAP dialogues", _IEMOCAP, 200, False, "4 - 4.5 s"),
    _stage("momke", 63, "experts", True, authors.momke),
    _stage("momke", 63, "mixing", False, authors.momke),
    _stage("comp", 65, "modalities", True, authors.comp, "5 s, two cores"),
    _stage("comp", 65, "prompting", False, authors.comp, "5 s, two cores"),
    Case(
        "dmd",
        "16 utterances of 50 frames",
        lambda: _profiles("dmd", partial(sequences, 16), {}),
        lambda folder: authors.dmd(folder, sequences(16)),
        "0.4 s",
    ),
    _magtkd(128, 70, "0.45 s"),
    _magtkd(128, 15, "0.09 s"),
    _magtkd(256, 70, "0.8 s"),
    _magtkd(256, 15, "0.18 s"),
    _graph(32, "0.86 s, two cores"),
    _graph(128, "19.3 s, two cores"),
)
