"""Record of early fusion."""

from typing import Annotated

from pydantic import Field

from ...harness.record import CALLS, Choice, FloatRange, HyperParameters, MethodInfo


class EarlyFusionParameters(HyperParameters):
    """Hyper-parameters of early fusion.

    Attributes:
        hidden: Width of the two hidden layers.
        dropout: Dropout after each hidden layer.
        lr: Learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        gradient_clip: Limit of the global gradient norm.
    """

    epochs: int = 40
    batch_size: int = 32
    patience: int | None = 10
    hidden: Annotated[int, Field(ge=1), Choice((64, 128, 256))] = 128
    dropout: Annotated[float, Field(ge=0, lt=1), FloatRange(0.0, 0.6)] = 0.3
    lr: Annotated[float, Field(gt=0), FloatRange(1e-4, 1e-2, log=True)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0), FloatRange(1e-6, 1e-1, log=True)] = 1e-2
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0


INFO = MethodInfo(
    name="early_fusion",
    title="early fusion",
    summary="Concatenated features, zero where absent, and the availability mask, through an MLP.",
    model=".model:EarlyFusion",
    parameters=EarlyFusionParameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    numerics_version=2,
    stacks=lambda parameters: CALLS,
)
