"""Small methods that use the demanding corners of the interface, and methods that go wrong.

``TWO_STAGES`` has the skeleton of MoMKE: experts are trained alone on complete data, then mixed,
with one optimiser over both stages. ``ANCHORS`` has the skeleton of AD-MCPD: no regression score,
anchors with moving averages, and a support bank of training samples behind every prediction.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from imer_bench.harness.batch import Batch, Prediction, prediction_from_outputs
from imer_bench.harness.losses import task_loss
from imer_bench.harness.method import Method, Stage, StagePlan, TrainingData
from imer_bench.harness.record import CALLS, HyperParameters, MethodInfo
from imer_bench.harness.spec import Task

TASKS: frozenset[Task] = frozenset({"regression", "binary", "multiclass"})


class TwoStagesParameters(HyperParameters):
    epochs: int = 4
    stage1_epochs: int = 2
    stage1_data: Literal["schedule", "complete"] = "complete"
    dropout: float = 0.2

    def privileged(self) -> tuple[str, ...]:
        return ("complete_stage",) if self.stage1_data == "complete" else ()


class TwoStages(Method[TwoStagesParameters]):
    def __init__(self, spec, parameters, services):
        super().__init__(spec, parameters, services)
        self.experts = nn.ModuleDict({name: nn.Linear(dim, 4) for name, dim in spec.dims.items()})
        self.heads = nn.ModuleDict({name: nn.Linear(4, spec.outputs) for name in spec.names})
        self.joint = nn.Linear(4 * len(spec.names), spec.outputs)
        self.dropout = nn.Dropout(parameters.dropout)
        self.first = True

    def stages(self):
        hp = self.parameters_
        return (
            Stage("experts", hp.stage1_epochs, data=hp.stage1_data, select=False),
            Stage("mixing", hp.epochs - hp.stage1_epochs),
        )

    def start_stage(self, plan: StagePlan) -> None:
        self.first = plan.index == 0
        if self.first or not self.optimizers:
            self.optimizers = [torch.optim.Adam(self.parameters(), lr=1e-2)]

    def _hidden(self, batch: Batch):
        return [self.dropout(self.experts[name](batch.features[name])) for name in self.spec.names]

    def losses(self, batch: Batch):
        assert batch.labels is not None
        hidden = self._hidden(batch)
        if self.first:
            parts = [
                task_loss(self.heads[name](h), batch.labels, batch.available[..., i], self.spec.task)
                for i, (name, h) in enumerate(zip(self.spec.names, hidden, strict=True))
            ]
            return {"total": torch.stack(parts).sum()}
        return {
            "total": task_loss(self.joint(torch.cat(hidden, -1)), batch.labels, batch.real, self.spec.task)
        }

    def predict(self, batch: Batch) -> Prediction:
        return prediction_from_outputs(
            self.joint(torch.cat(self._hidden(batch), -1)), self.spec.task == "regression"
        )


class AnchorsParameters(HyperParameters):
    epochs: int = 3
    bank: int = 16


class Anchors(Method[AnchorsParameters]):
    anchors: Tensor

    def __init__(self, spec, parameters, services):
        super().__init__(spec, parameters, services)
        self.encoder = nn.Linear(sum(spec.dims.values()), 8)
        self.classes = 3 if spec.task == "regression" else spec.outputs
        self.register_buffer("anchors", torch.zeros(self.classes, 8))
        self.register_buffer("bank", torch.zeros(8))

    def _classes(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return batch.labels.sign().long() + 1 if self.spec.task == "regression" else batch.labels

    def _encode(self, batch: Batch):
        return self.encoder(torch.cat([batch.features[name] for name in self.spec.names], -1))

    def losses(self, batch: Batch):
        hidden, labels = self._encode(batch), self._classes(batch)
        shares = nn.functional.one_hot(labels, self.classes).to(hidden)
        means = shares.T @ hidden / shares.sum(0)[:, None].clamp(min=1)
        with torch.no_grad():
            self.anchors.lerp_(means, 0.1)
        return {"total": nn.functional.cross_entropy(hidden @ means.T, labels)}

    def before_evaluation(self, training: TrainingData) -> None:
        sample = training.sample(self.parameters_.bank, self.services.generator("bank"), balanced=True)
        assert sample.labels is not None
        self.bank = self._encode(sample).mean(0)

    def predict(self, batch: Batch) -> Prediction:
        logits = (self._encode(batch) - self.bank) @ self.anchors.T
        return Prediction(probabilities=logits.softmax(-1))


class RaisesParameters(HyperParameters):
    epochs: int = 3
    how: str = "raise"


class GoesWrong(Method[RaisesParameters]):
    def __init__(self, spec, parameters, services):
        super().__init__(spec, parameters, services)
        self.head = nn.Linear(spec.modalities[0].dim, spec.outputs)
        self.epoch = 0

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def losses(self, batch: Batch):
        assert batch.labels is not None
        outputs = self.head(batch.features[self.spec.names[0]])
        loss = task_loss(outputs, batch.labels, batch.real, self.spec.task)
        if self.epoch == 1 and self.parameters_.how == "raise":
            raise RuntimeError("the method broke")
        if self.epoch == 1 and self.parameters_.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.epoch == 1 and self.parameters_.how == "hang":
            # In C, as a hanging kernel: no signal handler of Python's gets a turn.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            signal.sigwait({signal.SIGUSR2})
        if self.epoch == 1 and self.parameters_.how == "nan":
            loss = loss * float("nan")
        return {"total": loss}

    def predict(self, batch: Batch) -> Prediction:
        outputs = self.head(batch.features[self.spec.names[0]])
        if self.parameters_.how == "nan prediction":
            outputs = outputs * float("inf")
        return prediction_from_outputs(outputs, self.spec.task == "regression")


def _info(name: str, model: type, parameters: type[HyperParameters], score: bool = True) -> MethodInfo:
    return MethodInfo(
        name=name,
        title=name,
        summary="A toy.",
        model=f"toys:{model.__name__}",
        parameters=parameters,
        takes=("vectors",),
        tasks=TASKS,
        predicts_score=score,
    )


TWO_STAGES = _info("two_stages", TwoStages, TwoStagesParameters)
STAGES_TOGETHER = replace(TWO_STAGES, stacks=lambda parameters: CALLS)
ANCHORS = _info("anchors", Anchors, AnchorsParameters, score=False)
GOES_WRONG = _info("goes_wrong", GoesWrong, RaisesParameters)
NEEDS_FOUR = replace(
    _info("needs_four", TwoStages, TwoStagesParameters),
    applies=lambda spec, parameters: "needs four modalities",
)
