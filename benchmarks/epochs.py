"""Seconds per training epoch and peak memory of every method at its own size, on the shape of a protocol.

    python benchmarks/epochs.py [--protocol protocols/mosi_missing.toml] [--methods gcnet,momke] [--epochs 4]

Data are generated with the protocol's shapes; every method runs in a process of its own with one CPU thread
(``--threads``). An epoch is forward, backward and optimiser steps over the training split, no validation.
Methods with two stages spend half of the epochs in each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent


def measure(protocol: Path, method: str, epochs: int, threads: int, settings: list[str]) -> list[Any]:
    """One run of a method in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "bench.py"), "--protocol", str(protocol), "--synthetic",
            "--methods", method, "--seeds", "1", "--no-mlflow", "--no-report", "--quiet", "--results", folder,
            "--set", f"compute.epochs={epochs}", "--set", f"compute.threads={threads}",
            "--set", 'test.conditions=["random-0.5"]',
        ]  # fmt: skip
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        (path,) = Path(folder).glob("*/runs/*/run.json")
        record = json.loads(path.read_text())
    if record["status"] != "finished":
        return [method, record["error"]["message"][:60], None, None, None]
    return [
        method,
        record["identity"]["level"],
        record["parameters_trained"] / 1e6,
        record["timings"]["train_s"] / record["epochs"],
        record["peak_memory_mib"],
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", type=Path, default=ROOT / "protocols" / "mosi_missing.toml")
    parser.add_argument("--methods", default="late_fusion,early_fusion,gcnet,momke,comp,dmd,magtkd,ad_mcpd")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rows = [
        measure(arguments.protocol, name, arguments.epochs, arguments.threads, arguments.set)
        for name in arguments.methods.split(",")
    ]
    headers = ["method", "takes", "parameters, M", "s per epoch", "peak memory, MiB"]
    print(tabulate(rows, headers=headers, floatfmt=("", "", ".2f", ".2f", ".0f"), tablefmt="github"))


if __name__ == "__main__":
    main()
