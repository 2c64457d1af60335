"""Logs runs in the background while others train.

Whatever MLflow or its server does, the runs go on: nothing is raised here, an unreachable store is
tried again with growing pauses, and what could not be logged waits for ``bench.py mlflow sync``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .executions import Execution, record_mirrored, record_run, record_start
from .logger import CannotLog, LoggerProcess
from .mlflow_store import reason

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_OPENING = 30.0


@dataclass(frozen=True)
class MirrorReport:
    """What became of the submitted runs.

    Attributes:
        logged: Runs that are in the store now.
        waiting: Names of the run folders that are not.
        problem: Why, or empty.
        uri: The store, or empty if it was never opened.
    """

    logged: int = 0
    waiting: tuple[str, ...] = ()
    problem: str = ""
    uri: str = ""

    def __str__(self) -> str:
        lines = []
        if self.logged:
            lines.append(f"MLflow: {_runs(self.logged)} logged to {self.uri}")
        if self.waiting:
            why = f" ({self.problem})" if self.problem else ""
            verb = "waits" if len(self.waiting) == 1 else "wait"
            lines.append(f"MLflow: {_runs(len(self.waiting))} {verb} for `bench.py mlflow sync`{why}")
        elif self.problem:
            lines.append(f"MLflow: the leaderboard waits for `bench.py mlflow sync` ({self.problem})")
        return "\n".join(lines)


class Mirror:
    """Mirrors the finished and failed runs of one execution.

    ::

        mirror = Mirror()
        mirror.start(results / protocol, Execution(command))
        mirror.prepare()            # once it is known that there will be runs
        mirror.submit(run_folder)   # whenever a run ends
        print(mirror.close())

    A thread hands the runs to a process that has MLflow, and waits for it. The process is forked by
    ``start`` and imports MLflow later: a command that finds everything done pays nothing.

    Args:
        tracking_uri: Where to log; MLflow's own choice if ``None``.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self._tracking_uri = tracking_uri
        self._protocol_folder: Path | None = None
        self._execution = Execution()
        self._logger: LoggerProcess | None = None
        self._thread: threading.Thread | None = None
        self._submitted = False
        # All below is shared with the thread and changed under the condition only.
        self._changed = threading.Condition()
        self._queue: deque[Path] = deque()
        self._refused: list[str] = []
        self._logged = 0
        self._problem = ""
        self._uri = ""
        self._closing = False

    def start(self, protocol_folder: Path, execution: Execution | None = None) -> None:
        """Begins an execution.

        Args:
            protocol_folder: ``results/<protocol>``; it exists.
            execution: The execution; a new one without a command line if ``None``.
        """
        self._protocol_folder = Path(protocol_folder)
        self._execution = execution or self._execution
        self._logger = LoggerProcess(self._protocol_folder.parent, self._execution, self._tracking_uri)

    def prepare(self) -> None:
        """Imports MLflow and opens the store while the first run trains; returns at once.

        Raises:
            RuntimeError: ``start`` was not called, or ``close`` was.
        """
        if self._protocol_folder is None or self._logger is None or self._closing:
            raise RuntimeError("a mirror takes runs between start() and close()")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work,
                args=(self._logger, self._protocol_folder),
                name="mlflow-mirror",
                daemon=True,
            )
            self._thread.start()

    def submit(self, run_folder: Path) -> None:
        """Hands over a run folder that is complete; returns at once.

        Raises:
            RuntimeError: ``start`` was not called, or ``close`` was.
        """
        self.prepare()
        assert self._protocol_folder is not None
        with suppress(OSError):  # without the journal only the grouping is lost
            if not self._submitted:
                record_start(self._protocol_folder, self._execution)
            record_run(self._protocol_folder, self._execution, run_folder.name)
        self._submitted = True
        with self._changed:
            self._queue.append(Path(run_folder))
            self._changed.notify_all()

    def close(self, timeout: float = 10.0) -> MirrorReport:
        """Logs what is left, with the leaderboards, as long as the store takes it.

        Call it when the leaderboards are written. A store that fails now gets no further chance.

        Args:
            timeout: Seconds without any progress after which the rest is left waiting.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._submitted:  # else there is nothing to wait for
            self._join(self._thread, timeout)
        with self._changed:
            waiting = (*self._refused, *(folder.name for folder in self._queue))
            problem = self._problem
            if not problem and self._submitted and self._thread is not None and self._thread.is_alive():
                problem = f"no answer for {timeout:g} s"
            report = MirrorReport(self._logged, waiting, problem, self._uri)
        if self._logger is not None:
            self._logger.stop()
        return report

    def _join(self, thread: threading.Thread, timeout: float) -> None:
        def progress() -> tuple[int, str]:
            with self._changed:
                return self._logged, self._uri

        last = progress()
        # Opening imports MLflow and may make the database: slow at times, but no server's fault.
        end = time.monotonic() + (timeout if last[1] else max(timeout, _OPENING))
        while thread.is_alive() and time.monotonic() < end:
            thread.join(0.05)
            if (now := progress()) != last:
                last, end = now, time.monotonic() + timeout

    def _work(self, logger: LoggerProcess, protocol_folder: Path) -> None:
        with suppress(CannotLog):  # the first run will tell
            logger.prepare()
        pause = _FIRST_PAUSE
        while (folder := self._next()) is not None:
            try:
                logger.log(folder)
                with self._changed:
                    self._uri = logger.uri
                record_mirrored(protocol_folder, folder.name)
            except (CannotLog, OSError) as error:  # the latter of the journal
                known = isinstance(error, CannotLog)
                if known and error.refused:
                    self._settle(refused=str(error))
                elif self._pause(pause, str(error) if known else reason(error)):
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    return
            else:
                pause = _FIRST_PAUSE
                self._settle()
        try:
            logger.finish(protocol_folder)
        except CannotLog as error:
            with self._changed:
                self._problem = str(error)

    def _next(self) -> Path | None:
        """The next run to log, still in the queue; ``None`` when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue[0] if self._queue else None

    def _settle(self, refused: str = "") -> None:
        with self._changed:
            folder = self._queue.popleft()
            self._problem = refused or (self._problem if self._refused else "")
            if refused:
                self._refused.append(folder.name)
            else:
                self._logged += 1

    def _pause(self, seconds: float, problem: str) -> bool:
        """Waits before the next try; says whether there is to be one."""
        with self._changed:
            self._problem = problem
            if self._closing:
                return False
            self._changed.wait_for(lambda: self._closing, seconds)
            return True


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
