"""A method that goes wrong in a named hook, until its environment says that it is well again.

The same settings give the same address, so that a run that failed can be repeated once the fault is gone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from imer_bench.harness.batch import Batch, Prediction, prediction_from_outputs
from imer_bench.harness.losses import task_loss
from imer_bench.harness.method import Method, Stage
from imer_bench.harness.record import HyperParameters, MethodInfo

WELL = "FAILING_IS_WELL"


class Wordless(Exception):
    """An exception that can't say what it is about."""

    def __str__(self) -> str:
        raise ValueError("no words")


FAULTS: Mapping[str, Callable[[], BaseException]] = {
    "error": lambda: RuntimeError("the method broke"),
    "wordless": Wordless,
    "exit": lambda: SystemExit(3),
    "stop": StopIteration,
    "recursion": lambda: RecursionError("maximum recursion depth exceeded"),
    "host memory": lambda: MemoryError("Unable to allocate 64. TiB"),
    "torch memory": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    "device memory": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}


class FailingParameters(HyperParameters):
    """Settings of the method.

    Attributes:
        where: Hook that goes wrong.
        call: The call of the hook that goes wrong, from one.
        how: One of ``FAULTS``.
    """

    epochs: int = 4
    where: str = ""
    call: int = 1
    how: str = "error"


class Sound(Method[FailingParameters]):
    """A linear layer, trained in two stages, with every hook in use."""

    def __init__(self, spec, parameters, services):
        super().__init__(spec, parameters, services)
        self.head = nn.Linear(sum(spec.dims.values()), spec.outputs)
        self.calls: Counter[str] = Counter()

    def stages(self) -> tuple[Stage, ...]:
        half = self.parameters_.epochs // 2
        return Stage("first", half, select=False), Stage("second", self.parameters_.epochs - half)

    def _outputs(self, batch: Batch) -> Tensor:
        return self.head(torch.cat([batch.features[name] for name in self.spec.names], -1))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        assert batch.labels is not None
        return {"total": task_loss(self._outputs(batch), batch.labels, batch.real, self.spec.task)}

    def validation_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.losses(batch)

    def log(self) -> Mapping[str, float]:
        return {"norm": float(self.head.weight.detach().norm())}

    def predict(self, batch: Batch) -> Prediction:
        return prediction_from_outputs(self._outputs(batch), self.spec.task == "regression")


def _with_fault(name: str) -> Callable[..., object]:
    sound = getattr(Sound, name)

    def hook(self: Sound, *arguments: object) -> object:
        result = sound(self, *arguments)
        self.calls[name] += 1
        hp = self.parameters_
        if (hp.where, hp.call) == (name, self.calls[name]) and not os.environ.get(WELL):
            raise FAULTS[hp.how]()
        return result

    return hook


HOOKS = (
    *("__init__", "stages", "start_stage", "build_optimizers", "start_epoch", "training_step", "losses"),
    *("clip_gradients", "validation_losses", "end_epoch", "before_evaluation", "log", "end_stage", "predict"),
    *("training_state", "load_training_state"),
)
Failing = type("Failing", (Sound,), {name: _with_fault(name) for name in HOOKS})

INFO = MethodInfo(
    name="failing",
    title="failing",
    summary="For tests.",
    model="failing:Failing",
    parameters=FailingParameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
)
