"""Tables that a command made before, shown again for as long as nothing they depend on has changed.

``tables.json`` in a results folder holds what was printed, a digest of all that it was made from, and
digests of the files that were written with it. Any difference, and the tables are made anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..files import write_json
from ..hashing import canonical
from ..run_manifest import file_digest, plain_files
from ..store import Store

KEPT = "tables.json"

_WRITTEN = ("leaderboard.*", "report.html", "references.bib", "figures/*")
_HOUSE = Path(__file__).resolve().parents[2]
_CODE = ("harness", "methods")
_LIBRARIES = ("matplotlib", "numpy", "pandas", "pyarrow", "scipy", "tabulate")
# The largest file of a run, of which no table depends.
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Tables:
    """Leaderboards as a command shows them.

    Attributes:
        text: For a terminal.
        record: As JSON, as it is in ``leaderboard.json``.
        where: Lines that say which files were written.
    """

    text: str
    record: str
    where: tuple[str, ...] = ()


def kept_or_made(store: Store, asked: Any, make: Callable[[], Tables]) -> Tables:
    """Tables of a store: those of last time if they still hold, else new ones.

    Args:
        store: The store; the tables' files are in its folder.
        asked: What is asked for, as values that have one JSON text: planned runs, options.
        make: Makes the tables and writes their files.
    """
    # One at a time: files of two commands must not mix.
    with store.claim("tables", wait=True):
        made_from = _digest([str(store.folder), asked, list(_runs(store)), code_digest()])
        kept = _read(store.folder, made_from)
        if kept is not None:
            return kept
        tables = make()
        files = _written(store.folder)
        record = {"made_from": made_from, "files": files, "text": tables.text, "where": tables.where}
        write_json(store.folder / KEPT, {**record, "digest": _digest(record)})
        return tables


def _read(folder: Path, made_from: str) -> Tables | None:
    try:
        record = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        digest = record.pop("digest")
        holds = record["made_from"] == made_from and digest == _digest(record)
        if not holds or record["files"] != _written(folder):
            return None
        table = (folder / "leaderboard.json").read_text(encoding="utf-8")
        return Tables(record["text"], table.removesuffix("\n"), tuple(record["where"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # absent, broken, or of another version


def _runs(store: Store) -> Iterator[tuple[str, dict[str, str]]]:
    """Every run folder, with the content of all its files that tables are made from."""
    for folder in store.folders():
        names = plain_files(folder) if folder.is_dir() else ()
        yield folder.name, {name: file_digest(folder / name).sha256 for name in names if name != _WEIGHTS}


def _written(folder: Path) -> dict[str, str]:
    files = sorted(path for pattern in _WRITTEN for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): file_digest(path).sha256 for path in files}


def code_digest(house: Path = _HOUSE) -> str:
    """Digest of this project's code and of the versions of what it computes and draws with."""
    sources = sorted(path for part in _CODE for path in (house / part).rglob("*.py"))
    return _digest(
        {
            "python": sys.version,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "code": {str(path.relative_to(house)): file_digest(path).sha256 for path in sources},
        }
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
