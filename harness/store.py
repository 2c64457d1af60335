"""The result store: one folder a run, complete or absent, found by its address.

::

    results/<protocol>/
      protocol.json                 the protocol as it was last run, overrides included
      language_models.json          names of the language models its runs use, and hashes of their weights
      leaderboard.{md,csv,json}
      tables.json                   what was printed with them, and what all of it was made from
      runs/<name>-<address>/        run.json, history.jsonl, predictions.parquet, model.safetensors,
                                    and manifest.json with the digest of each
      work/<address>/               a run in progress: its checkpoint
      stages/<address>.safetensors  stages that several runs branch from
      locks/<address>.lock          held by the process that works on it; a kill frees it

A run is prepared under ``work/`` and renamed into ``runs/``, so that nothing half-written is ever
read and a finished run is never repeated. What someone or something else has done to a run since
shows when it is read: it is ``damaged``, never left out without a word.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import UserError
from .files import move_whole, write_json, writing
from .reading import Unreadable, read_json
from .run_file import RUN_FILE, RUN_SCHEMA, DamagedRun, read_record
from .run_manifest import read_manifest, write_manifest

DAMAGED = "damaged"


@dataclass(frozen=True)
class StoredRun:
    """A run of the store.

    Attributes:
        folder: Its folder.
        record: Content of ``run.json``, older versions migrated; of a run whose ``run.json`` can't
            be read only ``address``, ``status`` and ``error``.
        schema: Schema version of ``run.json`` as it was written; 0 if it can't be read.
    """

    folder: Path
    record: dict[str, Any]
    schema: int = RUN_SCHEMA

    @property
    def address(self) -> str:
        """Run address."""
        return self.record["address"]

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``diverged`` or, of what the folder no longer holds, ``damaged``."""
        return self.record["status"]

    @property
    def readable(self) -> bool:
        """Whether its record can be read."""
        return self.schema > 0

    @property
    def predictions(self) -> Path:
        """Path of the per-sample predictions."""
        return self.folder / "predictions.parquet"


class Store:
    """Results of one protocol.

    Args:
        folder: ``results/<protocol>``; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, address: str) -> StoredRun | None:
        """The run of this address, if the store has it; it may be ``damaged``.

        Raises:
            NewerRun: It was written by a newer version of this project.
        """
        for folder in sorted(self._runs.glob(f"*-{address}")):
            return _read(folder)
        return None

    def find_all(self, addresses: Collection[str]) -> dict[str, StoredRun]:
        """The runs of these addresses that the store has, by address, in one walk through the folder.

        Raises:
            NewerRun: One was written by a newer version of this project.
        """
        wanted = frozenset(addresses)
        found = (_read(folder) for folder in self.folders() if folder.name.rpartition("-")[2] in wanted)
        return {run.address: run for run in found if run.readable or run.folder.exists()}

    def runs(self, unreadable: Callable[[StoredRun], None] | None = None) -> Iterator[StoredRun]:
        """All runs of the store, by folder name.

        Args:
            unreadable: Called instead with every run whose record can't be read.

        Raises:
            UserError: A record can't be read, and nobody asked for such runs.
            NewerRun: A run was written by a newer version of this project.
        """
        for folder in self.folders():
            run = _read(folder)
            if run.readable:
                yield run
            elif unreadable is not None:
                unreadable(run)
            elif folder.exists():  # else it was removed a moment ago, to be repeated
                raise UserError(run.record["error"]["message"])

    def addresses(self) -> frozenset[str]:
        """Addresses of all runs of the store, by folder names alone."""
        return frozenset(folder.name.rpartition("-")[2] for folder in self.folders())

    def folders(self) -> list[Path]:
        """Folders of all runs, by name."""
        found = self._runs.glob("*-*")
        return sorted(folder for folder in found if folder.name[0] != "." and not folder.is_file())

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    def work_folder(self, address: str) -> Path:
        """Where a run in progress keeps its checkpoint."""
        folder = self.folder / "work" / address
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stage_file(self, address: str) -> Path:
        """Where a stage that several runs branch from is kept."""
        return self.folder / "stages" / f"{address}.safetensors"

    def publish(self, work: Path, name: str, record: dict[str, Any]) -> StoredRun:
        """Turns a finished work folder into a run of the store.

        Args:
            work: The work folder with every file of the run but ``run.json``.
            name: Readable part of the folder's name.
            record: Content of ``run.json``.
        """
        folder = self._runs / f"{folder_name(name)}-{record['address']}"
        write_json(work / RUN_FILE, {**record, "name": folder.name})
        write_manifest(work)
        self.remove(record["address"])
        with writing(folder):
            self._runs.mkdir(parents=True, exist_ok=True)
            move_whole(work, folder)
        return _read(folder)

    def remove(self, address: str) -> None:
        """Removes a run, to repeat it."""
        doomed = self.folder / "work" / f"{address}.removed"
        shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was cut off
        for folder in self._runs.glob(f"*-{address}"):
            with writing(folder):
                doomed.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def language_models(self) -> dict[str, str]:
        """Hashes of weights by name of language model, as the runs of this store have them.

        Raises:
            UserError: The file was spoilt.
        """
        file = self.folder / "language_models.json"
        if not file.is_file():
            return {}
        try:
            known = read_json(file)
        except Unreadable as error:
            known = error
        if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
            raise UserError(f"{file}: not a table of names and hashes; put a copy back, or remove it")
        return known

    def hold_to_language_models(self, found: Mapping[str, str]) -> None:
        """Writes down which weights stand behind names; from then on no others may.

        An address knows a language model by its name alone.

        Raises:
            UserError: Other weights stand behind a name already.
        """
        with self.claim("language-models", wait=True):
            known = self.language_models()
            for name in known.keys() & found.keys():
                if known[name] != found[name]:
                    raise UserError(
                        f"the results in {self.folder} were computed with other weights of language model "
                        f"{name!r}: theirs have the SHA-256 {known[name]}, those at hand {found[name]}. "
                        f'Name the weights in the protocol ("{name}@{found[name][:12]}"), which makes runs '
                        "of their own of them, or choose another results folder (--results)"
                    )
            if not found.keys() <= known.keys():
                write_json(self.folder / "language_models.json", {**known, **found})

    @contextmanager
    def claim(self, address: str, wait: bool = False) -> Iterator[bool]:
        """Tries to become the one process that works on an address.

        Args:
            address: Address of a run or a stage.
            wait: Wait until the other process is done instead of answering False.

        Yields:
            Whether this process may work on it.
        """
        path = self.folder / "locks" / f"{address}.lock"
        lock = FileLock(path)
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _read(folder: Path) -> StoredRun:
    address = folder.name.rpartition("-")[2]
    try:
        record, schema = read_record(folder)
        if record["address"] != address:
            raise DamagedRun(f"{folder}: the folder's name ends in {address!r}, not in the run's address")
    except DamagedRun as error:
        return StoredRun(folder, {"address": address, **_damaged(str(error))}, schema=0)
    run = StoredRun(folder, record, schema)
    problem = _problem(run)
    return damaged(run, problem) if problem else run


def _problem(run: StoredRun) -> str:
    """What a glance shows to be wrong with the predictions; ``bench.py verify`` looks closer."""
    if run.status != "finished":
        return ""
    if not run.predictions.is_file():
        return f"{run.predictions}: there is no such file"
    try:
        stated = (read_manifest(run.folder) or {}).get(run.predictions.name)
    except DamagedRun as error:
        return str(error)
    size = run.predictions.stat().st_size
    if stated is not None and stated.bytes != size:
        return f"{run.predictions}: has {size} bytes, and had {stated.bytes} when the run ended"
    return ""


def damaged(run: StoredRun, problem: str) -> StoredRun:
    """A run of which a file turned out to be unusable, without its result."""
    return replace(run, record={**run.record, **_damaged(problem)})


def _damaged(problem: str) -> dict[str, Any]:
    return {"status": DAMAGED, "error": {"type": "DamagedRun", "message": problem}}


def folder_name(name: str) -> str:
    """A name that is a valid folder name everywhere."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)[:120].strip("._-") or "run"
