"""The network of ComP and its two stages of training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Services
from ...harness.spec import DataSpec
from .._blocks import MLP, DialogueKeys, JointHead, ModalityTransformer, availability, task_metrics
from .._two_stage import TwoStageMethod
from .info import ComPParameters
from .losses import Modulation, disentangling, modulation, noise_target, private_loss, reconstruction
from .prompting import PromptBlock, PromptRule, PrototypeGenerator


@dataclass(frozen=True)
class Encoded:
    """What both stages start from; M modalities in alphabetical order, dialogues padded to S.

    Attributes:
        real: ``[B, S]`` bool.
        valid: ``[M, B, S]`` bool, real utterances that have the modality.
        projected: P, ``[M, B, S, D]``.
        shared: Z, ``[M, B, S, D]``.
        private: R, ``[M, B, S, D]``.
    """

    real: Tensor
    valid: Tensor
    projected: Tensor
    shared: Tensor
    private: Tensor


@dataclass(frozen=True)
class ModalityStates:
    """What the first stage computes.

    Attributes:
        first: Output of the first stack on Z, ``[M, B, S, D]``.
        second: Output of the second stack on Z, ``[M, B, S, D]``.
        unimodal: Outputs of the heads, ``[M, B, S, K]``.
        private: Outputs of the heads on the private features, ``[M, B, S, K]``; ``None`` outside
            the losses.
    """

    first: Tensor
    second: Tensor
    unimodal: Tensor
    private: Tensor | None


@dataclass(frozen=True)
class Propagation:
    """How modalities prompted each other in the second stage.

    Attributes:
        prototypes: A, ``[M, B, c, D]``; ``None`` without prototypes.
        fresh: Prompts of the first block, ``[M, B, S, p]``.
        renewed: Prompts of the second block, ``[M, B, S, p]``.
        fused: Inputs of the two stacks, ``[2, M, B, S, D]``.
        first: Output of the first stack, ``[M, B, S, D]``.
        back: Features and prompts given back, ``[M, B, S, D + (M - 1) p]``.
    """

    prototypes: Tensor | None
    fresh: Tensor
    renewed: Tensor
    fused: Tensor
    first: Tensor
    back: Tensor


@dataclass(frozen=True)
class PromptedStates:
    """What the second stage computes.

    Attributes:
        propagation: The prompting; ``None`` without it.
        modalities: E, ``[M, B, S, D]``.
        unimodal: Outputs of the heads, ``[M, B, S, K]``.
        weights: ω of the coordinator, ``[B, S, M]``; ones without it.
        hidden: ``[B, S, M D]``.
        outputs: Joint outputs, ``[B, S, K]``.
    """

    propagation: Propagation | None
    modalities: Tensor
    unimodal: Tensor
    weights: Tensor
    hidden: Tensor
    outputs: Tensor


class ComP(TwoStageMethod[ComPParameters]):
    """Cross-modal prompting (He et al., 2026).

    Stage 1 disentangles every modality into shared and private features and trains a transformer
    of its own on the shared ones. In stage 2 modalities send each other prompts, read from
    prototypes of the dialogue, before each of two transformer stacks, and a coordinator weighs them
    before the joint head. A gradient modulator slows the prototypes of the modality that does
    better on an utterance.

    Args:
        spec: Shape of the data. One-utterance dialogues make attention and prototypes trivial,
            which is warned of.
        parameters: Hyper-parameters.
        services: Not used; the noise of the private heads comes from torch's global generator.

    Raises:
        ValueError: ``sequence_length`` is shorter than the longest dialogue.
    """

    stage_names = ("modalities", "prompting")
    gradient_scales: Tensor
    balance: Tensor

    def __init__(self, spec: DataSpec, parameters: ComPParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        if spec.longest_dialogue == 1:
            warnings.warn(
                f"ComP on {spec.name!r}: no dialogues, attention and prototypes are trivial", stacklevel=2
            )
        self.length = hp.sequence_length or spec.longest_dialogue
        if self.length < spec.longest_dialogue:
            raise ValueError(
                f"sequence_length ({self.length}) is below the longest dialogue of {spec.name!r} "
                f"({spec.longest_dialogue} utterances)"
            )
        count, width, drop = len(self.names), hp.hidden, hp.dropout

        def each(build: type[nn.Module], *args: object) -> nn.ModuleDict:
            return nn.ModuleDict({name: build(*args) for name in self.names})

        self.projections = nn.ModuleDict({name: nn.Linear(spec.dims[name], width) for name in self.names})
        self.shared = each(MLP, width, width, width, drop)
        self.private = each(MLP, width, width, width, drop)
        self.decoders = each(MLP, 2 * width, width, width, drop)
        stack = (hp.depth // 2, width, hp.heads, int(width * hp.mlp_ratio), drop, hp.attention_dropout)
        self.first_stacks = each(ModalityTransformer, *stack)
        self.second_stacks = each(ModalityTransformer, *stack)
        self.unimodal_heads = each(nn.Linear, width, spec.outputs)
        self.prompted = width + (count - 1) * hp.prompt_dim
        if hp.prompts:
            self.first_prompts = each(PromptBlock, width, hp.prompt_dim, drop, hp.pg)
            self.second_prompts = each(PromptBlock, width, hp.prompt_dim, drop, hp.pg)
            self.first_fusion = each(nn.Linear, self.prompted, width)
            self.second_fusion = each(nn.Linear, self.prompted, width)
            self.giving_back = each(MLP, width, width, self.prompted, drop)
        if hp.prototypes:
            self.generators = each(PrototypeGenerator, self.length, hp.n_proto, drop)
        self.coordinator = MLP(count * width, width, count, drop) if hp.coordinator else None
        self.joint_head = JointHead(count * width, spec.outputs, drop)
        self.dropout = nn.Dropout(drop)
        # Kept from call to call: what the modulator found, sums of the coordinator's weights.
        self.register_buffer("gradient_scales", torch.ones(count, self.length), persistent=False)
        self.register_buffer("balance", torch.zeros(count + 1), persistent=False)

    # The network.

    def _each(self, modules: nn.ModuleDict, values: Tensor, *args: Tensor) -> Tensor:
        """Every modality's part of ``modules`` on its part of the values, stacked."""
        rows = zip(self.names, values, *args, strict=True)
        return torch.stack([modules[name](*row) for name, *row in rows])

    def fitted(self, values: Tensor, axis: int = 1) -> Tensor:
        """Pads (with zeros) or cuts the utterance axis of a batch to S."""
        missing = self.length - values.shape[axis]
        if missing <= 0:
            return values.narrow(axis, 0, self.length)
        return functional.pad(values, [0, 0] * (values.dim() - 1 - axis) + [0, missing])

    def encode(self, batch: Batch) -> Encoded:
        """Projection and disentangling (3.1); an absent or padded row becomes the bias."""
        if max(batch.lengths) > self.length:
            raise ValueError(f"a dialogue of {max(batch.lengths)} utterances, longer than S = {self.length}")
        real = self.fitted(batch.real)
        valid = self.fitted(availability(batch, self.spec, self.names), axis=2)
        projected = [
            self.projections[name](torch.where(here[..., None], self.fitted(batch.features[name]), 0.0))
            for name, here in zip(self.names, valid, strict=True)
        ]
        stacked = self.dropout(torch.stack(projected))
        return Encoded(
            real, valid, stacked, self._each(self.shared, stacked), self._each(self.private, stacked)
        )

    def decode(self, encoded: Encoded) -> Tensor:
        """Reconstruction P̂ of the projections from shared and private features, ``[M, B, S, D]``."""
        return self._each(self.decoders, torch.cat([encoded.shared, encoded.private], dim=-1))

    def modality_states(self, encoded: Encoded, private: bool) -> ModalityStates:
        """Stage 1 (3.3): each modality's transformers on its shared, and on private features."""
        size = encoded.real.shape[0]
        source = encoded.private
        if self.parameters_.private_source == "audio":
            source = source[:1].expand_as(source)
        inputs = torch.cat([encoded.shared, source], dim=1) if private else encoded.shared
        first: list[Tensor] = []
        second: list[Tensor] = []
        for name, x, here in zip(self.names, inputs, encoded.valid, strict=True):
            keys = DialogueKeys(here.repeat(2, 1) if private else here)
            first.append(self.first_stacks[name](x, keys))
            second.append(self.second_stacks[name](first[-1], keys))
        states = torch.stack(second)
        outputs = self._each(self.unimodal_heads, states)
        return ModalityStates(
            torch.stack(first)[:, :size],
            states[:, :size],
            outputs[:, :size],
            outputs[:, size:] if private else None,
        )

    def first_joint(self, encoded: Encoded, states: ModalityStates) -> tuple[Tensor, Tensor]:
        """Joint head of stage 1, on what is there; it has no loss there."""
        kept = torch.where(encoded.valid[..., None], states.second, 0.0)
        return self.joint_head(_concatenated(kept))

    def prompted_states(self, encoded: Encoded) -> PromptedStates:
        """Stage 2 (3.4): propagation, coordinator, joint head."""
        hp = self.parameters_
        propagation, modalities = None, encoded.shared
        if hp.prompts:
            propagation, modalities = self._propagate(encoded)
        elif hp.kp == "no_prompt":
            modalities = self.modality_states(encoded, private=False).second
        if self.coordinator is None:
            weights = torch.ones(*encoded.real.shape, len(self.names), device=modalities.device)
        else:
            weights = self.coordinator(_concatenated(modalities)).softmax(dim=-1)
        weighed = modalities * weights.movedim(-1, 0)[..., None]
        hidden, outputs = self.joint_head(_concatenated(weighed))
        unimodal = self._each(self.unimodal_heads, modalities)
        return PromptedStates(propagation, modalities, unimodal, weights, hidden, outputs)

    def _propagate(self, encoded: Encoded) -> tuple[Propagation, Tensor]:
        hp, rule = self.parameters_, self._rule()
        keys = [DialogueKeys(here) for here in encoded.valid]
        prototypes = None
        if hp.prototypes:
            source = encoded.shared
            if hp.prototype_input_mask:
                source = torch.where(encoded.valid[..., None], source, 0.0)
            prototypes = self._each(self.generators, source)

        def prompts(blocks: nn.ModuleDict, features: Tensor) -> Tensor:
            known = [None] * len(self.names) if prototypes is None else prototypes
            rows = zip(self.names, features, known, encoded.valid, strict=True)
            return torch.stack([blocks[name](x, a, here, rule) for name, x, a, here in rows])

        fresh = prompts(self.first_prompts, encoded.shared)
        sent = self._received(fresh)
        fused_first = self._each(self.first_fusion, torch.cat([encoded.shared, sent], dim=-1))
        first = self._stacked(self.first_stacks, fused_first, keys)
        back = self._each(self.giving_back, first)
        features, carried = back.split([hp.hidden, self.prompted - hp.hidden], dim=-1)
        renewed = prompts(self.second_prompts, features)
        momentum = hp.lbd if hp.pg else 0.0
        mixed = momentum * carried + (1 - momentum) * self._received(renewed)
        fused_second = self._each(self.second_fusion, torch.cat([features, mixed], dim=-1))
        second = self._stacked(self.second_stacks, fused_second, keys)
        fused = torch.stack([fused_first, fused_second])
        return Propagation(prototypes, fresh, renewed, fused, first, back), second

    def _stacked(self, stacks: nn.ModuleDict, values: Tensor, keys: list[DialogueKeys]) -> Tensor:
        return torch.stack([stacks[n](x, k) for n, x, k in zip(self.names, values, keys, strict=True)])

    def _received(self, prompts: Tensor) -> Tensor:
        """Prompts that each modality gets from the others in alphabetical order, ``[M, B, S, (M-1) p]``."""
        count = len(self.names)
        return torch.stack(
            [torch.cat([prompts[v] for v in range(count) if v != u], dim=-1) for u in range(count)]
        )

    def _rule(self) -> PromptRule:
        hp = self.parameters_
        scope = hp.prototype_scope
        if not self.training and hp.evaluation_scope != "same":
            scope = hp.evaluation_scope
        return PromptRule(scope == "batch", hp.prompt_missing == "zero_readout", hp.mask_quirk)

    # Losses.

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Total and terms of the current stage (section 4)."""
        encoded = self.encode(batch)
        if self.first_stage:
            return self.first_losses(batch, encoded, self.modality_states(encoded, private=True))
        states = self.prompted_states(encoded)
        losses = self.second_losses(batch, encoded, states)
        if self.training and self._modulated:
            with torch.no_grad():
                found = self.modulation(batch, encoded, states)
                self.gradient_scales.copy_(found.scale())
            losses["gm_clipped"] = found.clipped
        return losses

    def labels(self, batch: Batch) -> Tensor:
        """Labels, padded to S."""
        assert batch.labels is not None
        return self.fitted(batch.labels)

    def _shared_terms(self, encoded: Encoded) -> dict[str, Tensor]:
        counted = self.counted(encoded)
        pairs = disentangling(encoded.shared, encoded.private, encoded.real, counted)
        return {"disentangle": torch.stack([pair.total for pair in pairs.values()]).sum()}

    def counted(self, encoded: Encoded) -> Tensor:
        """Positions that reconstruction and divergence average over, ``[B, S]`` bool."""
        published = self.parameters_.loss_mask == "published"
        return torch.ones_like(encoded.real) if published else encoded.real

    def unimodal_losses(self, outputs: Tensor, labels: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Task loss of each modality's head over real utterances, whatever is observed."""
        return {
            f"task_{name}": task_loss(one, labels, real, self.spec.task)
            for name, one in zip(self.names, outputs, strict=True)
        }

    def private_losses(self, outputs: Tensor, labels: Tensor, encoded: Encoded) -> dict[str, Tensor]:
        """Loss of each private head; ``labels`` is the noise for a regression."""
        uniform = self.parameters_.private_target == "uniform"
        return {
            f"private_{name}": private_loss(one, labels, encoded.real, self.spec.task, uniform)
            for name, one in zip(self.names, outputs, strict=True)
        }

    def first_losses(
        self, batch: Batch, encoded: Encoded, states: ModalityStates, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Heads, private heads and disentangling of stage 1.

        Args:
            batch: Labels.
            encoded: Projection and disentangling.
            states: Transformers.
            noise: ``[B, S]`` private target of a regression; drawn here if not given.
        """
        hp, labels = self.parameters_, self.labels(batch)
        assert states.private is not None
        target = labels
        if self.spec.task == "regression":
            target = self._noise(labels) if noise is None else noise
        tasks = self.unimodal_losses(states.unimodal, labels, encoded.real)
        private = self.private_losses(states.private, target, encoded)
        terms = {**tasks, **private, **self._shared_terms(encoded)}
        total = _sum(tasks) + hp.w_priv * _sum(private) + hp.w_dis * terms["disentangle"]
        if hp.rec_in_stage1:
            terms["rec"] = self.reconstruction_loss(encoded)
            total = total + hp.w_rec * terms["rec"]
        return {"total": total, **terms}

    def _noise(self, labels: Tensor) -> Tensor:
        low, high = self.spec.score_range or (-3.0, 3.0)
        return noise_target(tuple(labels.shape), labels.device, max(abs(low), abs(high)))

    def second_losses(self, batch: Batch, encoded: Encoded, states: PromptedStates) -> dict[str, Tensor]:
        """Joint head, heads, reconstruction and disentangling of stage 2."""
        hp, labels = self.parameters_, self.labels(batch)
        joint = task_loss(states.outputs, labels, encoded.real, self.spec.task)
        tasks = self.unimodal_losses(states.unimodal, labels, encoded.real)
        terms = {"task_joint": joint, **tasks, "rec": self.reconstruction_loss(encoded)}
        terms |= self._shared_terms(encoded)
        total = joint + hp.unimodal_weight * _sum(tasks)
        total = total + hp.w_rec * terms["rec"] + hp.w_dis * terms["disentangle"]
        return {"total": total, **terms}

    def reconstruction_loss(self, encoded: Encoded) -> Tensor:
        """L_rec."""
        return reconstruction(self.decode(encoded), encoded.projected, self.counted(encoded))

    # Training and prediction.

    def update(self) -> None:
        """In stage 2 the gradient modulator acts before the optimiser."""
        if self._modulated:
            self.scale_gradients(self.gradient_scales)
        super().update()

    @property
    def _modulated(self) -> bool:
        return not self.first_stage and self.parameters_.gm != "off" and self.parameters_.prototypes

    def modulation(self, batch: Batch, encoded: Encoded, states: PromptedStates) -> Modulation:
        """What the gradient modulator makes of the modalities' errors on a batch."""
        released = self.parameters_.gm == "released"
        return modulation(states.unimodal, self.labels(batch), encoded.real, self.spec.task, released)

    def scale_gradients(self, scales: Tensor) -> None:
        """Scales the gradient of the prototype generators' first layer by sequence position.

        Args:
            scales: ``[M, S]``.
        """
        for name, scale in zip(self.names, scales, strict=True):
            generator = self.generators[name]
            assert isinstance(generator, PrototypeGenerator)
            if generator.fc1.weight.grad is not None:
                generator.fc1.weight.grad.mul_(scale)

    def predict(self, batch: Batch) -> Prediction:
        """The joint head; in stage 1 untrained, as in the released code."""
        encoded = self.encode(batch)
        if self.first_stage:
            hidden, outputs = self.first_joint(encoded, self.modality_states(encoded, private=False))
        else:
            states = self.prompted_states(encoded)
            hidden, outputs = states.hidden, states.outputs
            counted = torch.where(encoded.real[..., None], states.weights.detach().float(), 0.0)
            self.balance.add_(torch.cat([counted.sum(dim=(0, 1)), encoded.real.sum()[None].float()]))
        size = batch.real.shape[1]
        if size > self.length:
            hidden, outputs = (
                functional.pad(values, [0, 0, 0, size - self.length]) for values in (hidden, outputs)
            )
        prediction = prediction_from_outputs(outputs[:, :size], self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden[:, :size])

    def unimodal(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Loss of each modality's head, and its accuracy or error, over real utterances."""
        encoded = self.encode(batch)
        outputs = self.modality_states(encoded, private=False).unimodal
        labels, real = self.labels(batch), encoded.real
        regression = self.spec.task == "regression"
        losses = self.unimodal_losses(outputs, labels, real)
        return {
            name: (losses[f"task_{name}"], task_metrics(one, labels, real, regression))
            for name, one in zip(self.names, outputs, strict=True)
        }

    def restored_parts(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """Both transformer stacks of a modality, if the best ones are to be reloaded."""
        if self.parameters_.stage1_reload:
            yield "first", self.first_stacks[name]
            yield "second", self.second_stacks[name]

    def start_epoch(self, epoch: int) -> None:
        """Starts the epoch's mean of the coordinator's weights."""
        self.balance.zero_()

    def log(self) -> Mapping[str, float | Tensor]:
        """Mean weight of each modality in the validation pass, in alphabetical order."""
        if self.first_stage:
            return {}
        return {"coordinator_weights": self.balance[:-1] / self.balance[-1].clamp(min=1)}


def _concatenated(values: Tensor) -> Tensor:
    """``[M, B, S, D]`` to ``[B, S, M D]``."""
    return values.movedim(0, -2).flatten(-2)


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
