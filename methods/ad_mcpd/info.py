"""Record of AD-MCPD."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...harness.record import CallKind, FloatRange, HyperParameters, IntRange, MethodInfo, Reference
from ...harness.spec import SENTIMENT_CLASSES, DataSpec


class Parameters(HyperParameters):
    """Hyper-parameters; symbols in brackets are those of the method's page.

    Attributes:
        epochs: Training epochs.
        batch_size: Utterances per batch; also the size of the support bank.
        patience: Early stopping on the protocol's selection metric.
        optimizer: ``"adamw"`` (decoupled weight decay) or ``"adam"``.
        lr: Learning rate, halved every ten epochs.
        weight_decay: Weight decay.
        shared_dim: Shared width D.
        adapter_dropout: Dropout inside the adapters.
        temperature: Temperature of all distributions over anchors (tau).
        pseudo_temperature: Temperature of the pseudo-labels (tau_p).
        lambda_smooth: Smoothing of the fusion weights (lambda).
        delta_threshold: Symmetric divergence above which two samples are not linked (delta).
        beta: Residual gate of the graph convolution.
        top_k: Candidates per anchor (K).
        lambda_entropy: Weight of the entropy in the ranking (lambda_H); may be negative.
        completion_weight: Share of the completion in an incomplete sample (gamma).
        lambda_local: Weight of the local channel.
        lambda_fusion: Weight of the fusion channel.
        lambda_prompt: Weight of the prompt channel.
        lambda_uni: Weight of the pseudo-label classifiers' own loss (an addition, see S2).
        lambda_proto: Weight of a cross entropy that ties features to prototypes (study option).
        prompt_len: Learnable prompt tokens per class (k).
        cls_len: Class tokens per class (s).
        anchor_momentum: Momentum of the stored anchors.
        neutral_band: A score s with abs(s) <= band is the neutral class.
        language_model: Frozen encoder: Hugging Face id, local folder, or ``"random-t5-tiny"``.
        prototypes: Source of the class prototypes.
        prototypes_file: safetensors file with a tensor ``prototypes`` ``[C, d]`` or
            ``[M + 1, C, d]`` for ``prototypes = "given"``.
        prototypes_sha256: SHA-256 of that file, so that the run's address knows its content.
        prompt_levels: A [MOD] token (or sentence) per level, or one shared by all levels.
        class_tokens: Whether the class tokens are learned or stay the description's embeddings.
        pooling: Prototype from the mean over positions or from the first position.
        completion: Through the language model, one learned constant per availability pattern, or
            none at all.
        completion_input: Linear map D to d_L in front of the encoder, or none (needs D = d_L).
        completion_absent: Absent modalities are masked, or leave no slot in the sequence.
        cls_token: [CLS] of the completion sequence: learned or zero.
        graph: Whole graph, without sample-sample edges, without sample-centre edges, or none.
        graph_metric: Distances of normalised or raw features.
        centre_assignment: Class node by fused pseudo-label or by learnable centres.
        centre_average: Centre average over the modalities present, or over all of them.
        empty_class: Centre of a class nobody is assigned to: left out, or zero.
        anchor_candidates: Anchor candidates in training: the samples of the class, or everybody.
        entropy_of: Distribution whose entropy enters the ranking.
        local_feature: What the local level ranks, averages and distils.
        downstream: Feature of the global level: enhanced by the graph, or merely fused.
        fused_pseudo_label: Mean over the available modalities, or the first available one's.
        similarity: Cosine, or clamped dot product.
        teacher: Teacher of the local and fusion channels: distribution of the anchor of the
            sample's class, of its prototype, or the student itself.
        kl_direction: Direction of the divergences.
        prompt_teacher: Teacher of the prompt channel.
        prompt_loss_on: Samples of the prompt channel.
        classifier: Anchors are the classifier, or a linear layer is.
        classification_loss: Log-likelihood, or cross entropy with probabilities as logits.
        outside_training: Stored anchors and support bank, or anchors and graph of the batch.
    """

    epochs: int = 20
    batch_size: int = 32
    patience: int | None = 10

    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: Annotated[float, Field(gt=0), FloatRange(1e-4, 1e-2, log=True)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0), FloatRange(1e-6, 1e-2, log=True)] = 1e-5

    shared_dim: Annotated[int, Field(ge=1), IntRange(64, 512, step=64)] = 512
    adapter_dropout: Annotated[float, Field(ge=0, lt=1), FloatRange(0.0, 0.5)] = 0.1
    temperature: Annotated[float, Field(gt=0), FloatRange(0.05, 1.0, log=True)] = 0.7
    pseudo_temperature: Annotated[float, Field(gt=0), FloatRange(0.1, 1.0, log=True)] = 0.7
    lambda_smooth: Annotated[float, Field(ge=0), FloatRange(0.0, 1.0)] = 0.1
    delta_threshold: Annotated[float, Field(gt=0), FloatRange(0.1, 3.0)] = 1.5
    beta: Annotated[float, Field(ge=0), FloatRange(0.0, 1.0)] = 0.5
    top_k: Annotated[int, Field(ge=1), IntRange(1, 32)] = 15
    lambda_entropy: Annotated[float, FloatRange(-0.5, 0.5)] = 0.1
    completion_weight: Annotated[float, Field(ge=0), FloatRange(0.0, 1.0)] = 0.3
    lambda_local: Annotated[float, Field(ge=0), FloatRange(0.0, 2.0)] = 1.0
    lambda_fusion: Annotated[float, Field(ge=0), FloatRange(0.0, 2.0)] = 1.0
    lambda_prompt: Annotated[float, Field(ge=0), FloatRange(0.0, 2.0)] = 0.5
    lambda_uni: Annotated[float, Field(ge=0), FloatRange(0.0, 2.0)] = 1.0
    lambda_proto: Annotated[float, Field(ge=0)] = 0.0
    prompt_len: Annotated[int, Field(ge=0), IntRange(1, 16)] = 4
    cls_len: Annotated[int, Field(ge=1), IntRange(1, 4)] = 2
    anchor_momentum: Annotated[float, Field(ge=0, lt=1), FloatRange(0.5, 0.99)] = 0.9
    neutral_band: Annotated[float, Field(ge=0)] = 0.0

    language_model: str = "google-t5/t5-base"
    prototypes: Literal["prompt", "text", "given", "learned"] = "prompt"
    prototypes_file: str = ""
    prototypes_sha256: str = ""
    prompt_levels: Literal["modality", "shared"] = "modality"
    class_tokens: Literal["learned", "fixed"] = "learned"
    pooling: Literal["mean", "first"] = "mean"
    completion: Literal["language_model", "pattern", "none"] = "language_model"
    completion_input: Literal["linear", "identity"] = "linear"
    completion_absent: Literal["masked", "dropped"] = "masked"
    cls_token: Literal["learned", "zero"] = "learned"

    graph: Literal["full", "no_sample_edges", "no_centre_edges", "none"] = "full"
    graph_metric: Literal["cosine", "raw"] = "cosine"
    centre_assignment: Literal["pseudo", "learnable"] = "pseudo"
    centre_average: Literal["present", "all"] = "present"
    empty_class: Literal["fallback", "zero"] = "fallback"

    anchor_candidates: Literal["label", "all"] = "label"
    entropy_of: Literal["pseudo_labels", "fusion_weights"] = "pseudo_labels"
    local_feature: Literal["encoded", "enhanced"] = "encoded"
    downstream: Literal["enhanced", "fused"] = "enhanced"
    fused_pseudo_label: Literal["mean", "first"] = "mean"

    similarity: Literal["cosine", "dot"] = "cosine"
    teacher: Literal["anchor", "prototype", "self"] = "anchor"
    kl_direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    prompt_teacher: Literal["enhanced_detached", "mean_attached"] = "enhanced_detached"
    prompt_loss_on: Literal["all", "incomplete"] = "all"
    classifier: Literal["anchors", "linear"] = "anchors"
    classification_loss: Literal["logits", "probabilities"] = "logits"
    outside_training: Literal["bank", "batch"] = "bank"

    @model_validator(mode="after")
    def _given_needs_a_file(self) -> Parameters:
        if self.prototypes == "given" and not (self.prototypes_file and self.prototypes_sha256):
            raise ValueError('prototypes = "given" needs prototypes_file and prototypes_sha256')
        return self

    @property
    def needs_language_model(self) -> bool:
        """Whether anything goes through a language model under these settings."""
        return self.prototypes in ("prompt", "text") or self.completion == "language_model"


# What the released code computes once it is repaired to run (prototypes and completion projected
# to D, completion fed as embeddings, masks per sample).
PUBLISHED = {
    "lambda_uni": 0.0,
    "prototypes": "text",
    "prompt_levels": "shared",
    "pooling": "first",
    "cls_token": "zero",
    "completion_absent": "dropped",
    "graph_metric": "raw",
    "centre_assignment": "learnable",
    "centre_average": "all",
    "empty_class": "zero",
    "anchor_candidates": "all",
    "downstream": "fused",
    "fused_pseudo_label": "first",
    "similarity": "dot",
    "teacher": "self",
    "prompt_teacher": "mean_attached",
    "classification_loss": "probabilities",
    "outside_training": "batch",
}

FIRST_UPLOAD = PUBLISHED | {
    "epochs": 50,
    "optimizer": "adam",
    "lr": 1e-4,
    "shared_dim": 256,
    "pseudo_temperature": 0.1,
    "temperature": 0.1,
    "delta_threshold": 0.5,
    "beta": 0.1,
    "top_k": 8,
    "completion_weight": 0.5,
    "lambda_prompt": 1.0,
}


def _applies(spec: DataSpec, parameters: HyperParameters) -> str | None:
    if len(spec.modalities) < 2:
        return "needs at least two modalities"
    if spec.task == "regression" and spec.classes != SENTIMENT_CLASSES:
        return "predicts classes: a regression needs the classes negative, neutral, positive"
    if len(spec.classes) < 2:
        return "needs at least two classes"
    return None


def stacks(parameters: HyperParameters) -> tuple[CallKind, ...]:
    """Training, but for a language model, which looks at what its masks are.

    Predictions complete incomplete samples only, whose number is not known before.
    """
    assert isinstance(parameters, Parameters)
    return () if parameters.needs_language_model else ("training_step",)


INFO = MethodInfo(
    name="ad_mcpd",
    title="AD-MCPD (reconstruction)",
    summary=(
        "Semantic graph over samples and class centres, class anchors chosen with language-model "
        "prototypes, and distillation over local, fusion and prompt channels; anchors are the classifier."
    ),
    model=".model:AdMcpd",
    parameters=Parameters,
    takes=("vectors",),
    tasks=frozenset({"regression", "binary", "multiclass"}),
    context="utterance",
    predicts_score=False,
    profiles={"default": {}, "published": PUBLISHED, "first_upload": FIRST_UPLOAD},
    # Scores of CH-SIMS are bins of width 0.2 around multiples of 0.2: (-0.1, 0.1] is its neutral.
    data_set_parameters={"ch_sims": {"neutral_band": 0.1}},
    paper=None,
    reference=Reference(
        repository="https://github.com/mili-163/MMER",
        commit="ab085ba0d7d19ca01fc274ccc2f0ef224a821d3d",
        licence="none",
    ),
    numerics_version=2,
    batch_dependent=frozenset({"published", "first_upload"}),
    applies=_applies,
    stacks=stacks,
)
