"""Leaderboards made again from the runs, and compared with the ones on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..reading import Unreadable, read_json
from ..report import boards_of_store
from ..store import Store
from .findings import Finding
from .predictions import same

TABLES = "leaderboard.json"


def check_tables(store: Store) -> Iterator[Finding]:
    """Means of every cell that stands on as many runs as the store has of it.

    The same folder may have gained runs since the table was written, or lost rows that a later
    protocol left out: such cells are counted, and no problem.
    """
    file = store.folder / TABLES
    if not file.is_file():
        return
    try:
        stated = read_json(file)
        boards = {_key(board): board for board in stated["boards"]}
    except (Unreadable, OSError, TypeError, LookupError) as error:
        yield Finding("damaged", TABLES, f"not readable: {error}; `bench.py leaderboard` writes it again")
        return
    outdated = compared = 0
    for board in boards_of_store(store):
        there = boards.get((board.comparison_hash, board.data_set))
        rows = {} if there is None else {row["label"]: row["cells"] for row in there["rows"]}
        for row in board.rows:
            for metric, cells in row.cells.items():
                for column, cell in cells.items():
                    was = _cell(rows, row.label, metric, column)
                    if was is None or was["done"] != cell.done:
                        outdated += 1
                        continue
                    compared += 1
                    if not same(was["mean"], cell.mean):
                        text = (
                            f"{metric} of {row.label} in {column} is {was['mean']}, its runs give {cell.mean}"
                        )
                        yield Finding("altered", TABLES, text)
    if outdated:
        text = f"{outdated} of {outdated + compared} cells are of other runs than the folder holds now"
        yield Finding("drift", TABLES, f"{text}; `bench.py leaderboard` writes them again")


def _key(board: Any) -> tuple[str, str]:
    return board["comparison_hash"], board["data_set"]


def _cell(rows: Any, label: str, metric: str, column: str) -> Any:
    """A cell as it is stated; ``None`` where there is none of the right form."""
    try:
        cell = rows[label][metric][column]
        return cell if isinstance(cell["done"], int) and "mean" in cell else None
    except (TypeError, LookupError):
        return None
