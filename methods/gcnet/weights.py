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
    "relational": "conv1",
    "plain.neighbours": "conv2.lin_rel",
    "plain.own": "conv2.lin_root",
    "sequence": "grufusion",
    "attention.query": "matchatt.transform",
    "projection": "linear",
}
# Our parts and the authors'. Of the two encoders that theirs always has, ours has one.
_PARTS = {
    "classifier": "smax_fc",
    "reconstruction": "linear_rec",
    **{
        f"graphs.{graph}.{ours}": f"graph_net_{graph}.{theirs}"
        for graph in ("temporal", "speaker")
        for ours, theirs in _GRAPH_PARTS.items()
    },
}


def reference_names(method: GCNet) -> dict[str, str]:
    """The authors' name of each of our parameters, and ours."""
    parts = {"encoder": method.parameters_.base_model, **_PARTS}
    names = {}
    for ours, _ in method.named_parameters():
        part, _, leaf = ours.rpartition(".")
        names[f"{parts[part]}.{leaf}"] = ours
    return names


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
    ours_by_graph = {"temporal": TEMPORAL_ORDER, "speaker": speaker_order(method.speakers)}
    orders: dict[str, Sequence[str]] = {**ours_by_graph, **(relation_order or {})}
    if unknown := set(orders) - set(ours_by_graph):
        raise ValueError(f"relation_order names unknown graphs {sorted(unknown)}")
    columns = _columns(method.spec)
    names = reference_names(method)
    if missing := sorted(set(names) - set(state)):
        raise KeyError(f"the reference weights lack {', '.join(missing)}")
    ours = dict(method.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            if name not in names:
                if name.rpartition(".")[0] not in {"lstm", "gru", *_PARTS.values()}:
                    raise KeyError(f"{name!r} is no parameter of the released GCNet")
                continue
            parameter = ours[names[name]]
            if value.shape != parameter.shape:
                raise ValueError(
                    f"{name!r} has shape {list(value.shape)}, the network needs {list(parameter.shape)}"
                )
            if name.startswith(("lstm.weight_ih_l0", "gru.weight_ih_l0")):
                value = value[:, columns]
            elif name.startswith("linear_rec."):
                value = value[columns]
            elif name.endswith(".conv1.weight"):
                graph = name.removeprefix("graph_net_").partition(".")[0]
                value = value[_permutation(graph, orders[graph], ours_by_graph[graph])]
            parameter.copy_(value)


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
