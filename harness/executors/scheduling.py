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
from .events import Ended, EpochDone, Event, Lost, Remark, Started, Unable, Workers

# A run whose worker dies is continued from its checkpoint by another one, so many times in all.
_TRIES = 3
_TICK = 0.2
_LOOK_ELSEWHERE = 0.5


class WorkerLost(Exception):
    """The process that computed a run died again and again."""


@dataclass
class _Given:
    """A run that a worker has.

    Attributes:
        run: The run.
        heard: When it was last heard of; infinite until it starts, as workers take time to load.
        overdue: Whether it was stopped for its silence.
    """

    run: PlannedRun
    heard: float = math.inf
    overdue: bool = False


def compute_together(
    pending: Sequence[PlannedRun], plan: Plan, store: Store, workers: Workers, display: Display
) -> Generator[Entered, None, None]:
    """Has runs computed by workers.

    Args:
        pending: Runs that the store lacks.
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
        self, pending: Sequence[PlannedRun], plan: Plan, store: Store, workers: Workers, display: Display
    ) -> None:
        self._waiting = deque(pending)
        self._given: dict[str, _Given] = {}
        self._elsewhere: dict[str, PlannedRun] = {}
        self._tries: Counter[str] = Counter()
        self._plan, self._store, self._workers, self._display = plan, store, workers, display
        minutes = plan.protocol.compute.max_minutes
        # The training itself keeps the limit; who is silent for longer than all of it hangs.
        self._silence = None if minutes is None else 60 * minutes + max(10.0, 6 * minutes)

    def run(self) -> Generator[Entered, None, None]:
        looked = 0.0
        while self._waiting or self._given or self._elsewhere:
            while self._waiting and self._workers.room(len(self._given)):
                run = self._next()
                self._given[run.address] = _Given(run)
                self._workers.give(run.address)
            for event in self._workers.events(_TICK):
                yield from self._heard(event)
            self._stop_overdue()
            if self._elsewhere and time.monotonic() - looked > _LOOK_ELSEWHERE:
                looked = time.monotonic()
                if not self._waiting and not self._given:
                    self._display.waiting(len(self._elsewhere))
                yield from self._look_elsewhere()

    def _next(self) -> PlannedRun:
        """The first run that would not wait for a shared stage that another one is training."""
        busy = {given.run.stage_address for given in self._given.values()}
        for index, run in enumerate(self._waiting):
            if run.stage_address not in busy or self._store.stage_file(run.stage_address).is_file():
                del self._waiting[index]
                return run
        return self._waiting.popleft()

    def _heard(self, event: Event) -> Generator[Entered, None, None]:
        if isinstance(event, Unable):
            raise UserError(event.message)
        if isinstance(event, Remark):
            self._display.note(event.message)
            return
        given = self._given.get(event.address)
        if given is None:
            return  # a late word of a run that is over
        given.heard = time.monotonic()
        run = given.run
        match event:
            case Started():
                self._display.run_started(run)
            case EpochDone():
                self._display.epoch_done(run, event.stage, event.step, event.loss)
            case Ended():
                del self._given[run.address]
                stored = self._store.find(run.address)
                if event.how == "elsewhere" or stored is None:
                    self._elsewhere[run.address] = run
                else:
                    yield Entered(run, stored, event.how == "computed")
            case Lost():
                del self._given[run.address]
                yield from self._lost(given, event)

    def _lost(self, given: _Given, event: Lost) -> Generator[Entered, None, None]:
        run = given.run
        stored = self._store.find(run.address)
        if stored is not None:  # it died between publishing and saying so
            yield Entered(run, stored, True)
            return
        self._tries[run.address] += 1
        if not given.overdue and self._tries[run.address] < _TRIES:
            self._display.note(f"{run.name}: {event.reason}; it continues from its checkpoint")
            self._waiting.appendleft(run)
            return
        with self._store.claim(run.address) as mine:
            if mine:
                yield Entered(run, self._record(given, event), True)
            else:
                self._elsewhere[run.address] = run

    def _record(self, given: _Given, event: Lost) -> StoredRun:
        from ..engine.run import record_failure
        from ..engine.training import TimeLimit

        minutes = self._plan.protocol.compute.max_minutes
        problem = (
            TimeLimit(f"no sign of life within the time limit of {minutes:g} minutes; stopped by force")
            if given.overdue
            else WorkerLost(f"{event.reason}, {_TRIES} times in all")
        )
        return record_failure(given.run, self._plan, self._store, problem)

    def _stop_overdue(self) -> None:
        if self._silence is None:
            return
        for address, given in self._given.items():
            if not given.overdue and time.monotonic() - given.heard > self._silence:
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
                    self._waiting.append(run)
                else:
                    yield Entered(run, stored, False)
