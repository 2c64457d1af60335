"""What a results folder of many runs costs before anything is computed.

    python -m benchmarks.scale [--runs 1000,10000]

One real run of ``constant`` on tiny data is copied under the addresses of as many seeds. Timed: making the
plan; finding that nothing is left to compute; reading every record, as tables do; and its share per run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

PROTOCOL = """
schema = 1
name = "many"

[data]
set = "synthetic"

[data.synthetic]
dialogues = [12, 5, 6]
mean_length = 6

[comparison]
regime = "single"

[train]
schedule = "random-0.3"
seeds = [1]

[test]
conditions = ["complete"]

[[methods]]
name = "constant"
"""


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its answer."""
    begun = time.perf_counter()
    answer = function()
    return time.perf_counter() - begun, answer


def measure(runs: int, folder: Path) -> list[Any]:
    """A row of the table."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.execute import Silent, execute
    from imer_bench.harness.store import Store

    path = folder / "many.toml"
    path.write_text(PROTOCOL, encoding="utf-8")
    seconds, plan = timed(lambda: plan_protocol(path, seeds=range(1, runs + 1)))
    store = Store(folder / str(runs))
    (one,) = execute(plan.shard(1, runs), store, Silent()).computed
    for run in plan.runs[1:]:
        copy = one.folder.with_name(f"{run.name}-{run.address}")
        shutil.copytree(one.folder, copy, copy_function=os.link)
        record = {**one.record, "address": run.address, "name": copy.name}
        (copy / "run.json").unlink()
        (copy / "run.json").write_text(json.dumps(record))
    again, outcome = timed(lambda: execute(plan, store, Silent()))
    assert outcome.reused == runs
    read, _ = timed(lambda: sum(1 for _ in store.runs()))
    return [runs, seconds, again, read, 1000 * (seconds + again + read) / runs]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default="1000,10000")
    sizes = [int(part) for part in parser.parse_args().runs.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(size, Path(folder)) for size in sizes]
    headers = ["runs", "plan s", "nothing left s", "read all s", "ms a run"]
    print(tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="github"))


if __name__ == "__main__":
    main()
