"""The released code's parameter names (section 12)."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from .completion import PromptCompletion
from .model import AdMcpd
from .prototypes import PromptPrototypes

REFERENCE_MODALITIES = ("text", "audio", "vision")

# Frozen encoders, and biases that the released graph convolution never reads.
_UNUSED = (
    "*.llm_encoder.llm_encoder.*",
    "structure_aware.modality_encoder.pretrained_encoders.*",
    "structure_aware.structure_enhancement.gcn_*weight.bias",
)
_ENCODER = "structure_aware.modality_encoder"
_PROTOTYPES = "dual_level_anchoring.llm_prototype"
_COMPLETION = "prompt_distillation.prompt_completion"


def reference_names(method: AdMcpd) -> dict[str, str]:
    """Released parameter names that have a place in this network, and our names for them."""
    names = {
        "structure_aware.semantic_graph.learnable_class_centers": "graph.learnable_centres",
        "structure_aware.structure_enhancement.gcn_weight.weight": "convolution.neighbours.weight",
        "structure_aware.structure_enhancement.gcn_skip_weight.weight": "convolution.own.weight",
    }
    for index, modality in enumerate(REFERENCE_MODALITIES):
        if modality not in method.spec.names:
            continue
        for leaf in ("weight", "bias"):
            for layer in (0, 3):
                ours = f"encoder.adapters.{modality}.{layer}.{leaf}"
                names[f"{_ENCODER}.adapters.{index}.{layer}.{leaf}"] = ours
            names[f"{_ENCODER}.classifiers.{index}.{leaf}"] = f"encoder.classifiers.{modality}.{leaf}"
    if isinstance(getattr(method.prototypes, "to_shared", None), nn.Linear):
        for leaf in ("weight", "bias"):
            names[f"{_PROTOTYPES}.llm_encoder.projection.{leaf}"] = f"prototypes.to_shared.{leaf}"
    if isinstance(method.prototypes, PromptPrototypes):
        names[f"{_PROTOTYPES}.learnable_prompt"] = "prototypes.prompts"
        names[f"{_PROTOTYPES}.learnable_cls"] = "prototypes.class_tokens"
        names[f"{_PROTOTYPES}.mod_token"] = "prototypes.modality_offset"
    if isinstance(method.completion, PromptCompletion):
        names[f"{_COMPLETION}.missing_placeholder"] = "completion.placeholder"
        for leaf in ("weight", "bias"):
            names[f"{_COMPLETION}.llm_encoder.projection.{leaf}"] = f"completion.to_shared.{leaf}"
    return names


@torch.no_grad()
def load_reference_weights(method: AdMcpd, state: Mapping[str, Tensor]) -> None:
    """Loads a state dictionary of the released code (modalities in the order text, audio, vision).

    What the released code lacks is set as it behaves there: [CLS] of the completion to zero, the
    frozen words of the [MOD] tokens to zero (it has one learnable vector). Our linear map in front
    of the language model has no counterpart and stays as it is; ``completion_input = "identity"``
    leaves it out. Frozen encoders and unread biases of the dictionary are skipped, and so are
    parameters of prototype sources and completions that this network was not built with.

    Raises:
        KeyError: A parameter that this network has is missing, or a name is unknown.
        ValueError: A parameter has another shape.
    """
    ours = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    names = reference_names(method)
    for theirs, name in names.items():
        if theirs not in state:
            raise KeyError(f"the state dictionary has no {theirs!r}")
        value = state[theirs].squeeze() if theirs.endswith("mod_token") else state[theirs]
        if value.shape != ours[name].shape:
            raise ValueError(f"{theirs!r} has shape {list(value.shape)}, expected {list(ours[name].shape)}")
        ours[name].copy_(value)
    for name in state:
        optional = name.startswith((f"{_PROTOTYPES}.", f"{_COMPLETION}."))
        if name not in names and not optional and not any(fnmatchcase(name, glob) for glob in _UNUSED):
            raise KeyError(f"{name!r} is no parameter of the released code with these modalities")
    if isinstance(method.completion, PromptCompletion):
        method.completion.cls.zero_()
    if isinstance(method.prototypes, PromptPrototypes):
        method.prototypes.words.zero_()
