"""Several workers of one study on this machine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

_POLL_SECONDS = 0.2
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
    except BaseException:
        _stop(running)
        raise
    return codes


def _stop(processes: list[Any]) -> None:
    # Ctrl-C reaches the workers too, and they queue their trials again; others are ended.
    end = time.monotonic() + 5
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.terminate()
            process.join()
