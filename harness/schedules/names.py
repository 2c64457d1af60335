"""Names of conditions, read back into schedules."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError

from .records import (
    LETTERS,
    LITERATURE_RATE,
    Complete,
    Draw,
    Fixed,
    FramePattern,
    Frames,
    Imbalanced,
    Pattern,
    Random,
    Schedule,
    ScheduleError,
    canonical,
    check_schedule,
    pattern_label,
    read_schedule,
)

_NUMBER = r"(?:\d+\.\d+|\.\d+|\d+)"
_RANDOM_RATE = re.compile(rf"{_NUMBER}(?:_{_NUMBER})*")
_RAMP = re.compile(rf"({_NUMBER})to({_NUMBER})in(\d+)")
_RATE_AFTER_LABEL = re.compile(r"([01](?:\.\d+)?)(?:-|$)")


def parse_schedule(
    text: str,
    modalities: Sequence[str],
    pattern: Pattern = "keep_one",
    draw: Draw = "epoch",
    literature: bool = False,
) -> Schedule:
    """Reads the name of a condition.

    ``parse_schedule(schedule.name, modalities, literature=True)`` is ``canonical(schedule)`` for
    every schedule that is drawn each epoch. ``"fixed-av"`` and ``"fixed-audio+vision"`` are the
    same, and so are ``"random-0.0"`` and ``"complete"``.

    Args:
        text: The name, such as ``"random-0.3"``.
        modalities: Modalities of the data set.
        pattern: Pattern of a ``"random-..."`` name that doesn't say one.
        draw: How often training draws anew.
        literature: Let 0.7 stand for 2/3 with three modalities.

    Returns:
        The schedule in its canonical form.

    Raises:
        ScheduleError: The name isn't one (the nearest valid form is named), or the schedule
            doesn't fit the modalities.
    """
    family, _, rest = text.strip().partition("-")
    try:
        fields = _fields(family, rest, modalities, pattern, literature)
        if fields is None:
            near = difflib.get_close_matches(text, _examples(modalities), n=1, cutoff=0.0)[0]
            raise ScheduleError(f"unknown schedule {text!r}; did you mean {near!r}?")
        if fields["kind"] not in ("complete", "fixed"):
            fields["draw"] = draw
        schedule = read_schedule(fields)
    except ValidationError as error:
        raise ScheduleError(f"schedule {text!r}: {_reason(error)}") from None
    check_schedule(schedule, modalities)
    return canonical(schedule, modalities)


def _reason(error: ValidationError) -> str:
    return "; ".join(issue["msg"].removeprefix("Value error, ") for issue in error.errors()[:1])


def _fields(
    family: str, rest: str, modalities: Sequence[str], pattern: Pattern, literature: bool
) -> dict[str, Any] | None:
    match family:
        case "complete" if not rest:
            return {"kind": "complete"}
        case "fixed":
            available = _subset(rest, modalities)
            return available and {"kind": "fixed", "available": available}
        case "instance":
            return _random(rest, "instance", False)
        case "random":
            for known in get_args(Pattern):
                if rest.startswith(f"{known}-"):
                    return _random(rest.removeprefix(f"{known}-"), known, literature)
            return _random(rest, pattern, literature)
        case "imbalanced":
            rates = _modality_rates(rest, modalities)
            return rates and {"kind": "imbalanced", "rates": rates}
        case "frames":
            return _frames(rest, modalities)
    return None


def _subset(text: str, modalities: Sequence[str]) -> Any:
    """Full names joined by a plus, or letters; ``None`` if it is neither."""
    names = tuple(text.split("+"))
    if all(name in modalities for name in names):
        return names
    named = {letter: name for name, letter in LETTERS.items() if name in modalities}
    return tuple(named[letter] for letter in text) if text and set(text) <= set(named) else None


def _random(text: str, pattern: str, literature: bool) -> dict[str, Any] | None:
    if ramp := _RAMP.fullmatch(text):
        rate: Any = {"start": ramp[1], "end": ramp[2], "epochs": ramp[3]}
        return {"kind": "random", "rate": rate, "pattern": pattern}
    if not _RANDOM_RATE.fullmatch(text):
        return None
    rates = tuple(float(item) for item in text.split("_"))
    needed = literature and pattern == "keep_one" and LITERATURE_RATE in rates
    rate = rates[0] if len(rates) == 1 else rates
    return {"kind": "random", "rate": rate, "pattern": pattern, "literature": needed}


def _modality_rates(text: str, modalities: Sequence[str]) -> dict[str, float] | None:
    """``"t0.3-a0.5"``; modality names may hold digits and dashes, so labels are tried in turn."""
    labels = {LETTERS.get(name, name): name for name in modalities} | {name: name for name in modalities}
    rates: dict[str, float] = {}
    while text:
        for label in sorted(labels, key=len, reverse=True):
            found = _RATE_AFTER_LABEL.match(text, len(label)) if text.startswith(label) else None
            if found and labels[label] not in rates:
                rates[labels[label]] = float(found[1])
                text = text[found.end() :]
                break
        else:
            return None
    return rates or None


def _frames(text: str, modalities: Sequence[str]) -> dict[str, Any] | None:
    fields: dict[str, Any] = {"kind": "frames"}
    for known in sorted(get_args(FramePattern), key=len, reverse=True):
        if text.startswith(f"{known}-"):
            fields["pattern"] = known
            text = text.removeprefix(f"{known}-")
            break
    if share := re.fullmatch(rf"(.+)-complete({_NUMBER})", text):
        text, fields["complete_share"] = share[1], float(share[2])
    if fields.get("pattern") == "mixed_burst":
        text, _, block = text.rpartition("-")
        if not re.fullmatch(_NUMBER, block):
            return None
        fields["block"] = float(block)
    if text in ("uniform", "uniform_shared"):
        return fields | {"rate": text}
    if re.fullmatch(_NUMBER, text):
        return fields | {"rate": float(text)}
    rates = _modality_rates(text, modalities)
    return rates and fields | {"rate": rates}


def _examples(modalities: Sequence[str]) -> list[str]:
    """Valid names near which a wrong one may lie."""
    count = len(modalities)
    subsets = [
        tuple(name for index, name in enumerate(modalities) if code >> index & 1)
        for code in range(1, 1 << min(count, 6))
    ]
    rates = [step / 10 for step in range(1, 8) if step / 10 <= 1 - 1 / max(count, 2) or count == 3]
    examples: list[Schedule] = [Complete()]
    examples += [Fixed(available=subset) for subset in subsets]
    examples += [
        Random(rate=rate, pattern=pattern)
        for rate in rates
        for pattern in get_args(Pattern)
        if pattern != "imder" or count == 3
    ]
    if count >= 2:
        examples.append(Imbalanced(rates=dict.fromkeys(modalities, 0.5)))
    examples += [Frames(rate=rate, pattern=pattern) for rate in rates for pattern in get_args(FramePattern)]
    return [*(example.name for example in examples), *(f"fixed-{pattern_label([m])}" for m in modalities)]
