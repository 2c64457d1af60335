"""Runs of one method, computed in lockstep: what they ask at the same time is answered together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, TypeVar

import torch

from ..record import CallKind
from .calls import Call, Lane, Work
from .deadline import deadline
from .stack import Stack

T = TypeVar("T")


class Member(Lane, Generic[T]):
    """A run beside others: its random state, and its share of the time.

    Args:
        device: Device of the run.
    """

    def __init__(self, device: torch.device) -> None:
        self.call: Call | None = None
        self.seconds = 0.0
        self._since: float | None = None
        self._work: Work[T] | None = None
        self._defaults = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            index = torch.cuda.current_device() if device.index is None else device.index
            self._defaults.append(torch.cuda.default_generators[index])
        self._own = [torch.Generator(default.device) for default in self._defaults]

    @property
    def generator(self) -> torch.Generator:
        """Where the run draws from on its device."""
        return self._own[-1]

    def begin(self, work: Work[T]) -> T | None:
        """Starts the run's work."""
        self._work = work
        return self.go_on(None)

    def go_on(self, answer: object, problem: BaseException | None = None) -> T | None:
        """Gives the run an answer, or a problem, and takes its next call.

        Returns:
            What the run returns if it has no further call, else ``None``.
        """
        assert self._work is not None
        self.call = None
        self._since = time.perf_counter()
        try:
            with self.random_state():
                self.call = self._work.send(answer) if problem is None else self._work.throw(problem)
        except StopIteration as end:
            return end.value
        finally:
            self.seconds = self.now()
            self._since = None
        return None

    def close(self) -> None:
        """Ends the run where it stands."""
        if self._work is not None:
            self._work.close()

    @contextmanager
    def random_state(self) -> Iterator[None]:
        """Has torch draw from this run's generators."""
        for default, own in zip(self._defaults, self._own, strict=True):
            default.set_state(own.get_state())
        try:
            yield
        finally:
            for default, own in zip(self._defaults, self._own, strict=True):
                own.set_state(default.get_state())

    def now(self) -> float:
        """Seconds of work on this run: its own, and its share of what was done together."""
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def deadline(self, minutes: float | None) -> AbstractContextManager[None]:
        """None: the time of every call is limited instead, and the training looks at its own."""
        return nullcontext()


def together(
    works: Sequence[Callable[[Lane], Work[T]]],
    device: torch.device,
    kinds: Collection[CallKind],
    minutes: float | None,
) -> Generator[tuple[int, T], None, None]:
    """Carries out the work of runs that differ in their numbers only.

    Runs go through their epochs side by side, and who has ended a stage waits for the others. Those at
    different steps of an epoch, or with weights of different stages, are carried out apart.

    Args:
        works: Makes the work of each run for its lane.
        device: Device of the runs.
        kinds: Calls that can be stacked; others are carried out one by one.
        minutes: Limit of the time of a call; ``None``: no limit.

    Yields:
        Index and result of each run that ends.
    """
    members: list[Member[T]] = [Member(device) for _ in works]
    try:
        stacks = _Stacks()
        for index, (member, make) in enumerate(zip(members, works, strict=True)):
            result = member.begin(make(member))
            if member.call is None:
                yield index, _result(result)
        while any(member.call is not None for member in members):
            now = _next(members, kinds)
            begun = time.perf_counter()
            answers: Sequence[object] = [None] * len(now)
            problem = None
            try:
                with deadline(minutes):
                    answers = stacks.carry_out(now, kinds)
            except BaseException as error:  # a run decides what becomes of its failure
                problem = error
            spent = (time.perf_counter() - begun) / len(now)
            for member, answer in zip(now, answers, strict=True):
                member.seconds += spent
                result = member.go_on(answer, problem)
                if member.call is None:
                    yield members.index(member), _result(result)
    finally:
        for member in members:
            member.close()


def _next(members: Sequence[Member[T]], kinds: Collection[CallKind]) -> list[Member[T]]:
    """Those whose calls come next and can be carried out together."""

    def rank(member: Member[T]) -> tuple[int, bool, int]:
        call = member.call
        assert call is not None
        # Who is in an epoch ends it before anyone begins the next.
        return member.stage, call.kind == "training_step", -call.position

    waiting = [member for member in members if member.call is not None]
    first = min(waiting, key=rank)
    assert first.call is not None
    if first.call.kind not in kinds:
        return [first]
    key = _key(first)
    return [member for member in waiting if _key(member) == key]


def _key(member: Member[T]) -> tuple[object, ...]:
    """What runs must agree in for their calls to be carried out together."""
    call = member.call
    assert call is not None
    batch = call.batch
    given = tuple(name for name, value in vars(batch).items() if value is not None)
    return member.stage, member.weights, call.kind, call.position, batch.size, call.precision, given


class _Stacks:
    """Stacks that are in use; a method is in one of them at most."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[object, ...], Stack] = {}

    def carry_out(self, members: Sequence[Member[T]], kinds: Collection[CallKind]) -> Sequence[object]:
        calls = [member.call for member in members if member.call is not None]
        if calls[0].kind not in kinds:
            (member,) = members
            with member.random_state():
                return [calls[0].carry_out()]
        methods = [call.method for call in calls]
        # What a network does, and draws, may differ between stages.
        key = (members[0].stage, members[0].weights, *(id(method) for method in methods))
        stack = self._stacks.get(key)
        if stack is None or not stack.is_whole():
            self._stacks = {
                own: other
                for own, other in self._stacks.items()
                if not any(other.holds(method) for method in methods)
            }
            stack = self._stacks[key] = Stack(methods, [member.generator for member in members])
        return stack.carry_out(calls)


def _result(result: T | None) -> T:
    assert result is not None
    return result
