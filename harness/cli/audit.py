"""``bench.py audit``: measures what the project's own claims rest on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py audit``."""
    parser.add_argument("what", choices=["statistics"], help="statistics: error rates of tests by simulation")
    parser.add_argument(
        "source",
        nargs="*",
        metavar="TABLE",
        help="result tables (.parquet, .csv): A/A test instead, seeds of each method against its others",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulated leaderboards")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables as Markdown")


def run(args: argparse.Namespace) -> int:
    """Prints the tables: 0."""
    text = _self_comparison(args) if args.source else _simulation(args)
    print(text)
    if args.out is not None:
        from ..files import write_text

        write_text(args.out, text)
    return 0


def _simulation(args: argparse.Namespace) -> str:
    from ..leaderboard.calibration_report import audit, render_audit

    share = 10 if args.quick else 1

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = audit(
        replicates=1000 // share, habits=300 // share, family_replicates=200 // share, progress=progress
    )
    return render_audit(*found)


def _self_comparison(args: argparse.Namespace) -> str:
    from ..leaderboard import read_predictions
    from ..leaderboard.self_comparison import render_self_comparison, self_comparison

    table = read_predictions([Path(source) for source in args.source])
    return render_self_comparison(self_comparison(table.frame, table.infos))
