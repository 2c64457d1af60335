"""Reads the authors' parameters into our network (spec section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .model import MAGTKD

LETTERS = {"text": "t", "audio": "a", "vision": "v"}

_BLOCK = "transformer_inter.0"
_PARTS = {
    "attention.query": f"{_BLOCK}.self_attn.proj_q",
    "attention.key": f"{_BLOCK}.self_attn.proj_k",
    "attention.value": f"{_BLOCK}.self_attn.proj_v",
    "attention.output": f"{_BLOCK}.self_attn.fc",
    "inner": f"{_BLOCK}.feed_forward.w_1",
    "outer": f"{_BLOCK}.feed_forward.w_2",
    "norm": f"{_BLOCK}.feed_forward.layer_norm",
}


def reference_name(ours: str) -> str | None:
    """The authors' name of a parameter of ``AnchorFusion``; ``None`` where they have none."""
    group, _, rest = ours.partition(".")
    if group == "speakers":
        return f"speaker_embeddings.{rest}"
    if group in ("project", "absent"):
        return None
    key, _, inside = rest.partition(".")
    if group in ("blocks", "gates"):
        source, _, anchor = key.partition("_to_")
        name = f"{LETTERS[source]}_{LETTERS[anchor]}"
        if group == "gates":
            return f"{name}_gate.fc.{inside.removeprefix('linear.')}"
        part, _, leaf = inside.rpartition(".")
        return f"{name}.{_PARTS[part]}.{leaf}"
    prefix = {"reduce": "features_reduce", "heads": "w"}[group]
    return f"{prefix}_{LETTERS[key]}.{inside}"


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint and a network had no counterpart for.

    Attributes:
        unused: Names in the checkpoint that were not loaded.
        missing: Our parameters that the authors' network does not have.
    """

    unused: tuple[str, ...]
    missing: tuple[str, ...]


def load_reference_weights(method: MAGTKD, state: Mapping[str, Tensor]) -> LoadReport:
    """Loads a state dict of the authors' fusion network.

    Args:
        method: A network of the same width, heads, classes and speakers.
        state: Parameters by the authors' names.

    Raises:
        KeyError: One of our parameters that the authors have is not in ``state``.
        ValueError: The shape of a parameter or the modalities don't fit.
    """
    if set(method.fusion.names) != set(LETTERS):
        raise ValueError(
            f"the released MAGTKD has {', '.join(LETTERS)}, not {', '.join(method.fusion.names)}"
        )
    loaded, missing = set(), []
    with torch.no_grad():
        for ours, parameter in method.fusion.named_parameters():
            name = reference_name(ours)
            if name is None:
                missing.append(f"fusion.{ours}")
                continue
            if name not in state:
                raise KeyError(f"the reference weights lack {name!r}")
            if state[name].shape != parameter.shape:
                raise ValueError(
                    f"{name!r} is {tuple(state[name].shape)}, the network needs {tuple(parameter.shape)}"
                )
            parameter.copy_(state[name])
            loaded.add(name)
    missing += [name for name, _ in method.named_parameters() if name.startswith("heads.")]
    return LoadReport(tuple(name for name in state if name not in loaded), tuple(missing))
