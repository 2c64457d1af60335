"""Record of late fusion."""

from typing import Annotated

from pydantic import Field

from ...harness.record import CALLS, Choice, FloatRange, HyperParameters, MethodInfo


class LateFusionParameters(HyperParameters):
    """Hyper-parameters of late fusion.

    Attributes:
        hidden: Width of the hidden layer of each head.
        dropout: Dropout after the hidden layer.
        lr: Learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        gradient_clip: Limit of the global gradient norm.
    """

    epochs: int = 40
    batch_size: int = 32
    patience: int | None = 10
    hidden: Annotated[int, Field(ge=1), Choice((32, 64, 128, 256))] = 64
    dropout: Annotated[float, Field(ge=0, lt=1), FloatRange(0.0, 0.6)] = 0.3
    lr: Annotated[float, Field(gt=0), FloatRange(1e-4, 1e-2, log=True)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0), FloatRange(1e-6, 1e-1, log=True)] = 1e-2
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0


INFO = MethodInfo(
    name="late_fusion",
    title="late fusion",
    summary="A small network per modality; their outputs are averaged over what is available.",
    model=".model:LateFusion",
    parameters=LateFusionParameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    numerics_version=2,
    stacks=lambda parameters: CALLS,
)
