"""Runs of one method trained as one network (``compute.stack``) beside the same runs one by one.

Only what stacking changes is timed: training, validation and test of the runs, files included, in one
process; no start-up, no MLflow.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from .setting import PROTOCOLS, Seconds, Setting, in_own_process, timed, with_epochs
from .table import Figure

METHODS = ("late_fusion", "early_fusion", "dmd", "ad_mcpd", "momke", "comp")
# A language model can't be stacked.
_PLAIN = "methods.8.parameters={prototypes='learned', completion='pattern', shared_dim=64}"


def measure(setting: Setting) -> list[Figure]:
    """Seconds of a stack and of its runs one by one, per method."""
    epochs = setting.epochs or (2 if setting.quick else 10)
    runs = 2 if setting.quick else 10 if setting.device == "cuda" else 5
    figures = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        single, stacked = (
            in_own_process(seconds, method, epochs, runs, stack, setting.device) for stack in (1, runs)
        )
        # On a CPU others may be at work as well; a device's work is not this process's.
        clock = "wall" if setting.device == "cuda" else "cpu"
        figures.append(
            Figure(
                "Several runs as one network",
                f"{method}, {runs} runs of {epochs} epochs, {setting.device}",
                getattr(stacked, clock),
                "s",
                beside="one by one",
                other=getattr(single, clock),
            )
        )
    return figures


def seconds(method: str, epochs: int, runs: int, stack: int, device: str) -> Seconds:
    """Time of some runs of a method on generated data of the shape of ``mosi_small``."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.execute import Silent, execute
    from imer_bench.harness.store import Store

    def computed(seeds: range, folder: Path) -> None:
        plan = plan_protocol(
            PROTOCOLS / "mosi_small.toml",
            settings=[
                *("compute.threads=1", _PLAIN, f"compute.stack={stack}"),
                *with_epochs("mosi_small", method, epochs),
            ],
            methods=[method],
            seeds=list(seeds),
            synthetic=True,
            device=device,
        )
        outcome = execute(plan, Store(folder), Silent())
        assert not outcome.failed, outcome.failed[0].record["error"]

    with TemporaryDirectory() as folder:
        computed(range(1, 2), Path(folder) / "warm")
        return timed(lambda: computed(range(1, runs + 1), Path(folder) / "runs"))
