"""What the harness costs beside the work that no experiment can do without.

A command with some runs is timed from its first line to its last, MLflow's last entry included, and in it
the method's own work: building the network, every call of its interface (forward, backward, optimiser step,
prediction) and the metrics of what the protocol evaluates. The rest is the harness's: masks of every epoch,
batches, selection, checkpoints, files, MLflow. Both are seconds of the same run, so that a machine whose
speed drifts does not matter much.

Beside it stands a plain PyTorch loop: the same network, as many steps over batches that lie ready, the same
predictions and metrics, in the same process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .setting import PROTOCOLS, Setting, in_own_process, inside, timed, with_epochs
from .table import Figure

if TYPE_CHECKING:
    from imer_bench.harness.batch import Batch
    from imer_bench.harness.engine.run import Workshop
    from imer_bench.harness.protocol.plan import Plan, PlannedRun
    from imer_bench.harness.store import Store

METHODS = ("late_fusion", "momke")
TARGET = 0.05
RUNS = 5  # of one command
# What the engine calls of a method.
HOOKS = (
    *("stages", "start_stage", "end_stage", "start_epoch", "end_epoch", "training_step", "predict"),
    *("validation_losses", "before_evaluation", "log"),
)


@dataclass(frozen=True)
class Shares:
    """A run's seconds on the clock.

    Attributes:
        whole: A command's time over its runs.
        own: Of it, the method's own work and metrics.
        plain: The plain loop.
    """

    whole: float
    own: float
    plain: float

    @property
    def harness(self) -> float:
        """Share of the harness."""
        return 1 - self.own / self.whole


def measure(setting: Setting) -> list[Figure]:
    """Share of the harness in the time of a run, per method."""
    epochs = setting.epochs or (2 if setting.quick else None)
    figures = []
    for method in setting.methods or METHODS[: 1 if setting.quick else None]:
        shares = in_own_process(compare, "mosi_small", method, epochs, setting.device)
        figures.append(
            Figure(
                "Harness beside the method's own work",
                f"{method}, a run of {epochs or 'its usual'} epochs, {setting.device}",
                shares.whole,
                "s",
                beside="plain loop",
                other=shares.plain,
                target=f"harness at most {TARGET:.0%}",
                met=shares.harness <= TARGET,
                note=f"harness {shares.harness:.1%}",
            )
        )
    return figures


def compare(protocol: str, method: str, epochs: int | None, device: str) -> Shares:
    """Time per run of the harness and of the plain loop, on generated data of a protocol's shape."""
    from imer_bench.harness.api import plan_protocol
    from imer_bench.harness.engine.run import SplitCache, Workshop
    from imer_bench.harness.language_models import LanguageModels
    from imer_bench.harness.store import Store

    plan = plan_protocol(
        PROTOCOLS / f"{protocol}.toml",
        settings=["compute.threads=1", *with_epochs(protocol, method, epochs)],
        methods=[method],
        seeds=list(range(RUNS + 1)),
        synthetic=True,
        device=device,
    )
    warm, runs = plan.runs[:1], plan.runs[1:]
    own = OwnWork(method)
    with TemporaryDirectory() as folder, inside(folder):
        store = Store(Path(folder) / "results" / protocol)
        store.folder.mkdir(parents=True)
        shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
        command(plan, warm, store)  # imports, MLflow's new database
        with own:
            whole = timed(lambda: command(plan, runs, store))
        loops = [PlainLoop(run, shop, epochs_of(store, run)) for run in runs]
        plain = timed(lambda: [loop.run() for loop in loops])
    return Shares(whole.wall / RUNS, own.seconds / RUNS, plain.wall / RUNS)


class OwnWork:
    """Counts, while entered, the seconds of a method's own work in this process.

    Args:
        method: Name of the method.
    """

    def __init__(self, method: str) -> None:
        from imer_bench.harness.engine import run, training
        from imer_bench.harness.method import has_validation_losses
        from imer_bench.harness.registry import method_class, method_info

        self.seconds = 0.0
        self._inside = False
        network = method_class(method_info(method))
        # The engine asks whether a method has validation losses of its own.
        without = set() if has_validation_losses(network) else {"validation_losses"}
        self._places = [
            *((network, name) for name in HOOKS if name not in without),
            *((module, "score") for module in (run, training)),
            (run, "build_method"),
        ]
        self._found: list[Any] = []

    def __enter__(self) -> None:
        self._found = [getattr(owner, name) for owner, name in self._places]
        for (owner, name), function in zip(self._places, self._found, strict=True):
            setattr(owner, name, self._counted(function))

    def __exit__(self, *problem: object) -> None:
        for (owner, name), function in zip(self._places, self._found, strict=True):
            setattr(owner, name, function)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return function(*arguments, **named)
            self._inside, begun = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - begun
                self._inside = False

        return counted


def command(plan: Plan, runs: Sequence[PlannedRun], store: Store) -> None:
    """Runs as ``bench.py run`` computes them, until the last one is in MLflow."""
    from imer_bench.harness.execute import Silent, execute
    from imer_bench.harness.tracking import Mirror

    mirror = Mirror()
    mirror.start(store.folder)
    part = replace(plan, runs=tuple(runs))
    outcome = execute(
        part,
        store,
        Silent(),
        on_run=lambda stored: mirror.submit(stored.folder),
        on_start=mirror.prepare,
    )
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
