"""Computes the runs of a plan: what is missing, each once, whoever else is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .checkpoints import local_folder, weights_sha256
from .costs import remember
from .files import remove_leftovers
from .protocol.plan import Plan, PlannedRun, stacks_of
from .store import Store, StoredRun

if TYPE_CHECKING:
    from .engine.run import Report
    from .executors.events import Workers

_POLL_SECONDS = 0.5


class Display(Protocol):
    """Shows progress; of several runs at a time where several are computed at a time."""

    def begin(self, total: int, done: int) -> None:
        """Called once with the number of runs and how many are done already."""
        ...

    def run_started(self, run: PlannedRun) -> None:
        """Called when a run starts, or goes on after its worker was lost."""
        ...

    def epoch_done(self, run: PlannedRun, stage: str, step: int, loss: float | None) -> None:
        """Called after every epoch, with the epochs done over all stages."""
        ...

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Called when a run is in the store."""
        ...

    def waiting(self, count: int) -> None:
        """Called when only runs of other processes are left."""
        ...

    def note(self, text: str) -> None:
        """Called with what a user should know."""
        ...


class Silent:
    """A display that shows nothing."""

    def begin(self, total: int, done: int) -> None:
        """Shows nothing."""

    def run_started(self, run: PlannedRun) -> None:
        """Shows nothing."""

    def epoch_done(self, run: PlannedRun, stage: str, step: int, loss: float | None) -> None:
        """Shows nothing."""

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Shows nothing."""

    def waiting(self, count: int) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class Entered:
    """A run of the plan that the store has now.

    Attributes:
        run: The run.
        stored: What is stored of it.
        computed: Whether this execution computed it; else another process did.
    """

    run: PlannedRun
    stored: StoredRun
    computed: bool


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
    workers: Callable[[], Workers] | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Outcome:
    """Computes every run of a plan that the store does not have.

    A run that another process works on is left to it; when nothing else is left, this waits, and
    takes over what the other one leaves unfinished.

    Args:
        plan: The plan.
        store: Results of the protocol.
        display: Shows progress.
        retry: Repeat runs that failed, diverged or are damaged.
        on_run: Called with every run that enters the store.
        workers: Answers who computes; runs are computed in this process if ``None``.
        on_start: Called before the first run is computed; not if there is none.

    Raises:
        UserError: The workers can't work, or the store has runs with other weights of a language model.
    """
    runs = [run for run in plan.runs if not run.skip]
    remove_leftovers(store.folder)
    _check_language_models(runs, store)
    outcome = Outcome()
    have = store.find_all({run.address for run in runs})
    pending: list[PlannedRun] = []
    for run in runs:
        stored = have.get(run.address)
        if stored is not None and retry and stored.status != "finished":
            stored = _cleared(run, store)
        if stored is None:
            pending.append(run)
        else:
            _count_reused(outcome, stored)
    display.begin(len(runs), len(runs) - len(pending))
    if not pending:
        return outcome
    on_start()
    if workers is None:
        computing = _here(pending, plan, store, display)
    else:
        from .executors.scheduling import compute_together

        computing = compute_together(stacks_of(plan.execution, pending), plan, store, workers(), display)
    with closing(computing):
        for entered in computing:
            stored = entered.stored
            if entered.computed:
                outcome.computed.append(stored)
                remember(store.folder, stored.record)
                if stored.status != "finished":
                    outcome.failed.append(stored)
                on_run(stored)
            else:
                _count_reused(outcome, stored)
            display.run_ended(entered.run, stored)
    return outcome


def _here(
    pending: Sequence[PlannedRun], plan: Plan, store: Store, display: Display
) -> Generator[Entered, None, None]:
    """Computes runs in this process and yields each as it enters the store."""
    from .engine.run import SplitCache, Workshop, compute_group
    from .language_models import LanguageModels

    shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
    while pending:
        elsewhere: list[PlannedRun] = []
        for group in stacks_of(plan.execution, pending):
            with ExitStack() as claims:
                mine = [run for run in group if claims.enter_context(store.claim(run.address))]
                elsewhere += [run for run in group if run not in mine]
                missing: list[PlannedRun] = []
                for run in mine:
                    stored = store.find(run.address)
                    if stored is not None:  # finished by another process in the meantime
                        yield Entered(run, stored, False)
                        continue
                    missing.append(run)
                    display.run_started(run)
                for run, stored in compute_group(missing, shop, lambda run: _report(run, display)):
                    yield Entered(run, stored, True)
        if len(elsewhere) == len(pending):
            display.waiting(len(elsewhere))
            time.sleep(_POLL_SECONDS)
        pending = elsewhere


def _report(run: PlannedRun, display: Display) -> Report:
    return lambda stage, progress: display.epoch_done(
        run, stage.name, progress.step, progress.history[-1].get("train/total")
    )


def _cleared(run: PlannedRun, store: Store) -> StoredRun | None:
    """Removes a failed run, unless another process has repeated it in the meantime."""
    with store.claim(run.address) as mine:
        stored = store.find(run.address)
        if mine and stored is not None and stored.status != "finished":
            store.remove(run.address)
            return None
        return stored if mine else None


def _check_language_models(runs: Iterable[PlannedRun], store: Store) -> None:
    """Refuses to reuse runs whose language models have other weights than those at hand now."""
    known = store.language_models()
    named = {value for run in runs for _, value in run.parameters if isinstance(value, str)}
    found = {name: folder for name in known.keys() & named if (folder := local_folder(name)) is not None}
    store.hold_to_language_models({name: weights_sha256(folder) for name, folder in found.items()})


def _count_reused(outcome: Outcome, stored: StoredRun) -> None:
    outcome.reused += 1
    if stored.status != "finished":
        outcome.failed.append(stored)
