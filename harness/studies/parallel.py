"""Several workers of one study on this machine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from ..signals import Terminated

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0
# A worker that the system killed (memory) is replaced this often; its trial is queued again.
_REPLACEMENTS = 3


def run_workers(target: Callable[..., None], arguments: tuple[Any, ...], jobs: int) -> list[int]:
    """Runs worker processes to their end and answers the exit codes of those that were not replaced.

    Args:
        target: What a worker does; importable, with picklable arguments.
        arguments: Its arguments.
        jobs: Number of workers.

    Raises:
        KeyboardInterrupt: The user stopped it; the workers have ended too.
    """
    context = multiprocessing.get_context("spawn")

    def start() -> Any:
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    running = [start() for _ in range(jobs)]
    replaced = 0
    codes: list[int] = []
    try:
        while running:
            for process in list(running):
                process.join(_POLL_SECONDS / jobs)
                if process.exitcode is None:
                    continue
                running.remove(process)
                if process.exitcode < 0 and replaced < _REPLACEMENTS:
                    replaced += 1
                    running.append(start())
                else:
                    codes.append(process.exitcode)
    except BaseException as error:
        # Ctrl-C reaches the workers too, and they queue their trials again.
        told = isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated)
        _stop(running, told)
        raise
    return codes


def _stop(processes: list[Any], told: bool) -> None:
    """Ends workers: those that were told by themselves, others when asked, the rest by force."""
    if told:
        _join(processes)
    for process in processes:
        process.terminate()
    _join(processes)
    for process in processes:
        process.kill()
    _join(processes)


def _join(processes: list[Any]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
