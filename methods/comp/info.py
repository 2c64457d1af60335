"""Record of ComP: what it is and its hyper-parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...harness.record import CALLS, Choice, HyperParameters, MethodInfo, Paper, Reference
from ...harness.spec import DataSpec
from .._parameters import TwoStageParameters


class ComPParameters(TwoStageParameters):
    """Hyper-parameters of ComP, beside those of ``TwoStageParameters``.

    Attributes:
        hidden: Model width D, divisible by ``heads``.
        depth: Layers of both transformer stacks together, an even number.
        heads: Attention heads.
        mlp_ratio: Width inside the transformers' MLPs over D.
        dropout: Dropout of projections, MLPs and the joint head.
        attention_dropout: Dropout on attention probabilities.
        lbd: Momentum of the prompts: share of the propagated prompt against the fresh one.
        prompt_dim: Width p of a prompt.
        n_proto: Prototypes c of a dialogue and modality.
        sequence_length: S, the length every dialogue is padded to, part of the prototype
            generators' shapes; ``None``: the longest dialogue of the data.
        kp: Knowledge propagation: ``False`` hands the encoders' output to the coordinator,
            ``"no_prompt"`` the transformers' output without prompts (two readings of the paper's
            ablation).
        pg: Whether prompts come from prototypes; without, from the utterance itself.
        coordinator: Whether a router weighs the modalities before the joint head.
        gm: Gradient modulator: off (all the released code does), the paper's in our stabilised
            form, or the released helper made to act (for comparison with golden data only).
        prototype_scope: Whether an utterance reads the prototypes of all dialogues of the batch
            or of its own.
        evaluation_scope: The same outside training; ``"same"``: as in training. With ``"batch"`` a
            prediction depends on the other dialogues of its batch.
        prompt_missing: ``"zero_readout"``: an utterance without the modality reads no prototypes.
        prototype_input_mask: Whether absent and padded utterances are zero in the prototypes.
        private_source: Whose private features train the private heads: those of the first modality
            in alphabetical order (``"audio"``, as released) or each modality's own.
        private_target: Target of the private heads in classification: the true class on reversed
            logits (``"published"``) or the uniform distribution.
        rec_in_stage1: Whether the reconstruction is trained in the first stage, too.
        loss_mask: What reconstruction and divergence average over: all positions, padding included
            (``"published"``), or real utterances (``"real"``).
        unimodal_weight: Weight of the unimodal heads in the second stage.
        w_rec: Weight of the reconstruction.
        w_dis: Weight of the disentangling.
        w_priv: Weight of the private heads.
        stage1_reload: Whether the second stage starts with each modality's transformers of its best
            validation loss (what the released code means to do and doesn't).
        mask_quirk: Reproduces the rounding of similarities of the released code (strict parity).
    """

    hidden: Annotated[int, Field(ge=1), Choice((64, 128, 256))] = 256
    depth: Annotated[int, Field(ge=2, multiple_of=2), Choice((2, 4, 6))] = 4
    heads: Annotated[int, Field(ge=1), Choice((1, 2, 4))] = 2
    mlp_ratio: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1), Choice((0.1, 0.2, 0.3, 0.4, 0.5, 0.6))] = 0.5
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    lbd: Annotated[float, Field(ge=0, le=1), Choice(tuple(k / 10 for k in range(1, 10)))] = 0.3
    prompt_dim: Annotated[int, Field(ge=1), Choice((8, 16, 32))] = 16
    n_proto: Annotated[int, Field(ge=1), Choice((5, 10, 20))] = 10
    sequence_length: Annotated[int, Field(ge=1)] | None = None

    kp: bool | Literal["no_prompt"] = True
    pg: bool = True
    coordinator: bool = True
    gm: Literal["off", "paper", "released"] = "paper"
    prototype_scope: Literal["batch", "conversation"] = "batch"
    evaluation_scope: Literal["same", "batch", "conversation"] = "conversation"
    prompt_missing: Literal["none", "zero_readout"] = "none"
    prototype_input_mask: bool = False

    private_source: Literal["audio", "own"] = "audio"
    private_target: Literal["published", "uniform"] = "published"
    rec_in_stage1: bool = False
    loss_mask: Literal["published", "real"] = "published"
    unimodal_weight: Annotated[float, Field(ge=0)] = 2.0
    w_rec: Annotated[float, Field(ge=0)] = 1.0
    w_dis: Annotated[float, Field(ge=0)] = 1.0
    w_priv: Annotated[float, Field(ge=0)] = 1.0
    stage1_reload: bool = False
    mask_quirk: bool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        return self

    @property
    def prompts(self) -> bool:
        """Whether modalities prompt each other."""
        return self.kp is True

    @property
    def prototypes(self) -> bool:
        """Whether prompts read prototypes; only then the gradient modulator has something to act on."""
        return self.prompts and self.pg


def too_long(spec: DataSpec, parameters: HyperParameters) -> str | None:
    """Why ComP can't run on a data set, or ``None``."""
    length = getattr(parameters, "sequence_length", None)
    if length is None or length >= spec.longest_dialogue:
        return None
    return f"sequence_length ({length}) is below the longest dialogue ({spec.longest_dialogue} utterances)"


INFO = MethodInfo(
    name="comp",
    title="ComP",
    summary="Modalities, disentangled and trained alone, prompt each other through prototypes of the "
    "dialogue; a coordinator balances them.",
    model=".model:ComP",
    parameters=ComPParameters,
    takes=("dialogues",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    context="dialogue",
    profiles={
        "default": {},
        "published": {"gm": "off", "evaluation_scope": "same"},
        "paper": {
            "gm": "paper",
            "prompt_missing": "zero_readout",
            "private_source": "own",
            "prototype_input_mask": True,
        },
    },
    # CMU-MOSI's are those of the released example command, the others our extrapolation: neither
    # paper nor code has any. S covers each data set's longest dialogue.
    data_set_parameters={
        "cmu_mosi": {"epochs": 300, "batch_size": 32, "sequence_length": 65},
        "cmu_mosei": {"epochs": 300, "batch_size": 32, "sequence_length": 150},
        "iemocap4": {"epochs": 300, "batch_size": 32, "sequence_length": 150},
        "iemocap6": {"epochs": 300, "batch_size": 32, "sequence_length": 150},
    },
    paper=Paper(
        authors="W.-J. He, X. Zhu, Z. Zhang",
        title="Cross-modal Prompting for Balanced Incomplete Multi-modal Emotion Recognition",
        venue="AAAI Conference on Artificial Intelligence 40(21), 17463-17471",
        year=2026,
        arxiv="2512.11239",
    ),
    reference=Reference(
        repository="https://github.com/WenjueHE/2026-AAAI-ComP",
        commit="28192d3a5683543d7383e40898f9a98d1f114a08",
        licence="none",
    ),
    numerics_version=2,
    applies=too_long,
    batch_dependent=frozenset({"published"}),
    stacks=lambda parameters: CALLS,
)
