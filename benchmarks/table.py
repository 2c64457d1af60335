"""Figures of the benchmarks, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

HEADERS = ("what", "value", "unit", "beside", "its value", "ratio", "target", "met", "note")


@dataclass(frozen=True)
class Figure:
    """One measured number, with an alternative measured in the same run where there is one.

    Attributes:
        section: The benchmark it comes from.
        what: What was measured.
        value: The number; ``None`` where it could not be measured (the note says why).
        unit: Its unit.
        beside: The alternative.
        other: Its number, in the same unit.
        target: What the number should be, in words.
        met: Whether it is.
        note: What else must be known.
    """

    section: str
    what: str
    value: float | None
    unit: str = ""
    beside: str = ""
    other: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The alternative over the number: above 1 where less is better and the number is the lesser."""
        return None if not self.value or self.other is None else self.other / self.value


def as_text(figures: Sequence[Figure]) -> str:
    """A table per section."""
    parts = []
    for section in dict.fromkeys(figure.section for figure in figures):
        rows = [_row(figure) for figure in figures if figure.section == section]
        used = [i for i in range(len(HEADERS)) if any(row[i] for row in rows)]
        shown = [[row[i] for i in used] for row in rows]
        table = tabulate(shown, [HEADERS[i] for i in used], tablefmt="github", disable_numparse=True)
        parts.append(f"### {section}\n\n{table}\n")
    return "\n".join(parts)


def as_records(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [{**asdict(figure), "ratio": figure.ratio} for figure in figures]


def _row(figure: Figure) -> tuple[str, ...]:
    met = {None: "", True: "yes", False: "no"}[figure.met]
    numbers = (_number(figure.value), _number(figure.other), _number(figure.ratio))
    value, other, ratio = numbers
    return figure.what, value, figure.unit, figure.beside, other, ratio, figure.target, met, figure.note


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
