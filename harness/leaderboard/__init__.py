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
- ``evidence``, ``influence``: what does each dialogue contribute to a score?
- ``significance``: is a difference more than seeds, masks and dialogues explain?
- ``multiplicity``, ``inference``, ``claims``: which claims stand when hundreds are made at once?
- ``power``, ``effects``: what would have been found, and how large is it?
- ``ranks``: which rows are better over independent data sets?
- ``robustness``, ``checks``, ``statements``: how do rows bear missing modalities, what looks wrong, and
  how is it said?
- ``calibration``: do the tests keep what they promise?
- ``build``, ``records``: which results share a table, and what stands in its cells?
- ``render``: how does a table look in a terminal, Markdown, CSV and JSON?
- ``marks``, ``latex``, ``bibliography``, ``figures``: how do they look in a paper?
- ``published``, ``published_checks``: what does the literature say, and can it be right?
- ``audit``: what would selecting on the test set have added?
- ``content``, ``html``, ``appendix``, ``report``: what stands in a report, and when is it made again?

"""

from .build import build_boards
from .claims import Claims, ClaimSettings, Comparison
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
    "ClaimSettings",
    "Claims",
    "Column",
    "Comparison",
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
