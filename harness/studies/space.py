"""The search space of a method: its record's ranges, narrowed by the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ..errors import UnknownName, UserError
from ..protocol.schema import NarrowEntry
from ..record import Choice, FloatRange, HyperParameters, IntRange, Search, When

if TYPE_CHECKING:
    from optuna import Trial

Narrowing = Mapping[str, NarrowEntry | Literal[False]]


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter that is searched.

    Attributes:
        name: Its name.
        search: Its range.
        when: On which other one it depends, or ``None``.
    """

    name: str
    search: Search
    when: When | None = None

    @property
    def distribution(self) -> BaseDistribution:
        """The range in Optuna's words."""
        match self.search:
            case FloatRange(low, high, log):
                return FloatDistribution(low, high, log=log)
            case IntRange(low, high, step, log):
                return IntDistribution(low, high - (high - low) % step, step=step, log=log)
            case Choice(values):
                return CategoricalDistribution(values)

    def suggest(self, trial: Trial) -> Any:
        """A value for one trial."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(self.name, low, high, log=log)
            case IntDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_int(self.name, low, high, step=step, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
        raise AssertionError(self.distribution)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        return _holds(self.search, value)


@dataclass(frozen=True)
class SearchSpace:
    """Everything that a study searches.

    Attributes:
        dimensions: What is searched; what others depend on comes first.
    """

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: Trial, base: HyperParameters) -> dict[str, Any]:
        """Values for one trial; what does not apply under the others keeps the base's value."""
        chosen: dict[str, Any] = {}
        for item in self._active(base, chosen):
            chosen[item.name] = item.suggest(trial)
        return chosen

    def values_of(self, base: HyperParameters) -> dict[str, Any]:
        """The base setting in terms of the space, without what lies outside of it."""
        values = {name: getattr(base, name) for name in self.names}
        return {
            item.name: values[item.name]
            for item in self._active(base, values)
            if item.holds(values[item.name])
        }

    def _active(self, base: HyperParameters, chosen: Mapping[str, Any]) -> Iterable[Dimension]:
        for item in self.dimensions:
            if item.when is not None:
                other = chosen.get(item.when.name, getattr(base, item.when.name))
                if other not in item.when.values:
                    continue
            yield item

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is searched."""
        return tuple(item.name for item in self.dimensions)

    def record(self) -> dict[str, Any]:
        """The space as plain values."""
        return {
            item.name: {
                "kind": type(item.search).__name__,
                **vars(item.search),
                **({"when": {item.when.name: list(item.when.values)}} if item.when else {}),
            }
            for item in self.dimensions
        }


def search_space(
    parameters: type[HyperParameters], narrowing: Narrowing, fixed: Iterable[str], owner: str
) -> SearchSpace:
    """The search space of a method under a protocol.

    Args:
        parameters: Hyper-parameters of the method's record.
        narrowing: What the protocol narrows.
        fixed: Hyper-parameters that the protocol sets; they are not searched.
        owner: The method, for messages.

    Raises:
        UserError: The protocol narrows what is not searched, or goes beyond the record's range.
    """
    ranges, conditions, fixed = parameters.search_space(), parameters.search_conditions(), set(fixed)
    for name in narrowing:
        if name not in ranges:
            raise UnknownName(f"searchable hyper-parameter of {owner}", name, ranges)
    dimensions: dict[str, Dimension] = {}
    for name in ranges:
        entry = narrowing.get(name)
        if name in fixed or entry is False:
            continue
        search = ranges[name] if entry is None else _narrow(ranges[name], entry, f"tune.space.{owner}.{name}")
        _check_writable(search, f"{owner}.{name}")
        dimensions[name] = Dimension(name, search, conditions.get(name))
    return SearchSpace(tuple(_parents_first(dimensions, owner)))


def _narrow(search: Search, entry: NarrowEntry, where: str) -> Search:
    if entry.values is not None:
        for value in entry.values:
            if not _holds(search, value):
                raise UserError(f"{where}: {value!r} is outside of the record's {search}")
        return Choice(entry.values)
    if isinstance(search, Choice):
        raise UserError(f"{where}: {search} is narrowed by 'values', not by 'low' and 'high'")
    low = search.low if entry.low is None else entry.low
    high = search.high if entry.high is None else entry.high
    if not search.low <= low <= high <= search.high:
        raise UserError(f"{where}: {low:g} to {high:g} is not within the record's {search}")
    if isinstance(search, FloatRange):
        return FloatRange(low, high, search.log)
    if low != int(low) or high != int(high):
        raise UserError(f"{where}: {low:g} to {high:g} are not integers")
    return IntRange(int(low), int(high), search.step, search.log)


def _holds(search: Search, value: Any) -> bool:
    if isinstance(search, Choice):
        return any(
            value == item and isinstance(value, bool) == isinstance(item, bool) for item in search.values
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not search.low <= value <= search.high:
        return False
    return isinstance(search, FloatRange) or (value == int(value) and (value - search.low) % search.step == 0)


def _check_writable(search: Search, where: str) -> None:
    """What is found must fit into a TOML file."""
    for value in search.values if isinstance(search, Choice) else ():
        if not isinstance(value, bool | int | float | str):
            raise UserError(f"{where}: {value!r} can't be searched: choices are numbers, texts or booleans")


def _parents_first(dimensions: Mapping[str, Dimension], owner: str) -> Iterable[Dimension]:
    done: set[str] = set()
    waiting = list(dimensions.values())
    while waiting:
        ready = [
            item
            for item in waiting
            if not item.when or item.when.name in done or item.when.name not in dimensions
        ]
        if not ready:
            names = ", ".join(item.name for item in waiting)
            raise UserError(f"{owner}: the hyper-parameters {names} depend on each other")
        yield from ready
        done |= {item.name for item in ready}
        waiting = [item for item in waiting if item not in ready]
