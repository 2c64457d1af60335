"""``bench.py doctor``: environment, device, data, versions."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "transformers",
    "mlflow",
    "optuna",
    "pandas",
    "scipy",
    "tabulate",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "filelock",
    "numpy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py doctor``."""
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Checks what a run needs: 0 if nothing essential is absent."""
    packages = {name: _version(name) for name in _PACKAGES}
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": packages,
        "device": _device() if packages["torch"] else "torch is absent",
        "results": _writable(Path("results")),
        "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "mlflow": os.environ.get("MLFLOW_TRACKING_URI", "MLflow's default (mlflow.db in this folder)"),
        "data": _data(args.data_root) if packages["pydantic"] else {},
    }
    essential = ("torch", "pandas", "pyarrow", "pydantic", "safetensors", "numpy")
    problems = [f"{name} is not installed" for name in essential if not packages[name]]
    if not report["results"]:
        problems.append("the folder results/ can't be written")
    report["problems"] = problems
    if args.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _print(report)
    return 1 if problems else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    return f"cpu: {torch.get_num_threads()} threads (no CUDA device)"


def _writable(folder: Path) -> bool:
    existing = folder if folder.exists() else folder.parent
    return os.access(existing, os.W_OK)


def _data(root: Path | None) -> dict[str, str]:
    from ..corpus.catalogue import data_sets, find_corpus
    from ..corpus.errors import DataNotFound

    places = {}
    for info in data_sets():
        try:
            places[info.name] = "generated" if info.embedded else str(find_corpus(info.name, root))
        except DataNotFound:
            places[info.name] = "absent"
    return places


def _print(report: dict[str, Any]) -> None:
    print(f"python    {report['python']} on {report['platform']}, {report['cores']} cores")
    print(f"device    {report['device']}")
    versions = ", ".join(f"{name} {version or 'ABSENT'}" for name, version in report["packages"].items())
    print(f"packages  {versions}")
    print(
        f"results   {'writable' if report['results'] else 'NOT WRITABLE'}, {report['free_disk_gib']} GiB free"
    )
    print(f"mlflow    {report['mlflow']}")
    print("data      " + ", ".join(f"{name}: {place}" for name, place in report["data"].items()))
    print("\n".join(f"PROBLEM   {problem}" for problem in report["problems"]) or "all is well")
