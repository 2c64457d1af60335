"""The commands as functions, for notebooks and scripts; see ``docs/python-api.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .execute import Display, Outcome, Silent, execute
from .executors.processes import ProcessWorkers
from .executors.request import PlanRequest
from .leaderboard import Board, write_leaderboard
from .protocol.data import DataSource, load_data
from .protocol.load import Overrides, load_protocol
from .protocol.plan import Execution, Plan, make_plan
from .report import boards_of_plan, boards_of_store
from .store import Store


@dataclass(frozen=True)
class Results:
    """What a protocol gave.

    Attributes:
        plan: Its runs.
        store: Where they are.
        outcome: What was computed now and what was there already.
        boards: Leaderboards, one per comparison.
    """

    plan: Plan
    store: Store
    outcome: Outcome
    boards: tuple[Board, ...]


def plan_protocol(
    path: Path | str,
    *,
    settings: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    data_root: Path | str | None = None,
    synthetic: bool = False,
    device: str = "cpu",
) -> Plan:
    """Reads a protocol file, loads its data and expands it into runs.

    Args:
        path: The protocol file.
        settings: Changes as ``key=value``.
        methods: Only these methods.
        seeds: Training seeds instead of the file's.
        data_root: Folder that holds the data sets.
        synthetic: Use generated data of the same shape.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        UserError: The file, the data or an argument can't be used.
    """
    overrides = Overrides(
        tuple(settings),
        None if methods is None else tuple(methods),
        None if seeds is None else tuple(seeds),
    )
    protocol = load_protocol(path, overrides)
    source = DataSource(None if data_root is None else Path(data_root), synthetic)
    execution = Execution.of(protocol, device)
    return make_plan(protocol, load_data(protocol, source), execution, source)


def run_plan(plan: Plan, folder: Path | str, display: Display | None = None, jobs: int = 1) -> Results:
    """Computes what is missing of a plan, writes its leaderboard and returns it.

    Args:
        plan: The plan (``plan_protocol``).
        folder: Results folder of the protocol.
        display: Shows progress; nothing is shown without one.
        jobs: Runs computed at a time, each in a process of its own if there are several. As with
            all processes of Python, a script then needs ``if __name__ == "__main__":``.
    """
    store = Store(Path(folder))
    workers = None if jobs == 1 else lambda: ProcessWorkers(PlanRequest.of(plan, store.folder), jobs)
    outcome = execute(plan, store, display or Silent(), workers=workers)
    boards = boards_of_plan(plan, store)
    write_leaderboard(boards, store.folder)
    return Results(plan, store, outcome, boards)


def leaderboards(folder: Path | str) -> tuple[Board, ...]:
    """Leaderboards of a results folder, without its protocol."""
    return boards_of_store(Store(Path(folder)))
