"""Gives runs to workers until every one is in the store, whatever becomes of the workers."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..execute import Display, Entered
from ..protocol.plan import Plan, PlannedRun
from ..store import Store, StoredRun
from .events import Ended, EpochDone, Event, Lost, Remark, Started, Unable, Workers, joint_address

# A run whose worker dies is continued from its checkpoint by another one, so many times in all.
_TRIES = 3
_TICK = 0.2
_LOOK_ELSEWHERE = 0.5


class WorkerLost(Exception):
    """The process that computed a run died again and again."""


@dataclass
class _Given:
    """What a worker has: a run, or a stack.

    Attributes:
        left: Runs that have not ended, by address.
        patience: Seconds of silence after which it is stopped; ``None``: never.
        heard: When it was last heard of; infinite until it starts, as workers take time to load.
        overdue: Whether it was stopped for its silence.
    """

    left: dict[str, PlannedRun]
    patience: float | None
    heard: float = math.inf
    overdue: bool = False


def compute_together(
    pending: Sequence[tuple[PlannedRun, ...]], plan: Plan, store: Store, workers: Workers, display: Display
) -> Generator[Entered, None, None]:
    """Has runs computed by workers.

    Args:
        pending: Runs that the store lacks, in the groups that are given out.
        plan: Their plan.
        store: Where they go.
        workers: Who computes; closed at the end, whatever happens.
        display: Shows progress.

    Yields:
        Each run as it enters the store.

    Raises:
        UserError: The workers can't work.
    """
    schedule = _Schedule(pending, plan, store, workers, display)
    try:
        yield from schedule.run()
    finally:
        workers.close()


class _Schedule:
    def __init__(
        self,
        pending: Sequence[tuple[PlannedRun, ...]],
        plan: Plan,
        store: Store,
        workers: Workers,
        display: Display,
    ) -> None:
        self._waiting = deque(pending)
        self._given: dict[str, _Given] = {}
        self._elsewhere: dict[str, PlannedRun] = {}
        self._tries: Counter[str] = Counter()
        self._plan, self._store, self._workers, self._display = plan, store, workers, display

    def run(self) -> Generator[Entered, None, None]:
        looked = 0.0
        while self._waiting or self._given or self._elsewhere:
            while self._waiting and self._workers.room(len(self._given)):
                self._give(self._next())
            for event in self._workers.events(_TICK):
                yield from self._heard(event)
            self._stop_overdue()
            if self._elsewhere and time.monotonic() - looked > _LOOK_ELSEWHERE:
                looked = time.monotonic()
                if not self._waiting and not self._given:
                    self._display.waiting(len(self._elsewhere))
                yield from self._look_elsewhere()

    def _give(self, runs: tuple[PlannedRun, ...]) -> None:
        address = joint_address([run.address for run in runs])
        minutes = self._plan.protocol.compute.max_minutes
        # The training itself keeps the limit; who is silent for longer than all of it hangs.
        patience = None if minutes is None else 60 * minutes * len(runs) + max(10.0, 6 * minutes)
        self._given[address] = _Given({run.address: run for run in runs}, patience)
        self._workers.give(address)

    def _next(self) -> tuple[PlannedRun, ...]:
        """The first runs that would not wait for a shared stage that others are training."""
        busy = {run.stage_address for given in self._given.values() for run in given.left.values()}
        for index, runs in enumerate(self._waiting):
            stages = {run.stage_address for run in runs} & busy
            if all(self._store.stage_file(stage).is_file() for stage in stages):
                del self._waiting[index]
                return runs
        return self._waiting.popleft()

    def _heard(self, event: Event) -> Generator[Entered, None, None]:
        if isinstance(event, Unable):
            raise UserError(event.message)
        if isinstance(event, Remark):
            self._display.note(event.message)
            return
        holder = self._holder(event.address)
        if holder is None:
            return  # a late word of a run that is over
        given = self._given[holder]
        given.heard = time.monotonic()
        run = given.left.get(event.address)
        match event:
            case Started() if run is not None:
                self._display.run_started(run)
            case EpochDone() if run is not None:
                self._display.epoch_done(run, event.stage, event.step, event.loss)
            case Ended() if event.address == holder:
                del self._given[holder]
                for one in given.left.values():
                    yield from self._ended(one, event.how)
            case Ended() if run is not None:
                del given.left[event.address]
                yield from self._ended(run, event.how)
            case Lost():
                del self._given[holder]
                yield from self._lost(given, event)

    def _holder(self, address: str) -> str | None:
        """Under which address a run, or a stack, is given out."""
        if address in self._given:
            return address
        return next((joint for joint, given in self._given.items() if address in given.left), None)

    def _ended(self, run: PlannedRun, how: str) -> Generator[Entered, None, None]:
        stored = self._store.find(run.address)
        if how == "elsewhere" or stored is None:
            self._elsewhere[run.address] = run
        else:
            yield Entered(run, stored, how == "computed")

    def _lost(self, given: _Given, event: Lost) -> Generator[Entered, None, None]:
        again: list[PlannedRun] = []
        for run in given.left.values():
            stored = self._store.find(run.address)
            if stored is not None:  # it died between publishing and saying so
                yield Entered(run, stored, True)
                continue
            self._tries[run.address] += 1
            if not given.overdue and self._tries[run.address] < _TRIES:
                self._display.note(f"{run.name}: {event.reason}; it continues from its checkpoint")
                again.append(run)
                continue
            with self._store.claim(run.address) as mine:
                if mine:
                    yield Entered(run, self._record(run, given, event), True)
                else:
                    self._elsewhere[run.address] = run
        if again:
            self._waiting.appendleft(tuple(again))

    def _record(self, run: PlannedRun, given: _Given, event: Lost) -> StoredRun:
        from ..engine.run import record_failure
        from ..engine.training import TimeLimit

        minutes = self._plan.protocol.compute.max_minutes
        problem = (
            TimeLimit(f"no sign of life within the time limit of {minutes:g} minutes; stopped by force")
            if given.overdue
            else WorkerLost(f"{event.reason}, {_TRIES} times in all")
        )
        return record_failure(run, self._plan, self._store, problem)

    def _stop_overdue(self) -> None:
        for address, given in self._given.items():
            late = given.patience is not None and time.monotonic() - given.heard > given.patience
            if late and not given.overdue:
                given.overdue = True
                self._workers.stop(address)

    def _look_elsewhere(self) -> Generator[Entered, None, None]:
        """Runs of other processes: done, or free again because their process has died."""
        for address, run in list(self._elsewhere.items()):
            with self._store.claim(address) as free:
                stored = self._store.find(address) if free else None
            if free:
                del self._elsewhere[address]
                if stored is None:
                    self._waiting.append((run,))
                else:
                    yield Entered(run, stored, False)
