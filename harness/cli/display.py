"""Progress of an execution in the terminal: runs done, epoch, loss, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..execute import Silent

if TYPE_CHECKING:
    from ..engine.run import Report
    from ..engine.training import Progress as TrainingProgress
    from ..method import Stage
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
            print(f"{run.name}: {stored.status}: {error['type']}: {error['message']}", file=sys.stderr)


class Terminal:
    """Progress bars in a terminal, occasional lines in a log.

    The time left is the mean time of a run of the same method so far, over the runs to come; until
    a method has finished one, the mean over all methods stands in.

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
        self._epochs = self._bars.add_task("epoch", total=None, note="", visible=False)
        self._started = 0.0
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

    def run_started(self, run: PlannedRun) -> Report:
        """Shows the run's name and answers the report of its epochs."""
        self._started = time.monotonic()
        epochs = run.parameters.epochs
        self._bars.update(
            self._epochs, description=run.name, completed=0, total=epochs, note="", visible=True
        )

        def report(stage: Stage, progress: TrainingProgress) -> None:
            last = progress.history[-1]
            loss = last.get("train/total")
            note = stage.name if loss is None else f"{stage.name} loss {loss:.4g}"
            self._bars.update(self._epochs, completed=progress.step, note=note)

        return report

    def run_ended(self, run: PlannedRun, stored: StoredRun) -> None:
        """Counts a run, prints a failure, and estimates the time left."""
        label = run.variant.label
        self._done += 1
        self._left[label] -= 1
        self._spent.setdefault(label, []).append(time.monotonic() - self._started)
        left = f"about {_duration(self._time_left())} left" if self._done < self._total else ""
        self._bars.update(self._runs, completed=self._done, note=left)
        if stored.status != "finished":
            error = stored.record["error"]
            self._console.print(
                f"[red]{stored.status}[/red] {run.name}: {error['type']}: {error['message']}", highlight=False
            )
        now = time.monotonic()
        if not self._live and now - self._logged >= _LOG_EVERY:
            self._logged = now
            self._console.print(f"{self._done}/{self._total} runs, {left}", highlight=False)

    def waiting(self, count: int) -> None:
        """Says that other processes hold the rest."""
        self._bars.update(self._runs, note=f"waiting for {count} runs of another process")

    def _time_left(self) -> float:
        every = [seconds for spent in self._spent.values() for seconds in spent]
        overall = sum(every) / len(every)
        return sum(
            count * (sum(self._spent[label]) / len(self._spent[label]) if label in self._spent else overall)
            for label, count in self._left.items()
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
