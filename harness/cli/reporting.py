"""Options about reports, and writing them at the end of a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..leaderboard import Board
    from ..leaderboard.content import Content
    from ..leaderboard.latex_options import LatexOptions
    from ..leaderboard.published import Quotation
    from ..store import Store, StoredRun


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


def content_for(request: ReportRequest, boards: Sequence[Board], store: Store | None) -> Content:
    """What a report of these boards is about.

    Args:
        request: What is asked for.
        boards: The boards.
        store: Where their runs are; ``None`` for a table without runs.
    """
    from ..background import background_of
    from ..leaderboard.content import content_of

    background = background_of(_runs_of(store, boards)) if store is not None else None
    return content_of(tuple(boards), background, request.published)


def _runs_of(store: Store, boards: Iterable[Board]) -> list[StoredRun]:
    hashes = {board.comparison_hash for board in boards}
    readable = store.runs(unreadable=lambda run: None)  # the boards tell of the others
    return [run for run in readable if run.record["comparison_hash"] in hashes]


def write_tables(request: ReportRequest, content: Content, folder: Path) -> list[str]:
    """Writes leaderboards and, unless it is switched off, the report.

    Returns:
        Lines that say where everything is.
    """
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
