"""A tracking store in a process of its own.

Logging a run is a tenth of a second of Python or more. In the training process, where Python runs one
thread at a time, training would wait for it; here it takes a core that is free.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from ..signals import end_with_parent
from .entry import UnreadableRun, read_entry
from .executions import Execution
from .mlflow_store import MlflowStore, is_refusal, reason


class CannotLog(Exception):
    """A run, or what ends an execution, could not be logged.

    Attributes:
        refused: Whether to try again is in vain.
    """

    def __init__(self, problem: str, refused: bool) -> None:
        super().__init__(problem)
        self.refused = refused


@dataclass(frozen=True)
class _Request:
    """What is to be done: open the store, log a run's folder, or end the execution."""

    what: Literal["prepare", "log", "finish"]
    folder: Path


@dataclass(frozen=True)
class _Answer:
    """What came of it.

    Attributes:
        uri: The store, or empty while it could not be opened.
        problem: Why it could not be done, or empty.
        refused: Whether to try again is in vain.
    """

    uri: str
    problem: str = ""
    refused: bool = False


class LoggerProcess:
    """Logs runs of one execution, one after the other.

    The process is forked here, so make it early: before threads and devices are in use. It ends
    with ``stop``, and when this process ends in whatever way.

    Args:
        results: The results folder.
        execution: The execution.
        tracking_uri: Where to log; MLflow's own choice if ``None``.
    """

    def __init__(self, results: Path, execution: Execution, tracking_uri: str | None = None) -> None:
        self._uri = ""
        # Apple's libraries don't survive a fork.
        context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, results, execution, tracking_uri)
        self._process: BaseProcess = context.Process(
            target=_serve, args=arguments, name="imer-mlflow", daemon=True
        )
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()

    @property
    def uri(self) -> str:
        """The store, or empty while it has not been opened."""
        return self._uri

    def prepare(self) -> None:
        """Imports MLflow and opens the store.

        Raises:
            CannotLog: It could not be opened.
        """
        self._ask(_Request("prepare", Path()))

    def log(self, folder: Path) -> None:
        """Logs a run folder.

        Raises:
            CannotLog: It could not be logged.
        """
        self._ask(_Request("log", folder))

    def finish(self, protocol_folder: Path) -> None:
        """Ends the execution in every experiment that it has logged to, with the leaderboards.

        Raises:
            CannotLog: It could not be done.
        """
        self._ask(_Request("finish", protocol_folder))

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _ask(self, request: _Request) -> None:
        try:
            self._connection.send(request)
            answer: _Answer = self._connection.recv()
        except (EOFError, OSError):
            raise CannotLog("the process that logs to MLflow has ended", refused=False) from None
        self._uri = answer.uri
        if answer.problem:
            raise CannotLog(answer.problem, answer.refused)


def _serve(
    connection: Connection,
    results: Path,
    execution: Execution,
    tracking_uri: str | None,
) -> None:
    # Ctrl-C and signals to the whole group are for the command, which decides when to stop logging.
    with suppress(OSError):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()  # a run that is half logged is logged again by the next sync
    books = _Books(results, execution, tracking_uri)
    while True:
        request = connection.recv()
        try:
            answer = books.take(request)
        except Exception as error:
            refused = isinstance(error, UnreadableRun) or is_refusal(error)
            answer = _Answer(books.uri, reason(error), refused)
        connection.send(answer)


class _Books:
    """The store, once it is open, and what this execution has logged to it."""

    def __init__(self, results: Path, execution: Execution, tracking_uri: str | None) -> None:
        self.uri = ""
        self._results = results
        self._execution = execution
        self._tracking_uri = tracking_uri
        self._store: MlflowStore | None = None
        self._columns: dict[str, set[str]] = {}

    def take(self, request: _Request) -> _Answer:
        if request.what == "log":
            entry = read_entry(request.folder)
            self._opened().log(entry, self._execution)
            self._columns.setdefault(entry.experiment, set()).update(entry.columns)
        elif request.what == "prepare":
            self._opened()
        else:
            for experiment, columns in self._columns.items():
                self._opened().show(experiment, columns)
                self._opened().finish(experiment, self._execution, request.folder)
        return _Answer(self.uri)

    def _opened(self) -> MlflowStore:
        if self._store is None:
            self._store = MlflowStore(self._results, self._tracking_uri)
            self.uri = self._store.uri
        return self._store
