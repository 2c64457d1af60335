"""How much memory is left to this command."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that can be taken without swapping: of the machine, or of a tighter control group.

    A container's or batch system's limit counts where it is a control group of version 2. What it
    holds of files is given back on demand and does not count as used.
    """
    machine = psutil.virtual_memory().available
    limit, used = (_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return machine
    return max(0, min(machine, limit - used + _cached_files()))


def resident_memory(pid: int) -> int:
    """Bytes that a process holds now; 0 if it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _cached_files() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    sizes = dict(line.split() for line in lines)
    return int(sizes.get("inactive_file", 0)) + int(sizes.get("active_file", 0))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
