"""Workers that are processes of this machine (``--jobs N``)."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from .events import Ended, Event, Lost, Remark, Unable
from .memory import available_memory, resident_memory
from .request import PlanRequest

# What a worker is thought to need until one has been seen at work.
_FIRST_GUESS = 2**30
_PATIENCE = 5.0
# Imported once for all workers. Nothing of ours: the server of Python 3.11 looks for modules where an
# installed version of this project may lie, and not where the command's own code does.
_IMPORTED = ["torch", "torch._dynamo", "pandas", "pyarrow.parquet", "safetensors.torch", "pydantic"]


class ProcessWorkers:
    """Up to ``jobs`` processes, each with the threads of the protocol.

    They start when they are needed and are kept for further runs. No run is given out where memory
    would not last for one more like the largest so far; after a death for want of memory, one
    worker fewer is used.

    Args:
        request: The plan.
        jobs: Largest number of workers.
        gpus: Devices that workers take in turn, as ``CUDA_VISIBLE_DEVICES`` names them.
    """

    def __init__(self, request: PlanRequest, jobs: int, gpus: Sequence[str] = ()) -> None:
        self._request = request
        self._jobs = jobs
        self._gpus = gpus
        self._peak = 0
        self._scarce = False
        self._remarks: list[Remark] = []
        self._context = _context()
        self._workers: list[_Process] = []

    def room(self, running: int) -> bool:
        """Whether one more run could be given out beside ``running`` others."""
        if running >= self._jobs:
            return False
        if running == 0:
            return True
        held = {worker: resident_memory(worker.pid) for worker in self._workers}
        peak = self._peak or _FIRST_GUESS
        growth = sum(max(0, peak - held[worker]) for worker in self._workers if worker.address)
        idle = max((held[worker] for worker in self._workers if not worker.address), default=0)
        left, needed = available_memory() - growth, max(0, peak - idle)
        if left < needed and not self._scarce:
            self._scarce = True
            self._remarks.append(
                Remark(
                    f"memory lasts for {running} of {self._jobs} runs at a time: "
                    f"{max(0, left) / 2**30:.1f} GiB are left, one more may need {needed / 2**30:.1f} GiB"
                )
            )
        return left >= needed

    def give(self, address: str) -> None:
        """Gives out a run, to a new worker if none is idle."""
        worker = next((worker for worker in self._workers if not worker.address), None) or self._start()
        worker.address = address
        with suppress(OSError):  # it has died meanwhile; ``events`` will say so
            worker.connection.send(address)

    def events(self, seconds: float) -> Sequence[Event]:
        """What has happened; waits at most so long for something to happen."""
        ready = wait(
            [item for worker in self._workers for item in (worker.connection, worker.process.sentinel)],
            seconds,
        )
        found: list[Event] = [*self._remarks]
        self._remarks = []
        for worker in list(self._workers):
            if worker.connection in ready or worker.process.sentinel in ready:
                found += worker.said()
            if worker.process.exitcode is not None:
                found += worker.said()  # what it said between the look and its death
                self._workers.remove(worker)
                found += self._bury(worker)
        self._peak = max([self._peak, *(resident_memory(worker.pid) for worker in self._workers)])
        return found

    def stop(self, address: str) -> None:
        """Ends the worker of a run by force; a ``Lost`` follows."""
        for worker in self._workers:
            if worker.address == address:
                worker.stopped = True
                worker.process.kill()

    def close(self) -> None:
        """Ends all workers; runs in progress keep their checkpoints."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._workers = []

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        taken = Counter(worker.gpu for worker in self._workers)
        gpu = min(self._gpus, key=lambda name: taken[name], default="")
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu} if gpu else dict(os.environ)
        arguments = (theirs, self._request, environment)
        process = self._context.Process(target=serve, args=arguments, name="imer-worker")
        process.start()
        theirs.close()
        worker = _Process(process, ours, gpu)
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Process) -> list[Event]:
        worker.connection.close()
        code = worker.process.exitcode or 0
        killed = code == -signal.SIGKILL and not worker.stopped
        if killed:
            self._jobs = max(1, min(self._jobs, len(self._workers)))
        if not worker.address:
            return []
        reason = f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        if killed:
            reason += ", as the system does for want of memory"
        return [Lost(worker.address, f"its worker {reason}", memory=killed)]


@dataclass(eq=False)
class _Process:
    """One worker as the command sees it."""

    process: BaseProcess
    connection: Connection
    gpu: str
    address: str = ""
    stopped: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def said(self) -> list[Event]:
        found: list[Event] = []
        with suppress(EOFError, OSError):
            while self.connection.poll():
                event = self.connection.recv()
                found.append(event)
                if isinstance(event, Ended) and event.address == self.address:
                    self.address = ""
        return found


def _context() -> SpawnContext | ForkServerContext:
    """How workers start: as children of a process that has the libraries, where there are such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


def serve(connection: Connection, request: PlanRequest, environment: dict[str, str]) -> None:
    """What a worker process does until it is told nothing more, or the command has gone.

    Args:
        connection: Addresses come in, events go out.
        request: The plan.
        environment: Variables of the process; set before anything looks for GPUs.
    """
    os.environ.clear()
    os.environ.update(environment)
    from ..errors import UserError
    from ..signals import end_with_parent
    from .worker import Worker

    # Ctrl-C reaches the whole terminal; the command decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()

    def tell(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            os._exit(1)  # Nobody listens; nothing may be recorded as this run's failure.

    try:
        worker = Worker(request)
    except UserError as error:
        tell(Unable(str(error)))
        return
    while True:
        try:
            address = connection.recv()
        except (EOFError, OSError):
            return
        if not worker.has(address):
            tell(Unable("data, methods or versions have changed since the command began; start it again"))
            return
        tell(worker.work(address, tell))
