"""``bench.py datasets``: the known data sets, and which of them are at hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py datasets``."""
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the list."""
    from ..corpus.catalogue import data_sets, find_corpus
    from ..corpus.errors import DataNotFound

    records = []
    for info in data_sets():
        try:
            place = "generated" if info.embedded else str(find_corpus(info.name, args.data_root))
        except DataNotFound:
            place = None
        records.append(
            {
                "name": info.name,
                "title": info.title,
                "task": info.task,
                "features": {item.modality: f"{item.name} ({item.dim})" for item in info.features},
                "at_hand": place,
                "import_command": info.import_command,
            }
        )
    if args.json:
        print(json.dumps(records, indent=1, ensure_ascii=False))
        return 0
    from tabulate import tabulate

    rows = [
        [
            item["name"],
            item["task"],
            ", ".join(f"{k} {v}" for k, v in item["features"].items()),
            item["at_hand"] or "absent",
        ]
        for item in records
    ]
    print(
        tabulate(rows, headers=["data set", "task", "default features (width)", "where"], tablefmt="simple")
    )
    print("\nabsent data: docs/data.md says how to import a release; --synthetic runs on generated data")
    return 0
