"""What a run asks of its network, apart from how it is computed.

A run is written as a generator (``Work``) that yields every call of its network and is sent the answer.
Alone, each call is carried out as it comes (``alone``); runs of one method can be interleaved, and their
calls carried out together (``lockstep``).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch

from ..batch import Batch
from ..method import Method
from ..record import CallKind
from .deadline import deadline

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call of a method with a batch.

    Attributes:
        kind: Which function of the method.
        method: The method, already in the mode (training or evaluation) that the call needs.
        batch: The batch.
        precision: ``"float32"`` or ``"bf16"``.
        position: Step within the epoch.
    """

    kind: CallKind
    method: Method
    batch: Batch
    precision: str
    position: int = 0

    def carry_out(self) -> Any:
        """What the method answers; without gradients unless it is trained."""
        with (
            nullcontext() if self.kind == "training_step" else torch.no_grad(),
            autocast(self.batch.real.device, self.precision),
        ):
            return getattr(self.method, self.kind)(self.batch)


class Lane:
    """What a run shows, while it is computed, to who computes it.

    Attributes:
        stage: Index of the stage it is in; one more than the last once it is trained.
        weights: Name of the stage that its weights come from.
    """

    stage = 0
    weights = ""

    def now(self) -> float:
        """Seconds of work on this run, from any beginning."""
        return time.perf_counter()

    def deadline(self, minutes: float | None) -> AbstractContextManager[None]:
        """Raises ``TimeLimit`` in the block when its time is over."""
        return deadline(minutes)


Work: TypeAlias = Generator[Call, Any, T]


def alone(work: Work[T]) -> T:
    """Carries out every call of a run as it comes; a failure of one is raised inside the run.

    Returns:
        What the run returns.
    """
    answer, problem = None, None
    while True:
        call = None
        try:
            call = work.send(answer) if problem is None else work.throw(problem)
            problem = None
            answer = call.carry_out()
        except BaseException as error:
            if call is not None:
                problem = error
            elif isinstance(error, StopIteration):
                return error.value
            else:
                raise


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The precision of forward passes: float32, or bf16 where it is safe."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
