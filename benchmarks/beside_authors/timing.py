"""Times alternatives in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Step = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Best of several repetitions.

    Attributes:
        cpu: Seconds of processor time, of all threads together.
        wall: Seconds on the clock.
    """

    cpu: float
    wall: float


def best_in_turns(steps: Mapping[str, Step], repetitions: int) -> dict[str, Cost]:
    """Best cost of every alternative, one repetition of each after the other.

    Args:
        steps: What to time, by name. One call of each goes ahead and does not count.
        repetitions: Counted calls of each.
    """
    for step in steps.values():
        step()
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            busy, clock = time.process_time(), time.perf_counter()
            step()
            cpu[name].append(time.process_time() - busy)
            wall[name].append(time.perf_counter() - clock)
    return {name: Cost(min(cpu[name]), min(wall[name])) for name in steps}
