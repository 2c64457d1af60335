"""Schedules of published protocols, under one name each.

What a preset can't fix belongs to the protocol file: data, seeds, selection. ``docs/schedules.md``
tells for every preset what its source does there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

from ..errors import UnknownName
from .records import (
    LITERATURE_RATE,
    Complete,
    Draw,
    Fixed,
    Frames,
    Imbalanced,
    Pattern,
    Random,
    Schedule,
    ScheduleError,
    check_schedule,
    standard_order,
)

Regime = Literal["matched", "single", "no_prior"]


@dataclass(frozen=True)
class Preset:
    """The conditions of a published protocol.

    Attributes:
        name: Name of the preset.
        description: Pattern distribution and source, in one or two sentences.
        unit: What is lost: a whole ``"modality"`` of an utterance, or ``"frame"``s.
        regime: One model per condition (``"matched"``), one for all (``"single"``), or one that
            was trained on complete data (``"no_prior"``).
        train: Training schedule; ``None`` in the matched regime: the test condition's.
        test: Test conditions, the clean one first if there is one.
        clean_counts: Whether the source's averages are known to include the clean condition. Tables
            here average within a family, which never includes it.
    """

    name: str
    description: str
    unit: Literal["modality", "frame"]
    regime: Regime
    train: Schedule | None
    test: tuple[Schedule, ...]
    clean_counts: bool


def presets(name: str, modalities: Sequence[str] = ("text", "audio", "vision")) -> Preset:
    """The preset of a name, for the modalities of a data set.

    Args:
        name: One of ``PRESETS``.
        modalities: Modalities of the data set.

    Raises:
        UnknownName: There is no such preset.
        ScheduleError: The preset doesn't exist for these modalities.
    """
    if name not in _MAKERS:
        raise UnknownName("preset", name, _MAKERS)
    preset = _MAKERS[name](standard_order(modalities))
    for schedule in preset.test if preset.train is None else (preset.train, *preset.test):
        check_schedule(schedule, modalities)
    return preset


def _rates(first: int, last: int) -> list[float]:
    return [step / 10 for step in range(first, last + 1)]


def _random(modalities: Sequence[str], pattern: Pattern = "keep_one", draw: Draw = "epoch") -> list[Schedule]:
    """Rates 0.1 to 0.7, as far as they can be reached."""
    highest = 1 - 1 / len(modalities)
    return [
        Random(rate=rate, pattern=pattern, draw=draw, literature=pattern == "keep_one" and rate > highest)
        for rate in _rates(1, 7)
        if rate <= highest or (len(modalities) == 3 and rate == LITERATURE_RATE)
    ]


def _incomplete(modalities: Sequence[str]) -> list[Schedule]:
    return [
        Fixed(available=subset)
        for size in range(1, len(modalities))
        for subset in combinations(modalities, size)
    ]


def _exactly_three(name: str, modalities: Sequence[str]) -> None:
    if len(modalities) != 3:
        raise ScheduleError(f"preset {name!r} is for 3 modalities, the data set has {len(modalities)}")


def _gcnet_random(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="gcnet_random",
        description="Keep-one rule at rates 0.0 to 0.7 (0.7 is 2/3). GCNet, ComP, HME.",
        unit="modality",
        regime="matched",
        train=None,
        test=(Complete(), *_random(modalities)),
        clean_counts=False,
    )


def _imder_random(modalities: Sequence[str]) -> Preset:
    _exactly_three("imder_random", modalities)
    return Preset(
        name="imder_random",
        description="IMDer's table of shares that lose one or two modalities, per sample. IMDer, DiCMoR.",
        unit="modality",
        regime="matched",
        train=None,
        test=(Complete(), *_random(modalities, "imder", "frozen")),
        clean_counts=False,
    )


def _fixed_six(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="fixed_six",
        description="Every incomplete subset for the whole split, and complete. MoMKE, PriMD, MMIN.",
        unit="modality",
        regime="matched",
        train=None,
        test=(Complete(), *_incomplete(modalities)),
        clean_counts=False,
    )


def _missmac(modalities: Sequence[str]) -> Preset:
    hit = [Random(rate=rate, pattern="instance") for rate in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    return Preset(
        name="missmac",
        description="Fixed subsets, keep-one at 0.1 to 0.7, an utterance hit with probability p. "
        "MissMAC-Bench, CyIN.",
        unit="modality",
        regime="no_prior",
        train=Complete(),
        test=(Complete(), *_incomplete(modalities), *_random(modalities), *hit),
        clean_counts=False,
    )


def _missbench_imr(modalities: Sequence[str]) -> Preset:
    _exactly_three("missbench_imr", modalities)
    triples = [dict.fromkeys(modalities, 0.5)]
    triples += [dict(zip(modalities, rates, strict=True)) for rates in permutations((0.3, 0.5, 0.7))]
    return Preset(
        name="missbench_imr",
        description="A rate per modality: the permutations of (0.3, 0.5, 0.7) and 0.5 for all, exact and "
        "shuffled. MissBench, BALM.",
        unit="modality",
        regime="matched",
        train=None,
        test=tuple(Imbalanced(rates=rates, draw="frozen") for rates in triples),
        clean_counts=False,
    )


def _lnln_frames(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="lnln_frames",
        description="Every frame or token lost on its own, at 0.0 to 0.9; trained at rates from U(0, 1) "
        "with half of the samples complete. LNLN.",
        unit="frame",
        regime="single",
        train=Frames(rate="uniform", complete_share=0.5),
        test=(Complete(), *(Frames(rate=rate) for rate in _rates(1, 9))),
        clean_counts=True,
    )


def _lnln_frames_train(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="lnln_frames_train",
        description="LNLN's training schedule as a condition: rates from U(0, 1), half complete.",
        unit="frame",
        regime="single",
        train=Frames(rate="uniform", complete_share=0.5),
        test=(Frames(rate="uniform", complete_share=0.5),),
        clean_counts=True,
    )


def _emt_frames(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="emt_frames",
        description="Every frame or token lost on its own, one model per rate 0.0 to 1.0, training data "
        "masked once. At 1.0 nothing is left. TFR-Net, EMT-DLFR.",
        unit="frame",
        regime="matched",
        train=None,
        test=(Complete(), *(Frames(rate=rate, draw="frozen") for rate in _rates(1, 10))),
        clean_counts=True,
    )


def _bursts(modalities: Sequence[str]) -> Preset:
    _exactly_three("bursts", modalities)
    if "text" not in modalities:
        raise ScheduleError(f"preset 'bursts' needs text, the data set has {', '.join(modalities)}")

    def rates(text: float, others: float) -> Frames:
        return Frames(rate={name: text if name == "text" else others for name in modalities})

    return Preset(
        name="bursts",
        description="Text lost, the others lost, text-heavy and others-heavy loss, blocks of 30 % and 50 %, "
        "a mixed burst. CMS-Mamba.",
        unit="frame",
        regime="single",
        train=Frames(rate="uniform_shared"),
        test=(
            rates(1.0, 0.0),
            rates(0.0, 1.0),
            rates(0.7, 0.1),
            rates(0.1, 0.7),
            Frames(rate=0.3, pattern="block"),
            Frames(rate=0.5, pattern="block"),
            Frames(rate=0.2, pattern="mixed_burst", block=0.3),
        ),
        clean_counts=False,
    )


def _stmfm(modalities: Sequence[str]) -> Preset:
    return Preset(
        name="stmfm",
        description="Time steps lost in all modalities at once, singly and as one block, at 0.0 to 1.0; "
        "aligned data only. CIDer.",
        unit="frame",
        regime="single",
        train=Frames(rate="uniform", pattern="synchronous"),
        test=(
            Complete(),
            *(Frames(rate=rate, pattern="synchronous") for rate in _rates(1, 10)),
            *(Frames(rate=rate, pattern="synchronous_block") for rate in _rates(1, 10)),
        ),
        clean_counts=True,
    )


_MAKERS: dict[str, Callable[[Sequence[str]], Preset]] = {
    "gcnet_random": _gcnet_random,
    "fixed_six": _fixed_six,
    "missmac": _missmac,
    "missbench_imr": _missbench_imr,
    "lnln_frames": _lnln_frames,
    "lnln_frames_train": _lnln_frames_train,
    "emt_frames": _emt_frames,
    "bursts": _bursts,
    "stmfm": _stmfm,
    "imder_random": _imder_random,
}

PRESETS = tuple(_MAKERS)
