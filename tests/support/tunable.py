"""A method to be tuned: quick, with a conditional hyper-parameter, and with faults on demand."""

from __future__ import annotations

import time
from typing import Annotated

import torch
from torch import nn

from imer_bench.harness.batch import prediction_from_outputs
from imer_bench.harness.losses import task_loss
from imer_bench.harness.method import Method
from imer_bench.harness.record import Choice, FloatRange, HyperParameters, IntRange, MethodInfo, When


class TunableParameters(HyperParameters):
    epochs: int = 3
    lr: Annotated[float, FloatRange(1e-3, 1e-1, log=True)] = 1e-2
    deep: Annotated[bool, Choice((False, True))] = False
    hidden: Annotated[int, IntRange(4, 16, step=4), When("deep", (True,))] = 8
    fault: Annotated[str, Choice(("none", "nan", "error", "memory"))] = "none"
    pause: float = 0.0


class Tunable(Method[TunableParameters]):
    def __init__(self, spec, parameters, services):
        super().__init__(spec, parameters, services)
        width = sum(spec.dims.values())
        self.network = (
            nn.Sequential(
                nn.Linear(width, parameters.hidden), nn.ReLU(), nn.Linear(parameters.hidden, spec.outputs)
            )
            if parameters.deep
            else nn.Linear(width, spec.outputs)
        )

    def start_epoch(self, epoch: int) -> None:
        time.sleep(self.parameters_.pause)
        if self.parameters_.fault == "error":
            raise RuntimeError("the method broke")
        if self.parameters_.fault == "memory":
            raise MemoryError("no memory left")

    def _outputs(self, batch):
        return self.network(torch.cat([batch.features[name] for name in self.spec.names], -1))

    def losses(self, batch):
        loss = task_loss(self._outputs(batch), batch.labels, batch.real, self.spec.task)
        return {"total": loss * float("nan") if self.parameters_.fault == "nan" else loss}

    def predict(self, batch):
        return prediction_from_outputs(self._outputs(batch), self.spec.task == "regression")


INFO = MethodInfo(
    name="tunable",
    title="tunable",
    summary="For tests.",
    model="tunable:Tunable",
    parameters=TunableParameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
)
