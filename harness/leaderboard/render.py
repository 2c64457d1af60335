"""Leaderboards in a terminal, in Markdown, CSV and JSON.

Terminal and Markdown round (per cent with one decimal, errors and correlations with three); CSV and
JSON have every number in full precision.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..cells import csv_cell, markdown_text
from ..files import json_text, write_json, write_text
from ..metrics import Metric, metric
from .claims import Bounded, Claims
from .records import Board, Cell, Column, Row

LEADERBOARD_SCHEMA = 1

HOLE = "—(hole)"
PRIVILEGED, TEST_SELECTED, SYNTHETIC, REMARK, AMONG_BEST = "†", "‡", "§", "¶", "•"


def render_terminal(board: Board, width: int = 110, metrics: Sequence[str] = ()) -> str:
    """A board as plain text; wide tables are split by family.

    Args:
        board: The board.
        width: Columns of the terminal.
        metrics: Metrics to show; the primary one if empty.
    """
    shown = tuple(metrics) or (board.info.primary,)
    lines = [board.title, "=" * min(len(board.title), width), ""]
    if board.synthetic:
        lines += [_banner(board), ""]
    lines += [_facts(board)]
    for name in shown:
        lines += ["", *_wrapped(_heading(board, name), width)]
        lines += _tables(board, width, lambda columns, name=name: _table(board, name, columns))
    if board.has_intervals:
        lines += ["", *_wrapped(_interval_heading(board), width)]
        lines += _tables(board, width, lambda columns: _interval_table(board, columns))
    for heading, sentences in _claims_text(board):
        lines += ["", *_wrapped(heading, width)]
        lines += [part for line in sentences for part in _wrapped(f"- {line}", width)]
    lines.append("")
    for line in (*_legend(board, shown), *board.notes, *_warnings(board)):
        lines += _wrapped(f"- {line}", width)
    return "\n".join(lines) + "\n"


def render_markdown(boards: Iterable[Board]) -> str:
    """All boards as one Markdown page: every metric, intervals, notes."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        lines += [f"## {markdown_text(board.title)}", ""]
        if board.synthetic:
            lines += [f"> **{markdown_text(_banner(board))}**", ""]
        lines += [markdown_text(_facts(board)), ""]
        for name in board.info.metrics:
            header, cells = _table(board, name, board.columns)
            lines += [f"### {markdown_text(_heading(board, name))}", "", _pipes(header, cells), ""]
        if board.has_intervals:
            header, cells = _interval_table(board, board.columns)
            lines += [f"### {_interval_heading(board)}", "", _pipes(header, cells), ""]
        for heading, sentences in _claims_text(board):
            lines += [f"### {heading}", "", *(f"- {markdown_text(line)}" for line in sentences), ""]
        if board.robustness:
            header, cells = _robustness_table(board)
            lines += [f"### Robustness, {metric(board.info.primary).title}", "", _pipes(header, cells), ""]
            lines += [f"- {line}" for line in _ROBUSTNESS_LEGEND] + [""]
        notes = (*_legend(board, board.info.metrics), *board.notes, *_warnings(board))
        lines += [f"- {markdown_text(line)}" for line in notes]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def render_csv(boards: Iterable[Board]) -> str:
    """All cells as CSV, one line per board, row, metric and column."""
    text = io.StringIO()
    lines = [line for board in boards for row in board.rows for line in _csv_lines(board, row)]
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["data_set"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _csv_lines(board: Board, row: Row) -> Iterator[dict[str, object]]:
    for name, cells in row.cells.items():
        for column in board.columns:
            cell = cells[column.name]
            low, high = cell.interval or (None, None)
            yield {
                "data_set": board.data_set,
                "regime": board.regime,
                "comparison_hash": board.comparison_hash,
                "trained_on": board.trained_on,
                "test_selected": board.test_selected,
                "synthetic": board.synthetic,
                "rank": row.rank,
                "label": row.label,
                "kind": row.kind,
                "method": row.method,
                "profile": row.profile,
                "context": row.context,
                "privileged": ",".join(row.privileged),
                "remarks": "; ".join(row.remarks),
                "runs_done": row.runs_done,
                "runs_planned": row.runs_planned,
                "metric": name,
                "column": column.name,
                "family": column.family,
                "is_mean": column.is_mean,
                "state": cell.state,
                "mean": cell.mean,
                "sd": cell.sd,
                "seeds": len(cell.by_seed),
                "cell_runs_done": cell.done,
                "cell_runs_planned": cell.planned,
                "interval_low": low,
                "interval_high": high,
            }


def to_record(boards: Iterable[Board]) -> dict[str, Any]:
    """All boards as plain values for JSON, every number in full precision."""
    return {
        "schema": LEADERBOARD_SCHEMA,
        "boards": [{"title": board.title, **asdict(board)} for board in boards],
    }


def record_text(boards: Iterable[Board]) -> str:
    """The same as JSON text."""
    return json_text(to_record(boards))


def write_leaderboard(boards: Sequence[Board], folder: Path, appendix: str = "") -> tuple[Path, Path, Path]:
    """Writes ``leaderboard.md``, ``leaderboard.csv`` and ``leaderboard.json``, each whole or not at all.

    Returns:
        The three paths.
    """
    paths = (folder / "leaderboard.md", folder / "leaderboard.csv", folder / "leaderboard.json")
    write_text(paths[0], render_markdown(boards) + appendix)
    write_text(paths[1], render_csv(boards))
    write_json(paths[2], to_record(boards))
    return paths


# --- Tables ----------------------------------------------------------------------------------------

# Header and rows.
Table = tuple[list[str], list[list[str]]]


def _table(board: Board, name: str, columns: Sequence[Column]) -> Table:
    item = metric(name)
    header = [*_row_header(board), *(column.name for column in columns), "runs"]
    body = [
        [
            *_row_start(board, row),
            *(
                _cell_text(row.cells[name][column.name], item)
                + (f" {AMONG_BEST}" if name == board.info.primary and _among_best(board, row, column) else "")
                for column in columns
            ),
            f"{row.runs_done}/{row.runs_planned}" if row.runs_planned else "",
        ]
        for row in board.rows
    ]
    return header, body


def _interval_table(board: Board, columns: Sequence[Column]) -> Table:
    item = metric(board.info.primary)
    header = ["#", "label", *(column.name for column in columns)]
    body = [
        [
            *_row_start(board, row)[:2],
            *(_interval_text(row.cells[item.name][column.name], item) for column in columns),
        ]
        for row in board.rows
        if row.kind != "no information"
    ]
    return header, body


def _among_best(board: Board, row: Row, column: Column) -> bool:
    """Whether a row is marked as not worse than the best; nothing is where no row is worse."""
    best = None if board.claims is None or row.kind != "method" else board.claims.best_of(column.name)
    return best is not None and row.label in best.members and len(best.members) < len(best.p)


_ROBUSTNESS_LEGEND = (
    "area: mean height of the curve of score against missing rate (trapezoid over the span of rates), with "
    "its interval",
    "retention: share of the score on complete data, counted from no information, that is left in the column "
    "that rows are ordered by",
    "worst: lowest of all incomplete conditions, interval over dialogues; a minimum of estimates is biased "
    "downwards",
    "shares: Shapley contribution of each modality, from all fixed subsets; evenness 1: all alike, 0: one "
    "carries all",
    "lost at: lowest missing rate from which on no test tells the row from no information",
)


def _robustness_table(board: Board) -> Table:
    item = metric(board.info.primary)

    def bounded(value: Bounded | None) -> str:
        if value is None:
            return ""
        low_high = value.interval
        reach = "" if low_high is None else f" [{_number(low_high[0], item)}, {_number(low_high[1], item)}]"
        return _number(value.value, item) + reach

    header = [
        "label",
        "area",
        "drop",
        "retention",
        "worst",
        "worst condition",
        "shares",
        "evenness",
        "lost at",
    ]
    body: list[list[str]] = []
    for own in board.robustness:
        drop, kept = own.drop.get(board.ranked_by), own.retention.get(board.ranked_by)
        body.append(
            [
                own.label,
                bounded(own.area_normalised),
                "" if drop is None else _number(drop, item),
                "" if kept is None else f"{100 * kept:.0f} %",
                bounded(own.worst),
                own.worst_condition,
                ", ".join(f"{name} {100 * share:.0f} %" for name, share in own.shares.items()),
                "" if own.evenness is None else f"{own.evenness:.2f}",
                "" if own.lost_at is None else f"{own.lost_at:g}",
            ]
        )
    return header, body


def _row_header(board: Board) -> list[str]:
    profile = ["profile"] if any(row.profile for row in board.rows) else []
    context = ["context"] if any(row.context for row in board.rows) else []
    return ["#", "label", *profile, *context]


def _row_start(board: Board, row: Row) -> list[str]:
    marks = [
        mark
        for mark, applies in (
            (PRIVILEGED, bool(row.privileged)),
            (TEST_SELECTED, board.test_selected and row.kind != "no information"),
            (SYNTHETIC, board.synthetic),
            (REMARK, bool(row.remarks)),
        )
        if applies
    ]
    shown = {"profile": row.profile, "context": row.context}
    start = ["" if row.rank is None else str(row.rank), f"{row.label} {''.join(marks)}".rstrip()]
    return [*start, *(shown[name] for name in _row_header(board)[2:])]


def _cell_text(cell: Cell, item: Metric) -> str:
    if cell.mean is None:
        return {"hole": HOLE, "n/a": "n/a"}.get(cell.state, "undefined")
    mean = _number(cell.mean, item)
    return mean if cell.sd is None else f"{mean} ± {_number(cell.sd, item)}"


def _interval_text(cell: Cell, item: Metric) -> str:
    if cell.state == "hole":
        return HOLE
    if cell.interval is None:
        return "n/a"
    return f"[{_number(cell.interval[0], item)}, {_number(cell.interval[1], item)}]"


def _number(value: float, item: Metric) -> str:
    return f"{100 * value:.1f}" if item.percent else f"{value:.3f}"


def _tables(board: Board, width: int, table: Callable[[Sequence[Column]], Table]) -> list[str]:
    """Lines of one table, or of several beneath each other where one is too wide."""
    return [line for columns in _blocks(board, width, table) for line in ("", _plain(*table(columns)))]


def _blocks(board: Board, width: int, table: Callable[[Sequence[Column]], Table]) -> list[list[Column]]:
    """Columns that fit side by side: whole families as long as they do, else as many as fit."""

    def fits(columns: Sequence[Column]) -> bool:
        return max(map(len, _plain(*table(columns)).splitlines())) <= width

    blocks: list[list[Column]] = []
    for _, own in groupby(board.columns, key=lambda column: column.family):
        family = list(own)
        if blocks and fits([*blocks[-1], *family]):
            blocks[-1] += family
            continue
        blocks.append([family[0]])
        for column in family[1:]:
            if fits([*blocks[-1], column]):
                blocks[-1].append(column)
            else:
                blocks.append([column])
    return blocks


def _plain(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return tabulate(cells, header, tablefmt="simple", disable_numparse=True, colalign=_align(header))


def _pipes(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    escaped = [[markdown_text(cell) for cell in row] for row in cells]
    return tabulate(
        escaped,
        [markdown_text(name) for name in header],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=_align(header),
    )


def _align(header: Sequence[str]) -> list[str]:
    return ["left" if name in ("label", "profile", "context") else "right" for name in header]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  " if text.startswith("- ") else "") or [""]


# --- Words -----------------------------------------------------------------------------------------


def _heading(board: Board, name: str) -> str:
    item = metric(name)
    unit = ", per cent" if item.percent else ""
    better = "higher" if item.higher_is_better else "lower"
    primary = "; rows are ordered by it" if name == board.info.primary else ""
    return f"{item.title}: {item.definition}{unit} ({better} is better{primary})"


def _interval_heading(board: Board) -> str:
    item = metric(board.info.primary)
    return f"{100 * board.intervals.confidence:g} % intervals of {item.title} over dialogues"


def _banner(board: Board) -> str:
    return f"SYNTHETIC DATA: {board.data_set} was generated; these numbers say nothing about real emotions"


def _facts(board: Board) -> str:
    size = f"{board.utterances} test utterances of {board.dialogues} dialogues"
    return f"{size}; comparison {board.comparison_hash}; ordered by {board.ranked_by}"


def _claims_text(board: Board) -> Iterator[tuple[str, Sequence[str]]]:
    """Headings and sentences of what may be claimed and what not."""
    claims = board.claims
    if claims is None or not claims.comparisons:
        return
    yield f"What the numbers can carry ({_test_text(claims)})", claims.statements
    if claims.limits:
        yield "What they cannot", claims.limits


def _test_text(claims: Claims) -> str:
    settings = claims.settings
    correction = {"holm": "Holm", "bh": "Benjamini-Hochberg"}[settings.correction]
    scope = {"all": "", "column": " of each column", "ranking": " of the ranking column"}[settings.family]
    return (
        f"{metric(claims.metric).title}; {correction} over {claims.family_size} tests{scope}, level "
        f"{settings.alpha:g}; intervals in brackets are not corrected"
    )


def _warnings(board: Board) -> list[str]:
    return [f"WARNING: {line}" for line in board.warnings]


def _legend(board: Board, metrics: Sequence[str]) -> list[str]:
    lines = ["mean ± standard deviation over training seeds (n - 1), mask draws averaged first"]
    cells = [cell for row in board.rows for name in metrics for cell in row.cells[name].values()]
    if any(cell.state == "hole" for cell in cells):
        lines.append(f"{HOLE}: a planned run is missing or failed; it is not averaged over")
    if any(cell.state == "n/a" for cell in cells):
        lines.append("n/a: the method's predictions have no such metric")
    if board.has_intervals:
        lines.append(
            "intervals: dialogues resampled, seeds and masks averaged; they cover the choice of test "
            "dialogues, not of training seeds, and are no test of a difference"
        )
    lines.append("the order of rows is no claim: see what the numbers can carry")
    if any(_among_best(board, row, column) for row in board.rows for column in board.columns):
        sure = f"{100 * (1 - board.claims.settings.alpha):g}" if board.claims else ""
        lines.append(
            f"{AMONG_BEST} not significantly worse than the best of its column (multiple comparisons with "
            f"the best: the marked rows hold the best one with {sure} % confidence)"
        )
    if any(row.privileged for row in board.rows):
        seen = sorted({item for row in board.rows for item in row.privileged})
        lines.append(f"{PRIVILEGED} saw true features of absent modalities in training ({', '.join(seen)})")
    if board.test_selected:
        lines.append(
            f"{TEST_SELECTED} the epoch was selected on the test set: not comparable with honest results"
        )
    if board.synthetic:
        lines.append(f"{SYNTHETIC} synthetic data")
    for text in dict.fromkeys(text for row in board.rows for text in row.remarks):
        labels = ", ".join(row.label for row in board.rows if text in row.remarks)
        lines.append(f"{REMARK} {text} ({labels})")
    lines.append("no information: the best constant prediction, knowing the test labels")
    return lines
