"""Trainings without a store: jobs of the tiny protocol and methods of an import path."""

from __future__ import annotations

from pathlib import Path

import torch

from imer_bench.harness.engine.run import RunServices, SplitCache, Workshop, build_method, make_job
from imer_bench.harness.engine.training import Job, Training
from imer_bench.harness.language_models import LanguageModels
from imer_bench.harness.method import Method
from imer_bench.harness.store import Store

from tiny import tiny_plan


def make_training(
    folder: Path, method: str, *settings: str, checkpoint: Path | None = None, seconds: float = 0.0
) -> tuple[Training, Job, Method]:
    """A training of one method on the tiny protocol."""
    plan = tiny_plan(folder, f"methods.0={{name='{method}'}}", "compute={threads=1}", *settings)
    (run,) = plan.runs
    shop = Workshop(plan.protocol, plan.execution, Store(folder / "store"), SplitCache(), LanguageModels())
    job, _, _ = make_job(run, shop)
    services = RunServices(run.seed, torch.device("cpu"), shop.models)
    built = build_method(run, services)
    return Training(job, built, checkpoint=checkpoint, checkpoint_seconds=seconds), job, built
