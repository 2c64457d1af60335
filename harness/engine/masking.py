"""From a schedule to the masks of a split on the device."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from ..schedules import (
    Frames,
    MaskSummary,
    Schedule,
    describe,
    describe_frames,
    draw_availability,
    draw_frames,
)
from .evaluation import Condition
from .tensors import Masks, SplitTensors


def draw(split: SplitTensors, schedule: Schedule, data_set: str, seed: int, epoch: int = 0) -> Masks:
    """Draws a schedule for a split and joins it with what was observed.

    Args:
        split: The split.
        schedule: The schedule.
        data_set: Name of the data set.
        seed: Mask seed.
        epoch: Epoch, for training schedules that are drawn anew.
    """
    drawn = draw_availability(
        schedule,
        data_set=data_set,
        ids=split.id_hashes,
        modalities=split.modalities,
        seed=seed,
        epoch=epoch,
    )
    frames = None
    if isinstance(schedule, Frames):
        if set(split.sequence_lengths) != set(split.modalities):
            missing = sorted(set(split.modalities) - set(split.sequence_lengths))
            raise UserError(
                f"{schedule.name}: frames are lost inside sequences, but {', '.join(missing)} has vectors"
            )
        frames = draw_frames(
            schedule,
            data_set=data_set,
            ids=split.id_hashes,
            modality_lengths=split.sequence_lengths,
            max_lengths=split.max_lengths,
            protected=split.protected,
            seed=seed,
            epoch=epoch,
        )
    return split.masks(drawn, frames)


def conditions(
    split: SplitTensors, schedules: Sequence[Schedule], data_set: str, seeds: Sequence[int]
) -> tuple[Condition, ...]:
    """The fixed conditions of validation or test: a draw per mask seed where anything is drawn."""
    drawn = []
    for schedule in schedules:
        for seed in seeds if schedule.is_random else (None,):
            masks = draw(split, schedule, data_set, seed or 0)
            summary = summarise(split, masks)
            drawn.append(Condition(schedule.name, schedule.family, seed, masks, summary.hash))
    return tuple(drawn)


def summarise(split: SplitTensors, masks: Masks) -> MaskSummary:
    """Realised rates, pattern shares and hash of the masks of a split."""
    if masks.frames is not None:
        return describe_frames(
            {name: (kept | ~split.frames[name]).cpu().numpy() for name, kept in masks.frames.items()},
            ids=split.id_hashes,
            modality_lengths=split.sequence_lengths,
            protected=split.protected,
        )
    return describe(masks.available.cpu().numpy(), split.modalities, split.id_hashes)
