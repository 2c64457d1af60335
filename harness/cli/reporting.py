"""Options about reports, and writing them at the end of a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..leaderboard import Board
    from ..leaderboard.content import Content
    from ..leaderboard.latex_options import LatexOptions
    from ..leaderboard.published import Quotation
    from ..protocol.plan import Plan
    from ..store import Store, StoredRun
    from .kept import Tables


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that ends in leaderboards."""
    parser.add_argument(
        "--published",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="numbers of the literature (CSV) to show beside, never ranked (repeatable)",
    )
    parser.add_argument(
        "--latex",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the LaTeX tables, such as precision=2 or transpose=true (repeatable)",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="write no figures, LaTeX tables and HTML page"
    )


@dataclass(frozen=True)
class ReportRequest:
    """What is asked for beside the leaderboards, checked before anything is computed.

    Attributes:
        wanted: Whether figures, LaTeX tables and the HTML page are written.
        latex: How LaTeX tables look.
        published: Numbers of the literature.
    """

    wanted: bool
    latex: LatexOptions
    published: tuple[Quotation, ...]


def report_request(args: argparse.Namespace) -> ReportRequest:
    """Reads the options about reports.

    Raises:
        UserError: A file of published numbers can't be used, or an option of LaTeX tables is unknown.
    """
    from ..leaderboard.latex_options import latex_options
    from ..leaderboard.published import read_published

    return ReportRequest(
        wanted=not (args.no_report or os.environ.get("IMER_NO_REPORT")),
        latex=latex_options(args.latex),
        published=read_published(args.published),
    )


def tables_of(
    request: ReportRequest, make: Callable[[], Sequence[Board]], store: Store | None, folder: Path | None
) -> Tables:
    """Makes leaderboards and writes them and, unless it is switched off, the report.

    Args:
        request: What is asked for.
        make: Makes the boards.
        store: Where their runs are; ``None`` for a table without runs.
        folder: Where files go; ``None``: nothing is written.
    """
    from ..leaderboard import render_terminal
    from ..leaderboard.appendix import appendix_text
    from ..leaderboard.render import record_text
    from .kept import Tables

    boards = make()
    content = _content(request, boards, store)
    where = () if folder is None else tuple(_written(request, content, folder))
    text = "\n".join(map(render_terminal, boards)) + "\n" * bool(boards) + appendix_text(content)
    return Tables(text, record_text(boards), where)


def tables_of_store(
    request: ReportRequest, make: Callable[[], Sequence[Board]], store: Store, plan: Plan | None = None
) -> Tables:
    """The same with files in the store's folder; made only if something has changed since last time.

    Args:
        request: What is asked for.
        make: Makes the boards.
        store: Where their runs are.
        plan: What else the boards are made from, beside the store.
    """
    from ..background import sources_of
    from ..report import planned
    from .kept import kept_or_made

    records = (run.record for run in store.runs(unreadable=lambda run: None))
    asked = {
        "request": request,
        "sources": sources_of(records),
        "plan": None if plan is None else [plan.protocol, list(planned(plan))],
    }
    return kept_or_made(store, asked, lambda: tables_of(request, make, store, store.folder))


def _content(request: ReportRequest, boards: Sequence[Board], store: Store | None) -> Content:
    """What a report of these boards is about."""
    from ..background import background_of
    from ..leaderboard.content import content_of

    background = background_of(_runs_of(store, boards)) if store is not None else None
    return content_of(tuple(boards), background, request.published)


def _runs_of(store: Store, boards: Iterable[Board]) -> list[StoredRun]:
    hashes = {board.comparison_hash for board in boards}
    readable = store.runs(unreadable=lambda run: None)  # the boards tell of the others
    return [run for run in readable if run.record["comparison_hash"] in hashes]


def _written(request: ReportRequest, content: Content, folder: Path) -> list[str]:
    """Writes all files, and answers lines that say where they are."""
    from ..leaderboard import write_leaderboard
    from ..leaderboard.appendix import appendix_markdown

    boards = [item.board for item in content.shown]
    write_leaderboard(boards, folder, appendix_markdown(content))
    lines = [f"tables: {folder / 'leaderboard.md'} (also .csv and .json)"]
    if not request.wanted:
        return lines
    from ..leaderboard.report import write_report

    try:
        page, *_ = write_report(content, folder, request.latex)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        return [*lines, "no report: matplotlib is not installed (pip install matplotlib)"]
    return [*lines, f"report: {page} (LaTeX: leaderboard.tex; figures/)"]
