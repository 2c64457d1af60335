"""ComP under the authors' names: their weights, and the components of the golden cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from itertools import combinations

import torch
from torch import Tensor, nn

from ...harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    ReferenceParameter,
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
from .info import INFO, ComPParameters
from .losses import disentangling
from .masks import released_mask
from .model import ComP, Encoded, PromptedStates

SIZES: Mapping[str, str] = {
    **HYPER_PARAMETERS,
    "lbd": "lbd",
    "seq_len": "sequence_length",
    "prompt_dim": "prompt_dim",
    "n_proto": "n_proto",
}
MASK_SIZES = frozenset({"rate", "rows", "views", "numpy_seed"})
# Parameters of the released network that nothing reads.
DEAD = ("prop_former_?_2.proj_n.*", "prop_proj_rev_?_2.*")
LETTER_PAIRS = tuple(combinations(LETTERS.values(), 2))


def reference_parameters(method: ComP) -> ReferenceParameters:
    """The authors' parameters as parts of ours, without the dead ones.

    Raises:
        ValueError: The modalities are not audio, text and vision, or an ablation leaves parts out
            that the authors' network has.
    """
    check_letters(method.names)
    if not method.parameters_.prototypes or method.coordinator is None:
        raise ValueError("the authors' weights need prompts from prototypes and the coordinator")
    found = head_parameters(method.joint_head) | reference_module("router", method.coordinator)
    for name, letter in LETTERS.items():
        found |= {
            **_stack(f"block1.blocks.{{}}.Transformer_{letter}", method.first_stacks[name]),
            **_stack(f"block2.blocks.{{}}.Transformer_{letter}", method.second_stacks[name]),
            **reference_module(f"{letter}_in_proj.0", method.projections[name]),
            **reference_module(f"shared_enc_{letter}", method.shared[name]),
            **reference_module(f"private_enc_{letter}", method.private[name]),
            **reference_module(f"dec_{letter}", method.decoders[name]),
            **reference_module(f"nlp_head_{letter}", method.unimodal_heads[name]),
            **reference_module(f"prop_former_{letter}_1.proj_n", method.generators[name]),
            **_prompt(f"prop_former_{letter}_1", method.first_prompts[name]),
            **_prompt(f"prop_former_{letter}_2", method.second_prompts[name]),
            **reference_module(f"prop_proj_{letter}_1", method.first_fusion[name]),
            **reference_module(f"prop_proj_{letter}_2", method.second_fusion[name]),
            **reference_module(f"prop_proj_rev_{letter}_1", method.giving_back[name]),
        }
    return found


def _stack(pattern: str, stack: nn.Module) -> dict[str, ReferenceParameter]:
    assert isinstance(stack, ModalityTransformer)
    return transformer_parameters(pattern, stack)


def _prompt(name: str, block: nn.Module) -> dict[str, ReferenceParameter]:
    theirs = {"describe": "proj_d", "direct": "proj_prompt"}
    found: dict[str, ReferenceParameter] = {}
    for ours, module in block.named_children():
        found |= reference_module(f"{name}.{theirs[ours]}", module)
    return found


def load_reference_weights(method: ComP, state: Mapping[str, Tensor]) -> None:
    """Loads the authors' checkpoint.

    Args:
        method: A network of the same sizes on audio, text and vision, in any order.
        state: Parameters by the authors' names; those that their network never reads are ignored.

    Raises:
        ParityError: A weight is missing, unknown, or of another shape.
    """
    alive = {
        name: weight
        for name, weight in state.items()
        if not any(fnmatchcase(name, pattern) for pattern in DEAD)
    }
    load_reference(reference_parameters(method), alive, allow_extra=False)


class _Stage(Component):
    """What both stages share: the network, its batches, the terms of sections 3.1 and 4."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        known = CONSTRUCTOR | SIZES.keys()
        request.check_constructor(known, required=known)
        request.check_condition(LETTERS.values())
        sizes = {ours: request.constructor[theirs] for theirs, ours in SIZES.items()}
        hyper_parameters = request.hyper_parameters(INFO, ComPParameters, sizes)
        spec = reference_spec(request, length=sizes["sequence_length"])
        self.module = self.method = ComP(spec, hyper_parameters, ReferenceServices())
        self.prompted: tuple[Encoded, PromptedStates] | None = None

    def reference_parameters(self) -> ReferenceParameters:
        """The authors' parameters as parts of ours."""
        return reference_parameters(self.method)

    def common(self, encoded: Encoded) -> dict[str, Tensor]:
        """Features, reconstruction and pair terms."""
        decoded = self.method.decode(encoded)
        found: dict[str, Tensor] = {}
        for index, letter in enumerate(LETTERS.values()):
            found[f"proj_{letter}"] = encoded.projected[index]
            found[f"shared_{letter}"] = encoded.shared[index]
            found[f"private_{letter}"] = encoded.private[index]
            found[f"rec_{letter}"] = decoded[index]
        counted = self.method.counted(encoded)
        pairs = disentangling(encoded.shared, encoded.private, encoded.real, counted)
        for (one, two), terms in zip(LETTER_PAIRS, pairs.values(), strict=True):
            found[f"loss.jsd_{one}{two}"] = terms.divergence
            found[f"loss.disentangle_{one}{two}"] = terms.total
        return found

    def terms(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms under the authors' letters."""
        found: dict[str, Tensor] = {}
        for name, value in losses.items():
            kind, _, modality = name.partition("_")
            found[f"loss.{kind}_{LETTERS[modality]}" if modality in LETTERS else f"loss.{name}"] = value
        return found


class Stage1(_Stage):
    """Section 3.3."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """States, losses and metrics of stage 1."""
        method = self.method
        method.first_stage = True
        batch = reference_batch(inputs, method.spec, self.request.condition, complete=False)
        encoded = method.encode(batch)
        states = method.modality_states(encoded, private=True)
        noise = None
        if "noise" in inputs and method.spec.task == "regression":
            noise = method.fitted(inputs["noise"].view_as(batch.real))
        losses = method.first_losses(batch, encoded, states, noise)
        hidden, logits = method.first_joint(encoded, states)
        assert states.private is not None
        outputs = {**self.common(encoded), **self.terms(losses), "hidden": hidden, "logits": logits}
        for index, letter in enumerate(LETTERS.values()):
            outputs[f"block1_{letter}"] = states.first[index]
            outputs[f"block2_{letter}"] = states.second[index]
            outputs[f"logits_{letter}"] = states.unimodal[index]
            outputs[f"logits_private_{letter}"] = states.private[index]
        outputs |= reference_metrics(logits, states.unimodal, batch, method.spec)
        return Outcome(outputs, losses["total"])


class Stage2(_Stage):
    """Section 3.4, and section 5 where the modulator is switched on."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """States, losses, modulator and metrics of stage 2."""
        method = self.method
        method.first_stage = False
        batch = reference_batch(inputs, method.spec, self.request.condition, complete=False)
        encoded = method.encode(batch)
        states = method.prompted_states(encoded)
        losses = method.second_losses(batch, encoded, states)
        propagation = states.propagation
        assert propagation is not None
        assert propagation.prototypes is not None
        found = method.modulation(batch, encoded, states)
        outputs = {
            **self.common(encoded),
            **self.terms(losses),
            "hidden": states.hidden,
            "logits": states.outputs,
            "coordinator_weights": states.weights,
            "gm.kept_index": found.counted.flatten().nonzero().squeeze(1),
        }
        for index, letter in enumerate(LETTERS.values()):
            outputs[f"block1_{letter}"] = propagation.first[index]
            outputs[f"block2_{letter}"] = states.modalities[index]
            outputs[f"logits_{letter}"] = states.unimodal[index]
            outputs[f"prototype_{letter}"] = propagation.prototypes[index].flatten(0, 1)
            outputs[f"prompt0_{letter}"] = propagation.fresh[index]
            outputs[f"prompt1_{letter}"] = propagation.renewed[index]
            outputs[f"fused1_{letter}"] = propagation.fused[0, index]
            outputs[f"fused2_{letter}"] = propagation.fused[1, index]
            outputs[f"rev_{letter}"] = propagation.back[index]
            outputs[f"gm.weight_{letter}"] = found.weights[index][found.counted][:, None]
        outputs |= reference_metrics(states.outputs, states.unimodal, batch, method.spec)
        self.scales = found.scale()
        return Outcome(outputs, losses["total"])

    def after_backward(self, outcome: Outcome) -> None:
        """The gradient modulator."""
        if self.method.parameters_.gm != "off":
            self.method.scale_gradients(self.scales)


class RandomMask(Component):
    """Section 6: the released mask generator on numpy's legacy global generator."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor(CONSTRUCTOR | SIZES.keys() | MASK_SIZES, required=MASK_SIZES)
        request.hyper_parameters(INFO, ComPParameters)
        if request.condition is not None:
            raise ParityError(f"section {request.section!r}: a random mask has no condition")
        self.module = nn.Module()

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """The mask, under the section's own name."""
        sizes = self.request.constructor
        mask = released_mask(sizes["rows"], sizes["views"], sizes["rate"], sizes["numpy_seed"])
        return Outcome({self.request.section: torch.from_numpy(mask)})

    def reference_parameters(self) -> ReferenceParameters:
        """None."""
        return {}


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {
    "stage1": Stage1,
    "stage2": Stage2,
    "random_mask": RandomMask,
}
