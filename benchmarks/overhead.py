"""Share of a run's wall time that is the harness's own.

Everything but forward, backward and optimiser step (``training_step``) and the protocol's evaluations
(``predict`` of validation and test) counts as the harness's: data on the device, masks of every epoch,
batches, metrics, checkpoints, files, MLflow in its thread.

    python benchmarks/overhead.py [--methods late_fusion,momke] [--epochs 20] [--mlflow]

Prints one line per method: wall seconds, seconds in training steps, seconds in evaluations, the rest, and
its share. Loading data and importing packages are left out: they happen once per command.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent


class Clock:
    """Adds up the time of a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default="late_fusion,momke")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--mlflow", action="store_true", help="mirror to MLflow meanwhile")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.epochs, arguments.mlflow) for name in arguments.methods.split(",")]
    headers = ["method", "wall s", "steps s", "evaluation s", "harness s", "harness share"]
    print(tabulate(rows, headers=headers, floatfmt=".3f", tablefmt="github"))


def measure(name: str, epochs: int, mlflow: bool) -> list[Any]:
    """One run of a method of ``mosi_small.toml`` on generated data of its shape, after a warm-up run."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.engine import evaluation, run, training
    from imer_bench.harness.execute import Silent, execute
    from imer_bench.harness.registry import method_class, method_info
    from imer_bench.harness.store import Store
    from imer_bench.harness.tracking import Mirror

    protocol = ROOT / "protocols" / "mosi_small.toml"
    settings = [f"compute.epochs={epochs}"]
    plan = plan_protocol(protocol, settings=settings, methods=[name], seeds=[1, 2], synthetic=True)
    steps, evaluations = Clock(), Clock()
    network = method_class(method_info(name))
    original, predict = network.training_step, evaluation.predict
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        store = Store(Path(folder) / "results")
        store.folder.mkdir()
        mirror = Mirror()
        if mlflow:
            mirror.start(store.folder)
        warm, counted = (plan.shard(index, 2) for index in (1, 2))
        for stored in execute(warm, store, Silent()).computed:
            if mlflow:
                mirror.submit(stored.folder)
        network.training_step = steps.around(original)  # type: ignore[method-assign]
        run.predict = training.predict = evaluations.around(predict)
        begun = time.perf_counter()
        execute(counted, store, Silent())
        wall = time.perf_counter() - begun
        network.training_step = original  # type: ignore[method-assign]
        run.predict = training.predict = predict
        if mlflow:
            mirror.close()
        os.chdir(ROOT)
    own = wall - steps.seconds - evaluations.seconds
    return [name, wall, steps.seconds, evaluations.seconds, own, own / wall]


if __name__ == "__main__":
    main()
