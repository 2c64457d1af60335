"""Record of MoMKE: what it is and its hyper-parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...harness.record import CALLS, Choice, FloatRange, IntRange, MethodInfo, Paper, Reference
from .._parameters import TwoStageParameters


class MoMKEParameters(TwoStageParameters):
    """Hyper-parameters of MoMKE, beside those of ``TwoStageParameters``.

    Attributes:
        hidden: Model width D, divisible by ``heads``.
        depth: Layers of each expert.
        heads: Attention heads.
        mlp_ratio: Width inside the MLPs over D.
        dropout: Dropout of projections, MLPs and the joint head.
        attention_dropout: Dropout on attention probabilities.
        stage1_data: What the experts are trained on: what the training schedule leaves
            (``"schedule"``), or everything that was recorded (``"complete"``, the released code;
            privileged information under incomplete training data).
        freeze_experts: Whether the experts stand still while routers and joint head are trained.
        expert_restore: Experts that the mixing stage starts with: the last ones (``"none"``, what
            the released code does), or those of each expert's best validation loss (``"best"``, what
            it means to do).
        reset_optimizer: Whether the mixing stage starts with fresh moments.
        router: How the experts' outputs are weighted: a learned softmax (``"soft"``), equally
            (``"uniform"``), the modality's own expert alone (``"own"``), the mean of the others
            (``"others"``), or the best one (``"hard"``, gradient of the softmax).
        router_dropout: Dropout on the router's logits; ``None``: ``dropout``.
        router_scope: A router for each modality, or one for all.
    """

    hidden: Annotated[int, Field(ge=1), Choice((64, 128, 256))] = 256
    depth: Annotated[int, Field(ge=1), IntRange(2, 6)] = 4
    heads: Annotated[int, Field(ge=1), Choice((1, 2, 4))] = 2
    mlp_ratio: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1), FloatRange(0.1, 0.6)] = 0.5
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    stage1_data: Literal["schedule", "complete"] = "schedule"
    freeze_experts: bool = False
    expert_restore: Literal["none", "best"] = "none"
    reset_optimizer: bool = False

    router: Literal["soft", "uniform", "own", "others", "hard"] = "soft"
    router_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    router_scope: Literal["per_modality", "shared"] = "per_modality"

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        return self

    def privileged(self) -> tuple[str, ...]:
        """Experts trained on complete data have seen what the schedule hides."""
        return ("complete_stage",) if self.stage1_data == "complete" and self.first_epochs else ()


INFO = MethodInfo(
    name="momke",
    title="MoMKE",
    summary="A transformer expert per modality, trained alone, then mixed by a soft router for every "
    "available modality.",
    model=".model:MoMKE",
    parameters=MoMKEParameters,
    takes=("dialogues",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    context="dialogue",
    profiles={"default": {}, "published": {"stage1_data": "complete"}},
    # Sizes, rates and both stages' lengths are those of the released scripts; iemocap6, which has
    # no script, takes iemocap4's (ours).
    data_set_parameters={
        "cmu_mosi": {"epochs": 300, "batch_size": 32},
        "cmu_mosei": {"epochs": 100, "batch_size": 32},
        "iemocap4": {"epochs": 200, "batch_size": 16},
        "iemocap6": {"epochs": 200, "batch_size": 16},
    },
    paper=Paper(
        authors="W. Xu, H. Jiang, X. Liang",
        title="Leveraging Knowledge of Modality Experts for Incomplete Multimodal Learning",
        venue="ACM International Conference on Multimedia, 438-446",
        year=2024,
        doi="10.1145/3664647.3681683",
    ),
    reference=Reference(
        repository="https://github.com/wxxv/MoMKE",
        commit="2dceb57f9e6f4bc84c2fc8f4eb7c761ea64c9efc",
        licence="none",
    ),
    numerics_version=2,
    stacks=lambda parameters: CALLS,
)
