"""Which cells of a table stand out, and what is remarked about its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..metrics import metric
from .records import Board, Row


@dataclass(frozen=True)
class CellMarks:
    """What is said about one cell of a method.

    Attributes:
        best: It has the best mean of its column.
        tied: It is not the best, and not significantly worse than the best.
        second: It has the second best mean.
        differs: It differs significantly from the named baseline.
    """

    best: bool = False
    tied: bool = False
    second: bool = False
    differs: bool = False


def cell_marks(board: Board, name: str, column: str, baseline: str = "") -> Mapping[str, CellMarks]:
    """Marks of one column by label; reference rows and cells without a value have none.

    Args:
        board: The board; its claims are about the primary metric, others only get best and second.
        name: Metric.
        column: Column.
        baseline: Label that differences are marked against; empty: none.
    """
    sign = 1 if metric(name).higher_is_better else -1
    means = {
        row.label: sign * mean
        for row in board.rows
        if row.kind == "method" and (mean := row.cells[name][column].mean) is not None
    }
    levels = sorted(set(means.values()), reverse=True)
    tested = board.claims if board.claims is not None and board.claims.metric == name else None
    found = tested.best_of(column) if tested else None
    marks: dict[str, CellMarks] = {}
    for label, mean in means.items():
        pair = tested.comparison(label, baseline, column) if tested and baseline else None
        marks[label] = CellMarks(
            best=mean == levels[0],
            # Where no row is worse than the best the mark would say nothing.
            tied=found is not None
            and label in found.members
            and len(found.members) < len(found.p)
            and mean != levels[0],
            second=len(levels) > 1 and mean == levels[1],
            differs=pair is not None and pair.significant,
        )
    return marks


@dataclass(frozen=True)
class Remark:
    """Something that holds for some rows and stands in the legend.

    Attributes:
        name: Short name.
        text: What it means.
    """

    name: str
    text: str


SYNTHETIC = Remark("synthetic", "synthetic data: says nothing about real emotions")
TEST_SELECTED = Remark(
    "test selection", "the epoch was selected on the test set: not comparable with honest results"
)


def remarks(board: Board, row: Row) -> tuple[Remark, ...]:
    """Remarks on a row, in the order of the legend."""
    found: list[Remark] = []
    if row.privileged:
        seen = ", ".join(row.privileged)
        found.append(Remark("privileged", f"saw true features of absent modalities in training ({seen})"))
    if board.test_selected and row.kind != "no information":
        found.append(TEST_SELECTED)
    found += [Remark(text.partition(":")[0], text) for text in row.remarks]
    if board.synthetic:
        found.append(SYNTHETIC)
    return tuple(found)
