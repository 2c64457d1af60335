"""Schedules of missing modalities: what is lost, how often, and the masks themselves.

``records`` has the schedules and their names, ``shares`` the formulas, ``draws`` and ``frames`` the
masks, ``summary`` what a mask turned out to be, ``presets`` the published protocols. Masks are pure
functions of (data set name, set of utterance ids, schedule, mask seed, epoch). Free of torch.
"""

from .draws import MASK_VERSION, IdHashes, draw_availability, gcnet_random_mask
from .frames import draw_frames
from .names import parse_schedule
from .presets import PRESETS, Preset, presets
from .records import (
    Complete,
    Fixed,
    Frames,
    Imbalanced,
    Ramp,
    Random,
    Schedule,
    ScheduleError,
    at_epoch,
    canonical,
    check_schedule,
    pattern_label,
    read_schedule,
)
from .shares import expected_pattern_shares, nominal_rate
from .summary import MaskSummary, describe, describe_frames

__all__ = [
    "MASK_VERSION",
    "PRESETS",
    "Complete",
    "Fixed",
    "Frames",
    "IdHashes",
    "Imbalanced",
    "MaskSummary",
    "Preset",
    "Ramp",
    "Random",
    "Schedule",
    "ScheduleError",
    "at_epoch",
    "canonical",
    "check_schedule",
    "describe",
    "describe_frames",
    "draw_availability",
    "draw_frames",
    "expected_pattern_shares",
    "gcnet_random_mask",
    "nominal_rate",
    "parse_schedule",
    "pattern_label",
    "presets",
    "read_schedule",
]
