"""The network of MoMKE and its two stages of training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Services, StagePlan
from ...harness.spec import DataSpec
from .._blocks import (
    MLP,
    DialogueKeys,
    JointHead,
    ModalityTransformer,
    availability,
    task_metrics,
)
from .._two_stage import TwoStageMethod
from .info import MoMKEParameters


@dataclass(frozen=True)
class ExpertStates:
    """What the first stage computes; M modalities in alphabetical order.

    Attributes:
        valid: ``[M, B, S]`` bool, real utterances that have the modality.
        projected: P, ``[M, B, S, D]``.
        experts: h_m = E_m(P_m), ``[M, B, S, D]``.
        unimodal: Outputs of the unimodal heads, ``[M, B, S, K]``.
    """

    valid: Tensor
    projected: Tensor
    experts: Tensor
    unimodal: Tensor


@dataclass(frozen=True)
class MixedStates:
    """What the second stage computes; M modalities, each through E = M experts.

    Attributes:
        valid: ``[M, B, S]`` bool, real utterances that have the modality.
        projected: P, ``[M, B, S, D]``.
        experts: r_{m,e} = E_e(P_m), ``[M, E, B, S, D]``; where the router never asks for an
            expert (``"own"``, ``"others"``) its part is zero.
        weights: Router weights over the experts, ``[M, B, S, E]``.
        mixed: R_m, ``[M, B, S, D]``, zero where the modality is not valid.
    """

    valid: Tensor
    projected: Tensor
    experts: Tensor
    weights: Tensor
    mixed: Tensor


class MoMKE(TwoStageMethod[MoMKEParameters]):
    """Mixture of modality knowledge experts (Xu et al., 2024).

    Stage 1 trains one expert per modality on its own. In stage 2 the utterances of an available
    modality pass through all experts, a router weighs their outputs for every utterance, and the
    joint head reads the concatenation over modalities. One Adam serves both stages.

    Args:
        spec: Shape of the data. One-utterance dialogues make attention trivial, which is warned of.
        parameters: Hyper-parameters.
        services: Not used.
    """

    stage_names = ("experts", "mixing")

    def __init__(self, spec: DataSpec, parameters: MoMKEParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        if spec.longest_dialogue == 1:
            warnings.warn(f"MoMKE on {spec.name!r}: no dialogues, attention is trivial", stacklevel=2)
        inner = int(hp.hidden * hp.mlp_ratio)
        self.projections = nn.ModuleDict({name: nn.Linear(spec.dims[name], hp.hidden) for name in self.names})
        self.experts = nn.ModuleDict(
            {
                name: ModalityTransformer(
                    hp.depth, hp.hidden, hp.heads, inner, hp.dropout, hp.attention_dropout
                )
                for name in self.names
            }
        )
        self.unimodal_heads = nn.ModuleDict({name: nn.Linear(hp.hidden, spec.outputs) for name in self.names})
        self.routers = nn.ModuleDict()
        if hp.router in ("soft", "hard"):
            drop = hp.dropout if hp.router_dropout is None else hp.router_dropout
            for name in self.names if hp.router_scope == "per_modality" else ("all",):
                self.routers[name] = MLP(hp.hidden, inner, len(self.names), hp.dropout, drop)
        self.joint_head = JointHead(len(self.names) * hp.hidden, spec.outputs, hp.dropout)
        self.dropout = nn.Dropout(hp.dropout)
        self.routing = _Routing(len(self.names))

    # The network.

    def _project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """P ``[M, B, S, D]`` and validity ``[M, B, S]``; an absent row becomes the bias."""
        valid = availability(batch, self.spec, self.names)
        projected = [
            self.projections[name](torch.where(here[..., None], batch.features[name], 0.0))
            for name, here in zip(self.names, valid, strict=True)
        ]
        return self.dropout(torch.stack(projected)), valid

    def expert_states(self, batch: Batch) -> ExpertStates:
        """Stage 1: every modality through its own expert."""
        projected, valid = self._project(batch)
        experts = [
            self.experts[name](projected[index], DialogueKeys(valid[index]))
            for index, name in enumerate(self.names)
        ]
        unimodal = [self.unimodal_heads[name](h) for name, h in zip(self.names, experts, strict=True)]
        return ExpertStates(valid, projected, torch.stack(experts), torch.stack(unimodal))

    def mixed_states(self, batch: Batch) -> MixedStates:
        """Stage 2: every modality through all experts, weighed by its router.

        Keys are masked by the modality of the TOKENS, whatever expert reads them.
        """
        projected, valid = self._project(batch)
        count = len(self.names)
        passed: list[Tensor] = []
        for index, name in enumerate(self.names):
            asked = [m for m in range(count) if self._asks(m, index)]
            tokens = torch.cat([projected[m] for m in asked])
            keys = DialogueKeys(torch.cat([valid[m] for m in asked]))
            results = iter(self.experts[name](tokens, keys).unflatten(0, (len(asked), -1)))
            idle = torch.zeros_like(projected[0])
            passed.append(torch.stack([next(results) if m in asked else idle for m in range(count)]))
        experts = torch.stack(passed, dim=1)
        weights = self._weights(projected)
        mixed = torch.einsum("mbse,mebsd->mbsd", weights, experts)
        return MixedStates(valid, projected, experts, weights, torch.where(valid[..., None], mixed, 0.0))

    def _asks(self, modality: int, expert: int) -> bool:
        router = self.parameters_.router
        if router == "own":
            return modality == expert
        return router != "others" or modality != expert

    def _weights(self, projected: Tensor) -> Tensor:
        """Router weights ``[M, B, S, E]``."""
        hp, count = self.parameters_, len(self.names)
        if not self.routers:
            own = torch.eye(count, dtype=projected.dtype, device=projected.device)
            fixed = {
                "uniform": torch.full_like(own, 1 / count),
                "own": own,
                "others": (1 - own) / (count - 1),
            }[hp.router]
            return fixed[:, None, None, :].expand(*projected.shape[:-1], count)
        if hp.router_scope == "shared":
            logits = self.routers["all"](projected)
        else:
            logits = torch.stack([self.routers[n](p) for n, p in zip(self.names, projected, strict=True)])
        soft = logits.softmax(dim=-1)
        if hp.router == "soft":
            return soft
        hard = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft

    def joint(self, representations: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden state and outputs of the joint head for ``[M, B, S, D]``, zero where not valid."""
        kept = torch.where(valid[..., None], representations, 0.0)
        return self.joint_head(kept.movedim(0, -2).flatten(-2))

    # Losses and predictions.

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Stage 1: the sum of the experts' task losses. Stage 2: the task loss of the joint head."""
        assert batch.labels is not None
        if self.first_stage:
            terms = self.expert_losses(self.expert_states(batch), batch)
            return {"total": torch.stack(list(terms.values())).sum(), **terms}
        states = self.mixed_states(batch)
        _, outputs = self.joint(states.mixed, states.valid)
        return {"total": task_loss(outputs, batch.labels, batch.real, self.spec.task)}

    def expert_losses(self, states: ExpertStates, batch: Batch) -> dict[str, Tensor]:
        """Task loss of each expert, over the utterances that have its modality.

        The released code counts all real utterances, which is the same on complete data (D6 of the
        specification): without it an expert would learn labels from zero vectors.
        """
        assert batch.labels is not None
        return {
            name: task_loss(outputs, batch.labels, here, self.spec.task)
            for name, outputs, here in zip(self.names, states.unimodal, states.valid, strict=True)
        }

    def predict(self, batch: Batch) -> Prediction:
        """The joint head; in stage 1 on the experts' own representations, untrained as it is then."""
        if self.first_stage:
            experts = self.expert_states(batch)
            hidden, outputs = self.joint(experts.experts, experts.valid)
        else:
            states = self.mixed_states(batch)
            hidden, outputs = self.joint(states.mixed, states.valid)
            self.routing.add(states.weights, states.valid)
        prediction = prediction_from_outputs(outputs, self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden)

    # Stages.

    def first_stage_data(self) -> Literal["schedule", "complete"]:
        """What the schedule leaves, or everything (privileged)."""
        return self.parameters_.stage1_data

    def keeps_optimizer(self) -> bool:
        """The released code never builds a second one."""
        return not self.parameters_.reset_optimizer

    def restored_parts(self, name: str) -> Iterator[tuple[str, nn.Module]]:
        """Projection, expert and head of a modality, if its best expert is to be restored."""
        if self.parameters_.expert_restore == "best":
            yield "projection", self.projections[name]
            yield "expert", self.experts[name]
            yield "head", self.unimodal_heads[name]

    def start_stage(self, plan: StagePlan) -> None:
        """Freezes the experts in the second stage, if they are to stand still."""
        super().start_stage(plan)
        self.experts.requires_grad_(self.first_stage or not self.parameters_.freeze_experts)

    def start_epoch(self, epoch: int) -> None:
        """Starts the epoch's statistics of the routers."""
        self.routing.sums.zero_()

    def unimodal(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Loss of each expert, and accuracy or error of its head, where its modality is there."""
        assert batch.labels is not None
        states = self.expert_states(batch)
        losses = self.expert_losses(states, batch)
        regression = self.spec.task == "regression"
        return {
            name: (losses[name], task_metrics(outputs, batch.labels, here, regression))
            for name, outputs, here in zip(self.names, states.unimodal, states.valid, strict=True)
        }

    def log(self) -> Mapping[str, float | Tensor]:
        """Mean router weights of the validation pass, in all and by availability pattern."""
        return self.routing.summary() if not self.first_stage else {}


class _Routing(nn.Module):
    """Sums of router weights, by availability pattern, without reading the device.

    A pattern is a number whose bit ``m`` is set if modality ``m`` is there.
    """

    sums: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        # For every pattern and modality: weights of the experts, and the number of utterances.
        self.register_buffer("sums", torch.zeros(2**count, count, count + 1), persistent=False)

    def add(self, weights: Tensor, valid: Tensor) -> None:
        """Adds router weights ``[M, B, S, E]`` where ``valid`` ``[M, B, S]``."""
        bits = 2 ** torch.arange(self.count, device=valid.device)
        pattern = (valid * bits[:, None, None]).sum(dim=0).flatten()
        weights = weights.detach().float()
        terms = torch.where(
            valid[..., None], torch.cat([weights, torch.ones_like(weights[..., :1])], -1), 0.0
        )
        terms = terms.permute(1, 2, 0, 3).flatten(0, 1)
        self.sums.index_add_(0, pattern, terms)

    def summary(self) -> dict[str, float | Tensor]:
        """``router_weights`` [M, E], ``own_expert_share``, ``router_weights_by_pattern`` [2^M, M, E].

        Patterns that do not occur have zeros.
        """
        total = self.sums.sum(dim=0)
        mean = _mean(total)
        own = total[..., :-1].diagonal().sum() / total[..., -1].sum().clamp(min=1)
        return {
            "router_weights": mean,
            "own_expert_share": own,
            "router_weights_by_pattern": _mean(self.sums),
        }


def _mean(sums: Tensor) -> Tensor:
    return sums[..., :-1] / sums[..., -1:].clamp(min=1)
