"""``bench.py leaderboard``: makes tables again, from a results folder or from result tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .reporting import add_report_arguments, report_request, tables_of, tables_of_store

if TYPE_CHECKING:
    from ..leaderboard import PredictionTable
    from ..store import Store
    from .kept import Tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py leaderboard``."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a protocol's name or results folder, or result tables (.parquet, .csv)",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where tables go (default: the results folder)"
    )
    parser.add_argument(
        "--per-class",
        metavar="CONDITION",
        help="print per-class results and confusion matrices under a test condition instead of tables",
    )
    add_report_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints and writes the tables: 0, or 1 if the source can't be used."""
    if args.per_class:
        return _print_per_class(args)
    tables = _tables(args)
    print(tables.record if args.json else tables.text, end="\n" if args.json else "")
    for line in () if args.json else tables.where:
        print(line)
    return 0


def _print_per_class(args: argparse.Namespace) -> int:
    from ..errors import UnknownName
    from ..leaderboard import PredictionTable
    from ..leaderboard.per_class import per_class, render_per_class
    from ..leaderboard.table import rows_of
    from ..report import table_of_store

    source = _source(args)
    table = source if isinstance(source, PredictionTable) else table_of_store(source)
    known = table.frame["test_condition"].unique().tolist()
    if args.per_class not in known:
        raise UnknownName("test condition", args.per_class, known)
    for key, info in table.infos.items():
        results = per_class(rows_of(table.frame, key), info, args.per_class)
        if results:
            print(f"{key[1]}, comparison {key[0]}: {render_per_class(results)}\n")
    return 0


def _tables(args: argparse.Namespace) -> Tables:
    from ..leaderboard import PredictionTable, build_boards
    from ..report import boards_of_store

    request = report_request(args)
    source = _source(args)
    if isinstance(source, PredictionTable):
        return tables_of(request, lambda: build_boards(source.frame, source.infos), None, args.out)
    if args.out:
        return tables_of(request, lambda: boards_of_store(source), source, args.out)
    return tables_of_store(request, lambda: boards_of_store(source), source)


def _source(args: argparse.Namespace) -> PredictionTable | Store:
    """What the tables are made from: result tables, or the store of a protocol."""
    from ..errors import UserError, suggestion
    from ..leaderboard import read_predictions
    from ..store import Store

    paths = [Path(source) for source in args.source]
    if all(path.is_file() for path in paths) and paths[0].suffix in (".parquet", ".csv"):
        return read_predictions(paths)
    if len(paths) > 1:
        raise UserError("give one results folder, or several result tables (.parquet, .csv)")
    for folder in (paths[0], args.results / paths[0].stem):
        if (folder / "runs").is_dir():
            return Store(folder)
    known = [item.parent.name for item in args.results.glob("*/runs")]
    raise UserError(f"no results under {args.source[0]!r}{suggestion(paths[0].stem, known)}")
