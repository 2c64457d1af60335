"""Training steps of our methods beside those of their authors' released networks.

::

    python -m benchmarks.beside_authors --reference gcnet=FOLDER --reference momke=FOLDER ...

FOLDER is a checkout of the repository and commit that ``methods/<name>/info.py`` names; none of it is part
of this project. Without a folder a method is timed alone, beside the figure of its specification. All steps
of a case take turns in one process, which makes the ratios fair on a machine with other work on it. The
authors' step is their network, what it minimises (GCNet, ComP) or a loss that costs next to nothing (a lower
bound: the others), its backward pass and Adam. Ours is the whole training step.

GCNet's code needs torch_geometric. MAGTKD's is GPL-3.0 and not opened: its figures are those of its
specification.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch
from tabulate import tabulate

from .cases import CASES
from .measure import Outcome, measure


def table(outcomes: Sequence[Outcome]) -> str:
    """Processor seconds of a step and ratios, as a GitHub table."""
    rows = []
    for outcome in outcomes:
        costs = {name: outcome.costs[name].cpu for name in outcome.costs}
        rows.append(
            [
                outcome.method,
                outcome.case,
                outcome.threads,
                *(costs.get(name) for name in ("authors", "published", "default")),
                *(outcome.ratio(name) for name in ("published", "default")),
                outcome.quoted,
                outcome.note,
            ]
        )
    headers = ["method", "step", "threads", "authors, s", "published, s", "default, s"]
    headers += ["published / authors", "default / authors", "specification", ""]
    return tabulate(rows, headers=headers, floatfmt=".3g", tablefmt="github")


def _reference(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not folder or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=FOLDER with an existing folder is expected")
    return name, Path(folder).resolve()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=_reference, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--methods", default=",".join(dict.fromkeys(case.method for case in CASES)))
    parser.add_argument("--threads", default="1", help="numbers of threads, such as 1,2")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose title contains this")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    checkouts: dict[str, Path] = dict(arguments.reference)
    chosen = [
        index
        for index, case in enumerate(CASES)
        if case.method in arguments.methods.split(",") and arguments.only in case.title
    ]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for threads in map(int, arguments.threads.split(",")):
            for index in chosen:
                checkout = checkouts.get(CASES[index].method)
                print(f"{CASES[index].method}: {CASES[index].title}", file=sys.stderr, flush=True)
                pending = pool.submit(measure, index, checkout, threads, arguments.repetitions)
                outcomes.append(pending.result())
    print(f"torch {torch.__version__}, CPU, float32, best of {arguments.repetitions}, processor seconds\n")
    print(table(outcomes))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    main()
