"""Golden cases of GCNet: the authors' arguments, names and layouts around our network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...harness.batch import Batch
from ...harness.metrics import accuracy, confusion_matrix, weighted_f1
from ...harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    ReferenceParameter,
    ReferenceParameters,
    Request,
    load_reference,
)
from ...harness.spec import DataSpec, ModalitySpec
from .info import INFO, GCNetParameters
from .model import GCNet
from .weights import REFERENCE_MODALITIES, TEMPORAL_ORDER, reference_names, speaker_order

WIDTHS = ("adim", "tdim", "vdim")
LETTERS = dict(zip(REFERENCE_MODALITIES, "atv", strict=True))
INPUTS = dict(zip(REFERENCE_MODALITIES, ("audio", "text", "visual"), strict=True))
ARGUMENTS = {
    "D_e": "hidden",
    "graph_hidden_size": "graph_hidden",
    "dropout": "dropout",
    "window_past": "window_past",
    "window_future": "window_future",
    "time_attn": "time_attn",
}
CONSTRUCTOR = (*WIDTHS, *ARGUMENTS, "base_model", "n_speakers", "n_classes", "relation_numbering")


class NoServices:
    """Services that a golden case never needs."""

    device = torch.device("cpu")

    def generator(self, name: str) -> torch.Generator:
        """Nothing is drawn: weights and masks are given."""
        raise ParityError(f"a golden case of GCNet needs no generator {name!r}")

    def language_model(self, name: str) -> Any:
        """No language model is part of GCNet."""
        raise ParityError(f"a golden case of GCNet needs no language model {name!r}")


def build(request: Request) -> GCNet:
    """The network of a case, its modalities in the authors' order audio, text, vision.

    Raises:
        ParityError: A constructor argument, a switch or one of their values is unknown.
    """
    given = request.constructor
    request.check_constructor(CONSTRUCTOR)
    request.check_condition("atv")
    if missing := [name for name in CONSTRUCTOR if name not in {*given, "relation_numbering"}]:
        raise ParityError(f"section {request.section!r}: the constructor lacks {', '.join(missing)}")
    if given["base_model"] not in ("LSTM", "GRU"):
        raise ParityError(f"section {request.section!r}: unknown base_model {given['base_model']!r}")
    _check_numbering(request)
    classes = given["n_classes"]
    spec = DataSpec(
        name=f"golden case, {request.section}",
        modalities=tuple(
            ModalitySpec(name, given[width]) for name, width in zip(REFERENCE_MODALITIES, WIDTHS, strict=True)
        ),
        task="regression" if request.task == "regression" else "multiclass",
        classes=tuple(f"class {index}" for index in range(classes)),
        score_range=(-3.0, 3.0) if request.task == "regression" else None,
        longest_dialogue=2,  # not known yet; the network grows with what it meets
        speakers=given["n_speakers"],
        train_utterances=1,
        train_dialogues=1,
        level="dialogues",
    )
    if request.task == "regression" and classes != 1:
        raise ParityError(f"section {request.section!r}: a regression has one output, not {classes}")
    hyper = request.hyper_parameters(
        INFO,
        GCNetParameters,
        {
            **{ours: given[theirs] for theirs, ours in ARGUMENTS.items()},
            "base_model": given["base_model"].lower(),
            "max_speakers": given["n_speakers"],
        },
    )
    network = GCNet(spec, hyper, NoServices())
    if network.reconstruction is None:
        # The authors' network reconstructs also where nothing is learnt from it.
        network.reconstruction = nn.Linear(network.classifier.in_features, sum(spec.dims.values()))
    return network


def _check_numbering(request: Request) -> None:
    numbering = request.constructor.get("relation_numbering")
    if numbering is None:
        return
    orders = {"temporal": TEMPORAL_ORDER, "speaker": speaker_order(2)}
    for graph, numbers in numbering.items():
        for relation, number in numbers.items():
            order = orders.get(graph, ())
            if relation not in order or order.index(relation) != number:
                raise ParityError(
                    f"section {request.section!r}: relation_numbering gives {graph} {relation!r} the "
                    f"number {number!r}, which is not the specification's"
                )


class GCNetComponent(Component):
    """What both components share: the network and its parameters by the authors' names."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.network = build(request)
        self.module = self.network

    def reference_parameters(self) -> ReferenceParameters:
        """All parameters of the network; layouts agree."""
        ours = dict(self.network.named_parameters())
        return {
            theirs: ReferenceParameter(ours[name]) for theirs, name in reference_names(self.network).items()
        }

    def edges(self, batch: Batch) -> dict[str, Tensor]:
        """Both graphs as edge lists over the nodes, dialogue after dialogue."""
        node = (batch.real.flatten().cumsum(0) - 1).view(batch.real.shape)
        outputs = {}
        for name in self.network.graphs:
            graph = self.network.graph(name, batch, torch.float32)
            dialogue, target, source = graph.edges.nonzero(as_tuple=True)
            relations = graph.relations.expand_as(graph.edges)
            outputs[f"{name}_edge_index"] = torch.stack([node[dialogue, source], node[dialogue, target]])
            outputs[f"{name}_edge_type"] = relations[dialogue, target, source]
        return outputs


class Model(GCNetComponent):
    """Sections 2 to 4: selection by speaker, network, losses, metrics."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Runs the network on role arrays ``[T, B, …]`` and names every intermediate result."""
        network, hp = self.network, self.network.parameters_
        batch = self.batch(inputs)
        states = network(batch)
        assert states.reconstruction is not None
        assert batch.targets is not None
        real = batch.real

        def padded(rows: Tensor) -> Tensor:
            return states.packing.pad(rows).transpose(0, 1)

        def nodes(rows: Tensor) -> Tensor:
            return states.packing.pad(rows)[real]

        outputs = {
            "input_full": torch.cat(list(batch.targets.values()), dim=-1).transpose(0, 1),
            "input_masked": network.inputs(batch).transpose(0, 1),
            "mask_selected": network.available(batch).float().transpose(0, 1),
            "base_hidden": padded(states.base),
            "hidden": padded(states.hidden),
            "logits": padded(states.outputs),
            "recon": padded(states.reconstruction),
            "first_pass_recon": padded(states.reconstruction),
            **self.edges(batch),
        }
        for name, graph in states.graphs.items():
            outputs[f"{name}_bilstm"] = padded(graph.sequence)
            outputs[f"{name}_hidden"] = padded(graph.hidden)
            if graph.relational is not None and graph.plain is not None:
                outputs[f"{name}_conv1"] = nodes(graph.relational)
                outputs[f"{name}_conv2"] = nodes(graph.plain)
        total = None
        if batch.labels is not None:
            losses = network.losses_of(states, batch)
            total = losses["total"]
            outputs["loss_task"] = losses["task"]
            outputs[f"loss_recon_{hp.recon_mask}"] = network.reconstruction_error(states, batch)
            outputs[f"loss_total_{hp.recon_mask}"] = total
            outputs |= metrics(states.packing.pad(states.outputs)[real], batch.labels[real])
        return Outcome(outputs, total)

    def batch(self, inputs: Mapping[str, Tensor]) -> Batch:
        """The speaking person's features and mask; the condition of the section, if it has one."""
        host = (inputs["qmask"] == 0).T[..., None]

        def spoken(name: str, suffix: str = "") -> Tensor:
            chosen = torch.where(host, inputs[f"{name}_host{suffix}"], inputs[f"{name}_guest{suffix}"])
            return chosen.transpose(0, 1)

        features = {name: spoken(array) for name, array in INPUTS.items()}
        available = torch.cat([spoken(array, "_mask") for array in INPUTS.values()], dim=-1) != 0
        if self.request.condition is not None:
            kept = [LETTERS[name] in self.request.condition for name in REFERENCE_MODALITIES]
            available = torch.tensor(kept, device=host.device).expand_as(available)
        labels = inputs.get("label")
        return Batch(
            features=features,
            available=available,
            real=inputs["umask"] != 0,
            speakers=inputs["qmask"].long(),
            lengths=tuple(inputs["lengths"].tolist()),
            rows=torch.zeros_like(inputs["umask"], dtype=torch.int64),
            labels=labels,
            targets=features,
        )


class GraphComponent(GCNetComponent):
    """Section 3.2 and both convolutions, for given node features."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the weights; of a network for more speakers, the relations that exist here.

        Edge types of one speaker are compared in a case whose weights belong to two.
        """
        name = "graph_net_speaker.conv1.weight"
        relations = self.network.speakers**2
        cut = {name: weights[name][:relations]} if name in weights else {}
        load_reference(self.reference_parameters(), {**weights, **cut})

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Edge lists and the outputs of the two convolutions, one row per node."""
        network = self.network
        lengths = tuple(inputs["lengths"].tolist())
        features = inputs["features"][:, :, 0].transpose(0, 1)
        count, steps = features.shape[:2]
        real = torch.arange(steps, device=features.device) < inputs["lengths"][:, None]
        batch = Batch(
            features={},
            available=real[..., None],
            real=real,
            speakers=inputs["qmask"].long(),
            lengths=lengths,
            rows=torch.zeros(count, steps, dtype=torch.int64),
        )
        packing = network.packing(batch)
        rows = packing.pack(features)
        outputs = {"node_features": features[real], **self.edges(batch)}
        for name, part in network.graphs.items():
            graph = network.graph(name, batch, rows.dtype)
            relational = part.get_submodule("relational")(rows, packing, graph)
            plain = part.get_submodule("plain")(relational, packing, graph)
            outputs[f"{name}_conv1"] = packing.pad(relational)[real]
            outputs[f"{name}_conv2"] = packing.pad(plain)[real]
        if network.speakers == 1 and "speaker" in network.graphs:
            outputs["speaker_edge_type_one_speaker"] = outputs["speaker_edge_type"]
        hp = network.parameters_
        past, future = ("all" if size < 0 else size for size in (hp.window_past, hp.window_future))
        named = {f"{name}.p{past}_f{future}": value for name, value in outputs.items()}
        return Outcome({**outputs, **named})


def metrics(outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Accuracy and weighted F1 as the authors count them (section 8).

    Args:
        outputs: ``[N, K]`` of the real utterances.
        labels: ``[N]``; a regression leaves out those that are 0.
    """
    if labels.is_floating_point():
        polar = labels != 0
        true, predicted, classes = labels[polar] > 0, outputs[polar, 0] > 0, 2
    else:
        true, predicted, classes = labels, outputs.argmax(dim=-1), outputs.shape[-1]
    confusion = confusion_matrix(true.cpu().numpy(), predicted.detach().cpu().numpy(), classes)
    return {
        "metric_acc": torch.tensor(float(accuracy(confusion)), dtype=torch.float64),
        "metric_wf1": torch.tensor(float(weighted_f1(confusion)), dtype=torch.float64),
    }


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {"model": Model, "graph": GraphComponent}
