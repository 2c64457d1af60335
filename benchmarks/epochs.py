"""Training of every method at its own size: seconds of an epoch, steps in a second, memory.

Data are generated in the shape of a protocol's. An epoch is forward, backward and optimiser steps over the
training split, no validation; methods with two stages spend half of the epochs in each.
"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .setting import PROTOCOLS, Setting, in_own_process
from .table import Figure

METHODS = ("late_fusion", "early_fusion", "gcnet", "momke", "comp", "dmd", "magtkd", "ad_mcpd")
SECTION = "Training, the shape of mosi_missing"
# The protocol asks for T5, whose weights are not at hand everywhere.
_TINY_ENCODER = "methods.8.parameters={language_model='random-t5-tiny'}"


def measure(setting: Setting) -> list[Figure]:
    """Seconds of an epoch, steps in a second and peak memory, each method in a process of its own."""
    epochs = setting.epochs or (2 if setting.quick else 4)
    figures: list[Figure] = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        record, steps = in_own_process(train, method, epochs, setting.device)
        if record["status"] != "finished":
            figures.append(Figure(SECTION, method, None, note=str(record["error"]["message"])[:60]))
            continue
        seconds = record["timings"]["train_s"] / record["epochs"]
        size = f"{record['parameters_trained'] / 1e6:.2f} M parameters"
        encoder = ", random tiny encoder" if method == "ad_mcpd" else ""
        figures += [
            Figure(SECTION, f"{method}, an epoch, {setting.device}", seconds, "s", note=size + encoder),
            Figure(SECTION, f"{method}, steps, {setting.device}", steps / seconds, "1/s"),
            Figure(SECTION, f"{method}, peak memory, {setting.device}", record["peak_memory_mib"], "MiB"),
        ]
    return figures


def train(method: str, epochs: int, device: str) -> tuple[dict[str, Any], int]:
    """Record of a run, and the training steps of one of its epochs."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.engine.run import SplitCache, Workshop, compute, make_job
    from imer_bench.harness.language_models import LanguageModels
    from imer_bench.harness.store import Store

    settings = [f"compute.epochs={epochs}", "compute.threads=1", 'test.conditions=["random-0.5"]']
    plan = plan_protocol(
        PROTOCOLS / "mosi_missing.toml",
        settings=[*settings, _TINY_ENCODER],
        methods=[method],
        seeds=[1],
        synthetic=True,
        device=device,
    )
    with TemporaryDirectory() as folder:
        shop = Workshop(plan.protocol, plan.execution, Store(Path(folder)), SplitCache(), LanguageModels())
        job, *_ = make_job(plan.runs[0], shop)
        stored = compute(plan.runs[0], shop)
        return stored.record, math.ceil(job.train.units / job.batch_size)
