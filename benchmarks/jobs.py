"""Runs per hour of ``--jobs N``, and of stacks, beside one run at a time: the whole command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from .setting import PROTOCOLS, ROOT, Setting, with_epochs
from .table import Figure

METHODS = ("momke", "late_fusion")
# Runs at a time, and in a stack; what is asked of the best.
_WAYS = {"cpu": ((max(2, os.cpu_count() or 1), 1),), "cuda": ((8, 1), (1, 5), (4, 5))}
_TARGETS = {"cpu": 1.7, "cuda": 5.0}  # of two cores; of one GPU
_RUNS = {"cpu": 8, "cuda": 20}


def measure(setting: Setting) -> list[Figure]:
    """Throughput of several runs at a time as a multiple of that of one, per method."""
    epochs = setting.epochs or (2 if setting.quick else 10)
    ways, target = _WAYS[setting.device], _TARGETS[setting.device]
    figures = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        runs = ways[0][0] if setting.quick else _RUNS[setting.device]
        one = seconds(method, epochs, runs, 1, 1, setting.device)
        for jobs, stack in ways:
            many = seconds(method, epochs, runs, jobs, stack, setting.device)
            how = f"{setting.device}, --jobs {jobs}, stacks of {stack}"
            judged = setting.device == "cuda" or jobs == 2
            figures.append(
                Figure(
                    "Several runs at a time",
                    f"{method}, {runs} runs of {epochs} epochs, {how}",
                    many,
                    "s",
                    beside="one at a time",
                    other=one,
                    target=f"ratio of at least {target}" if judged else "",
                    met=one / many >= target if judged else None,
                )
            )
    return figures


def seconds(method: str, epochs: int, runs: int, jobs: int, stack: int, device: str) -> float:
    """Wall time of a command on generated data of the shape of a protocol's: on CUDA at full width."""
    protocol = "mosi_missing" if device == "cuda" else "mosi_small"
    seeds = ",".join(str(seed) for seed in range(1, runs + 1))
    with TemporaryDirectory() as folder:
        line = [
            sys.executable, str(ROOT / "bench.py"), "--protocol", str(PROTOCOLS / f"{protocol}.toml"),
            "--synthetic", "--methods", method, "--seeds", seeds, "--no-mlflow", "--no-report", "--quiet",
            "--results", folder, "--device", device, "--jobs", str(jobs),
            *_set("compute.threads=1", f"compute.stack={stack}", *with_epochs(protocol, method, epochs)),
            *_set(*(['test.conditions=["random-0.5"]'] if device == "cuda" else [])),
        ]  # fmt: skip
        begun = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun


def _set(*settings: str) -> Sequence[str]:
    return [part for setting in settings for part in ("--set", setting)]
