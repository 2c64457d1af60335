"""What may be missing: the schedules, their names and the rules they keep.

A schedule says which modalities (or frames) are lost, and how often the draw is renewed. It is a
frozen record; the masks themselves are drawn in ``draws`` and ``frames``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from ..errors import UserError, suggestion

Pattern = Literal["keep_one", "imder", "independent", "instance", "gcnet_legacy"]
FramePattern = Literal["bernoulli", "block", "mixed_burst", "synchronous", "synchronous_block"]
Draw = Literal["epoch", "frozen"]

# The field's short letters, in the field's usual order; masks never depend on the order of columns.
LETTERS = {"text": "t", "audio": "a", "vision": "v"}

# Nominal rate of the literature that no mask of three modalities can have; it stands for 2/3.
LITERATURE_RATE = 0.7

# Rates are rounded to this many decimals, so that 3 * 0.1 and 0.3 are one condition.
RATE_DECIMALS = 10


class ScheduleError(UserError, ValueError):
    """A schedule can't be used; the message names the value and what would do."""


def standard_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Sorts names: text, audio, vision first, then the others alphabetically."""
    known = list(LETTERS)
    return tuple(
        sorted(modalities, key=lambda name: (known.index(name) if name in LETTERS else len(known), name))
    )


def pattern_label(modalities: Iterable[str]) -> str:
    """Short label of a set of available modalities: ``"ta"``, ``"eeg+gsr"``, or ``"none"``."""
    names = standard_order(modalities)
    if all(name in LETTERS for name in names):
        return "".join(LETTERS[name] for name in names) or "none"
    return "+".join(names)


def number(value: float) -> str:
    """A rate as it stands in a name: plain decimals with at least one digit after the point."""
    text = f"{value:.{RATE_DECIMALS}f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _rounded(value: float) -> float:
    return round(value, RATE_DECIMALS)


def _rates_label(rates: dict[str, float]) -> str:
    return "-".join(f"{LETTERS.get(name, name)}{number(rates[name])}" for name in standard_order(rates))


Share = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    @property
    def name(self) -> str:
        raise NotImplementedError

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.name))


class Ramp(BaseModel):
    """A rate that moves linearly over the epochs of training.

    The rate of epoch e (from 0) is ``start + (end - start) * min(e / epochs, 1)``.

    Attributes:
        start: Rate of epoch 0.
        end: Rate of epoch ``epochs`` and of every later one.
        epochs: Length of the ramp.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    start: Share
    end: Share
    epochs: Annotated[int, Field(ge=1)]

    _round = field_validator("start", "end")(_rounded)

    def at(self, epoch: int) -> float:
        """Rate of an epoch, counted from 0."""
        return _rounded(self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0))


class Complete(_Record):
    """Nothing is lost."""

    kind: Literal["complete"] = "complete"

    @property
    def name(self) -> str:
        """``"complete"``."""
        return "complete"

    @property
    def family(self) -> str:
        """``"complete"``."""
        return "complete"

    @property
    def is_random(self) -> bool:
        """False: a mask seed changes nothing."""
        return False


class Fixed(_Record):
    """The same modalities are available in every utterance.

    Attributes:
        available: Names of the available modalities; kept in the standard order.
    """

    kind: Literal["fixed"] = "fixed"
    available: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("available")
    @classmethod
    def _sort(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"available names a modality twice: {list(value)}")
        return standard_order(value)

    @property
    def name(self) -> str:
        """``"fixed-ta"``, or ``"fixed-eeg+gsr"`` for modalities without a letter."""
        return f"fixed-{pattern_label(self.available)}"

    @property
    def family(self) -> str:
        """``"fixed"``."""
        return "fixed"

    @property
    def is_random(self) -> bool:
        """False: a mask seed changes nothing."""
        return False


class Random(_Record):
    """Modalities are lost at random; every utterance keeps at least one.

    ``shares`` has the formula of every pattern. Counts are exact: the number of utterances with
    1, 2, ..., M modalities follows the formula to within one utterance.

    Attributes:
        rate: Missing rate r (``"instance"``: the probability p that an utterance is hit). One
            number; a tuple, of which epoch e takes entry ``e % len``; or a ``Ramp``.
        pattern: Distribution of the patterns at that rate.
        draw: Whether training draws anew each epoch. Not part of the condition's name.
        literature: Let the nominal rate 0.7 stand for 2/3, as in the tables of the field.
    """

    kind: Literal["random"] = "random"
    rate: Share | Annotated[tuple[Share, ...], Field(min_length=1)] | Ramp
    pattern: Pattern = "keep_one"
    draw: Draw = "epoch"
    literature: bool = False

    @field_validator("rate")
    @classmethod
    def _round(cls, value: float | tuple[float, ...] | Ramp) -> float | tuple[float, ...] | Ramp:
        if isinstance(value, tuple):
            return tuple(_rounded(rate) for rate in value)
        return value if isinstance(value, Ramp) else _rounded(value)

    @model_validator(mode="after")
    def _rates_fit_the_pattern(self) -> Random:
        if self.draw == "frozen" and not isinstance(self.rate, float):
            raise ValueError("a rate that changes over epochs needs draw 'epoch', not 'frozen'")
        if self.pattern == "imder":
            if isinstance(self.rate, Ramp):
                raise ValueError("pattern 'imder' is a table of rates 0.0, 0.1, ..., 0.7; it has no ramp")
            for rate in self.rates:
                if rate not in IMDER_SHARES:
                    raise ValueError(f"pattern 'imder' has the rates 0.0, 0.1, ..., 0.7 only, not {rate:g}")
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """All listed rates; both ends of a ramp."""
        if isinstance(self.rate, tuple):
            return self.rate
        return (self.rate.start, self.rate.end) if isinstance(self.rate, Ramp) else (self.rate,)

    @property
    def name(self) -> str:
        """``"random-0.3"``, ``"random-imder-0.3"``, ``"instance-0.5"``, ``"random-0.0to0.5in20"``."""
        if isinstance(self.rate, Ramp):
            rate = f"{number(self.rate.start)}to{number(self.rate.end)}in{self.rate.epochs}"
        else:
            rate = "_".join(number(item) for item in self.rates)
        prefix = {"keep_one": "random", "instance": "instance"}.get(self.pattern, f"random-{self.pattern}")
        return f"{prefix}-{rate}"

    @property
    def family(self) -> str:
        """``"random"`` for keep-one, else the name of the pattern: rates mean different tasks."""
        return "random" if self.pattern == "keep_one" else self.pattern

    @property
    def is_random(self) -> bool:
        """Whether a mask seed matters: some rate is above 0."""
        return any(rate > 0 for rate in self.rates)


# IMDer's table: shares of utterances that lose two (a) and one (b) of three modalities.
IMDER_SHARES: dict[float, tuple[float, float]] = {
    0.0: (0.0, 0.0),
    0.1: (0.1, 0.1),
    0.2: (0.2, 0.2),
    0.3: (0.3, 0.3),
    0.4: (0.5, 0.2),
    0.5: (0.7, 0.1),
    0.6: (0.9, 0.0),
    0.7: (1.0, 0.0),
}


class Imbalanced(_Record):
    """Every modality has a missing rate of its own, kept exactly; every utterance keeps one.

    Attributes:
        rates: Missing rate of every modality of the data set. Their sum is at most M - 1.
        draw: Whether training draws anew each epoch.
    """

    kind: Literal["imbalanced"] = "imbalanced"
    rates: Annotated[dict[str, Share], Field(min_length=2)]
    draw: Draw = "epoch"

    @field_validator("rates")
    @classmethod
    def _feasible(cls, value: dict[str, float]) -> dict[str, float]:
        total = sum(value.values())
        if total > len(value) - 1 + 1e-9:
            raise ValueError(
                f"the rates of {len(value)} modalities add up to {total:g}; where every utterance keeps "
                f"one modality they add up to at most {len(value) - 1}"
            )
        return {name: _rounded(value[name]) for name in standard_order(value)}

    @property
    def name(self) -> str:
        """``"imbalanced-t0.3-a0.5-v0.7"``."""
        return f"imbalanced-{_rates_label(self.rates)}"

    @property
    def family(self) -> str:
        """``"imbalanced"``."""
        return "imbalanced"

    @property
    def is_random(self) -> bool:
        """Whether a mask seed matters: some rate is neither 0 nor 1."""
        return any(0 < rate < 1 for rate in self.rates.values())


class Frames(_Record):
    """Frames or tokens are lost inside the sequences; no modality is lost as a whole.

    A mask never covers padding or special tokens. ``frames`` has the formulas.

    Attributes:
        rate: Share of frames lost: one number, one per modality, ``"uniform"`` (every sample and
            modality has a rate of its own from U(0, 1)) or ``"uniform_shared"`` (one such rate per
            sample, shared by its modalities).
        pattern: ``"bernoulli"``: every frame on its own; ``"block"``: one contiguous run;
            ``"mixed_burst"``: bernoulli at ``rate`` united with a run of ``block``;
            ``"synchronous"``, ``"synchronous_block"``: the same time steps in all modalities of
            aligned data.
        complete_share: Share of the samples that lose nothing.
        block: Length of the run of ``"mixed_burst"``, as a share of the frames.
        draw: Whether training draws anew each epoch.
    """

    kind: Literal["frames"] = "frames"
    rate: Share | Annotated[dict[str, Share], Field(min_length=1)] | Literal["uniform", "uniform_shared"]
    pattern: FramePattern = "bernoulli"
    complete_share: Share = 0.0
    block: Share = 0.3
    draw: Draw = "epoch"

    @field_validator("rate")
    @classmethod
    def _round(cls, value: float | dict[str, float] | str) -> float | dict[str, float] | str:
        if isinstance(value, dict):
            return {name: _rounded(value[name]) for name in standard_order(value)}
        return value if isinstance(value, str) else _rounded(value)

    @field_validator("complete_share", "block")
    @classmethod
    def _round_shares(cls, value: float) -> float:
        return _rounded(value)

    @model_validator(mode="after")
    def _fields_fit_the_pattern(self) -> Frames:
        if self.is_synchronous and isinstance(self.rate, dict):
            raise ValueError(f"pattern {self.pattern!r} needs one rate for all modalities")
        if self.pattern != "mixed_burst" and self.block != 0.3:
            raise ValueError(f"block belongs to pattern 'mixed_burst', not to {self.pattern!r}")
        return self

    @property
    def is_synchronous(self) -> bool:
        """Whether all modalities lose the same time steps."""
        return self.pattern in ("synchronous", "synchronous_block")

    @property
    def name(self) -> str:
        """``"frames-0.3"``, ``"frames-block-0.3"``, ``"frames-mixed_burst-0.2-0.3"``, and so on.

        Rates per modality: ``"frames-t1.0-a0.0-v0.0"``. A share of complete samples comes last:
        ``"frames-uniform-complete0.5"``.
        """
        parts = ["frames"]
        if self.pattern != "bernoulli":
            parts.append(self.pattern)
        if isinstance(self.rate, dict):
            parts.append(_rates_label(self.rate))
        else:
            parts.append(self.rate if isinstance(self.rate, str) else number(self.rate))
        if self.pattern == "mixed_burst":
            parts.append(number(self.block))
        if self.complete_share:
            parts.append(f"complete{number(self.complete_share)}")
        return "-".join(parts)

    @property
    def family(self) -> str:
        """``"frames"``, ``"bursts"``, ``"synchronous"`` or ``"synchronous_block"``.

        ``"bursts"`` are the patterns that are not one bernoulli rate for all: rates per modality,
        blocks and mixed bursts.
        """
        if self.is_synchronous:
            return self.pattern
        return "bursts" if isinstance(self.rate, dict) or self.pattern != "bernoulli" else "frames"

    @property
    def is_random(self) -> bool:
        """Whether a mask seed matters."""
        if self.complete_share == 1:
            return False
        if isinstance(self.rate, str) or self.complete_share > 0:
            return True
        rates = list(self.rate.values()) if isinstance(self.rate, dict) else [self.rate]
        if self.pattern == "mixed_burst" and 0 < self.block < 1:
            return any(rate < 1 for rate in rates)
        return any(0 < rate < 1 for rate in rates)


Schedule = Annotated[Complete | Fixed | Random | Imbalanced | Frames, Field(discriminator="kind")]
_READER: TypeAdapter[Schedule] = TypeAdapter(Schedule)  # a millisecond to make


def read_schedule(table: Mapping[str, Any]) -> Schedule:
    """The schedule of a table with its ``kind``.

    Raises:
        pydantic.ValidationError: It is none.
    """
    return _READER.validate_python(table)


def at_epoch(schedule: Schedule, epoch: int) -> Schedule:
    """The schedule of one epoch: listed and ramped rates become one number."""
    if not isinstance(schedule, Random):
        return schedule
    if isinstance(schedule.rate, tuple):
        return schedule.model_copy(update={"rate": schedule.rate[epoch % len(schedule.rate)]})
    if isinstance(schedule.rate, Ramp):
        return schedule.model_copy(update={"rate": schedule.rate.at(epoch)})
    return schedule


def canonical(schedule: Schedule, modalities: Sequence[str] | None = None) -> Schedule:
    """The one form of equal conditions, so that they run once.

    Rates of 0.0 and complete fixed subsets become ``Complete``; a list of equal rates and a level
    ramp become one rate; equal frame rates of all modalities become one rate; rates per modality
    of 0 and 1 only become ``Fixed``; ``literature`` stays only where a rate needs it.

    Args:
        schedule: Any schedule.
        modalities: Modalities of the data set; without them a complete ``Fixed`` isn't recognised.
    """
    match schedule:
        case Fixed() if modalities is not None and set(schedule.available) == set(modalities):
            return Complete()
        case Random() if not schedule.is_random:
            return Complete()
        case Random():
            same = len(set(schedule.rates)) == 1
            nominal = LITERATURE_RATE in schedule.rates and schedule.pattern == "keep_one"
            possible = modalities is not None and 1 - 1 / len(modalities) >= LITERATURE_RATE
            return schedule.model_copy(
                update={
                    "rate": schedule.rates[0] if same else schedule.rate,
                    "literature": schedule.literature and nominal and not possible,
                }
            )
        case Imbalanced() if not schedule.is_random:
            left = tuple(name for name, rate in schedule.rates.items() if rate == 0)
            return Complete() if len(left) == len(schedule.rates) else Fixed(available=left)
        case Frames():
            rate = schedule.rate
            if isinstance(rate, dict) and len(set(rate.values())) == 1:
                rate = next(iter(rate.values()))
            burst = schedule.pattern == "mixed_burst" and schedule.block > 0
            if schedule.complete_share == 1 or (rate == 0 and not burst):
                return Complete()
            return schedule.model_copy(update={"rate": rate})
    return schedule


def check_schedule(schedule: Schedule, modalities: Sequence[str]) -> None:
    """Checks a schedule against the modalities of a data set.

    Raises:
        ScheduleError: A modality is unknown or left out, or the rate can't be reached.
    """
    count = len(modalities)
    if len(set(modalities)) != count or not count:
        raise ScheduleError(f"the data set's modalities must be different names, not {list(modalities)}")
    match schedule:
        case Fixed():
            _check_names(schedule.name, schedule.available, modalities)
        case Imbalanced():
            _check_names(schedule.name, schedule.rates, modalities, all_of_them=True)
        case Frames() if isinstance(schedule.rate, dict):
            _check_names(schedule.name, schedule.rate, modalities, all_of_them=True)
        case Random():
            for rate in schedule.rates:
                _check_rate(schedule, rate, count)


def _check_names(
    schedule: str, names: Iterable[str], modalities: Sequence[str], all_of_them: bool = False
) -> None:
    names = list(names)
    for name in names:
        if name not in modalities:
            raise ScheduleError(f"{schedule}: unknown modality {name!r}{suggestion(name, modalities)}")
    left_out = [name for name in modalities if name not in names]
    if all_of_them and left_out:
        raise ScheduleError(f"{schedule}: no rate for {', '.join(left_out)}; every modality needs one")


def _check_rate(schedule: Random, rate: float, count: int) -> None:
    if rate > 0 and count < 2:
        raise ScheduleError(f"{schedule.name}: a single modality can't be missing at random")
    if schedule.pattern == "imder" and count != 3:
        raise ScheduleError(f"{schedule.name}: IMDer's table is for 3 modalities, the data set has {count}")
    if schedule.pattern == "independent" and rate == 1:
        raise ScheduleError(f"{schedule.name}: at rate 1 no utterance keeps a modality")
    highest = 1 - 1 / count
    if schedule.pattern in ("keep_one", "gcnet_legacy") and rate > highest + 1e-9:
        if rate == LITERATURE_RATE and count == 3:
            if schedule.pattern == "gcnet_legacy" or schedule.literature:
                return
            raise ScheduleError(
                f"{schedule.name}: rate 0.7 is above 2/3, the most that 3 modalities can lose where every "
                "utterance keeps one; the literature's nominal 0.7 means 2/3: allow it by literature = true"
            )
        raise ScheduleError(
            f"{schedule.name}: rate {rate:g} is above {count - 1}/{count}, the most that {count} modalities "
            "can lose where every utterance keeps one"
        )
