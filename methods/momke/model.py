"""The network of MoMKE and its two stages of training."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Method, Services, Stage, StagePlan
from ...harness.spec import DataSpec
from .._blocks import (
    MLP,
    DialogueKeys,
    JointHead,
    ModalityTransformer,
    availability,
    modality_order,
    task_metrics,
)
from .info import MoMKEParameters

Phase = Literal["experts", "mixing"]


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


class MoMKE(Method[MoMKEParameters]):
    """Mixture of modality knowledge experts (Xu et al., 2024).

    Stage 1 trains one expert per modality on its own. In stage 2 the utterances of an available
    modality pass through all experts, a router weighs their outputs for every utterance, and the
    joint head reads the concatenation over modalities. One Adam serves both stages.

    Args:
        spec: Shape of the data. One-utterance dialogues make attention trivial, which is warned of.
        parameters: Hyper-parameters.
        services: Not used.
    """

    def __init__(self, spec: DataSpec, parameters: MoMKEParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        if spec.longest_dialogue == 1:
            warnings.warn(f"MoMKE on {spec.name!r}: no dialogues, attention is trivial", stacklevel=2)
        self.names = modality_order(spec)
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
        self.phase: Phase = "experts" if hp.expert_epochs else "mixing"
        self._best: dict[str, Any] = {}
        self._routing = _Routing(len(self.names))

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
        if self.phase == "experts":
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
        if self.phase == "experts":
            experts = self.expert_states(batch)
            hidden, outputs = self.joint(experts.experts, experts.valid)
        else:
            states = self.mixed_states(batch)
            hidden, outputs = self.joint(states.mixed, states.valid)
            self._routing.add(states.weights, states.valid)
        prediction = prediction_from_outputs(outputs, self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden)

    # Stages.

    def stages(self) -> tuple[Stage, ...]:
        """Experts alone, then experts mixed; cut where the tested model may first come from."""
        hp = self.parameters_
        border = hp.expert_epochs
        first = border if hp.select_from_epoch is None else hp.select_from_epoch
        cuts = sorted({0, border, min(first, hp.epochs), hp.epochs})
        return tuple(
            Stage(
                name="experts" if start < border else "mixing",
                epochs=end - start,
                data=hp.stage1_data if start < border else "schedule",
                select=start >= first,
                patience=hp.patience if start >= max(border, first) else None,
            )
            for start, end in pairwise(cuts)
        )

    def start_stage(self, plan: StagePlan) -> None:
        """Builds the optimiser once; the mixing stage keeps its moments unless told otherwise."""
        begins = self.phase != plan.stage.name
        self.phase = cast(Phase, plan.stage.name)
        frozen = self.phase == "mixing" and self.parameters_.freeze_experts
        self.experts.requires_grad_(not frozen)
        if plan.index == 0 or (begins and self.parameters_.reset_optimizer):
            self.optimizers = self.build_optimizers(plan)

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """One Adam over all parameters; those without a gradient do not move."""
        hp = self.parameters_
        return [torch.optim.Adam(self.parameters(), lr=hp.lr, weight_decay=hp.weight_decay)]

    def _expert_parts(self, name: str) -> nn.ModuleList:
        return nn.ModuleList([self.projections[name], self.experts[name], self.unimodal_heads[name]])

    def start_epoch(self, epoch: int) -> None:
        """Starts the epoch's statistics of the routers."""
        self._routing = _Routing(len(self.names))

    def validation_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Loss and accuracy (regression: mean absolute error) of each unimodal head in stage 1."""
        if self.phase != "experts":
            return {}
        assert batch.labels is not None
        states = self.expert_states(batch)
        regression = self.spec.task == "regression"
        measure = "error" if regression else "accuracy"
        found = {f"expert_{name}": loss for name, loss in self.expert_losses(states, batch).items()}
        for name, outputs, here in zip(self.names, states.unimodal, states.valid, strict=True):
            found[f"expert_{name}_{measure}"] = task_metrics(outputs, batch.labels, here, regression)
        return found

    def end_epoch(self, epoch: int, validation: Mapping[str, float]) -> None:
        """Keeps each expert of its best validation loss, if they are to be restored."""
        if self.phase != "experts" or self.parameters_.expert_restore == "none":
            return
        for name in self.names:
            loss = validation.get(f"loss/expert_{name}", math.nan)
            if loss < self._best.get(name, {"loss": math.inf})["loss"]:
                state = copy.deepcopy(self._expert_parts(name).state_dict())
                self._best[name] = {"loss": loss, "state": dict(state)}

    def end_stage(self, plan: StagePlan) -> None:
        """Restores the best experts at the end of stage 1 and clears their optimiser state."""
        following = self.stages()[plan.index + 1 :]
        if self.phase != "experts" or not following or following[0].name == "experts":
            return
        for name, best in self._best.items():
            parts = self._expert_parts(name)
            parts.load_state_dict(best["state"])
            for parameter in parts.parameters():
                for optimizer in self.optimizers:
                    optimizer.state.pop(parameter, None)
        self._best = {}

    def log(self) -> Mapping[str, float | Tensor]:
        """Mean router weights of the validation pass, in all and by availability pattern."""
        return self._routing.summary() if self.phase == "mixing" else {}

    # What a killed run needs beside the weights, and what belongs to a chosen model.

    def training_state(self) -> dict[str, Any]:
        """The optimiser, and the best experts so far."""
        return {**super().training_state(), "best": self._best}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``training_state``."""
        super().load_training_state(state)
        self._best = dict(state["best"])

    def get_extra_state(self) -> Tensor:
        """The stage the weights belong to, for a model that is chosen from stage 1."""
        return torch.tensor(self.phase == "mixing")

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the stage the weights belong to."""
        self.phase = "mixing" if bool(state) else "experts"


class _Routing:
    """Sums of router weights, by availability pattern, without reading the device.

    A pattern is a number whose bit ``m`` is set if modality ``m`` is there.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.sums: Tensor | None = None

    def add(self, weights: Tensor, valid: Tensor) -> None:
        """Adds router weights ``[M, B, S, E]`` where ``valid`` ``[M, B, S]``."""
        bits = 2 ** torch.arange(self.count, device=valid.device)
        pattern = (valid * bits[:, None, None]).sum(dim=0).flatten()
        weights = weights.detach().float()
        terms = torch.where(
            valid[..., None], torch.cat([weights, torch.ones_like(weights[..., :1])], -1), 0.0
        )
        terms = terms.permute(1, 2, 0, 3).flatten(0, 1)
        if self.sums is None:
            self.sums = torch.zeros(2**self.count, *terms.shape[1:], device=valid.device)
        self.sums.index_add_(0, pattern, terms)

    def summary(self) -> dict[str, float | Tensor]:
        """``router_weights`` [M, E], ``own_expert_share``, ``router_weights_by_pattern`` [2^M, M, E].

        Patterns that do not occur have zeros.
        """
        if self.sums is None:
            return {}
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
