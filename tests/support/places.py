"""Real file systems that are small, become read-only, or are cut off."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system in memory at this folder; the test is skipped where none can be mounted.

    Args:
        folder: Where; made if it is absent.
        options: Options of tmpfs, such as ``size=100k``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["mode=755", *options]), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    """Changes options of a mounted file system: its ``size``, ``ro`` or ``rw``.

    Args:
        folder: Where it is mounted.
        options: The options.
    """
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(folder)], check=True)
