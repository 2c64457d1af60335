"""MoMKE under the authors' names: their weights, and the components of the golden cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...harness.losses import task_loss
from ...harness.parity.contract import (
    Component,
    Outcome,
    Pass,
    ReferenceParameters,
    ReferenceServices,
    Request,
    load_reference,
    reference_module,
)
from .._blocks import ModalityTransformer
from .._reference import (
    CONSTRUCTOR,
    HYPER_PARAMETERS,
    LETTERS,
    check_letters,
    head_parameters,
    reference_batch,
    reference_metrics,
    reference_spec,
    transformer_parameters,
)
from .info import INFO, MoMKEParameters
from .model import MoMKE


def reference_parameters(method: MoMKE) -> ReferenceParameters:
    """The authors' parameters as parts of ours.

    Raises:
        ValueError: The modalities are not audio, text and vision, or the router is not the
            authors'.
    """
    check_letters(method.names)
    if set(method.routers) != set(method.names):
        raise ValueError("the authors' weights need a learned router for every modality")
    found = head_parameters(method.joint_head)
    for name, letter in LETTERS.items():
        expert = method.experts[name]
        assert isinstance(expert, ModalityTransformer)
        found |= transformer_parameters(f"block.blocks.{{}}.Transformer_{letter}", expert)
        found |= reference_module(f"{letter}_in_proj.0", method.projections[name])
        found |= reference_module(f"nlp_head_{letter}", method.unimodal_heads[name])
        found |= reference_module(f"router_{letter}", method.routers[name])
    return found


def load_reference_weights(method: MoMKE, state: Mapping[str, Tensor]) -> None:
    """Loads the authors' checkpoint: the dictionary under its key ``"model"``.

    Args:
        method: A network of the same sizes on audio, text and vision, in any order.
        state: Parameters by the authors' names.

    Raises:
        ParityError: A weight is missing, unknown, or of another shape.
    """
    load_reference(reference_parameters(method), state, allow_extra=False)


class _Stage(Component):
    """What both stages share: the network and its batches."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor(CONSTRUCTOR, required=CONSTRUCTOR)
        request.check_condition(LETTERS.values())
        sizes = {ours: request.constructor[theirs] for theirs, ours in HYPER_PARAMETERS.items()}
        hyper_parameters = request.hyper_parameters(INFO, MoMKEParameters, sizes)
        self.module = self.method = MoMKE(
            reference_spec(request, length=2), hyper_parameters, ReferenceServices()
        )

    def reference_parameters(self) -> ReferenceParameters:
        """The authors' parameters as parts of ours."""
        return reference_parameters(self.method)


class Stage1(_Stage):
    """Section 3.3: on complete data, whatever the masks of the case."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """States, losses and metrics of stage 1."""
        method = self.method
        method.first_stage = True
        complete = method.parameters_.stage1_data == "complete"
        batch = reference_batch(inputs, method.spec, self.request.condition, complete)
        assert batch.labels is not None
        states = method.expert_states(batch)
        hidden, logits = method.joint(states.experts, states.valid)
        losses = method.expert_losses(states, batch)
        total = torch.stack(list(losses.values())).sum()
        outputs = {"hidden": hidden, "logits": logits, "loss.total": total}
        outputs["loss.untrained_joint"] = task_loss(logits, batch.labels, batch.real, method.spec.task)
        for index, (name, letter) in enumerate(LETTERS.items()):
            outputs[f"proj_{letter}"] = states.projected[index]
            outputs[f"expert_{letter}"] = states.experts[index]
            outputs[f"logits_{letter}"] = states.unimodal[index]
            outputs[f"loss.task_{letter}"] = losses[name]
        return Outcome(outputs | reference_metrics(logits, states.unimodal, batch, method.spec), total)

    def collect(self, passes: Sequence[Pass]) -> Mapping[str, Tensor]:
        """Loss curve ``[epoch, batch, a|t|v]``."""
        terms = [
            torch.stack([one.outputs[f"loss.task_{letter}"] for letter in LETTERS.values()]) for one in passes
        ]
        return {f"loss.{self.request.section}": _by_epoch(terms, passes)}


class Stage2(_Stage):
    """Section 3.4: under the masks of the case or under one condition for all."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """States, loss and metrics of stage 2."""
        method = self.method
        method.first_stage = False
        batch = reference_batch(inputs, method.spec, self.request.condition, complete=False)
        assert batch.labels is not None
        states = method.mixed_states(batch)
        hidden, logits = method.joint(states.mixed, states.valid)
        total = task_loss(logits, batch.labels, batch.real, method.spec.task)
        outputs = {"hidden": hidden, "logits": logits, "loss.total": total, "loss.task_joint": total}
        for index, letter in enumerate(LETTERS.values()):
            outputs[f"proj_{letter}"] = states.projected[index]
            outputs[f"experts_{letter}"] = states.experts[index].permute(1, 2, 0, 3)
            outputs[f"router_weights_{letter}"] = states.weights[index]
            outputs[f"mixed_{letter}"] = states.mixed[index]
        return Outcome(outputs | reference_metrics(logits, logits[None], batch, method.spec), total)

    def collect(self, passes: Sequence[Pass]) -> Mapping[str, Tensor]:
        """Loss curve ``[epoch, batch]``, and logits of every batch under the section's condition."""
        found = {f"loss.{self.request.section}": _by_epoch([one.outputs["total"] for one in passes], passes)}
        condition = "".join(sorted(self.request.condition or ()))
        for one in passes:
            found[f"final.{one.prefix}logits.{condition}"] = one.outputs["logits"]
        return found


def _by_epoch(terms: list[Tensor], passes: Sequence[Pass]) -> Tensor:
    epochs = passes[-1].epoch + 1
    return torch.stack(terms).unflatten(0, (epochs, -1)) if len(terms) % epochs == 0 else torch.stack(terms)


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {"stage1": Stage1, "stage2": Stage2}
