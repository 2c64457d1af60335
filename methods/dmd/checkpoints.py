"""Reads the authors' parameters into our network (spec section 14)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .model import DMD

LETTERS = {"text": "l", "audio": "a", "vision": "v"}

# Our parts that exist once, and per modality (``*`` is the letter).
_ONCE = {
    "shared": "encoder_c",
    "shared_fusion.inner": "proj1_c",
    "shared_fusion.outer": "proj2_c",
    "shared_fusion.output": "out_layer_c",
    "shared_gate": "weight_c",
    "fusion.inner": "proj1",
    "fusion.outer": "proj2",
    "fusion.output": "out_layer",
    **{
        f"{graph}.{ours}": f"distill_{graph}.{theirs}"
        for graph in ("homo", "hetero")
        for ours, theirs in (("logit", "W_logit"), ("representation", "W_repr"), ("edge", "W_edge"))
    },
}
_EACH = {
    "project": "proj_*",
    "private": "encoder_s_*",
    "decode": "decoder_*",
    "margin": "align_c_*",
    "shared_encoders": "self_attentions_c_*",
    "memory": "trans_*_mem",
    "gates": "weight_*",
}
_HEADS = {"shared_heads": "low", "exclusive_heads": "high"}
_HEAD_PARTS = {"inner": "proj1", "outer": "proj2", "output": "out_layer"}
_LAYER_PARTS = {
    "packed.weight": "self_attn.in_proj_weight",
    "packed.bias": "self_attn.in_proj_bias",
    "output": "self_attn.out_proj",
    "inner": "fc1",
    "outer": "fc2",
    "attention_norm": "layer_norms.0",
    "feed_forward_norm": "layer_norms.1",
}
_TEXT = "text_model.model."


def reference_name(ours: str) -> str:
    """The authors' name of a parameter of ``DMDNetwork``.

    Raises:
        KeyError: It belongs to a modality that the authors don't have.
    """
    stem, _, leaf = ours.rpartition(".")
    if stem in _ONCE:
        return f"{_ONCE[stem]}.{leaf}"
    group, key, *rest = ours.split(".")
    tail = ".".join(rest)
    if group == "cross":
        target, _, source = key.partition("_from_")
        return f"trans_{LETTERS[target]}_with_{LETTERS[source]}.{_inside_encoder(tail)}"
    letter = LETTERS[key]
    if group in _HEADS:
        part, leaf = rest
        return f"{_HEAD_PARTS[part]}_{letter}_{_HEADS[group]}.{leaf}"
    name = _EACH[group].replace("*", letter)
    return f"{name}.{_inside_encoder(tail) if group in ('shared_encoders', 'memory') else tail}"


def _inside_encoder(tail: str) -> str:
    if tail.startswith("norm."):
        return f"layer_{tail}"
    layers, index, part = tail.split(".", 2)
    stem, _, leaf = part.rpartition(".")
    theirs = _LAYER_PARTS[part] if part in _LAYER_PARTS else f"{_LAYER_PARTS[stem]}.{leaf}"
    return f"{layers}.{index}.{theirs}"


def load_reference_weights(method: DMD, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict with the authors' parameter names.

    The authors' files hold the main model alone: graph units are loaded where ``state`` has them
    (``distill_homo.W_edge.weight``), else left as they are. A text encoder is loaded if it is
    trained here. What this network leaves out (``proj_cosine_*``, buffers) is skipped.

    Args:
        method: A network of the same sizes on text, audio and vision.
        state: Parameters by the authors' names.

    Raises:
        KeyError: A parameter is unknown, or one of ours is not in ``state``.
        ValueError: The shape of a parameter or the modalities don't fit.
    """
    if set(method.spec.names) != set(LETTERS):
        raise ValueError(f"the released DMD has {', '.join(LETTERS)}, not {', '.join(method.spec.names)}")
    targets = {reference_name(name): value for name, value in method.network.named_parameters()}
    if hasattr(method, "text_encoder"):
        targets |= {_TEXT + name: value for name, value in method.text_encoder.named_parameters()}
    unknown = [name for name in state if name not in targets and not _left_out(name, method)]
    if unknown:
        raise KeyError(f"{', '.join(sorted(unknown))}: no parameters of the released DMD")
    absent = [name for name in targets if name not in state and not name.startswith("distill_")]
    if absent:
        raise KeyError(f"the reference weights lack {', '.join(sorted(absent))}")
    with torch.no_grad():
        for name, ours in targets.items():
            if name not in state:
                continue
            if ours.shape != state[name].shape:
                raise ValueError(
                    f"{name!r} is {tuple(state[name].shape)}, the network needs {tuple(ours.shape)}"
                )
            ours.copy_(state[name])


def _left_out(name: str, method: DMD) -> bool:
    """Whether a weight of the released network has no place in ours, or in ours as it is set."""
    if name.startswith(("proj_cosine_", _TEXT)) or name.endswith((".version", "._float_tensor")):
        return True
    hp = method.parameters_
    off = {
        ("encoder_s_", "encoder_c.", "decoder_", "align_c_"): not hp.decoupling,
        ("distill_homo.",): not hp.homo_gd,
        ("distill_hetero.",): not hp.hetero_gd,
        ("proj1_c.", "proj2_c.", "out_layer_c."): not hp.unimodal_tasks,
    }
    if any(name.startswith(prefixes) for prefixes, left in off.items() if left):
        return True
    low, high = not method.network.has_shared_heads, not method.network.has_exclusive_heads
    return (low and "_low." in name) or (high and "_high." in name)
