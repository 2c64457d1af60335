"""Computes the runs of a plan: what is missing, each once, whoever else is at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .protocol.plan import Plan, PlannedRun
from .store import Store, StoredRun

if TYPE_CHECKING:
    from .engine.run import Report

_POLL_SECONDS = 0.5


class Display(Protocol):
    """Shows progress."""

    def begin(self, total: int, done: int) -> None:
        """Called once with the number of runs and how many are done already."""
        ...

    def run_started(self, run: PlannedRun) -> Report:
        """Called when a run starts; answers the report of its epochs."""
        ...

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Called when a run is in the store."""
        ...

    def waiting(self, count: int) -> None:
        """Called when only runs of other processes are left."""
        ...


class Silent:
    """A display that shows nothing."""

    def begin(self, total: int, done: int) -> None:
        """Shows nothing."""

    def run_started(self, run: PlannedRun) -> Report:
        """Shows nothing."""
        return lambda stage, progress: None

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Shows nothing."""

    def waiting(self, count: int) -> None:
        """Shows nothing."""


@dataclass
class Outcome:
    """What an execution did.

    Attributes:
        reused: Runs that were in the store already.
        computed: Runs computed now.
        failed: Runs (now or before) that ended without a result.
    """

    reused: int = 0
    computed: list[StoredRun] = field(default_factory=list)
    failed: list[StoredRun] = field(default_factory=list)


def execute(
    plan: Plan,
    store: Store,
    display: Display,
    retry: bool = False,
    on_run: Callable[[StoredRun], None] = lambda stored: None,
) -> Outcome:
    """Computes every run of a plan that the store does not have.

    A run that another process works on is left to it; when nothing else is left, this waits, and
    takes over what the other one leaves unfinished.

    Args:
        plan: The plan.
        store: Results of the protocol.
        display: Shows progress.
        retry: Repeat runs that failed or diverged.
        on_run: Called with every run that enters the store.
    """
    runs = [run for run in plan.runs if not run.skip]
    outcome = Outcome()
    have = store.addresses()
    pending: list[PlannedRun] = []
    for run in runs:
        stored = store.find(run.address) if run.address in have else None
        if stored is not None and retry and stored.status != "finished":
            store.remove(run.address)
            stored = None
        if stored is None:
            pending.append(run)
        else:
            _count_reused(outcome, stored)
    display.begin(len(runs), len(runs) - len(pending))
    if not pending:
        return outcome
    from .engine.run import SplitCache, Workshop, compute
    from .language_models import LanguageModels

    shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
    while pending:
        elsewhere: list[PlannedRun] = []
        for run in pending:
            with store.claim(run.address) as mine:
                if not mine:
                    elsewhere.append(run)
                    continue
                stored = store.find(run.address)
                if stored is not None:  # finished by another process in the meantime
                    _count_reused(outcome, stored)
                    display.run_ended(run, stored)
                    continue
                stored = compute(run, shop, display.run_started(run))
                outcome.computed.append(stored)
                if stored.status != "finished":
                    outcome.failed.append(stored)
                on_run(stored)
                display.run_ended(run, stored)
        if len(elsewhere) == len(pending):
            display.waiting(len(elsewhere))
            time.sleep(_POLL_SECONDS)
        pending = elsewhere
    return outcome


def _count_reused(outcome: Outcome, stored: StoredRun) -> None:
    outcome.reused += 1
    if stored.status != "finished":
        outcome.failed.append(stored)


def stored_runs(plan: Plan, store: Store) -> dict[str, StoredRun]:
    """The plan's runs that the store has, by address."""
    have = store.addresses()
    found: dict[str, StoredRun] = {}
    for run in plan.runs:
        if run.address and run.address in have:
            stored = store.find(run.address)
            if stored is not None:
                found[run.address] = stored
    return found
