"""A request to end (SIGTERM) is treated as Ctrl-C: checkpoints are kept and children end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The system, or whoever runs the cluster, asked this process to end."""


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Raises ``Terminated`` in the block when the process is asked to end.

    Without effect outside of the main thread, and where the surrounding program has an answer of
    its own.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def end_with_parent() -> None:
    """Ends this process of ``multiprocessing``, whatever it does, as soon as its parent has gone."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
