"""``bench.py`` as its user calls it: within this process, which is quick, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from imer_bench.harness.cli import main

ROOT = Path(__file__).resolve().parents[2]
_QUICK = {"IMER_NO_MLFLOW": "1", "IMER_NO_REPORT": "1", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Answer:
    """What a command left behind.

    Attributes:
        code: Exit code.
        out: What it printed.
        err: What it printed to the error stream.
    """

    code: int
    out: str
    err: str


def bench(folder: Path, *arguments: object, **environment: str) -> Answer:
    """Calls the command in this process.

    Args:
        folder: Working directory.
        arguments: Arguments of the command.
        environment: Environment variables; an empty one switches a default of the tests off.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {**_QUICK, **environment}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([str(item) for item in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def start(
    folder: Path, *arguments: object, environment: Mapping[str, str] | None = None, **options: object
) -> subprocess.Popen[str]:
    """Starts the command as a process.

    Args:
        folder: Working directory.
        arguments: Arguments of the command.
        environment: Environment variables.
        options: Options of ``Popen``.
    """
    variables = {**os.environ, **_QUICK, "PYTHONPATH": str(Path(__file__).parent), **(environment or {})}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str], seconds: float = 900) -> Answer:
    """Waits for a command that was started."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Answer(process.returncode, out, err)


def contents(folder: Path) -> dict[str, bytes]:
    """Predictions and weights of all runs of ``results/<protocol>``, byte for byte."""
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for name in ("predictions.parquet", "model.safetensors")
        for path in folder.glob(f"runs/*/{name}")
    }
