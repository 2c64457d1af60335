"""What workers say, and what the schedule asks of them.

What is given out has one address: that of a run, or those of the runs of a stack, joined by ``+``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Started:
    """A worker has begun a run.

    Attributes:
        address: Address of the run.
    """

    address: str


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a run is over.

    Attributes:
        address: Address of the run.
        stage: Name of the stage.
        step: Epochs done over all stages.
        loss: Training loss of the epoch, where the method has one.
    """

    address: str
    stage: str
    step: int
    loss: float | None


@dataclass(frozen=True)
class Ended:
    """A worker is done with what it was given, or with one run of it.

    Attributes:
        address: Address of the run, or of the stack.
        how: ``"computed"`` now, ``"found"`` in the store, or ``"elsewhere"``: another process holds it.
    """

    address: str
    how: Literal["computed", "found", "elsewhere"]


@dataclass(frozen=True)
class Lost:
    """A worker has died; the checkpoints of its runs are left.

    Attributes:
        address: Address of what it was given.
        reason: What is known of the death.
        memory: Whether want of memory is the likely cause.
    """

    address: str
    reason: str
    memory: bool = False


@dataclass(frozen=True)
class Unable:
    """A worker can't work at all, nor could another one.

    Attributes:
        message: What a user can mend.
    """

    message: str


@dataclass(frozen=True)
class Remark:
    """Something that a user should know; the work goes on.

    Attributes:
        message: What it is.
    """

    message: str


Event = Started | EpochDone | Ended | Lost | Unable | Remark


def joint_address(addresses: Sequence[str]) -> str:
    """Address under which runs are given out together."""
    return "+".join(addresses)


def parts_of(address: str) -> list[str]:
    """Addresses of the runs that are given out under an address."""
    return address.split("+")


class Workers(Protocol):
    """Those who compute runs."""

    def room(self, running: int) -> bool:
        """Whether one more run could be given out beside ``running`` others."""
        ...

    def give(self, address: str) -> None:
        """Gives out a run, or a stack."""
        ...

    def events(self, seconds: float) -> Sequence[Event]:
        """What has happened; waits at most so long for something to happen."""
        ...

    def stop(self, address: str) -> None:
        """Ends the worker of what was given out by force; a ``Lost`` follows."""
        ...

    def close(self) -> None:
        """Ends all workers; runs in progress keep their checkpoints."""
        ...
