"""``bench.py verify``: stored results checked against themselves, and against the data at hand."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..integrity.findings import FolderReport, RunReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py verify``."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("results")],
        metavar="DIR",
        help="results folder of a protocol, or one that holds several (default: results)",
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--no-data", action="store_true", help="do not look for the data")
    parser.add_argument("--no-tables", action="store_true", help="do not make the leaderboards again")
    parser.add_argument("--all", action="store_true", help="list every run, not only those with findings")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Checks results: 0 if all is well, 1 if anything is altered, damaged, extra or of a newer version.

    Raises:
        UserError: There are no results.
    """
    from ..integrity.check import check_folder, result_folders, run_folders
    from ..integrity.data import DataAtHand
    from ..protocol.data import DataSource

    folders = result_folders(args.folders)
    data = DataAtHand(DataSource(args.data_root), wanted=not args.no_data)
    reports = []
    with _Progress(sum(len(run_folders(folder)) for folder in folders)) as progress:
        for folder in folders:
            reports.append(check_folder(folder, data, not args.no_tables, progress.advance))
    if args.json:
        print(json.dumps([_record(report) for report in reports], indent=1, ensure_ascii=False))
    else:
        for report in reports:
            _print(report, args.all)
    return 0 if all(report.is_well for report in reports) else 1


class _Progress:
    """A bar on the error stream, where that is a terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bars = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bars.add_task("runs", total=total)

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def advance(self, report: RunReport) -> None:
        self._bars.advance(self._task)


def _record(report: FolderReport) -> dict[str, Any]:
    runs = [{**asdict(item), "verdict": item.verdict} for item in report.runs]
    return {**asdict(report), "runs": runs, "is_well": report.is_well}


def _print(report: FolderReport, everything: bool) -> None:
    from tabulate import tabulate

    from ..terminal import printable

    shown = [item for item in report.runs if everything or any(f.is_problem for f in item.findings)]
    print(f"{printable(report.folder)}: {len(report.runs)} runs")
    if shown:
        rows = [
            [printable(item.run), item.status or "?", ", ".join(item.checks), item.verdict] for item in shown
        ]
        print(tabulate(rows, headers=["run", "status", "checked", "verdict"], tablefmt="simple"))
    for item in report.runs:
        for finding in item.findings:
            if finding.is_problem:
                where = f"{item.run}: {finding.where}"
                print(f"  {finding.kind}: {printable(where)}: {printable(finding.text)}")
    for finding in report.findings:
        print(f"  {finding.kind}: {printable(finding.where)}: {printable(finding.text)}")
    notes: dict[str, int] = {}
    for item in report.runs:
        for finding in item.findings:
            if not finding.is_problem:
                key = f"{finding.kind}: {finding.where}: {finding.text}"
                notes[key] = notes.get(key, 0) + 1
    for text, count in notes.items():
        print(f"  {printable(text)} ({count} of {len(report.runs)} runs)")
    print(f"  SHA-256 of all files of all runs: {report.digest}")
    print("  all is well" if report.is_well else "  NOT all is well")
