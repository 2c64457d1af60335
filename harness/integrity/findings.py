"""What a check of stored results finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["altered", "damaged", "extra", "newer", "drift", "older", "leftover", "unchecked"]

# What makes a command fail, the worst first; the other kinds are information.
PROBLEMS: tuple[Kind, ...] = ("altered", "damaged", "newer", "extra")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        kind: ``"altered"``: something contradicts what the run recorded of itself, or what can be
            computed again from it. ``"damaged"``: a file is missing, cut off or unreadable.
            ``"newer"``: written by a newer version. ``"extra"``: it belongs to no run. Information:
            ``"drift"``: made by another version of the code or of torch. ``"older"``: an older
            schema, read by migration. ``"leftover"``: of work that was interrupted. ``"unchecked"``:
            a check that could not be made, and why.
        where: File or check.
        text: What was found.
    """

    kind: Kind
    where: str
    text: str

    @property
    def is_problem(self) -> bool:
        """Whether it makes the command fail."""
        return self.kind in PROBLEMS


@dataclass(frozen=True)
class RunReport:
    """What was found in one run folder.

    Attributes:
        run: Name of the folder.
        status: Status of the run; empty if its record can't be read.
        checks: Checks that were made.
        findings: What they found.
        digest: SHA-256 over names and digests of its files.
    """

    run: str
    status: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    digest: str

    @property
    def verdict(self) -> str:
        """The worst kind of problem, else ``"ok"`` with what should be known."""
        return verdict(self.findings)


@dataclass(frozen=True)
class FolderReport:
    """What was found in the results of one protocol.

    Attributes:
        folder: ``results/<protocol>``.
        runs: Its runs.
        findings: What was found beside the runs: tables, leftovers.
        digest: SHA-256 over the digests of all runs: it changes if anything in any run does.
    """

    folder: str
    runs: tuple[RunReport, ...]
    findings: tuple[Finding, ...]
    digest: str

    @property
    def is_well(self) -> bool:
        """Whether there is no problem anywhere."""
        return not any(
            item.is_problem for item in (*self.findings, *(f for r in self.runs for f in r.findings))
        )


def verdict(findings: Iterable[Finding]) -> str:
    """One word for a list of findings."""
    kinds = {item.kind for item in findings}
    for kind in PROBLEMS:
        if kind in kinds:
            return kind
    notes = [kind for kind in ("older", "drift") if kind in kinds]
    return f"ok ({', '.join(notes)})" if notes else "ok"
