"""What all benchmarks share: options, protocols, processes of their own, clocks."""

from __future__ import annotations

import multiprocessing
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = ROOT / "protocols"

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What is asked for.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        methods: Methods to measure; each benchmark's own choice if empty.
        epochs: Epochs to train; each benchmark's own choice if ``None``.
        quick: The smallest sizes, to see that everything works.
    """

    device: str = "cpu"
    methods: tuple[str, ...] = ()
    epochs: int | None = None
    quick: bool = False


@dataclass(frozen=True)
class Seconds:
    """Time of a piece of work: on the clock, and of all threads of this process on the CPU.

    On a machine that others use as well only the second can be trusted.
    """

    wall: float
    cpu: float


def with_epochs(protocol: str, method: str, epochs: int | None) -> list[str]:
    """Settings that give a method so many epochs, over what its entry in the protocol says.

    Args:
        protocol: Name of the protocol.
        method: Name of the method.
        epochs: Epochs over all stages; ``None``: as the protocol has it.
    """
    entries = tomllib.loads((PROTOCOLS / f"{protocol}.toml").read_text(encoding="utf-8"))["methods"]
    places = [index for index, entry in enumerate(entries) if entry["name"] == method]
    return [] if epochs is None else [f"methods.{index}.parameters.epochs={epochs}" for index in places]


def timed(work: Callable[[], Any], rounds: int = 1) -> Seconds:
    """Time of some work, the least of some rounds."""
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return least(found)


def least(rounds: list[Seconds]) -> Seconds:
    """The least wall time and the least CPU time."""
    return Seconds(min(one.wall for one in rounds), min(one.cpu for one in rounds))


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function in a fresh process: its memory and imports are nobody else's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def inside(folder: str | Path) -> Iterator[None]:
    """Works in a folder, where MLflow then puts its database, whatever the environment says."""
    before, uri = os.getcwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = uri
