"""Checks one run folder, or everything in the results of a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UserError
from ..protocol.plan import AddressParts
from ..protocol.schema import Protocol
from ..run_file import RUN_FILE, RUN_SCHEMA, DamagedRun, NewerRun, read_record
from ..run_manifest import digest_of
from ..schedules import MASK_VERSION
from ..store import Store
from .addresses import check_address, check_comparison, check_versions, schedules_of
from .data import Absent, DataAtHand, check_against_data
from .files import AUDIT, RESULTS, check_audit, check_files, check_history, check_weights
from .findings import Finding, FolderReport, RunReport
from .leftovers import check_leftovers
from .masks import Draws, check_seeds, check_test_masks
from .predictions import check_predictions
from .tables import check_tables

# What a file may hold that was made to be read by nobody; a check that meets it says so and ends.
_BROKEN = (
    UserError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, RecursionError,
    MemoryError,
)  # fmt: skip


class Checks:
    """Checks of the runs of one results folder; draws and data are made once for all of them.

    Args:
        data: Data sets, where they are at hand.
    """

    def __init__(self, data: DataAtHand) -> None:
        self._data = data
        self._draws = Draws()

    def run(self, folder: Path) -> RunReport:
        """Checks a run folder; whatever it holds, this ends in a report."""
        digests, found = check_files(folder)
        made = ["files"]
        status = ""
        try:
            record, schema = read_record(folder)
        except NewerRun as error:
            found.append(Finding("newer", RUN_FILE, str(error)))
        except DamagedRun as error:
            found.append(Finding("damaged", RUN_FILE, str(error).removeprefix(f"{folder / RUN_FILE}: ")))
        else:
            status = record["status"]
            made.append("record")
            if schema < RUN_SCHEMA:
                text = f"schema {schema}, read as schema {RUN_SCHEMA}; without a manifest or hashed parts"
                found.append(Finding("older", RUN_FILE, text))
            if not folder.name.endswith(f"-{record['address']}"):
                found.append(Finding("altered", RUN_FILE, "its address is not that of the folder's name"))
            found += self._contents(folder, record, frozenset(digests), made)
        return RunReport(folder.name, status, tuple(made), tuple(found), digest_of(digests))

    def _contents(
        self, folder: Path, record: Mapping[str, Any], files: frozenset[str], made: list[str]
    ) -> list[Finding]:
        found: list[Finding] = []
        blocks = []
        if record["status"] == "finished":
            found += [Finding("damaged", name, "is missing") for name in RESULTS if name not in files]
            with _guarded("history", found, made):
                found += check_history(folder, record)
            with _guarded("weights", found, made):
                found += check_weights(folder)
            if AUDIT in files:
                with _guarded("audit", found, made):
                    found += check_audit(folder)
            with _guarded("metrics", found, made):
                blocks, problems = check_predictions(folder, record)
                found += problems
        with _guarded("address", found, made):
            found += self._identity(record, blocks, made)
        return found

    def _identity(self, record: Mapping[str, Any], blocks: list[Any], made: list[str]) -> Iterator[Finding]:
        """Address, comparison hash and masks: all that the protocol of the record decides."""
        try:
            protocol = Protocol.model_validate(record["protocol"])
        except ValidationError as error:
            issue = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in issue["loc"])
            yield Finding("altered", RUN_FILE, f"its protocol is none: {where}: {issue['msg']}")
            return
        modalities = list(record["data"]["features"])
        schedules = schedules_of(protocol, modalities, record["identity"]["train_condition"])
        if schedules is None:
            yield Finding("altered", RUN_FILE, "its protocol trains on no such condition")
            return
        yield from check_versions(record)
        hashed = record["hashed"]
        data = self._data.of(record, protocol)
        identity = None if hashed is None else hashed["data"]
        if isinstance(data, Absent):
            yield data.finding
        else:
            seed = record["identity"]["seed"]
            from_data = {**self._data.identity(data, record["identity"]["fold"]), "seed": seed}
            if identity is not None and identity != from_data:
                wrong = sorted(name for name in from_data if identity.get(name) != from_data[name])
                yield Finding("altered", RUN_FILE, f"{', '.join(wrong)} are not those of the data at hand")
            identity = identity or from_data
        if identity is None:
            yield Finding(
                "unchecked", "address", "a run of schema 1 has an address of its data; they are absent"
            )
        else:
            yield from check_address(record, protocol, schedules, identity)
        if hashed is not None:
            yield from check_comparison(record, protocol, schedules)
        if record["status"] != "finished":
            return
        drawn = MASK_VERSION if hashed is None else hashed["method"].get("masks")
        if drawn != MASK_VERSION:
            yield Finding("unchecked", "masks", f"were drawn by version {drawn}, here is {MASK_VERSION}")
            return
        made.append("masks")
        yield from check_seeds(record, protocol, schedules.train, schedules.validation, schedules.test)
        if blocks:
            yield from check_test_masks(blocks, record, schedules.test, self._draws)
        if not isinstance(data, Absent):
            made.append("data")
            yield from check_against_data(record, schedules, data, blocks, self._draws)


@contextmanager
def _guarded(name: str, found: list[Finding], made: list[str]) -> Iterator[None]:
    """A check that meets what it can't make sense of has found something, and the others go on."""
    made.append(name)
    try:
        yield
    except _BROKEN as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        found.append(Finding("damaged", name, f"can't be checked: {text}"))


def check_folder(
    folder: Path,
    data: DataAtHand,
    tables: bool = True,
    on_run: Callable[[RunReport], None] = lambda report: None,
) -> FolderReport:
    """Checks the results of one protocol.

    Args:
        folder: ``results/<protocol>``.
        data: Data sets, where they are at hand.
        tables: Whether leaderboards are made again and compared, which takes seconds.
        on_run: Called with every report.
    """
    checks = Checks(data)
    reports: list[RunReport] = []
    for run in run_folders(folder):
        reports.append(checks.run(run))
        on_run(reports[-1])
    found: list[Finding] = [*check_leftovers(folder, _stages(folder))]
    if tables and not any(item.is_problem for report in reports for item in report.findings):
        with _guarded("tables", found, []):
            found += check_tables(Store(folder))
    elif tables and (folder / "leaderboard.json").is_file():
        found.append(Finding("unchecked", "tables", "are made from runs that have problems"))
    digest = hashlib.sha256("\n".join(f"{item.run} {item.digest}" for item in reports).encode()).hexdigest()
    return FolderReport(str(folder), tuple(reports), tuple(found), digest)


def run_folders(folder: Path) -> list[Path]:
    """Folders of runs; links are left to ``check_leftovers``."""
    runs = folder / "runs"
    if not runs.is_dir():
        return []
    return sorted(
        item for item in runs.iterdir() if "-" in item.name and item.is_dir() and not item.is_symlink()
    )


def result_folders(paths: Iterable[Path]) -> list[Path]:
    """The protocols' folders that paths name, or hold.

    Raises:
        UserError: A path holds no results.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / "runs").is_dir() else sorted(item.parent for item in path.glob("*/runs"))
        if not inside:
            raise UserError(
                f"no results under {str(path)!r}: expected a folder with runs/, or one that holds such"
            )
        found += inside
    return list(dict.fromkeys(found))


def _stages(folder: Path) -> frozenset[str]:
    """Addresses of the stages that runs may have branched from."""
    found = set()
    for run in run_folders(folder):
        try:
            record, _ = read_record(run)
        except UserError:
            continue
        if record["hashed"] is None:
            return frozenset(item.stem for item in (folder / "stages").glob("*.safetensors"))
        hashed = record["hashed"]
        found.add(AddressParts(hashed["method"], hashed["data"], {}).stage_address)
    return frozenset(found)
