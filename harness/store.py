"""The result store: one folder a run, complete or absent, found by its address.

::

    results/<protocol>/
      protocol.json                 the protocol as it was last run, overrides included
      leaderboard.{md,csv,json}
      runs/<name>-<address>/        run.json, history.jsonl, predictions.parquet, model.safetensors
      work/<address>/               a run in progress: its checkpoint
      stages/<address>.safetensors  stages that several runs branch from
      locks/<address>.lock          held by the process that works on it; a kill frees it

A run is prepared under ``work/`` and renamed into ``runs/``, so that nothing half-written is ever
read and a finished run is never repeated.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .files import move_whole, write_json, writing

RUN_SCHEMA = 1


@dataclass(frozen=True)
class StoredRun:
    """A run of the store.

    Attributes:
        folder: Its folder.
        record: Content of ``run.json``.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def address(self) -> str:
        """Run address."""
        return self.record["address"]

    @property
    def status(self) -> str:
        """``finished``, ``failed`` or ``diverged``."""
        return self.record["status"]

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
        """The run of this address, if the store has it."""
        for folder in sorted(self._runs.glob(f"*-{address}")):
            return self._read(folder)
        return None

    def runs(self) -> Iterator[StoredRun]:
        """All runs of the store, by folder name."""
        for folder in sorted(self._runs.glob("*-*")):
            if (folder / "run.json").is_file():
                yield self._read(folder)

    def addresses(self) -> frozenset[str]:
        """Addresses of all runs of the store, by folder names alone."""
        return frozenset(folder.name.rpartition("-")[2] for folder in self._runs.glob("*-*"))

    def _read(self, folder: Path) -> StoredRun:
        return StoredRun(folder, json.loads((folder / "run.json").read_text(encoding="utf-8")))

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
        write_json(work / "run.json", {**record, "name": folder.name})
        self.remove(record["address"])
        with writing(folder):
            self._runs.mkdir(parents=True, exist_ok=True)
            move_whole(work, folder)
        return self._read(folder)

    def remove(self, address: str) -> None:
        """Removes a run, to repeat it."""
        doomed = self.folder / "work" / f"{address}.removed"
        shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was cut off
        for folder in self._runs.glob(f"*-{address}"):
            with writing(folder):
                doomed.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

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


def folder_name(name: str) -> str:
    """A name that is a valid folder name everywhere."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name)[:120].strip("._-") or "run"
