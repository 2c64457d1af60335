"""How far the same runs differ under other threads and processor instructions.

    python benchmarks/determinism.py [--protocol protocols/quickstart.toml] [--epochs 5]

Every variant is a command of its own with one seed. Printed per method: the largest difference of a
stored prediction (probability or score) from the first variant, and of the primary metric over conditions,
in points; "0" is exact equality. The first variant is computed twice, to show that it equals itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Variant:
    """One way of computing the same protocol.

    Attributes:
        name: Name in the table.
        threads: Threads of a run.
        environment: What else is different.
    """

    name: str
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


VARIANTS = (
    Variant("again"),
    Variant("2 threads", threads=2),
    Variant("plain SSE kernels", environment={"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41"}),
    Variant("AVX2 kernels", environment={"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"}),
)


def compute(protocol: Path, epochs: int, variant: Variant, folder: Path) -> dict[str, pd.DataFrame]:
    """Predictions by method."""
    command = [
        sys.executable, str(ROOT / "bench.py"), "--protocol", str(protocol), "--results", str(folder),
        "--seeds", "1", "--no-mlflow", "--no-report", "--quiet",
        "--set", f"compute.epochs={epochs}", "--set", f"compute.threads={variant.threads}",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **variant.environment})
    frames = [pd.read_parquet(path) for path in sorted(folder.glob("*/runs/*/predictions.parquet"))]
    return {str(frame["label"].iloc[0]): frame for frame in frames}


def metric_of(frame: pd.DataFrame) -> pd.Series:
    """Share of right classes, negative against the others where there are scores, by condition."""
    classes = frame.filter(like="class_").to_numpy(float)
    scores = frame["score"].to_numpy(float)
    if np.isfinite(scores).any():
        right = (scores >= 0) == (frame["y_true"].to_numpy(float) >= 0)
    else:
        right = classes.argmax(axis=1) == frame["y_true"].to_numpy(float)
    return 100 * pd.Series(right).groupby(frame["test_condition"].astype(str).to_numpy()).mean()


def difference(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """Largest difference of a prediction, and of the accuracy of a condition in points."""
    columns = [name for name in one.columns if name == "score" or name.startswith("class_")]
    gaps = np.abs(one[columns].to_numpy(float) - other[columns].to_numpy(float))
    points = float((metric_of(one) - metric_of(other)).abs().max())
    return float(np.nanmax(gaps, initial=0.0)), points


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", type=Path, default=ROOT / "protocols" / "quickstart.toml")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base = compute(arguments.protocol, arguments.epochs, Variant("first"), Path(place) / "first")
        rows = {label: [label] for label in base}
        for variant in VARIANTS:
            found = compute(arguments.protocol, arguments.epochs, variant, Path(place) / variant.name)
            for label, frame in base.items():
                gap, points = difference(frame, found[label])
                rows[label].append("0" if gap == 0 else f"{gap:.1e} ({points:.1f})")
    headers = ["method", *(variant.name for variant in VARIANTS)]
    print(tabulate(list(rows.values()), headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
