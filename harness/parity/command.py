"""``bench.py parity``: runs golden cases and prints the largest errors. Imports torch only to run."""

from __future__ import annotations

import argparse
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compare import Difference


@dataclass(frozen=True)
class Verdict:
    """What one case, or its strict pass, came to.

    Attributes:
        title: ``<method>/<case>``, with ``(strict)`` for the strict pass.
        differences: One per compared tensor; empty if the case could not be computed.
        problem: Why the case could not be computed; empty if it could.
    """

    title: str
    differences: tuple[Difference, ...] = ()
    problem: str = ""

    @property
    def failures(self) -> tuple[Difference, ...]:
        """Tensors out of tolerance or missing."""
        return tuple(difference for difference in self.differences if not difference.passed)

    @property
    def passed(self) -> bool:
        """Whether every tensor is within tolerance, and there is one."""
        return bool(self.differences) and not self.problem and not self.failures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py parity``."""
    parser.add_argument(
        "--cases",
        type=Path,
        required=True,
        metavar="DIR",
        help="one case, one method's cases or all of them: searched for case.json",
    )
    parser.add_argument("--device", default="cpu", help="device of the run (default: cpu)")
    parser.add_argument(
        "--strict", action="store_true", help="also run the tighter pass of the cases that describe one"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print failures and the summary, not every tensor"
    )


def run(args: argparse.Namespace) -> int:
    """Runs every case below ``args.cases``.

    Returns:
        0 only if there is a case and every tensor of every case is within tolerance.
    """
    folders = sorted(file.parent for file in args.cases.rglob("case.json"))
    if not folders:
        print(f"no case.json below {args.cases}")
        return 2
    verdicts = [verdict for folder in folders for verdict in check(folder, args.device, args.strict)]
    for verdict in verdicts:
        _print_case(verdict, args.quiet)
    _print_summary(verdicts)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def check(folder: Path, device: str = "cpu", strict: bool = False) -> list[Verdict]:
    """Runs one case, and its strict pass if asked for and described."""
    from .case import read_case
    from .contract import ParityError
    from .runner import run_case

    title = f"{folder.parent.name}/{folder.name}"
    verdicts: list[Verdict] = []
    try:
        case = read_case(folder)
        title = case.title
        for tight in (False, True) if strict and case.description.strict else (False,):
            label = f"{title} (strict)" if tight else title
            verdicts.append(Verdict(label, tuple(run_case(case, device, tight))))
    except ParityError as error:
        verdicts.append(Verdict(title, problem=str(error)))
    except Exception as error:  # a fault in one method's code must not hide the other cases
        traceback.print_exc()
        verdicts.append(Verdict(title, problem=f"{type(error).__name__}: {error}"))
    return verdicts


def _print_case(verdict: Verdict, quiet: bool) -> None:
    shown = verdict.failures if quiet else verdict.differences
    if shown or verdict.problem:
        print(f"\n{verdict.title}")
    if verdict.problem:
        print(f"  NOT COMPUTED: {verdict.problem}")
    width = max((len(item.name) for item in shown), default=0)
    for item in shown:
        state = "ok  " if item.passed else "FAIL"
        place = f"{item.kind} in {item.section}"
        print(f"  {state} {item.name:<{width}}  error {item.error:9.2e}  ratio {item.ratio:9.2e}  {place}")
        if item.problem:
            print(f"       {item.problem}")


def _print_summary(verdicts: list[Verdict]) -> None:
    from tabulate import tabulate

    rows = []
    for verdict in verdicts:
        worst = max(verdict.differences, key=lambda item: item.ratio, default=None)
        rows.append(
            {
                "case": verdict.title,
                "tensors": len(verdict.differences),
                "failed": len(verdict.failures),
                "largest error": f"{max((d.error for d in verdict.differences), default=float('nan')):.2e}",
                "largest ratio": f"{worst.ratio:.3f}" if worst else "-",
                "at": worst.name if worst else "-",
                "verdict": "pass" if verdict.passed else "FAIL",
            }
        )
    print()
    print(tabulate(rows, headers="keys", disable_numparse=True))
    passed = sum(verdict.passed for verdict in verdicts)
    print(f"\n{passed} of {len(verdicts)} cases within tolerance")
