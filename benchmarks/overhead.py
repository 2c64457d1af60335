"""What the harness costs beside a plain PyTorch loop with the same network and batches.

The plain loop does what no experiment can do without: it builds the network, takes its training steps over
batches that lie ready, and predicts and scores what the protocol evaluates. Everything else is the harness's:
masks of every epoch, batches, selection, checkpoints, files, and MLflow from opening its store to the last
entry. Both do the same runs in one process, in turns, and each counts with its best round.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .setting import PROTOCOLS, Seconds, Setting, in_own_process, inside, least, timed
from .table import Figure

if TYPE_CHECKING:
    from imer_bench.harness.batch import Batch
    from imer_bench.harness.engine.run import Workshop
    from imer_bench.harness.protocol.plan import Plan, PlannedRun
    from imer_bench.harness.store import Store

METHODS = ("late_fusion", "momke", "gcnet")
TARGET = 0.05
ROUNDS, RUNS = 2, 2  # runs of one command per round


def measure(setting: Setting) -> list[Figure]:
    """Share of the harness in the time of a run, per method."""
    epochs = setting.epochs or (2 if setting.quick else 20)
    figures = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        harness, plain = in_own_process(compare, "mosi_small", method, epochs, setting.device)
        for clock in ("wall", "cpu"):
            whole, bare = getattr(harness, clock), getattr(plain, clock)
            share = (whole - bare) / whole
            figures.append(
                Figure(
                    "Harness beside a plain loop",
                    f"{method}, a run of {epochs} epochs, {setting.device}, {clock}",
                    whole,
                    "s",
                    beside="plain loop",
                    other=bare,
                    target=f"harness at most {TARGET:.0%}",
                    met=share <= TARGET,
                    note=f"harness {share:.1%}",
                )
            )
    return figures


def compare(protocol: str, method: str, epochs: int, device: str) -> tuple[Seconds, Seconds]:
    """Time per run of the harness and of the plain loop, on generated data of a protocol's shape."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.engine.run import SplitCache, Workshop
    from imer_bench.harness.language_models import LanguageModels
    from imer_bench.harness.store import Store

    plan = plan_protocol(
        PROTOCOLS / f"{protocol}.toml",
        settings=[f"compute.epochs={epochs}", "compute.threads=1"],
        methods=[method],
        seeds=list(range(1, 2 + RUNS * ROUNDS)),
        synthetic=True,
        device=device,
    )
    warm, rest = plan.runs[:1], plan.runs[1:]
    rounds = [rest[index * RUNS : (index + 1) * RUNS] for index in range(ROUNDS)]
    harness: list[Seconds] = []
    plain: list[Seconds] = []
    with TemporaryDirectory() as folder, inside(folder):
        store = Store(Path(folder) / "results" / protocol)
        store.folder.mkdir(parents=True)
        shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
        command(plan, warm, store)  # imports, MLflow's new database
        for runs in rounds:
            harness.append(timed(lambda runs=runs: command(plan, runs, store)))
            loops = [PlainLoop(run, shop, epochs_of(store, run)) for run in runs]
            plain.append(timed(lambda loops=loops: [loop.run() for loop in loops]))
    return per_run(least(harness)), per_run(least(plain))


def per_run(round_: Seconds) -> Seconds:
    """Time of a run of a round."""
    return Seconds(round_.wall / RUNS, round_.cpu / RUNS)


def command(plan: Plan, runs: Sequence[PlannedRun], store: Store) -> None:
    """Runs as ``bench.py run`` computes them, until the last one is in MLflow."""
    from imer_bench.harness.execute import Silent, execute
    from imer_bench.harness.tracking import Mirror

    mirror = Mirror()
    mirror.start(store.folder)
    part = replace(plan, runs=tuple(runs))
    outcome = execute(part, store, Silent(), on_run=lambda stored: mirror.submit(stored.folder))
    report = mirror.close(timeout=120)
    assert len(outcome.computed) == len(runs) == report.logged, (outcome.failed, report)


def epochs_of(store: Store, run: PlannedRun) -> list[int]:
    """Epochs that a stored run took in every stage."""
    stored = store.find(run.address)
    assert stored is not None
    lines = (stored.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    epochs: list[int] = []
    for epoch in (json.loads(line)["epoch"] for line in lines):
        epochs = [*epochs, 1] if epoch == 0 else [*epochs[:-1], epoch + 1]
    return epochs


class PlainLoop:
    """The network's own work of a run; batches are made before the clock starts.

    Args:
        run: The run.
        shop: Where its splits come from.
        epochs: Epochs of every stage.
    """

    def __init__(self, run: PlannedRun, shop: Workshop, epochs: Sequence[int]) -> None:
        import torch

        from imer_bench.harness.engine.evaluation import batches_in_order
        from imer_bench.harness.engine.masking import draw
        from imer_bench.harness.engine.run import make_job, prepare_torch
        from imer_bench.harness.engine.training import TrainingView

        prepare_torch(shop.execution)
        self._run, self._shop, self._epochs = run, shop, epochs
        self._job, tests, test = make_job(run, shop)
        job, size = self._job, self._job.evaluation_batch
        masks = draw(job.train, job.schedule, job.data_set, seed=0)
        self._view = TrainingView(job, masks)
        order = torch.randperm(job.train.units).split(job.batch_size)
        self._train = list(job.train.batches(order, masks, labels=True, targets=job.targets))
        self._valid = [
            list(batches_in_order(job.valid, one.masks, size, labels=True)) for one in job.validation
        ]
        self._test = [list(batches_in_order(test, one.masks, size, labels=True)) for one in tests]

    def run(self) -> None:
        """Trains and predicts."""
        import torch

        from imer_bench.harness.engine.run import RunServices, build_method
        from imer_bench.harness.method import StagePlan

        services = RunServices(self._run.seed, torch.device(self._shop.execution.device), self._shop.models)
        method = build_method(self._run, services)
        stages = [stage for stage in method.stages() if stage.epochs]
        for index, (stage, epochs) in enumerate(zip(stages, self._epochs, strict=False)):
            method.start_stage(StagePlan(stage, index, len(self._train)))
            for epoch in range(epochs):
                method.train()
                method.start_epoch(epoch)
                for batch in self._train:
                    method.training_step(batch)
                validation = self._evaluate(method, self._valid, losses=True)
                method.end_epoch(epoch, validation)
            method.end_stage(StagePlan(stage, index, len(self._train)))
        self._evaluate(method, self._test, losses=False)

    def _evaluate(self, method: Any, conditions: Sequence[Sequence[Batch]], losses: bool) -> dict[str, float]:
        """Predictions and metrics of every condition, and validation losses where the method has any."""
        import numpy as np
        import torch

        from imer_bench.harness.engine.evaluation import Predicted, score

        def joined(values: Sequence[Any], batches: Sequence[Batch]) -> np.ndarray | None:
            pairs = zip(values, batches, strict=True)
            return None if values[0] is None else torch.cat([v[b.real] for v, b in pairs]).numpy(force=True)

        method.eval()
        found: dict[str, float] = {}
        with torch.no_grad():
            method.before_evaluation(self._view)
            for batches in conditions:
                predictions = [method.predict(batch.without_labels()) for batch in batches]
                scores = joined([one.score for one in predictions], batches)
                classes = joined([one.probabilities for one in predictions], batches)
                labels = joined([batch.labels for batch in batches], batches)
                assert labels is not None
                score(Predicted(scores, classes), labels, self._run.spec, self._job.metrics)
                for batch in batches if losses else ():
                    values = method.validation_losses(batch)
                    found = {f"loss/{name}": float(value) for name, value in values.items()}
        return found
