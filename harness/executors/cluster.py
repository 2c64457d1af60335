"""Workers that are tasks of Ray, on this machine or many (``--executor ray``).

All machines see the results folder and the data under the same paths, and have this project
installed. Each run is one task with the protocol's threads as CPUs; a lost one is given out anew and
continues from its checkpoint in the results folder.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from .events import Event, Lost, Unable
from .request import PlanRequest
from .worker import Worker

# Tasks given out beyond what the cluster can run now, so that no machine waits for the command.
_AHEAD = 2
# Of the command's environment, what decides where data and models are found.
_PASSED_ON = ("IMER_", "HF_", "TRANSFORMERS_", "PYTHONPATH")


def cluster_address(given: str | None) -> str | None:
    """Address of the cluster to join: the one given, else that of ``RAY_ADDRESS``, else none."""
    return given or os.environ.get("RAY_ADDRESS") or None


def import_ray(alone: bool = False) -> Any:
    """Ray.

    Args:
        alone: A Ray will be started that is for this process only.

    Raises:
        UserError: It is not installed.
    """
    if alone:
        _keep_others_out()
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray needs Ray: pip install 'imer-bench[ray]' (here: pip install -e '.[ray]')"
        ) from None
    return ray


def connect(address: str | None, cpus: int) -> bool:
    """Joins a cluster, or starts Ray on this machine.

    Args:
        address: Address of a running cluster; ``None``: that of ``RAY_ADDRESS``, else none.
        cpus: CPUs of a Ray that is started here.

    Returns:
        Whether this call connected, so that the caller should disconnect.

    Raises:
        UserError: There is no cluster at this address.
    """
    address = cluster_address(address)
    ray = import_ray(alone=address is None)
    if ray.is_initialized():
        return False
    _check_reachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    try:
        if address:
            ray.init(address=address, **options)
        else:
            # The address keeps Ray from joining a cluster that happens to run here.
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
    return True


def _keep_others_out() -> None:
    """Gives the Ray that is started here a password of its own, unless the user has chosen one.

    Ray's servers listen on all interfaces, and who reaches them may run code. Ray reads the password
    when it is imported and never again; where it is imported already there is none.
    """
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_reachable(address: str | None) -> None:
    """Says within seconds that nobody answers, where Ray itself would try for many minutes."""
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address}: {error}") from None


class RayWorkers:
    """Runs as tasks of Ray.

    Args:
        request: The plan.
        jobs: Runs at a time where Ray is started on this machine.
        address: A running cluster to join instead.
        gpu_share: Part of a GPU that a run on CUDA takes.
        memory: Bytes that runs are known to need, by address.

    Raises:
        UserError: There is no such cluster.
    """

    def __init__(
        self,
        request: PlanRequest,
        jobs: int,
        address: str | None = None,
        gpu_share: float = 1.0,
        memory: Mapping[str, int] | None = None,
    ) -> None:
        self._ray = import_ray()
        threads = request.execution.threads
        self._own = connect(address, jobs * threads)
        self._needs: dict[str, Any] = {"num_cpus": threads, "max_retries": 0}
        if request.execution.device == "cuda":
            self._needs["num_gpus"] = gpu_share
        self._memory = memory or {}
        self._request = self._ray.put(request)
        self._mailbox = self._ray.remote(num_cpus=0, max_restarts=-1)(_Mailbox).remote()
        self._compute = self._ray.remote(_compute)
        self._tasks: dict[Any, str] = {}

    def room(self, running: int) -> bool:
        """Whether one more run could be given out beside ``running`` others."""
        have = self._ray.cluster_resources()
        at_a_time = have.get("CPU", 0) // self._needs["num_cpus"]
        if "num_gpus" in self._needs:
            at_a_time = min(at_a_time, have.get("GPU", 0) // self._needs["num_gpus"])
        return running < max(1, at_a_time) + _AHEAD

    def give(self, address: str) -> None:
        """Gives out a run."""
        needs = {**self._needs, "memory": self._memory[address]} if address in self._memory else self._needs
        # In a list the request is passed on as a reference, which the worker looks up once.
        task = self._compute.options(**needs).remote([self._request], address, self._mailbox, _passed_on())
        self._tasks[task] = address

    def events(self, seconds: float) -> Sequence[Event]:
        """What has happened; waits at most so long for something to happen."""
        over: list[Any] = []
        if self._tasks:
            over, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        found: list[Event] = []
        with suppress(self._ray.exceptions.RayError):  # its node has gone; it comes back, empty
            found += self._ray.get(self._mailbox.take.remote(), timeout=30)
        return [*found, *(self._end(task, self._tasks.pop(task)) for task in over)]

    def stop(self, address: str) -> None:
        """Ends the worker of a run by force; a ``Lost`` follows."""
        for task, given in self._tasks.items():
            if given == address:
                self._ray.cancel(task, force=True)

    def close(self) -> None:
        """Ends all tasks; runs in progress keep their checkpoints."""
        for task in self._tasks:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)
        self._ray.kill(self._mailbox)
        if self._own:
            self._ray.shutdown()

    def _end(self, task: Any, address: str) -> Event:
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.OutOfMemoryError as error:
            return Lost(address, _first_line(error), memory=True)
        except (errors.RayTaskError, errors.RayError) as error:
            return Lost(address, _first_line(error))


def _compute(request: list[Any], address: str, mailbox: Any, environment: dict[str, str]) -> Event:
    """The task of one run; answers how it ended."""
    os.environ.update(environment)
    try:
        worker = _worker(request[0])
    except UserError as error:
        return Unable(f"a worker of Ray can't make the plan: {error}")
    if not worker.has(address):
        return Unable("a worker of Ray has other data, methods or versions than the command")
    return worker.work(address, lambda event: mailbox.put.remote(event))


@lru_cache(maxsize=1)
def _worker(request: Any) -> Worker:
    """The worker of this process; made by the first run of a plan and kept for the next."""
    return Worker(import_ray().get(request))


class _Mailbox:
    """Where runs tell how far they are."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _passed_on() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def run_workers(
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    jobs: int,
    needs: Mapping[str, Any],
    address: str | None = None,
) -> list[int]:
    """Runs workers that share their work among themselves, such as those of a study, to their end.

    Args:
        target: What a worker does.
        arguments: Its arguments.
        jobs: Number of workers.
        needs: What a worker needs, in Ray's words (``num_cpus``, ``num_gpus``).
        address: A running cluster; Ray on this machine if ``None``.

    Returns:
        Exit codes.
    """
    ray = import_ray()
    own = connect(address, jobs * needs["num_cpus"])
    try:
        # Lost workers are replaced by Ray; what they had in hand is queued again by the study.
        task = ray.remote(max_retries=3, **needs)(_exit_code)
        place = str(Path.cwd())
        return ray.get([task.remote(target, arguments, place, _passed_on()) for _ in range(jobs)])
    finally:
        if own:
            ray.shutdown()


def _exit_code(
    target: Callable[..., None], arguments: tuple[Any, ...], directory: str, environment: dict[str, str]
) -> int:
    os.environ.update(environment)
    os.chdir(directory)
    try:
        target(*arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
