"""``bench.py parity``: runs golden cases and prints the largest errors. Imports torch only to run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py parity``."""
    parser.add_argument(
        "--cases", type=Path, required=True, metavar="DIR", help="folder searched for case.json"
    )
    parser.add_argument("--device", default="cpu", help="device of the run (default: cpu)")
    parser.add_argument(
        "--strict", action="store_true", help="also run the tighter pass of cases that have one"
    )
    parser.add_argument("--verbose", action="store_true", help="print every tensor, not only the worst")


def run(args: argparse.Namespace) -> int:
    """Runs every case below ``args.cases``; 0 only if all tensors are within tolerance."""
    raise NotImplementedError
