"""AD-MCPD: how the components are wired, its losses, its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction
from ...harness.method import Method, Services, StagePlan, TrainingData
from ...harness.spec import DataSpec
from .anchors import AnchorMemory, Selection, anchors, cosine, select, similarity
from .channels import (
    channel_loss,
    classification_losses,
    compensate,
    divergence,
    log_distribution,
    masked_mean,
)
from .completion import NoCompletion, PatternCompletion, PromptCompletion
from .encoder import Encoded, ModalityEncoder, entropy, fuse, fused_pseudo_labels, fusion_weights
from .graph import Graph, ResidualGraphConvolution, SemanticGraph, SupportBank
from .info import Parameters
from .prototypes import (
    GivenPrototypes,
    LearnedPrototypes,
    PromptPrototypes,
    read_prototypes,
    text_states,
)


@dataclass(frozen=True)
class Pass:
    """Everything that one pass over a batch with batch anchors computes; L = M + 1 levels.

    Attributes:
        encoded: After the encoder.
        graph: The batch's graph; ``None`` if there is none.
        enhanced: ``[B, D]`` u~.
        prototypes: ``[L, C, D]``.
        features: ``[L, B, D]`` what each level ranks and averages.
        there: ``[L, B]`` bool, which samples a level has.
        similarities: ``[L, B, C]``.
        selection: Samples that make up the anchors.
        anchors: ``[L, C, D]``, stored ones where a class has no candidate.
        log_q: ``[L, B, C]`` log distributions of the features over the anchors.
        completion: ``[B, D]`` zhat.
        compensated: ``[B, D]`` ubar.
        log_probabilities: ``[B, C]`` log P.
    """

    encoded: Encoded
    graph: Graph | None
    enhanced: Tensor
    prototypes: Tensor
    features: Tensor
    there: Tensor
    similarities: Tensor
    selection: Selection
    anchors: Tensor
    log_q: Tensor
    completion: Tensor
    compensated: Tensor
    log_probabilities: Tensor


def sentiment_classes(scores: Tensor, neutral_band: float) -> Tensor:
    """Classes negative, neutral, positive (0, 1, 2) of scores; neutral within the band around 0."""
    return (scores >= -neutral_band).long() + (scores > neutral_band).long()


class AdMcpd(Method[Parameters]):
    """Anchor-driven multi-channel prompt distillation; utterances as vectors."""

    fused_prototypes: Tensor

    def __init__(self, spec: DataSpec, parameters: Parameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        classes, levels, width = len(spec.classes), len(spec.modalities) + 1, hp.shared_dim
        self.encoder = ModalityEncoder(spec.dims, width, classes, hp.pseudo_temperature, hp.adapter_dropout)
        self.graph = SemanticGraph(
            classes,
            width,
            hp.delta_threshold,
            metric=hp.graph_metric,
            centre_assignment=hp.centre_assignment,
            centre_average=hp.centre_average,
            empty_class=hp.empty_class,
            edges=hp.graph,
        )
        self.convolution = ResidualGraphConvolution(width)
        model = self._language_model() if hp.needs_language_model else None
        self.prototypes = self._build_prototypes(model)
        self.completion = self._build_completion(model)
        self.linear_classifier = nn.Linear(width, classes) if hp.classifier == "linear" else None
        self.memory = AnchorMemory(levels, classes, width, hp.anchor_momentum)
        bank_size = min(hp.batch_size, spec.train_utterances)
        self.bank = SupportBank(levels - 1, bank_size, classes, width)
        self.register_buffer("fused_prototypes", torch.zeros(classes, width))

    # Construction.

    def _language_model(self) -> Any:
        try:
            return self.services.language_model(self.parameters_.language_model)
        except LookupError as error:
            raise LookupError(
                f'{error}. AD-MCPD runs without any language model under prototypes = "learned" (or "given") '
                'together with completion = "pattern" (or "none")'
            ) from error

    def _build_prototypes(self, model: Any) -> nn.Module:
        hp, spec = self.parameters_, self.spec
        levels, classes, width = len(spec.modalities) + 1, len(spec.classes), hp.shared_dim
        if hp.prototypes == "prompt":
            return PromptPrototypes(
                model,
                spec.names,
                spec.classes,
                width,
                hp.prompt_len,
                hp.cls_len,
                levels=hp.prompt_levels,
                class_tokens=hp.class_tokens,
                pooling=hp.pooling,
            )
        if hp.prototypes == "text":
            states = text_states(model, spec.names, spec.classes, hp.prompt_levels, hp.pooling)
            return GivenPrototypes(states, levels, width, linear=True)
        if hp.prototypes == "given":
            values = read_prototypes(hp.prototypes_file, hp.prototypes_sha256, levels, classes)
            return GivenPrototypes(values, levels, width)
        return LearnedPrototypes(levels, classes, width)

    def _build_completion(self, model: Any) -> nn.Module:
        hp = self.parameters_
        if hp.completion == "language_model":
            if hp.completion_input == "identity" and model.width != hp.shared_dim:
                raise ValueError(
                    f'completion_input = "identity" needs shared_dim = {model.width}, the width of '
                    f"{model.name!r}; it is {hp.shared_dim}"
                )
            return PromptCompletion(
                model, hp.shared_dim, hp.cls_token, hp.completion_absent, hp.completion_input
            )
        if hp.completion == "pattern":
            return PatternCompletion(len(self.spec.modalities), hp.shared_dim)
        return NoCompletion()

    # Forward.

    def encode(self, features: Mapping[str, Tensor], available: Tensor) -> Encoded:
        """Section 2.1, 2.2 and 2.5 for features ``[B, d_m]`` and availability ``[B, M]``."""
        hp = self.parameters_
        there = available.bool().T
        z, log_p = self.encoder(features, there)
        return Encoded(
            features=z,
            log_p=log_p,
            available=there,
            fused=fuse(z, there, hp.lambda_smooth),
            fused_p=fused_pseudo_labels(log_p, there, hp.fused_pseudo_label),
        )

    def enhance(self, encoded: Encoded) -> tuple[Graph | None, Tensor]:
        """The batch's graph and u~ ``[B, D]`` (sections 2.3 and 2.4)."""
        hp = self.parameters_
        if hp.graph == "none":
            return None, encoded.fused
        graph = self.graph(encoded)
        size = len(encoded.fused)
        hidden = self.convolution(
            graph.adjacency[:size], graph.degree[:size], graph.degree, graph.nodes, encoded.fused
        )
        return graph, encoded.fused + hp.beta * hidden

    def enhance_alone(self, encoded: Encoded) -> Tensor:
        """u~ ``[B, D]`` of samples that are attached to the support bank one by one (section 3.3)."""
        hp = self.parameters_
        if hp.graph == "none":
            return encoded.fused
        rows = self.graph.attach(encoded, self.bank)
        hidden = self.convolution(rows, rows.sum(dim=1), self.bank.degree, self.bank.nodes, encoded.fused)
        return encoded.fused + hp.beta * hidden

    def global_features(self, encoded: Encoded, enhanced: Tensor) -> Tensor:
        """What the global level and the classification use: u~, or u."""
        return enhanced if self.parameters_.downstream == "enhanced" else encoded.fused

    def complete(self, encoded: Encoded, prototypes: Tensor, everywhere: bool) -> Tensor:
        """Zhat ``[B, D]``; zero for complete samples unless it is asked for everywhere."""
        if everywhere:
            return self.completion(encoded.features, encoded.available, prototypes)
        completion = torch.zeros_like(encoded.fused)
        rows = encoded.incomplete.nonzero().squeeze(-1)
        if len(rows):
            completion[rows] = self.completion(
                encoded.features[:, rows], encoded.available[:, rows], prototypes
            )
        return completion

    def classify(self, compensated: Tensor, global_anchors: Tensor) -> Tensor:
        """Log P ``[B, C]`` (section 4.4)."""
        hp = self.parameters_
        if self.linear_classifier is not None:
            return torch.log_softmax(self.linear_classifier(compensated), dim=-1)
        return log_distribution(compensated, global_anchors, hp.temperature, hp.similarity)

    def analyse(
        self,
        features: Mapping[str, Tensor],
        available: Tensor,
        labels: Tensor | None,
        complete_everywhere: bool = True,
    ) -> Pass:
        """One pass with the graph and the anchors of the batch itself.

        Args:
            features: Per modality ``[B, d_m]``.
            available: ``[B, M]`` bool.
            labels: ``[B]`` classes; without them every sample is a candidate of every anchor.
            complete_everywhere: Whether complete samples are completed too.
        """
        hp = self.parameters_
        encoded = self.encode(features, available)
        graph, enhanced = self.enhance(encoded)
        prototypes = self.prototypes()
        there = torch.cat([encoded.available, encoded.valid[None]])
        global_features = self.global_features(encoded, enhanced)
        if hp.local_feature == "enhanced":
            local = torch.where(encoded.available[..., None], enhanced, 0.0)
        else:
            local = encoded.features
        levels = torch.cat([local, global_features[None]])
        similarities = similarity(levels, prototypes, self._entropies(encoded), hp.lambda_entropy)
        candidates = there[..., None].expand(similarities.shape)
        if hp.anchor_candidates == "label" and labels is not None:
            classes = torch.arange(similarities.shape[-1], device=labels.device)
            candidates = candidates & (labels[:, None] == classes)
        selection = select(similarities, candidates, hp.top_k)
        own = anchors(levels, selection)
        # Without stored anchors (published) a class without candidates keeps the zero anchor.
        stored = hp.outside_training == "bank"
        every = self.memory.complete(own, selection.found) if stored else own
        completion = self.complete(encoded, prototypes[-1], complete_everywhere)
        compensated = compensate(global_features, completion, encoded.incomplete, hp.completion_weight)
        return Pass(
            encoded=encoded,
            graph=graph,
            enhanced=enhanced,
            prototypes=prototypes,
            features=levels,
            there=there,
            similarities=similarities,
            selection=selection,
            anchors=every,
            log_q=log_distribution(levels, every, hp.temperature, hp.similarity),
            completion=completion,
            compensated=compensated,
            log_probabilities=self.classify(compensated, every[-1]),
        )

    def _entropies(self, encoded: Encoded) -> Tensor:
        hp = self.parameters_
        if hp.entropy_of == "fusion_weights":
            weights = fusion_weights(encoded.available, hp.lambda_smooth)
            return entropy(weights.T).expand(len(encoded.available) + 1, -1)
        return entropy(torch.cat([encoded.log_p.exp(), encoded.fused_p[None]]))

    # Losses.

    def channel_losses(self, forward: Pass, labels: Tensor) -> dict[str, Tensor]:
        """All terms of section 4.5 and their weighted ``"total"``.

        Samples without any modality are left out of every term.
        """
        hp = self.parameters_
        encoded, there = forward.encoded, forward.there
        divergences = divergence(
            self._teachers(forward, labels), forward.log_q, hp.kl_direction, hp.similarity
        )
        completed = log_distribution(forward.completion, forward.anchors[-1], hp.temperature, hp.similarity)
        prompted = there[-1] & encoded.incomplete if hp.prompt_loss_on == "incomplete" else there[-1]
        prompt = divergence(self._prompt_teacher(forward), completed, hp.kl_direction, hp.similarity)
        sample_losses = classification_losses(forward.log_probabilities, labels, hp.classification_loss)
        at_label = labels.expand(len(encoded.available), -1)[..., None]
        unimodal = -encoded.log_p.gather(-1, at_label).squeeze(-1)
        losses = {
            "cls": masked_mean(sample_losses, there[-1]),
            "local": channel_loss(divergences[:-1], there[:-1], hp.similarity),
            "fusion": channel_loss(divergences[-1:], there[-1:], hp.similarity),
            "prompt": channel_loss(prompt[None], prompted[None], hp.similarity),
            "uni": channel_loss(unimodal, encoded.available, "cosine"),
        }
        weights = {
            "cls": 1.0,
            "local": hp.lambda_local,
            "fusion": hp.lambda_fusion,
            "prompt": hp.lambda_prompt,
            "uni": hp.lambda_uni,
        }
        if hp.lambda_proto:
            logits = cosine(encoded.features, forward.prototypes[:-1]) / hp.temperature
            tied = -torch.log_softmax(logits, dim=-1).gather(-1, at_label).squeeze(-1)
            losses["proto"] = channel_loss(tied, encoded.available, "cosine")
            weights["proto"] = hp.lambda_proto
        # A term of weight 0 stays out: its parameters get no gradient and no weight decay.
        total = torch.stack([weight * losses[name] for name, weight in weights.items() if weight]).sum()
        return losses | {"total": total}

    def _teachers(self, forward: Pass, labels: Tensor) -> Tensor:
        hp = self.parameters_
        if hp.teacher == "self":
            return forward.log_q.detach()
        of = forward.anchors if hp.teacher == "anchor" else forward.prototypes
        per_class = log_distribution(of, forward.anchors, hp.temperature, hp.similarity)
        return per_class.detach()[:, labels]

    def _prompt_teacher(self, forward: Pass) -> Tensor:
        hp = self.parameters_
        global_anchors = forward.anchors[-1]
        if hp.prompt_teacher == "mean_attached":
            encoded = forward.encoded
            mean = encoded.features.sum(dim=0) / encoded.available.sum(dim=0).clamp(min=1)[:, None]
            return log_distribution(mean, global_anchors, hp.temperature, hp.similarity)
        return log_distribution(forward.enhanced, global_anchors, hp.temperature, hp.similarity).detach()

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The losses of a training batch; in training mode the stored anchors move with it."""
        labels = self._classes(batch)
        forward = self.analyse(batch.features, batch.available, labels)
        if self.training:
            self.memory.update(forward.anchors, forward.selection.found)
        return self.channel_losses(forward, labels)

    def _classes(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise ValueError("AD-MCPD: a training batch needs labels")
        if self.spec.task == "regression":
            return sentiment_classes(batch.labels, self.parameters_.neutral_band)
        return batch.labels.long()

    # Evaluation.

    def before_evaluation(self, training: TrainingData) -> None:
        """Recomputes the support bank and the fused level's prototypes."""
        if self.parameters_.outside_training == "batch":
            return
        self.fused_prototypes.copy_(self.prototypes()[-1])
        generator = self.services.generator("support bank")
        batch = training.sample(self.bank.size, generator, balanced=True)
        encoded = _padded(self.encode(batch.features, batch.available), self.bank.size)
        self.bank.fill(self.graph(encoded))

    def predict(self, batch: Batch) -> Prediction:
        """Class probabilities; ``hidden`` is the compensated representation ubar.

        Raises:
            ValueError: An utterance has no modality at all.
            RuntimeError: No support bank has been built yet.
        """
        hp = self.parameters_
        nothing = ~batch.available.any(dim=-1)
        if nothing.any():
            rows = batch.rows[nothing].tolist()
            raise ValueError(f"AD-MCPD cannot predict utterances without any modality: rows {rows}")
        if hp.outside_training == "batch":
            forward = self.analyse(batch.features, batch.available, None, complete_everywhere=False)
            return Prediction(probabilities=forward.log_probabilities.exp(), hidden=forward.compensated)
        if not self.bank.ready:
            raise RuntimeError("AD-MCPD: before_evaluation has not built the support bank yet")
        encoded = self.encode(batch.features, batch.available)
        features = self.global_features(encoded, self.enhance_alone(encoded))
        completion = self.complete(encoded, self.fused_prototypes, everywhere=False)
        compensated = compensate(features, completion, encoded.incomplete, hp.completion_weight)
        log_probabilities = self.classify(compensated, self.memory.values[-1])
        return Prediction(probabilities=log_probabilities.exp(), hidden=compensated)

    # Optimisation.

    def start_stage(self, plan: StagePlan) -> None:
        """Fresh optimiser, and a learning rate that halves every ten epochs."""
        super().start_stage(plan)
        self.schedulers = [
            torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
            for optimizer in self.optimizers
        ]

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """One optimiser over all trainable parameters."""
        hp = self.parameters_
        kind = torch.optim.AdamW if hp.optimizer == "adamw" else torch.optim.Adam
        trainable = [p for p in self.parameters() if p.requires_grad]
        return [kind(trainable, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)]

    def end_epoch(self, epoch: int, validation: Mapping[str, float]) -> None:
        """Steps the learning rate."""
        for scheduler in self.schedulers:
            scheduler.step()

    def log(self) -> Mapping[str, float | Tensor]:
        """Cosines between the stored global anchors ``[C, C]``."""
        return {"anchor_cosine": cosine(self.memory.values[-1], self.memory.values[-1])}


def _padded(encoded: Encoded, size: int) -> Encoded:
    """Fills up with samples that have no modality and so no edges."""
    short = size - len(encoded.fused)
    if short <= 0:
        return encoded

    def rows(values: Tensor, dim: int) -> Tensor:
        shape = list(values.shape)
        shape[dim] = short
        return torch.cat([values, values.new_zeros(shape)], dim=dim)

    return Encoded(
        features=rows(encoded.features, 1),
        log_p=rows(encoded.log_p, 1),
        available=rows(encoded.available, 1),
        fused=rows(encoded.fused, 0),
        fused_p=rows(encoded.fused_p, 0),
    )
