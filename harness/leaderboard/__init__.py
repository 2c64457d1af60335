"""Results in, claims out: reads result tables, aggregates them, and writes leaderboards.

It knows one long table of predictions (``table``) and nothing of training, torch or MLflow, so that
it works on any result table, ours or not::

    table = read_predictions(["mine.csv", "theirs.parquet"])
    boards = build_boards(table.frame, table.infos)
    print(render_terminal(boards[0]))
    write_leaderboard(boards, Path("out"))

Each module has one question to answer:

- ``table``, ``info``, ``files``: what is a valid result table, and how is it stored?
- ``runs``: which runs were planned, and what became of them?
- ``scores``: what is the metric of each seed, fold, mask draw and condition?
- ``intervals``: how far would another sample of dialogues move it?
- ``reference_rows``: what does knowing nothing score?
- ``build``, ``records``: which results share a table, and what stands in its cells?
- ``render``: how does a table look in a terminal, Markdown, CSV and JSON?

Tests of significance, LaTeX and figures start from the same ``Board`` and ``draws``.
"""

from .build import build_boards
from .files import PredictionTable, read_predictions, write_predictions
from .info import TableInfo, infer_info
from .intervals import IntervalSettings
from .records import Board, Cell, Column, Row
from .render import render_markdown, render_terminal, write_leaderboard
from .runs import RunSummary
from .table import Condition, TableError, concatenate, validate

__all__ = [
    "Board",
    "Cell",
    "Column",
    "Condition",
    "IntervalSettings",
    "PredictionTable",
    "Row",
    "RunSummary",
    "TableError",
    "TableInfo",
    "build_boards",
    "concatenate",
    "infer_info",
    "read_predictions",
    "render_markdown",
    "render_terminal",
    "validate",
    "write_leaderboard",
    "write_predictions",
]
