"""The authors' released networks, imported from a checkout that is never part of this project.

A step here is the authors' forward pass, a loss, its backward pass and Adam. The loss of GCNet and ComP is
theirs: the functions of their ``loss.py``, as many as their trainers minimise. That of the others costs next
to nothing (the mean square of everything the network returned), so that their figure is a lower bound, as it
is where trainers compute more: terms that are not minimised, ComP's changes to gradients, measures, copies.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data
from .timing import Step


class NotMeasured(Exception):
    """Why a checkout can't be timed."""


def runnable(step: Step) -> Step:
    """The step, if it runs here at all."""
    try:
        step()
    except Exception as error:  # a broken release is not ours to mend
        raise NotMeasured(f"{type(error).__name__}: {error}") from error
    return step


def _import(folder: Path, name: str) -> Any:
    """A module of a checkout, which finds its own siblings first."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except Exception as error:  # what other people's modules raise on import is theirs to choose
        raise NotMeasured(f"import of {name!r} failed: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> Any:
    """A module by its file, without the package around it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NotMeasured(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tensors(answer: object) -> Iterator[Tensor]:
    """Every tensor with a gradient in a network's answer."""
    if isinstance(answer, Tensor):
        if answer.requires_grad:
            yield answer
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from _tensors(value)
    elif isinstance(answer, list | tuple):
        for value in answer:
            yield from _tensors(value)


def _mean_squares(answer: object) -> Tensor:
    """A loss of everything that a network returned."""
    return torch.stack([value.square().mean() for value in _tensors(answer)]).sum()


def _training_step(
    parameters: Iterable[nn.Parameter],
    forward: Callable[[], Any],
    loss: Callable[[Any], Tensor] = _mean_squares,
) -> Step:
    optimizer = torch.optim.Adam(parameters, lr=1e-4, weight_decay=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss(forward()).backward()
        optimizer.step()

    return step


def _task_loss(folder: Path, data: Data) -> Callable[[Tensor], Tensor]:
    """The masked task loss that GCNet's and ComP's releases share, of outputs ``[..., K]``."""
    losses = _import(folder, "loss")
    regression = data.spec.task == "regression"
    function = losses.MaskedMSELoss() if regression else losses.MaskedCELoss()
    labels, real = _labels(data).reshape(-1), data.batch.real.float()
    return lambda outputs: function(outputs.reshape(-1, outputs.shape[-1]), labels, real)


def _labels(data: Data) -> Tensor:
    assert data.batch.labels is not None
    return data.batch.labels


def _time_first(data: Data) -> tuple[Tensor, Tensor]:
    """Features ``[S, B, D]`` and availability ``[S, B, 3]`` in the order audio, text, vision."""
    names = ("audio", "text", "vision")
    features = torch.cat([data.batch.features[name] for name in names], dim=-1)
    columns = [data.spec.names.index(name) for name in names]
    available = data.batch.available[..., columns].long()
    return features.transpose(0, 1).contiguous(), available.transpose(0, 1).contiguous()


def _widths(data: Data) -> dict[str, int]:
    dims = data.spec.dims
    return {"adim": dims["audio"], "tdim": dims["text"], "vdim": dims["vision"]}


def gcnet(folder: Path, data: Data, settings: Mapping[str, Any]) -> Step:
    """GCNet's graph network."""
    network = _import(folder / "gcnet", "model").GraphModel(
        "LSTM",
        **_widths(data),
        D_e=settings["hidden"],
        graph_hidden_size=settings["hidden"] // 2,
        n_speakers=2,
        window_past=settings["window_past"],
        window_future=settings["window_future"],
        n_classes=data.spec.outputs,
        dropout=0.5,
        time_attn=settings["time_attn"],
        no_cuda=True,
    )
    features, available = _time_first(data)
    speakers, real, lengths = data.batch.speakers, data.batch.real.float(), list(data.batch.lengths)
    assert data.batch.targets is not None
    complete, _ = _time_first(Data(data.spec, replace(data.batch, features=data.batch.targets)))
    task, widths = _task_loss(folder / "gcnet", data), _widths(data)
    reconstruction = _import(folder / "gcnet", "loss").MaskedReconLoss()

    def loss(answer: Any) -> Tensor:
        predicted, rebuilt, _ = answer
        return task(predicted) + reconstruction(rebuilt, [complete], [available], real, **widths)

    return _training_step(network.parameters(), lambda: network([features], speakers, real, lengths), loss)


def momke(folder: Path, data: Data, settings: Mapping[str, Any]) -> Step:
    """MoMKE's network in one of its stages."""
    network = _import(folder / "MoMKE", "model_expert_softmoe").MoMKE(
        Namespace(device="cpu", drop_rate=0.5),
        **_widths(data),
        D_e=settings["hidden"],
        n_classes=data.spec.outputs,
        depth=settings["depth"],
        num_heads=settings["heads"],
        drop_rate=0.5,
        no_cuda=True,
    )
    features, available = _time_first(data)
    real, first = data.batch.real.float(), settings["first_stage"]
    return _training_step(network.parameters(), lambda: network(features, available, real, first))


def comp(folder: Path, data: Data, settings: Mapping[str, Any]) -> Step:
    """ComP's network in one of its stages."""
    network = _import(folder / "ComP", "model").ComP(
        Namespace(device="cpu", drop_rate=0.5, seq_len=data.spec.longest_dialogue),
        **_widths(data),
        D_e=settings["hidden"],
        n_classes=data.spec.outputs,
        depth=settings["depth"],
        num_heads=settings["heads"],
        drop_rate=0.5,
        no_cuda=True,
        lbd=0.3,
    )
    features, available = _time_first(data)
    labels, real, first = _labels(data), data.batch.real.float(), settings["first_stage"]
    task, regression = _task_loss(folder / "ComP", data), data.spec.task == "regression"
    losses = _import(folder / "ComP", "loss")
    apart = losses.DisentangledLoss()
    noise = losses.MaskedMSELoss()

    def loss(answer: Any) -> Tensor:
        _, joint, *unimodal, _, projected, rebuilt, shared, private, private_outputs = answer
        parts = [part.chunk(3, dim=-1) for part in (shared, private)]
        total = torch.stack([task(outputs) for outputs in unimodal]).sum()
        if first and regression:
            aim = torch.randn(labels.numel()).mul(1.5).clamp(-3, 3)
            for outputs in private_outputs.chunk(3, dim=-1):
                total = total + noise(outputs.reshape(-1, 1), aim, real)
        elif first:
            for outputs in private_outputs.chunk(3, dim=-1):
                total = total + task(1 - outputs)
        else:
            total = 2 * total + task(joint) + nn.functional.mse_loss(rebuilt, projected)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            (a, b), (c, d) = ((part[one], part[other]) for part in parts)
            total = total + apart.foward_2(c, d, a, b, real)
        return total

    return _training_step(
        network.parameters(), lambda: network(features, labels, available, real, first), loss
    )


class _Arguments(dict[str, Any]):
    """Settings by key and by attribute."""

    __getattr__ = dict.__getitem__


def dmd(folder: Path, data: Data) -> Step:
    """DMD's network, without its distillation kernels, which need CUDA, and without a text encoder."""
    network_module = _import(folder, "trains.singleTask.model.dmd")
    config = json.loads((folder / "config" / "config.json").read_text())["dmd"]
    chosen = config["commonParams"] | config["datasetParams"]["mosi"]
    dims = data.spec.dims
    shape = [dims["text"], dims["audio"], dims["vision"]]
    chosen |= {"use_bert": False, "dataset_name": "mosi", "feature_dims": shape}
    network = network_module.DMD(_Arguments(chosen))
    text, audio, vision = (data.batch.features[name] for name in ("text", "audio", "vision"))
    return _training_step(network.parameters(), lambda: network(text, audio, vision, is_distill=True))


def ad_mcpd_graph(folder: Path, settings: Mapping[str, Any]) -> Step:
    """AD-MCPD's semantic graph and its convolution, forward and backward, no optimiser."""
    parts = folder / "MMER" / "trains" / "singleTask" / "model" / "components"
    graph = _import_file(parts / "semantic_graph.py").CrossModalSemanticGraph(
        settings["width"], settings["classes"]
    )
    convolution = _import_file(parts / "gcn_enhancement.py").StructureAwareGCN(settings["width"])
    values, logits = settings["values"], settings["logits"]
    names = ("text", "audio", "vision")

    def step() -> None:
        features = values.clone().requires_grad_(True)
        labels = torch.softmax(logits.clone().requires_grad_(True), dim=-1)
        adjacency, nodes = graph(
            dict(zip(names, features, strict=True)),
            dict(zip(names, labels, strict=True)),
            features.mean(dim=0),
        )
        convolution(adjacency, nodes, features.shape[1]).sum().backward()

    return step
