"""What runs have cost, and what planned ones will: seconds and memory, measured, per method and device.

Every computed run leaves a line in ``costs.json`` of its results folder. An estimate comes from runs of
the same settings on data of the same size where there are some, else from runs of the same method on
the same device, in proportion to epochs and utterances.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from filelock import FileLock
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from .files import write_json
from .protocol.plan import Execution, PlannedRun

_FILE = "costs.json"
# Runs of one row on one data set that are remembered; their mean is what counts.
_REMEMBERED = 5
# The file lies open in the results folder: what no run can have cost is passed over.
_Count = Annotated[int, Field(strict=True, ge=0, le=10**9)]
_Amount = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        method: Registry name.
        variant: Address of method, settings and execution.
        data_set: Name of the data set.
        utterances: Training utterances.
        epochs: Epochs that were trained.
        device: ``"cpu"`` or ``"cuda"``.
        device_name: Model of the device.
        threads: CPU threads.
        precision: ``"float32"`` or ``"bf16"``.
        epoch_s: Seconds of an epoch, validation included.
        rest_s: Seconds of everything else: set-up, test, files.
        memory_mib: Peak memory: of the process, or on CUDA of the device.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    method: str
    variant: str
    data_set: str
    utterances: _Count
    epochs: _Count
    device: str
    device_name: str
    threads: _Count
    precision: str
    epoch_s: _Amount
    rest_s: _Amount
    memory_mib: _Amount


_READER = TypeAdapter(Cost)


@dataclass(frozen=True)
class Estimate:
    """What a run will cost at most (early stopping may end it sooner).

    Attributes:
        seconds: Wall seconds.
        memory_mib: Peak memory.
        exact: Measured with the same settings on as much data; else in proportion.
    """

    seconds: float
    memory_mib: float
    exact: bool


def cost_of(record: Mapping[str, Any]) -> Cost | None:
    """The cost of a finished run from its record; ``None`` for others."""
    if record["status"] != "finished":
        return None
    identity, environment, timings = record["identity"], record["environment"], record["timings"]
    epochs = max(1, record["epochs"])
    trained = timings["training_s"]
    return Cost(
        method=identity["method"],
        variant=identity["variant"],
        data_set=identity["data_set"],
        utterances=record["data"]["utterances"]["train"],
        epochs=record["epochs"],
        device=environment["device"],
        device_name=environment["device_name"],
        threads=environment["threads"],
        precision=environment["precision"],
        epoch_s=trained / epochs,
        # A run that was continued has trained for longer than its last session lasted.
        rest_s=max(0.0, timings["wall_s"] - trained),
        memory_mib=record["peak_memory_mib"],
    )


def remember(folder: Path, record: Mapping[str, Any]) -> None:
    """Adds the cost of a run to those of its results folder.

    Args:
        folder: ``results/<protocol>``.
        record: The run's record.
    """
    cost = cost_of(record)
    if cost is None:
        return
    with FileLock(folder / "locks" / "costs.lock"):
        known = read_costs([folder])
        same = [one for one in known if _row(one) == _row(cost)]
        others = [one for one in known if _row(one) != _row(cost)]
        kept = [*others, *same[1 - _REMEMBERED :], cost]
        write_json(folder / _FILE, [asdict(one) for one in kept])


def read_costs(folders: Iterable[Path]) -> tuple[Cost, ...]:
    """The costs that results folders remember; what can't be read is left out.

    Args:
        folders: Folders ``results/<protocol>``.
    """
    found: list[Cost] = []
    for folder in folders:
        try:
            rows = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for row in rows if isinstance(rows, list) else ():
            with suppress(ValidationError):
                found.append(_READER.validate_python(row))
    return tuple(found)


def estimate(run: PlannedRun, execution: Execution, costs: Sequence[Cost]) -> Estimate | None:
    """What a planned run will cost, as far as costs of its method on this kind of device are known.

    Args:
        run: The run.
        execution: Where and how it would be computed.
        costs: What is known.
    """
    utterances, epochs = run.spec.train_utterances, run.parameters.epochs
    method = run.variant.info.name
    like = [
        cost
        for cost in costs
        if (cost.method, cost.device, cost.threads, cost.precision)
        == (method, execution.device, execution.threads, execution.precision)
    ]
    if not like:
        return None
    exact = [cost for cost in like if (cost.variant, cost.utterances) == (run.variant_address, utterances)]
    chosen = exact or like
    scale = [1.0 if exact else utterances / max(1, cost.utterances) for cost in chosen]
    seconds = fmean(
        cost.rest_s + epochs * cost.epoch_s * factor for cost, factor in zip(chosen, scale, strict=True)
    )
    return Estimate(seconds, max(cost.memory_mib for cost in chosen), bool(exact))


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until the last of some runs is done, the longest given out first.

    Args:
        seconds: Length of each run.
        workers: Runs at a time.
    """
    free = [0.0] * workers
    for length in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def _row(cost: Cost) -> tuple[Any, ...]:
    return cost.variant, cost.data_set, cost.utterances, cost.device_name
