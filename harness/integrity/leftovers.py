"""What lies in a protocol's folder beside its runs: work in progress, stages, strangers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from .files import tensor_problem
from .findings import Finding

_ADDRESS = re.compile(r"[0-9a-f]{16}")


def check_leftovers(folder: Path, stages: Collection[str]) -> Iterator[Finding]:
    """Interrupted work, removals that were cut off, stages that no run needs, half-written files.

    Args:
        folder: ``results/<protocol>``.
        stages: Addresses of stages that its runs may have branched from.
    """
    work = _entries(folder / "work")
    cut_off = [item for item in work if item.name.endswith(".removed")]
    begun = [item for item in work if item.is_dir() and item not in cut_off]
    if begun:
        text = f"{_count(len(begun), 'run')} in progress or interrupted; the same command continues them"
        yield Finding("leftover", "work", text)
    if cut_off:
        yield Finding("leftover", "work", f"{_count(len(cut_off), 'removal')} cut off; the folders can go")
    for item in begun:
        yield from _whole(item / "checkpoint.safetensors", f"work/{item.name}/checkpoint.safetensors")
    needless = []
    for item in _entries(folder / "stages"):
        if item.suffix == ".safetensors":
            yield from _whole(item, f"stages/{item.name}")
            if item.stem not in stages:
                needless.append(item)
    if needless:
        size = sum(item.lstat().st_size for item in needless) / 2**20
        text = f"{_count(len(needless), 'file')} of no run here ({size:.1f} MiB); they can go"
        yield Finding("leftover", "stages", text)
    parts = [item.name for item in _entries(folder) if item.name.endswith(".part")]
    if parts:
        yield Finding(
            "leftover", parts[0], f"{_count(len(parts), 'file')} half-written when a process was killed"
        )
    for item in _entries(folder / "runs"):
        if item.is_symlink():
            yield Finding("extra", f"runs/{item.name}", "is a link; its runs are not looked at")
        elif item.is_file():
            yield Finding("extra", f"runs/{item.name}", "is a file, not the folder of a run")
        elif not _ADDRESS.fullmatch(item.name.rpartition("-")[2]):
            yield Finding("extra", f"runs/{item.name}", "its name ends in no run address")


def _whole(path: Path, where: str) -> Iterator[Finding]:
    """Whether a file of tensors has what its header promises."""
    if path.is_symlink() or not path.is_file():
        return
    problem = tensor_problem(path)
    if problem:
        yield Finding("damaged", where, f"{problem}; it can go, what it holds is computed again")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
