"""Training steps of this project's methods, without the engine around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from imer_bench.harness.method import StagePlan
from imer_bench.harness.registry import method_class, method_info
from imer_bench.methods.ad_mcpd.encoder import Encoded, fuse, fused_pseudo_labels
from imer_bench.methods.ad_mcpd.graph import ResidualGraphConvolution, SemanticGraph

from .data import Data
from .timing import Step


class _Services:
    """What a method asks of the harness, without a harness."""

    device = torch.device("cpu")

    def generator(self, name: str) -> torch.Generator:
        """A fixed generator."""
        return torch.Generator().manual_seed(0)

    def language_model(self, name: str) -> Any:
        """None is at hand."""
        raise LookupError(name)


def training_step(
    method: str, data: Data, profile: str, settings: Mapping[str, Any], stage: str | None = None
) -> Step:
    """Forward pass, all losses, backward pass and optimiser of a method.

    Args:
        method: Name of the method.
        data: What a step is made on.
        profile: One of its profiles.
        settings: Hyper-parameters on top of it.
        stage: Name of the stage; ``None``: the first.
    """
    info = method_info(method)
    parameters = info.parameters(**{**info.profiles[profile], **settings})
    torch.manual_seed(0)
    network = method_class(info)(data.spec, parameters, _Services())
    for index, candidate in enumerate(network.stages()):
        network.start_stage(StagePlan(candidate, index, 1))
        if stage in (None, candidate.name):
            break
    network.train()
    network.start_epoch(0)
    return lambda: network.training_step(data.batch)


def ad_mcpd_graph(width: int, classes: int, values: torch.Tensor, logits: torch.Tensor) -> Step:
    """AD-MCPD's semantic graph and its convolution on a complete batch, forward and backward.

    Args:
        width: D.
        classes: C.
        values: ``[M, B, D]`` encoded modalities.
        logits: ``[M, B, C]`` pseudo-label logits.
    """
    graph, convolution = SemanticGraph(classes, width, 1.5), ResidualGraphConvolution(width)
    available = torch.ones(values.shape[:2], dtype=torch.bool)

    def step() -> None:
        features = values.clone().requires_grad_(True)
        log_p = torch.log_softmax(logits.clone().requires_grad_(True), dim=-1)
        encoded = Encoded(
            features=features,
            log_p=log_p,
            available=available,
            fused=fuse(features, available, 0.1),
            fused_p=fused_pseudo_labels(log_p, available, "mean"),
        )
        built = graph(encoded)
        size = values.shape[1]
        hidden = convolution(
            built.adjacency[:size], built.degree[:size], built.degree, built.nodes, encoded.fused
        )
        hidden.sum().backward()

    return step
