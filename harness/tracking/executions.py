"""Which runs each call of the command brought, and which of them MLflow has not got yet.

``executions.jsonl`` lies beside the runs and is only ever appended to, so that it survives a kill
and several processes at once, and so that a rebuilt store shows the same grouping.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

FILE_NAME = "executions.jsonl"


@dataclass(frozen=True)
class Execution:
    """One call of the command.

    Attributes:
        command: The command line, for the record.
        started: When it started, with zone.
        id: Unique name.
    """

    command: str = ""
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())
    id: str = field(default_factory=lambda: uuid4().hex[:12])


@dataclass(frozen=True)
class Journal:
    """What ``executions.jsonl`` of a protocol folder says.

    Attributes:
        executions: By id, in order of their start.
        brought: Id of the execution that brought a run last, by the run folder's name.
        waiting: Names of run folders that were brought and have not reached a store since.
    """

    executions: Mapping[str, Execution]
    brought: Mapping[str, str]
    waiting: frozenset[str]


def record_start(protocol_folder: Path, execution: Execution) -> None:
    """Notes that an execution has started."""
    started = execution.started.isoformat(timespec="seconds")
    _append(protocol_folder, execution=execution.id, started=started, command=execution.command)


def record_run(protocol_folder: Path, execution: Execution, run: str) -> None:
    """Notes that an execution has brought a run, which now waits to be mirrored."""
    _append(protocol_folder, execution=execution.id, run=run)


def record_mirrored(protocol_folder: Path, run: str) -> None:
    """Notes that a run has reached a store."""
    _append(protocol_folder, mirrored=run)


def read_journal(protocol_folder: Path) -> Journal:
    """Reads the executions of a protocol folder; broken lines are passed over."""
    executions: dict[str, Execution] = {}
    brought: dict[str, str] = {}
    waiting: set[str] = set()
    for line in _lines(protocol_folder / FILE_NAME):
        if "started" in line:
            started = datetime.fromisoformat(line["started"])
            executions[line["execution"]] = Execution(line.get("command", ""), started, line["execution"])
        elif "run" in line:
            brought[line["run"]] = line["execution"]
            waiting.add(line["run"])
        elif "mirrored" in line:
            waiting.discard(line["mirrored"])
    return Journal(executions, brought, frozenset(waiting))


def waiting(protocol_folder: Path) -> list[str]:
    """Names of the run folders of a protocol that have not reached a store yet, sorted."""
    return sorted(read_journal(protocol_folder).waiting)


def _append(protocol_folder: Path, **values: str) -> None:
    # One short write in append mode: lines of several processes don't mix.
    descriptor = os.open(protocol_folder / FILE_NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    line = json.dumps(values, ensure_ascii=False) + "\n"
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = "\n" + line  # after a line that a full disk or a power cut ended early
        os.write(descriptor, line.encode(errors="backslashreplace"))
    finally:
        os.close(descriptor)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value
