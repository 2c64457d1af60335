"""Record of the constant predictor."""

from ...harness.record import HyperParameters, MethodInfo


class ConstantParameters(HyperParameters):
    """The constant has nothing to set."""

    epochs: int = 1
    batch_size: int = 4096


INFO = MethodInfo(
    name="constant",
    title="constant",
    summary="Mean of the training scores, or the class shares of the training labels.",
    model=".model:Constant",
    parameters=ConstantParameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
)
