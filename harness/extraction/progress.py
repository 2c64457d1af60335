"""Progress of an extraction: a bar per modality in a terminal, a line per modality in a log."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, modality: str, total: int, done: int) -> None:
        """Shows nothing."""

    def advance(self, count: int) -> None:
        """Shows nothing."""


class Terminal:
    """Bars on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin(self, modality: str, total: int, done: int) -> None:
        """A new bar."""
        if not self._console.is_terminal:
            self._console.print(f"{modality}: {total - done} inputs to encode, {done} known")
        self._task = self._progress.add_task(modality, total=total, completed=done)

    def advance(self, count: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            self._progress.advance(self._task, count)
