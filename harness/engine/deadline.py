"""The time limit of a run, also where a method never comes back from a step."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import UserError

# A method may swallow the exception, so it comes again until the method has ended.
_AGAIN_SECONDS = 1.0


class TimeLimit(UserError):
    """The run is over its time limit."""


@contextmanager
def deadline(minutes: float | None) -> Iterator[None]:
    """Raises ``TimeLimit`` in the block when its time is over, whatever Python code runs then.

    Code outside of Python is not interrupted before it returns; a worker process that hangs there
    is ended by its parent. Without effect outside of the main thread, which alone gets signals.

    Args:
        minutes: Time of the block; ``None``: no limit.
    """
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeLimit(f"time limit of {minutes:g} minutes reached; the method did not come back")

    # The first optimiser imports it, and cut off by the time limit it could never be imported again.
    importlib.import_module("torch._dynamo")

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes, _AGAIN_SECONDS)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
