"""Runs per hour of ``--jobs N`` beside one job: the whole command, start-up included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from .setting import PROTOCOLS, ROOT, Setting
from .table import Figure

METHODS = ("momke", "late_fusion")
_TARGET = 1.7  # on two cores


def measure(setting: Setting) -> list[Figure]:
    """Throughput of several jobs as a multiple of that of one, per method."""
    jobs = 8 if setting.device == "cuda" else max(2, os.cpu_count() or 1)
    epochs = setting.epochs or (2 if setting.quick else 20)
    runs = jobs if setting.quick else 4 * jobs
    figures = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        one, many = (seconds(method, epochs, runs, number, setting.device) for number in (1, jobs))
        two_cores = setting.device == "cpu" and jobs == 2
        figures.append(
            Figure(
                "Several runs at a time",
                f"{method}, {runs} runs of {epochs} epochs, {setting.device}, --jobs {jobs}",
                many,
                "s",
                beside="--jobs 1",
                other=one,
                target=f"ratio of at least {_TARGET}" if two_cores else "",
                met=one / many >= _TARGET if two_cores else None,
            )
        )
    return figures


def seconds(method: str, epochs: int, runs: int, jobs: int, device: str) -> float:
    """Wall time of a command."""
    seeds = ",".join(str(seed) for seed in range(1, runs + 1))
    with TemporaryDirectory() as folder:
        line = [
            sys.executable, str(ROOT / "bench.py"), "--protocol", str(PROTOCOLS / "mosi_small.toml"),
            "--synthetic", "--methods", method, "--seeds", seeds, "--no-mlflow", "--no-report", "--quiet",
            "--results", folder, "--device", device, "--jobs", str(jobs),
            "--set", f"compute.epochs={epochs}", "--set", "compute.threads=1",
        ]  # fmt: skip
        begun = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun
