"""The files of a run folder against its manifest, and whether each can be read at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..run_file import RUN_FILE, DamagedRun, NewerRun
from ..run_manifest import MANIFEST, FileDigest, file_digest, plain_files, read_manifest
from .findings import Finding

HISTORY, PREDICTIONS, WEIGHTS, AUDIT = (
    "history.jsonl",
    "predictions.parquet",
    "model.safetensors",
    "audit.jsonl",
)
RESULTS = (HISTORY, PREDICTIONS, WEIGHTS)
_KNOWN = frozenset({RUN_FILE, *RESULTS, AUDIT})
# A line an epoch; no file of them is this large.
_LARGEST = 256 * 2**20


def check_files(folder: Path) -> tuple[dict[str, FileDigest], list[Finding]]:
    """Digests of the plain files of a run folder, and what its manifest says against them.

    Links are never followed: a run holds plain files only.
    """
    found = list(_strangers(folder))
    digests = {name: file_digest(folder / name) for name in plain_files(folder)}
    try:
        stated = read_manifest(folder)
    except NewerRun as error:
        return digests, [*found, Finding("newer", MANIFEST, str(error))]
    except DamagedRun as error:
        return digests, [*found, Finding("damaged", MANIFEST, str(error))]
    if stated is not None:
        found += _compared(stated, digests)
    else:
        found += (Finding("extra", name, "is no file of a run") for name in digests if name not in _KNOWN)
    return digests, found


def _strangers(folder: Path) -> Iterator[Finding]:
    for item in sorted(folder.iterdir()):
        mode = item.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield Finding("extra", item.name, f"is a link to {os.readlink(item)}; a run holds plain files")
        elif not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no plain file"
            yield Finding("extra", item.name, f"is {what}; a run holds plain files")


def _compared(stated: Mapping[str, FileDigest], digests: Mapping[str, FileDigest]) -> Iterator[Finding]:
    for name, was in stated.items():
        now = digests.get(name)
        if now is None:
            yield Finding("damaged", name, f"is missing ({was.bytes} bytes)")
        elif now.bytes < was.bytes:
            yield Finding("damaged", name, f"has {now.bytes} bytes of {was.bytes}: cut off")
        elif now != was:
            size = f", and {now.bytes} bytes instead of {was.bytes}" if now.bytes != was.bytes else ""
            yield Finding("altered", name, f"its SHA-256 is not that of the file that was published{size}")
    for name in digests:
        if name not in stated:
            yield Finding("extra", name, "was not there when the run was published")


def check_history(folder: Path, record: Mapping[str, Any]) -> Iterator[Finding]:
    """The curves of a finished run: a line an epoch, the tested epoch chosen and scored as recorded."""
    try:
        rows = read_lines(folder / HISTORY)
        steps = [row["step"] for row in rows]
        stages = [row["stage"] for row in rows]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        yield Finding("damaged", HISTORY, f"not readable: {error}")
        return
    if steps != list(range(record["epochs"])):
        yield Finding(
            "altered", HISTORY, f"has {len(rows)} epochs, in {RUN_FILE} there are {record['epochs']}"
        )
        return
    best = record["best_epoch"]
    if best >= len(rows):
        yield Finding("altered", RUN_FILE, f"best_epoch {best} is after the last epoch")
        return
    if best < 0:
        return
    scores = {
        key.removeprefix("validation/"): value
        for key, value in rows[best].items()
        if key.startswith("validation/")
    }
    if scores != record["metrics"]["validation"]:
        yield Finding("altered", RUN_FILE, f"validation metrics are not those of epoch {best} in {HISTORY}")
    if record["marks"]["selection"] == "best":
        yield from _chosen(rows, stages, best, record["table"]["primary"])


def _chosen(rows: list[dict[str, Any]], stages: list[Any], best: int, primary: str) -> Iterator[Finding]:
    """No epoch of the stage is better on validation than the tested one, and no earlier one as good."""
    from ..metrics import metric

    sign = 1.0 if metric(primary).higher_is_better else -1.0
    key = f"validation/{primary}"
    scores = {
        step: sign * row[key]
        for step, row in enumerate(rows)
        if stages[step] == stages[best] and isinstance(row.get(key), int | float)
    }
    if best not in scores:
        return
    better = [step for step, score in scores.items() if (score, -step) > (scores[best], -best)]
    if better:
        text = f"epoch {better[0]} is better on validation than epoch {best}, which was tested"
        yield Finding("altered", HISTORY, text)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The values of a file of JSON lines.

    Raises:
        OSError, ValueError, RecursionError: It can't be read.
    """
    if file.stat().st_size > _LARGEST:
        raise ValueError("too large to be what its name says")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def check_weights(folder: Path) -> Iterator[Finding]:
    """The header of the weights, and that the file has what it promises."""
    problem = tensor_problem(folder / WEIGHTS)
    if problem:
        yield Finding("damaged", WEIGHTS, problem)


def tensor_problem(path: Path) -> str:
    """Why a file of tensors does not have what its header promises; empty if it has."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return ""
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        return f"not readable: {error}"


def check_audit(folder: Path) -> Iterator[Finding]:
    """The audit can be read; what it says is checked by whoever uses it."""
    try:
        if not all(isinstance(row, dict) for row in read_lines(folder / AUDIT)):
            yield Finding("damaged", AUDIT, "a line is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        yield Finding("damaged", AUDIT, f"not readable: {error}")
