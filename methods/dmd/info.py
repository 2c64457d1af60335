"""Record of DMD: what it is and its hyper-parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...harness.record import (
    CALLS,
    CallKind,
    Choice,
    FloatRange,
    HyperParameters,
    IntRange,
    MethodInfo,
    Paper,
    Reference,
)
from ...harness.spec import DataSpec

Rate = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Kernel = Annotated[int, Field(ge=1)]


class DMDParameters(HyperParameters):
    """Hyper-parameters of DMD.

    Attributes:
        batch_size: Utterances per batch.
        lr: Learning rate of Adam.
        bert_lr: Learning rate of a fine-tuned text encoder; ``None``: ``lr``.
        weight_decay: L2 term of Adam; the authors configure one but never use it.
        update_epochs: Batches whose gradients are summed before a step.
        accumulate: What happens to the incomplete last group of an epoch: ``"all"`` takes its step,
            ``"published"`` discards it.
        gradient_clip: Limit of every element of the summed gradient, after each backward pass.
        plateau_factor: Factor of the learning rate when the validation loss stalls.
        plateau_patience: Epochs without a better validation loss before that.
        round_validation: Whether that loss is rounded to 4 decimals first, as in the released code.
        hidden: Common width d.
        heads: Attention heads H; must divide d.
        nlevels: Layers of the cross-modal encoders and of those of the shared parts; the memory
            encoders have at least 3.
        attn_mask: Whether attention is causal (with an offset between unequal lengths).
        kernel_text: Width of the convolution that projects text; 1 where sequences are shorter.
        kernel_audio: The same for audio.
        kernel_vision: The same for vision; other modalities have width 1.
        attn_dropout: Dropout of attention on text and of all memory encoders.
        attn_dropout_audio: Dropout of attention on audio.
        attn_dropout_vision: Dropout of attention on vision.
        relu_dropout: Dropout inside the feed-forward layers.
        embed_dropout: Dropout of embedded inputs.
        res_dropout: Dropout of residual branches.
        output_dropout: Dropout of the heads.
        text_dropout: Dropout of text features.
        use_bert: Whether text comes from token ids through a language model.
        use_finetune: Whether that model is trained with the rest.
        bert: Its Hugging Face id or folder.
        token_length: Tokens per utterance with ``use_bert``; longer ones are cut.
        text_missing: Absent text as ``"zero_features"`` (after the encoder), or as the
            ``"unk_tokens"`` that the harness puts in the place of lost tokens.
        padding: How padding is told from data: by ``"mask"``, or, as the released code does, by
            ``"features"`` whose first channel is exactly zero (it then also reads the encoder's
            output at padding tokens).
        pool: Which step stands for a sequence: the ``"last"`` one, padding or not, or the
            ``"last_valid"`` one.
        decoupling: Whether features are split into shared and exclusive parts.
        crossmodal: Whether the exclusive parts attend to other modalities, or to themselves.
        fusion_gate: Whether gates ``"replace"`` the features they are made of, or ``"multiply"`` them.
        unimodal_tasks: Whether the heads of parts and the shared head have a task loss too.
        homo_gd: Whether the shared parts distil.
        hetero_gd: Whether the exclusive parts distil.
        gd_prior: Prior of the edges: the ``"published"`` favourites or ``"uniform"``.
        gd_alpha: Sharpness of the edge softmax.
        gd_metric: Distance between student and teacher.
        gd_reg: Weight of the pull of edges towards their prior.
        homo_gd_size: Width of the edge predictor on the shared parts.
        hetero_gd_size: Width of the edge predictor on the exclusive parts.
        homo_repr_weight: Factor on the representation term of the shared parts, which the released
            code computes but never adds.
        hetero_repr: Representation term of the exclusive parts: ``"repel"`` pushes them apart
            (published), ``"distance"`` draws them together, ``"none"``.
        ort_axis: Axis of the cosine in the orthogonality loss: ``"feature"``, or ``"batch"`` as
            released.
        mask_losses: Whether absent modalities are left out of unimodal, decoupling and
            distillation losses.
        lambda_dec: Weight of the decoupling losses.
        lambda_gd: Weight of the distillation losses.
        gamma: Weight of margin and orthogonality within the decoupling losses.
    """

    epochs: int = 60
    batch_size: int = 16
    patience: int | None = 10
    lr: Annotated[float, Field(gt=0), FloatRange(5e-5, 2e-3, log=True)] = 5e-4
    bert_lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Weight = 0.0
    update_epochs: Annotated[int, Field(ge=1), Choice((1, 2, 5, 10))] = 2
    accumulate: Literal["all", "published"] = "all"
    gradient_clip: Annotated[float, Field(gt=0)] | None = 0.6
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    plateau_patience: Annotated[int, Field(ge=0)] = 5
    round_validation: bool = False

    hidden: Annotated[int, Field(ge=4), Choice((30, 50, 80))] = 50
    heads: Annotated[int, Field(ge=1)] = 10
    nlevels: Annotated[int, Field(ge=1), IntRange(1, 5)] = 4
    attn_mask: bool = True
    kernel_text: Kernel = 5
    kernel_audio: Kernel = 5
    kernel_vision: Kernel = 5
    attn_dropout: Annotated[Rate, FloatRange(0.0, 0.5)] = 0.3
    attn_dropout_audio: Rate = 0.2
    attn_dropout_vision: Rate = 0.0
    relu_dropout: Rate = 0.0
    embed_dropout: Annotated[Rate, FloatRange(0.0, 0.3)] = 0.2
    res_dropout: Rate = 0.0
    output_dropout: Annotated[Rate, FloatRange(0.0, 0.6)] = 0.5
    text_dropout: Annotated[Rate, FloatRange(0.0, 0.6)] = 0.5

    use_bert: bool = False
    use_finetune: bool = False
    bert: str = "google-bert/bert-base-uncased"
    token_length: Annotated[int, Field(ge=1)] = 50
    text_missing: Literal["zero_features", "unk_tokens"] = "zero_features"
    padding: Literal["mask", "features"] = "mask"
    pool: Literal["last", "last_valid"] = "last"

    decoupling: bool = True
    crossmodal: bool = True
    fusion_gate: Literal["replace", "multiply"] = "replace"
    unimodal_tasks: bool = True
    homo_gd: bool = True
    hetero_gd: bool = True
    gd_prior: Literal["published", "uniform"] = "published"
    gd_alpha: Annotated[float, Field(gt=0)] = 0.125
    gd_metric: Literal["l1", "l2", "cosine"] = "l1"
    gd_reg: Weight = 10.0
    homo_gd_size: Annotated[int, Field(ge=1)] = 64
    hetero_gd_size: Annotated[int, Field(ge=1)] = 32
    homo_repr_weight: Weight = 0.0
    hetero_repr: Literal["repel", "distance", "none"] = "repel"
    ort_axis: Literal["feature", "batch"] = "feature"
    mask_losses: bool = False
    lambda_dec: Annotated[Weight, FloatRange(0.01, 1.0, log=True)] = 0.1
    lambda_gd: Annotated[Weight, FloatRange(0.005, 0.5, log=True)] = 0.05
    gamma: Annotated[Weight, FloatRange(0.01, 1.0, log=True)] = 0.1

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self


def applies(spec: DataSpec, parameters: HyperParameters) -> str | None:
    """Why DMD can't run on a data set under some settings, or ``None`` if it can."""
    assert isinstance(parameters, DMDParameters)
    if len(spec.modalities) < 2:
        return "needs two or more modalities"
    if parameters.use_bert and not any(m.name == "text" and m.vocabulary for m in spec.modalities):
        return "use_bert needs the token ids of a text modality"
    batches = -(-spec.train_utterances // parameters.batch_size)
    if parameters.accumulate == "published" and batches < parameters.update_epochs:
        return (
            f'accumulate = "published" discards incomplete groups: {batches} batches an epoch '
            f"never make a group of {parameters.update_epochs}"
        )
    return None


def stacks(parameters: HyperParameters) -> tuple[CallKind, ...]:
    """All calls, but with a text encoder none."""
    assert isinstance(parameters, DMDParameters)
    return () if parameters.use_bert else CALLS


# What both configurations of the authors share.
_RECIPE = {"lr": 1e-4, "batch_size": 16, "update_epochs": 10, "gradient_clip": 0.6}

INFO = MethodInfo(
    name="dmd",
    title="DMD",
    summary="Splits each modality into a shared and an exclusive part and lets the modalities teach "
    "one another over two graphs of predicted edges.",
    model=".model:DMD",
    parameters=DMDParameters,
    takes=("sequences", "vectors"),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    profiles={
        "default": {},
        "published": {
            **_RECIPE,
            "epochs": 200,
            "patience": 10,
            "accumulate": "published",
            "round_validation": True,
            "padding": "features",
            "ort_axis": "batch",
        },
    },
    data_set_parameters={
        "cmu_mosi": {**_RECIPE, "epochs": 200},
        "cmu_mosei": {
            **_RECIPE,
            "epochs": 200,
            "hidden": 30,
            "heads": 6,
            "kernel_text": 5,
            "kernel_audio": 1,
            "kernel_vision": 3,
            "attn_dropout": 0.4,
            "attn_dropout_audio": 0.0,
            "embed_dropout": 0.0,
            "text_dropout": 0.3,
        },
    },
    paper=Paper(
        authors="Y. Li, Y. Wang, Z. Cui",
        title="Decoupled Multimodal Distilling for Emotion Recognition",
        venue="CVPR",
        year=2023,
        arxiv="2303.13802",
    ),
    reference=Reference(
        repository="https://github.com/mdswyz/DMD",
        commit="516d4e116c22220e08873fa38df828d1a0d6f7e8",
        licence="MIT",
    ),
    numerics_version=2,
    wants_tokens=True,
    applies=applies,
    stacks=stacks,
)
