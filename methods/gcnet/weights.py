"""Reads the authors' parameters into our network, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...harness.spec import DataSpec
from .model import GCNet

REFERENCE_MODALITIES = ("audio", "text", "vision")
TEMPORAL_ORDER = ("past", "now", "future")

_GRAPH_PARTS = {
    "conv1": "relational",
    "conv2.lin_rel": "plain.neighbours",
    "conv2.lin_root": "plain.own",
    "grufusion": "sequence",
    "matchatt.transform": "attention.query",
    "linear": "projection",
}


def reference_names(method: GCNet) -> dict[str, str]:
    """Prefixes of the authors' parameter names, and the names of our parts."""
    encoder = method.parameters_.base_model
    names = {encoder: "encoder", "smax_fc": "classifier", "linear_rec": "reconstruction"}
    for graph in ("temporal", "speaker"):
        for theirs, ours in _GRAPH_PARTS.items():
            names[f"graph_net_{graph}.{theirs}"] = f"graphs.{graph}.{ours}"
    return names


def our_name(method: GCNet, name: str) -> str | None:
    """Our name of the authors' parameter; ``None`` for parameters that this network leaves out.

    Raises:
        KeyError: The authors' network has no such parameter.
    """
    prefix, _, leaf = name.rpartition(".")
    if prefix in ("lstm", "gru") and prefix != method.parameters_.base_model:
        return None
    names = reference_names(method)
    if prefix not in names:
        raise KeyError(f"{name!r} is no parameter of the released GCNet")
    ours = f"{names[prefix]}.{leaf}"
    return ours if ours in dict(method.named_parameters()) else None


def speaker_order(speakers: int) -> tuple[str, ...]:
    """Our numbering of the speaker relations: target digit, source digit."""
    return tuple(f"{target}{source}" for target in range(speakers) for source in range(speakers))


def load_reference_weights(
    method: GCNet,
    state: Mapping[str, Tensor],
    relation_order: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Loads a state dict with the authors' parameter names.

    Parameters that the authors' network always has and ours leaves out (the unused recurrent unit,
    the attention when it is off, a disabled graph) are skipped. The authors concatenate audio, text,
    vision; columns are moved to the order of the data set.

    Args:
        method: A network of the same sizes, with at most ten speakers.
        state: Parameters by the authors' names.
        relation_order: The checkpoint's numbering of relations, which the released code takes from
            the iteration order of a set and which differs from process to process:
            ``{"temporal": ("past", "now", "future"), "speaker": ("00", "01", "10", "11")}`` names
            them from number 0 on; speaker relations are target digit, source digit. Graphs not
            named have the numbering shown, which is ours.

    Raises:
        KeyError: A parameter is unknown, or one of ours is not in ``state``.
        ValueError: The shape of a parameter, the modalities, or a relation order does not fit.
    """
    given = relation_order or {}
    if unknown := set(given) - {"temporal", "speaker"}:
        raise ValueError(f"relation_order names unknown graphs {sorted(unknown)}")
    ours_by_graph = {"temporal": TEMPORAL_ORDER, "speaker": speaker_order(method.speakers)}
    columns = _columns(method.spec)
    parameters = dict(method.named_parameters())
    loaded = set()
    with torch.no_grad():
        for name, value in state.items():
            ours = our_name(method, name)
            if ours is None:
                continue
            if name.startswith(("lstm.weight_ih_l0", "gru.weight_ih_l0")):
                value = _fit(name, value, parameters[ours])[:, columns]
            elif name.startswith("linear_rec."):
                value = _fit(name, value, parameters[ours])[columns]
            elif name.endswith(".conv1.weight"):
                graph = name.removeprefix("graph_net_").partition(".")[0]
                value = _fit(name, value, parameters[ours])
                order = ours_by_graph[graph]
                value = value[_permutation(graph, given.get(graph, order), order)]
            parameters[ours].copy_(_fit(name, value, parameters[ours]))
            loaded.add(ours)
    if missing := sorted(set(parameters) - loaded):
        raise KeyError(f"the reference weights lack what GCNet needs for {', '.join(missing)}")


def _fit(name: str, value: Tensor, ours: Tensor) -> Tensor:
    if value.shape != ours.shape:
        raise ValueError(f"{name!r} is {tuple(value.shape)}, the network needs {tuple(ours.shape)}")
    return value


def _permutation(graph: str, given: Sequence[str], ours: Sequence[str]) -> list[int]:
    if sorted(given) != sorted(ours):
        raise ValueError(f"relation_order[{graph!r}] must arrange {', '.join(ours)}, not {', '.join(given)}")
    return [list(given).index(relation) for relation in ours]


def _columns(spec: DataSpec) -> Tensor:
    """Reference column of each of our columns."""
    if sorted(spec.names) != sorted(REFERENCE_MODALITIES):
        raise ValueError(
            f"the released GCNet has the modalities {', '.join(REFERENCE_MODALITIES)}, "
            f"not {', '.join(spec.names)}"
        )
    starts, start = {}, 0
    for name in REFERENCE_MODALITIES:
        starts[name] = start
        start += spec.dims[name]
    return torch.cat([torch.arange(starts[name], starts[name] + spec.dims[name]) for name in spec.names])
