"""How long a command takes that has nothing to train."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from .setting import PROTOCOLS, ROOT, Setting
from .table import Figure


def measure(setting: Setting) -> list[Figure]:
    """Wall seconds of ``--help``, of the first and of the second time a protocol is run."""
    figures = [
        Figure(
            "Start-up",
            "bench.py run --help",
            command("run", "--help"),
            "s",
            beside="python -c pass",
            other=seconds([sys.executable, "-c", "pass"]),
            target="under 0.5 s",
        )
    ]
    with TemporaryDirectory() as folder:
        arguments = ["--protocol", str(PROTOCOLS / "quickstart.toml"), "--results", folder, "--no-mlflow"]
        if setting.quick:
            arguments += ["--methods", "constant,late_fusion", "--seeds", "1", "--set", "compute.epochs=1"]
        first = command(*arguments, rounds=1)
        again = command(*arguments)
    figures.append(
        Figure(
            "Start-up",
            "quickstart, finished, run again",
            again,
            "s",
            beside="first time",
            other=first,
            target="under 3 s",
        )
    )
    limits = (0.5, 3.0)
    return [
        Figure(**{**vars(figure), "met": figure.value is not None and figure.value < limit})
        for figure, limit in zip(figures, limits, strict=True)
    ]


def command(*arguments: str, rounds: int = 3) -> float:
    """Least wall time of ``bench.py`` with these arguments."""
    return seconds([sys.executable, str(Path(ROOT) / "bench.py"), *arguments], rounds)


def seconds(line: list[str], rounds: int = 3) -> float:
    """Least wall time of a command."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found.append(time.perf_counter() - begun)
    return min(found)
