"""Progress of an execution in the terminal: runs done, epoch, loss, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..execute import Silent
from ..terminal import printable

if TYPE_CHECKING:
    from ..protocol.plan import PlannedRun
    from ..store import StoredRun

# Without a terminal a line is printed at most this often (seconds), so that logs stay short.
_LOG_EVERY = 15.0


class Quiet(Silent):
    """Shows nothing but failures."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Shows a failure."""
        if stored.status != "finished":
            error = stored.record["error"]
            message = f"{run.name}: {stored.status}: {error['type']}: {error['message']}"
            print(printable(message), file=sys.stderr)

    def note(self, text: str) -> None:
        """Shows what a user should know."""
        print(printable(text), file=sys.stderr)


class Terminal:
    """Progress bars in a terminal, occasional lines in a log.

    The time left is the mean time of a run of the same method so far, over the runs to come; until
    a method has finished one, the mean over all methods stands in. Runs computed at a time share it.

    Args:
        runs: Runs of the plan, for the estimate.
    """

    def __init__(self, runs: list[PlannedRun]) -> None:
        # Progress goes to the error stream, so that the tables alone can be redirected.
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._live = self._console.is_terminal
        self._left: dict[str, int] = {}
        for run in runs:
            self._left[run.variant.label] = self._left.get(run.variant.label, 0) + 1
        self._spent: dict[str, list[float]] = {}
        self._runs = self._bars.add_task("runs", total=None, note="")
        self._bar_of: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._at_a_time = 1
        self._total = self._done = 0
        self._logged = time.monotonic()

    def __enter__(self) -> Terminal:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def begin(self, total: int, done: int) -> None:
        """Shows how many runs there are."""
        self._total, self._done = total, done
        self._bars.update(self._runs, total=total, completed=done)
        text = f"{total} runs" + (f", {done} in the store already" if done else "")
        self._console.print(text)

    def run_started(self, run: PlannedRun) -> None:
        """Shows a bar for the run."""
        self._started[run.address] = time.monotonic()
        self._at_a_time = max(self._at_a_time, len(self._started))
        if run.address not in self._bar_of:
            name = escape(printable(run.name))
            self._bar_of[run.address] = self._bars.add_task(name, total=run.parameters.epochs, note="")

    def epoch_done(self, run: PlannedRun, stage: str, step: int, loss: float | None) -> None:
        """Moves the bar of the run."""
        if run.address not in self._bar_of:
            return
        note = escape(printable(stage if loss is None else f"{stage} loss {loss:.4g}"))
        self._bars.update(self._bar_of[run.address], completed=step, note=note)

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Counts a run, prints a failure, and estimates the time left."""
        label = run.variant.label
        self._done += 1
        self._left[label] -= 1
        started = self._started.pop(run.address, None)
        if started is not None:
            self._spent.setdefault(label, []).append(time.monotonic() - started)
        if run.address in self._bar_of:
            self._bars.remove_task(self._bar_of.pop(run.address))
        left = f"about {duration(self._time_left())} left" if self._spent and self._done < self._total else ""
        self._bars.update(self._runs, completed=self._done, note=left)
        if stored.status != "finished":
            error = stored.record["error"]
            message = escape(printable(f"{run.name}: {error['type']}: {error['message']}"))
            self._console.print(f"[red]{stored.status}[/red] {message}", highlight=False)
        now = time.monotonic()
        if not self._live and now - self._logged >= _LOG_EVERY:
            self._logged = now
            self._console.print(f"{self._done}/{self._total} runs, {left}", highlight=False)

    def waiting(self, count: int) -> None:
        """Says that other processes hold the rest."""
        self._bars.update(self._runs, note=f"waiting for {count} runs of another process")

    def note(self, text: str) -> None:
        """Prints what a user should know."""
        self._console.print(printable(text), highlight=False, markup=False)

    def _time_left(self) -> float:
        every = [seconds for spent in self._spent.values() for seconds in spent]
        overall = sum(every) / len(every)
        total = sum(
            count * (sum(self._spent[label]) / len(self._spent[label]) if label in self._spent else overall)
            for label, count in self._left.items()
        )
        return total / self._at_a_time


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
