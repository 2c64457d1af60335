"""Record of MAGTKD: what it is and its hyper-parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ...harness.record import Choice, FloatRange, HyperParameters, MethodInfo, Paper, Reference
from ...harness.spec import DataSpec

Weight = Annotated[float, Field(ge=0)]


class MAGTKDParameters(HyperParameters):
    """Hyper-parameters of MAGTKD.

    Attributes:
        epochs: Training epochs, those of stage 1 included.
        batch_size: Dialogues per batch.
        lr: Learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        gradient_clip: Limit of the global gradient norm.
        schedule: Linear warm-up from 0 and linear decay to 0, over real ``"steps"``, or with both
            lengths in dialogues as the released code has them (``"reference"``): the rate then
            warms up for half of the training and hardly decays.
        warmup_epochs: Length of the warm-up with ``schedule = "steps"``.
        hidden_dim: Model width H.
        num_heads: Attention heads; must divide the width.
        ff_dim: Inner width of the feed-forward parts; ``None``: the model width.
        dropout: Dropout everywhere.
        attention: ``"masked"`` softmax over the keys there are, or that of the code which was
            public with the paper (``"published"``): uniform over real keys, and padding leaks in.
        gate: Factor on what an anchor learns from a source: sigmoid(ReLU(.)), which is at least
            0.5, ``"sigmoid"``, or ``"none"``.
        anchor: Stream that is built last and classifies; the first modality where this one is not
            at hand. ``"none"``: symmetric streams, mean of their logits.
        share_text_blocks: Whether one block and gate serve all sources of the anchor stream, as in
            the released code.
        modalities: Modalities in use; ``None``: all.
        use_position: Whether utterances know their position.
        use_speaker: Whether utterances know their speaker.
        max_speakers: Speakers told apart in a dialogue; the last stands for all later ones.
        speaker_padding: Row of padding in the speaker table: one of its own (``"own"``), or row 2,
            which may be a speaker's (``"reference"``).
        project: Projection of features to the model width: where widths differ (``"auto"``), or
            ``"always"``.
        branch_ce: Whether the other streams have a task loss.
        logit_kd: Whether their logits follow the anchor's (not for a regression).
        feature_kd: Whether their states follow the anchor's.
        weight_audio: Weight of the losses of the audio stream.
        weight_video: The same for vision, and for modalities of other names.
        weight_text: The same for text where it is not the teacher; ours.
        tau: Temperature of the logit distillation.
        feature_temperature: Temperature of the feature distillation.
        detach_teacher: Whether distillation leaves the teacher alone.
        regression_loss: Task loss of a regression, ``"l1"`` or squared error ``"l2"``; ours.
        stage1: ``"heads"`` first trains an utterance-level head per modality, text teaching the
            others, and feeds their hidden states to the fusion; ``"none"``: projected features.
        distill_run: Whether the students of stage 1 are trained one after the other or at once.
        head_epochs: Epochs of each stage of stage 1.
        logit_weight: Weight of the logit distillation in stage 1.
        feature_weight: Weight of the feature distillation in stage 1.
        missing: An absent modality is a learned token as query and no key (``"mask"``), or a zero
            vector like any other (``"zero"``).
        branch_loss_on: Utterances whose stream losses count: those with the modality, or ``"all"``.
        kd_requires_text: Whether only utterances with the teacher's modality teach.
    """

    epochs: int = 60
    batch_size: int = 16
    patience: int | None = 10
    lr: Annotated[float, Field(gt=0), FloatRange(1e-5, 5e-4, log=True)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0), FloatRange(1e-6, 1e-2, log=True)] = 1e-6
    gradient_clip: Annotated[float, Field(gt=0)] | None = 10.0
    schedule: Literal["steps", "reference"] = "steps"
    warmup_epochs: Annotated[int, Field(ge=0)] = 1

    hidden_dim: Annotated[int, Field(ge=2), Choice((128, 256, 384))] = 256
    num_heads: Annotated[int, Field(ge=1)] = 8
    ff_dim: Annotated[int, Field(ge=1)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1), FloatRange(0.1, 0.6)] = 0.5
    attention: Literal["masked", "published"] = "masked"
    gate: Literal["relu_sigmoid", "sigmoid", "none"] = "relu_sigmoid"
    anchor: Literal["text", "audio", "vision", "none"] = "text"
    share_text_blocks: bool = True
    modalities: tuple[str, ...] | None = None
    use_position: bool = True
    use_speaker: bool = True
    max_speakers: Annotated[int, Field(ge=1)] = 9
    speaker_padding: Literal["own", "reference"] = "own"
    project: Literal["auto", "always"] = "auto"

    branch_ce: bool = True
    logit_kd: bool = True
    feature_kd: bool = True
    weight_audio: Annotated[Weight, FloatRange(0.0, 1.0)] = 0.7
    weight_video: Annotated[Weight, FloatRange(0.0, 1.0)] = 0.8
    weight_text: Weight = 0.7
    tau: Annotated[float, Field(gt=0), FloatRange(1.0, 4.0)] = 2.0
    feature_temperature: Annotated[float, Field(gt=0)] = 1.0
    detach_teacher: bool = False
    regression_loss: Literal["l1", "l2"] = "l1"

    stage1: Literal["none", "heads"] = "none"
    distill_run: Literal["sequential", "joint"] = "sequential"
    head_epochs: Annotated[int, Field(ge=1)] = 5
    logit_weight: Weight = 1.0
    feature_weight: Weight = 0.0

    missing: Literal["mask", "zero"] = "mask"
    branch_loss_on: Literal["available", "all"] = "available"
    kd_requires_text: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide hidden_dim ({self.hidden_dim})")
        if self.speaker_padding == "reference" and self.use_speaker and self.max_speakers < 2:
            raise ValueError('speaker_padding = "reference" needs max_speakers of at least 2')
        return self


def applies(spec: DataSpec, parameters: HyperParameters) -> str | None:
    """Why MAGTKD can't run on a data set under some settings, or ``None`` if it can."""
    assert isinstance(parameters, MAGTKDParameters)
    chosen = parameters.modalities
    if chosen is not None and not set(chosen) & set(spec.names):
        return f"none of the chosen modalities ({', '.join(chosen)}) is there"
    if parameters.stage1 == "heads":
        count = len(spec.names) if chosen is None else len(set(chosen) & set(spec.names))
        stages = 1 if count == 1 else 2 if parameters.distill_run == "joint" else count
        if parameters.epochs <= stages * parameters.head_epochs:
            return (
                f"{parameters.epochs} epochs leave none for the fusion after {stages} stages of "
                f"{parameters.head_epochs} epochs"
            )
    return None


_REFERENCE: dict[str, Any] = {
    "epochs": 30,
    "patience": None,
    "batch_size": 16,
    "lr": 1e-4,
    "weight_decay": 1e-6,
    "gradient_clip": 10.0,
    "schedule": "reference",
    "hidden_dim": 768,
    "num_heads": 8,
    "dropout": 0.5,
    "max_speakers": 2,
    "speaker_padding": "reference",
    "missing": "zero",
    "branch_loss_on": "all",
    "kd_requires_text": False,
}
_IEMOCAP: dict[str, Any] = {
    "weight_audio": 0.7,
    "weight_video": 0.8,
    "feature_kd": True,
    "logit_weight": 1.0,
    "feature_weight": 0.0,
}
_MELD: dict[str, Any] = {
    "weight_audio": 0.01,
    "weight_video": 0.08,
    "feature_kd": False,
    "logit_weight": 0.1,
    "feature_weight": 1.0,
}

INFO = MethodInfo(
    name="magtkd",
    title="MAGTKD (stage 2, adapted)",
    summary="Cross-modal attention over the dialogue with a gate per source and anchor; the text stream "
    "classifies and teaches the audio and vision streams.",
    model=".model:MAGTKD",
    parameters=MAGTKDParameters,
    takes=("dialogues",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    context="dialogue",
    profiles={
        "default": {},
        # The released code; its loss weights are those of the data set, IEMOCAP's elsewhere.
        "published": _REFERENCE,
        "iemocap": {**_REFERENCE, **_IEMOCAP},
        "meld": {**_REFERENCE, **_MELD, "max_speakers": 304},
        # The code that was public when the paper appeared.
        "original": {**_REFERENCE, "attention": "published"},
    },
    data_set_parameters={
        **{name: _IEMOCAP for name in ("iemocap4", "iemocap6")},
        **{name: _MELD for name in ("meld", "meld_dev")},
    },
    paper=Paper(
        authors="J. Li, S. Ding, L. Guo, X. Li",
        title="Multi-modal Anchor Gated Transformer with Knowledge Distillation for Emotion Recognition "
        "in Conversation",
        venue="IJCAI, 8141-8149",
        year=2025,
        doi="10.24963/ijcai.2025/905",
        arxiv="2506.18716",
    ),
    reference=Reference(
        repository="https://github.com/JieLi-dd/MAGTKD",
        commit="e45c6571dec12e2ab583055c84a865311d200c39",
        licence="GPL-3.0 (not used; implemented from a description)",
    ),
    numerics_version=2,
    batch_dependent=frozenset({"original"}),
    applies=applies,
)
