"""Measures one case; what its figures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .authors import NotMeasured, runnable
from .cases import CASES
from .timing import Cost, Step, best_in_turns


@dataclass(frozen=True)
class Outcome:
    """What one case cost.

    Attributes:
        method: Name of the method.
        case: Size and stage.
        threads: Threads of every step.
        costs: Best costs of ``"authors"`` (where they were run), ``"published"``, ``"default"``.
        quoted: The authors' step as the specification has it.
        note: Why the authors' code was not measured.
    """

    method: str
    case: str
    threads: int
    costs: Mapping[str, Cost]
    quoted: str
    note: str

    def ratio(self, name: str) -> float | None:
        """Processor time of ours over the authors'."""
        if name not in self.costs or "authors" not in self.costs:
            return None
        return self.costs[name].cpu / self.costs["authors"].cpu


def measure(index: int, checkout: Path | None, threads: int, repetitions: int) -> Outcome:
    """One case, in a process of its own: the authors' modules have colliding names."""
    torch.set_num_threads(threads)
    case = CASES[index]
    steps: dict[str, Step] = {}
    note = ""
    if case.authors is None:
        note = "not measured: not opened"
    elif checkout is None:
        note = "not measured: no checkout"
    else:
        try:
            torch.manual_seed(0)
            steps["authors"] = runnable(case.authors(checkout))
        except NotMeasured as error:
            note = f"not measured: {error}"
    costs = best_in_turns({**steps, **case.ours()}, repetitions)
    return Outcome(case.method, case.title, threads, costs, case.quoted, note)
