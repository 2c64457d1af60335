"""Translates golden cases of DMD into this implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    ReferenceParameter,
    ReferenceParameters,
    Request,
)
from ...harness.spec import Task
from .checkpoints import LETTERS, reference_name
from .distillation import Distillation, GraphDistillation, UnitSettings, prior
from .info import INFO, DMDParameters
from .model import distil, loss_terms
from .network import DMDNetwork, ModalityShape, NetworkOutput, unit_settings
from .text import encode

# Constructor arguments that are hyper-parameters, by our names.
_ARGUMENTS = {
    "nlevels": "nlevels",
    "attn_mask": "attn_mask",
    "conv1d_kernel_size_l": "kernel_text",
    "conv1d_kernel_size_a": "kernel_audio",
    "conv1d_kernel_size_v": "kernel_vision",
    "attn_dropout": "attn_dropout",
    "attn_dropout_a": "attn_dropout_audio",
    "attn_dropout_v": "attn_dropout_vision",
    "relu_dropout": "relu_dropout",
    "embed_dropout": "embed_dropout",
    "res_dropout": "res_dropout",
    "output_dropout": "output_dropout",
    "text_dropout": "text_dropout",
    "use_bert": "use_bert",
}
_OTHERS = ("feature_dims", "sequence_lengths", "dst_feature_dim_nheads", "bert", "graph_distillation")
_UNIT = ("n_classes", "hidden_size", "gd_size", "gd_prior", "gd_reg", "w_losses", "metric", "alpha")
_UNIT_PARTS = {"logit": "W_logit", "representation": "W_repr", "edge": "W_edge"}
# A case's lengths and widths come in the order language, audio, vision.
_CALL_ORDER = (("text", "language"), ("audio", "audio"), ("vision", "vision"))


def _settings(unit: Mapping[str, Any], hp: DMDParameters, shared: bool) -> UnitSettings:
    """Settings of a graph unit from the reference's arguments."""
    if unknown := sorted(set(unit) - {*_UNIT, "kind"}):
        raise ParityError(f"unknown argument of a graph unit: {', '.join(unknown)}")
    logit_weight, repr_weight = unit["w_losses"]
    return UnitSettings(
        size=unit["gd_size"],
        prior=prior(unit["gd_prior"]["logits"], unit["gd_prior"]["temperature"]),
        reg=unit["gd_reg"],
        logit_weight=logit_weight,
        repr_weight=repr_weight,
        metric=unit["metric"],
        alpha=unit["alpha"],
        representation="distance" if shared else hp.hetero_repr,
    )


class _Both(nn.Module):
    """Network and text encoder, so that one optimiser sees both."""

    def __init__(self, network: DMDNetwork, text: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.text = text


class Model(Component):
    """Sections 3 to 8 of the specification."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor({*_ARGUMENTS, *_OTHERS})
        given = request.constructor
        width, heads = given["dst_feature_dim_nheads"]
        ours = {_ARGUMENTS[name]: value for name, value in given.items() if name in _ARGUMENTS}
        hp = request.hyper_parameters(INFO, DMDParameters, {"hidden": width, "heads": heads, **ours})
        self.task: Task = request.task or "regression"
        lengths, dims = given["sequence_lengths"], given["feature_dims"]
        kernels = (hp.kernel_text, hp.kernel_audio, hp.kernel_vision)
        shapes = [
            ModalityShape(name, dim, lengths[theirs], kernel)
            for (name, theirs), dim, kernel in zip(_CALL_ORDER, dims, kernels, strict=True)
        ]
        units = given["graph_distillation"]
        outputs = units["homo"]["n_classes"]
        network = DMDNetwork(
            shapes,
            outputs,
            hp,
            homo=self._unit(units["homo"], hp, shared=True),
            hetero=self._unit(units["hetero"], hp, shared=False),
        )
        self.module = _Both(network, _bert(given.get("bert")) if hp.use_bert else None)

    def _unit(self, unit: Mapping[str, Any], hp: DMDParameters, shared: bool) -> UnitSettings:
        settings = _settings(unit, hp, shared)
        switched = unit_settings(hp, ("text", "vision", "audio"), shared)
        changes = {"gd_prior": "prior", "gd_alpha": "alpha", "gd_metric": "metric", "gd_reg": "reg"}
        values = {
            ours: getattr(switched, ours) for name, ours in changes.items() if name in self.request.switches
        }
        return UnitSettings(**{**vars(settings), **values})

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """All outputs of a batch under the reference's names."""
        network = self.module.network
        assert isinstance(network, DMDNetwork)
        features = {name: inputs[name] for name, _ in _CALL_ORDER}
        extra: dict[str, Tensor] = {}
        if isinstance(self.module.text, nn.Module):
            tokens, mask, segments = inputs["text"].unbind(1)
            features["text"] = encode(self.module.text, tokens.long(), mask > 0, segments.long())
            extra["text_hidden"] = features["text"]
        output = network(features)
        graphs = distil(network, output)
        labels = inputs["labels"].flatten()
        labels = labels if self.task == "regression" else labels.long()
        terms = loss_terms(network, output, graphs, labels, self.task)
        named = {
            **extra,
            **_activations(output),
            **_graphs(graphs),
            **_losses(terms, network.hp),
        }
        return Outcome(named, total=terms["total"])

    def reference_parameters(self) -> ReferenceParameters:
        """Parameters of network, graphs and text encoder."""
        network, text = self.module.network, self.module.text
        assert isinstance(network, DMDNetwork)
        found = {
            reference_name(name): ReferenceParameter(value) for name, value in network.named_parameters()
        }
        if isinstance(text, nn.Module):
            found |= {
                f"text_model.model.{name}": ReferenceParameter(value)
                for name, value in text.named_parameters()
            }
        return found


def _bert(configuration: Mapping[str, Any] | None) -> nn.Module:
    from transformers import BertConfig, BertModel

    if configuration is None:
        raise ParityError("use_bert needs the argument 'bert'")
    return BertModel(BertConfig(**configuration), add_pooling_layer=False)


def _activations(output: NetworkOutput) -> dict[str, Tensor]:
    named = {"output_logit": output.final.logits}
    if output.shared_logits is not None:
        named["logits_c"] = output.shared_logits
    for name, part in output.parts.items():
        x = LETTERS[name]
        named[f"origin_{x}"] = part.origin
        named[f"s_{x}"] = part.exclusive.permute(2, 0, 1)
        named[f"c_{x}"] = part.shared.permute(2, 0, 1)
        for theirs, value in (("recon_{}", part.recon), ("s_{}_r", part.again), ("c_{}_sim", part.margin)):
            if value is not None:
                named[theirs.format(x)] = value
        named[f"last_h_{x}"] = output.exclusive[name]
        if name in output.shared_heads:
            named[f"repr_{x}_homo"] = output.shared_heads[name].hidden
            named[f"logits_{x}_homo"] = output.shared_heads[name].logits
        if name in output.exclusive_heads:
            named[f"repr_{x}_hetero"] = output.exclusive_heads[name].residual
            named[f"logits_{x}_hetero"] = output.exclusive_heads[name].logits
    return named


def _graphs(graphs: Mapping[str, Distillation]) -> dict[str, Tensor]:
    named = {}
    for kind, graph in graphs.items():
        unused = "_unused" if kind == "homo" else ""
        named[f"edges_{kind}"] = graph.edges
        named[f"edges_sum_{kind}"] = graph.scores.sum(1, keepdim=True)
        named[f"gd_prior_{kind}"] = graph.prior
        named[f"gd_reg_{kind}"] = graph.reg
        named[f"gd_logit_{kind}"] = graph.logit
        named[f"gd_repr_{kind}{unused}"] = graph.representation
    return named


def _losses(terms: Mapping[str, Tensor], hp: DMDParameters) -> dict[str, Tensor]:
    feature = hp.ort_axis == "feature"
    renamed = {
        "homo": "loss_gd_homo",
        "hetero": "loss_gd_hetero",
        "cycle": "loss_cyc",
        "orthogonality": "loss_ort_feature_axis" if feature else "loss_ort",
        "margin": "loss_sim",
        "total": "loss_total_feature_axis" if feature else "loss_total",
        "task_shared": "loss_task_c",
    }
    named = {}
    for ours, value in terms.items():
        kind, _, rest = ours.partition("_")
        if ours in renamed:
            named[renamed[ours]] = value
        elif rest in LETTERS and kind in ("recon", "cycle", "orthogonality"):
            theirs = {"recon": "recon", "cycle": "cyc", "orthogonality": "ort"}[kind]
            named[f"loss_{theirs}_{LETTERS[rest]}"] = value
        elif kind == "task" and rest not in ("", "all"):
            graph, _, name = rest.partition("_")
            named[f"loss_task_{LETTERS[name]}_{graph}"] = value
        else:
            named[f"loss_{ours}"] = value
    # The total goes by either name where only one form was computed.
    named.setdefault("loss_total", terms["total"])
    return named


class Unit(Component):
    """Section 6 of the specification alone."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor({"kind", *_UNIT})
        given = request.constructor
        if given["kind"] not in ("homo", "hetero"):
            raise ParityError(f"unknown kind of graph unit {given['kind']!r}")
        hp = request.hyper_parameters(INFO, DMDParameters)
        settings = _settings(given, hp, shared=given["kind"] == "homo")
        self.classes = given["n_classes"]
        self.module = GraphDistillation(3, self.classes, given["hidden_size"], settings)

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Edges and losses of given logits and representations."""
        graph: Distillation = self.module(inputs[f"logits.c{self.classes}"], inputs["reprs"])
        total = graph.reg + graph.logit + graph.representation
        named = {
            "reg": graph.reg,
            "logit": graph.logit,
            "repr": graph.representation,
            "edges": graph.edges,
            "edges_sum": graph.scores.sum(1, keepdim=True),
        }
        return Outcome(named, total=total)

    def input_name(self, name: str) -> str:
        """Logits are stored once per number of classes."""
        return f"logits.c{self.classes}" if name == "logits" else name

    def reference_parameters(self) -> ReferenceParameters:
        """Parameters of the unit."""
        return {
            f"{_UNIT_PARTS[name.split('.')[0]]}.{name.split('.')[1]}": ReferenceParameter(value)
            for name, value in self.module.named_parameters()
        }


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {"model": Model, "gd_unit": Unit}
