"""Cross-modal semantic graph and its residual convolution (sections 2.3, 2.4 and 3.3).

Distances are only ever taken to the C class centres, ``[M, B, C, D]`` at most; a pair's distances
are gathered from them by one-hot products, so that nothing of size ``[B, B, D]`` arises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import Encoded

Metric = Literal["cosine", "raw"]
Edges = Literal["full", "no_sample_edges", "no_centre_edges", "none"]


@dataclass(frozen=True)
class Centres:
    """Class centres of a batch or bank.

    Attributes:
        means: ``[M, C, D]`` mean feature per modality and predicted class; zero for an empty class.
        filled: ``[M, C]`` bool, whether anybody was assigned.
        average: ``[C, D]`` average over modalities, the features of the centre nodes.
        near_means: As ``means``, in the space where distances are taken.
        near_average: As ``average``, in the space where distances are taken.
    """

    means: Tensor
    filled: Tensor
    average: Tensor
    near_means: Tensor
    near_average: Tensor


@dataclass(frozen=True)
class View:
    """What edges need to know of a set of samples, relative to given centres.

    Attributes:
        log_p: ``[M, B, C]`` log pseudo-labels.
        near: ``[M, B, C]`` exp(-1/2 squared distance) to every centre of the modality.
        assigned: ``[M, B, C]`` one-hot predicted class, zero where absent.
        available: ``[M, B]`` bool.
        centre_edges: ``[B, C]`` weight of the edge to the class node, one per sample.
    """

    log_p: Tensor
    near: Tensor
    assigned: Tensor
    available: Tensor
    centre_edges: Tensor


@dataclass(frozen=True)
class Graph:
    """A graph over B samples and C centres.

    Attributes:
        adjacency: ``[B + C, B + C]`` A.
        nodes: ``[B + C, D]`` X.
        degree: ``[B + C]`` row sums of A.
        centres: The centres.
        view: The samples.
    """

    adjacency: Tensor
    nodes: Tensor
    degree: Tensor
    centres: Centres
    view: View


def metric_space(features: Tensor, metric: Metric) -> Tensor:
    """Features as distances see them: of unit length (S10), or as they are."""
    return F.normalize(features, dim=-1, eps=1e-8) if metric == "cosine" else features


def one_hot_classes(log_p: Tensor, available: Tensor) -> Tensor:
    """One-hot predicted classes ``[M, B, C]``, zero where the modality is absent."""
    return (_one_hot(log_p.argmax(dim=-1), log_p.shape[-1]) & available[..., None]).to(log_p.dtype)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    """``[..., count]`` bool; torch's own reads the classes back to check them."""
    return classes[..., None] == torch.arange(count, device=classes.device)


def class_means(features: Tensor, assigned: Tensor) -> Tensor:
    """Mean of features ``[M, B, D]`` per assigned class ``[M, B, C]``: ``[M, C, D]``."""
    return assigned.mT @ features / assigned.sum(dim=1)[..., None].clamp(min=1.0)


def average_centres(
    means: Tensor,
    filled: Tensor,
    present: Tensor,
    learnable: Tensor,
    centre_average: Literal["present", "all"],
    empty_class: Literal["fallback", "zero"],
) -> Tensor:
    """Average of the centres over modalities (section 2.3; S8, S9).

    Args:
        means: ``[M, C, D]``.
        filled: ``[M, C]`` bool, whether the class has a member in the modality.
        present: ``[M]`` bool, whether any sample has the modality.
        learnable: ``[C, D]`` learnable centres e.
        centre_average: With ``"all"`` a modality that nobody has is represented by e.
        empty_class: With ``"zero"`` an empty class of a present modality counts with its zero
            centre; with ``"fallback"`` it is left out, and e is used if it is empty everywhere.

    Returns:
        ``[C, D]``.
    """
    counts = present[:, None] & (filled | (empty_class == "zero"))
    if centre_average == "all":
        counts = counts | ~present[:, None]
    values = torch.where(present[:, None, None], means, learnable)
    weight = counts.to(means.dtype)
    total = weight.sum(dim=0)[:, None]
    mean = (weight[..., None] * values).sum(dim=0) / total.clamp(min=1.0)
    return torch.where(total > 0, mean, learnable)


def symmetric_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """S_ij = 1/2 sum_c (p_ic - q_jc)(log p_ic - log q_jc).

    The differences are formed directly: the matrix-product form loses digits near S = 0.

    Args:
        log_p: ``[M, B, C]``.
        log_q: ``[M, N, C]``.

    Returns:
        ``[M, B, N]``, non-negative.
    """
    p, q = log_p.exp(), log_q.exp()
    gap = p[:, :, None] - q[:, None]
    return 0.5 * (gap * (log_p[:, :, None] - log_q[:, None])).sum(dim=-1)


def proximity(features: Tensor, centres: Tensor) -> Tensor:
    """exp(-1/2 ||x - c||^2) of ``[..., B, D]`` to ``[..., C, D]``: ``[..., B, C]``."""
    return torch.exp(-0.5 * (features[..., :, None, :] - centres[..., None, :, :]).square().sum(dim=-1))


def pair_weights(query: View, support: View, delta: float) -> Tensor:
    """w^m between two sets of samples, zero where either lacks the modality (section 2.3).

    Returns:
        ``[M, Q, S]``.
    """
    agreement = F.relu(1.0 - symmetric_divergence(query.log_p, support.log_p) / delta)
    to_class_of_support = query.near @ support.assigned.mT
    to_class_of_query = query.assigned @ support.near.mT
    return agreement * to_class_of_support * to_class_of_query


def sample_edges(weights: Tensor, query: Tensor, support: Tensor) -> Tensor:
    """Mean of pair weights ``[M, Q, S]`` over shared modalities ``[M, Q]``, ``[M, S]``: ``[Q, S]``."""
    shared = query.to(weights.dtype).T @ support.to(weights.dtype)
    return weights.sum(dim=0) / shared.clamp(min=1.0)


class ResidualGraphConvolution(nn.Module):
    """H = relu(Ahat X Wg^T + X Ws^T) (section 2.4), without biases."""

    def __init__(self, shared_dim: int) -> None:
        super().__init__()
        self.neighbours = nn.Linear(shared_dim, shared_dim, bias=False)
        self.own = nn.Linear(shared_dim, shared_dim, bias=False)

    def forward(
        self, rows: Tensor, row_degree: Tensor, degree: Tensor, nodes: Tensor, features: Tensor
    ) -> Tensor:
        """Convolves some rows of a graph.

        Args:
            rows: ``[Q, N]`` rows of the adjacency.
            row_degree: ``[Q]`` their degrees.
            degree: ``[N]`` degrees of the nodes they point to.
            nodes: ``[N, D]`` X.
            features: ``[Q, D]`` features of the rows' own nodes.

        Returns:
            ``[Q, D]``.
        """
        weights = rows * torch.rsqrt(row_degree + 1e-8)[:, None] * torch.rsqrt(degree + 1e-8)
        return F.relu(self.neighbours(weights @ nodes) + self.own(features))


class SemanticGraph(nn.Module):
    """Builds the graph of a batch, and the rows of single samples against a bank.

    Args:
        classes: Number of classes C.
        shared_dim: Shared width D.
        delta: Threshold of the divergence.
        metric: Space of the distances.
        centre_assignment: How a sample finds its class node (S8).
        centre_average: See ``average_centres``.
        empty_class: See ``average_centres``.
        edges: Which edges exist; ``"none"`` builds nothing.
    """

    def __init__(
        self,
        classes: int,
        shared_dim: int,
        delta: float,
        metric: Metric = "cosine",
        centre_assignment: Literal["pseudo", "learnable"] = "pseudo",
        centre_average: Literal["present", "all"] = "present",
        empty_class: Literal["fallback", "zero"] = "fallback",
        edges: Edges = "full",
    ) -> None:
        super().__init__()
        self.delta = delta
        self.metric: Metric = metric
        self.centre_assignment = centre_assignment
        self.centre_average: Literal["present", "all"] = centre_average
        self.empty_class: Literal["fallback", "zero"] = empty_class
        self.edges: Edges = edges
        self.learnable_centres = nn.Parameter(torch.randn(classes, shared_dim))

    def centres(self, encoded: Encoded, assigned: Tensor) -> Centres:
        """Class centres of a batch for predicted classes ``[M, B, C]``."""
        filled = assigned.any(dim=1)
        present = encoded.available.any(dim=1)

        def average(means: Tensor, learnable: Tensor) -> Tensor:
            return average_centres(means, filled, present, learnable, self.centre_average, self.empty_class)

        means = class_means(encoded.features, assigned)
        near_means = class_means(metric_space(encoded.features, self.metric), assigned)
        return Centres(
            means=means,
            filled=filled,
            average=average(means, self.learnable_centres),
            near_means=near_means,
            near_average=average(near_means, metric_space(self.learnable_centres, self.metric)),
        )

    def view(self, encoded: Encoded, assigned: Tensor, centres: Centres) -> View:
        """Samples relative to centres, which may be a bank's."""
        if self.centre_assignment == "learnable":
            own = (encoded.fused @ self.learnable_centres.T).argmax(dim=-1)
        else:
            own = encoded.fused_p.argmax(dim=-1)
        chosen = _one_hot(own, encoded.fused_p.shape[-1]) & encoded.valid[:, None]
        if self.edges == "no_centre_edges":
            chosen = torch.zeros_like(chosen)
        near = proximity(metric_space(encoded.features, self.metric), centres.near_means)
        return View(
            log_p=encoded.log_p,
            # Nobody can be near a class that has no member; matters for samples outside a bank only.
            near=near * centres.filled[:, None],
            assigned=assigned,
            available=encoded.available,
            centre_edges=chosen * proximity(metric_space(encoded.fused, self.metric), centres.near_average),
        )

    def forward(self, encoded: Encoded) -> Graph:
        """The graph of a batch."""
        assigned = one_hot_classes(encoded.log_p, encoded.available)
        centres = self.centres(encoded, assigned)
        view = self.view(encoded, assigned, centres)
        size, classes = view.centre_edges.shape
        if self.edges == "no_sample_edges":
            between = view.centre_edges.new_zeros(size, size)
        else:
            weights = pair_weights(view, view, self.delta)
            between = sample_edges(weights, view.available, view.available)
            between = between * (1.0 - torch.eye(size, dtype=between.dtype, device=between.device))
        loops = torch.eye(classes, dtype=between.dtype, device=between.device)
        adjacency = torch.cat(
            [torch.cat([between, view.centre_edges], dim=1), torch.cat([view.centre_edges.T, loops], dim=1)]
        )
        nodes = torch.cat([encoded.fused, centres.average])
        return Graph(adjacency, nodes, adjacency.sum(dim=1), centres, view)

    def attach(self, encoded: Encoded, bank: SupportBank) -> Tensor:
        """Rows ``[Q, N + C]`` of samples attached to a bank one by one (section 3.3)."""
        assigned = one_hot_classes(encoded.log_p, encoded.available)
        query = self.view(encoded, assigned, bank.centres)
        support = bank.view
        if self.edges == "no_sample_edges":
            between = query.centre_edges.new_zeros(len(query.centre_edges), support.log_p.shape[1])
        else:
            weights = pair_weights(query, support, self.delta)
            between = sample_edges(weights, query.available, support.available)
        return torch.cat([between, query.centre_edges], dim=1)


class SupportBank(nn.Module):
    """Training samples that every sample outside training is attached to (section 3.3).

    Everything is a buffer: it is saved with the model, and a saved model predicts alone.

    Args:
        modalities: M.
        size: Number of samples.
        classes: C.
        shared_dim: D.
    """

    log_p: Tensor
    near: Tensor
    assigned: Tensor
    available: Tensor
    near_means: Tensor
    near_average: Tensor
    filled: Tensor
    nodes: Tensor
    degree: Tensor
    ready: Tensor

    def __init__(self, modalities: int, size: int, classes: int, shared_dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("log_p", torch.zeros(modalities, size, classes))
        self.register_buffer("near", torch.zeros(modalities, size, classes))
        self.register_buffer("assigned", torch.zeros(modalities, size, classes))
        self.register_buffer("available", torch.zeros(modalities, size, dtype=torch.bool))
        self.register_buffer("near_means", torch.zeros(modalities, classes, shared_dim))
        self.register_buffer("near_average", torch.zeros(classes, shared_dim))
        self.register_buffer("filled", torch.zeros(modalities, classes, dtype=torch.bool))
        self.register_buffer("nodes", torch.zeros(size + classes, shared_dim))
        self.register_buffer("degree", torch.zeros(size + classes))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fill(self, graph: Graph) -> None:
        """Takes over the graph of ``size`` training samples."""
        for name in ("log_p", "near", "assigned", "available"):
            getattr(self, name).copy_(getattr(graph.view, name))
        for name in ("near_means", "near_average", "filled"):
            getattr(self, name).copy_(getattr(graph.centres, name))
        self.nodes.copy_(graph.nodes)
        self.degree.copy_(graph.degree)
        self.ready.fill_(True)

    @property
    def centres(self) -> Centres:
        """The bank's centres; unnormalised means per modality are not kept."""
        average = self.nodes[self.size :]
        return Centres(self.near_means, self.filled, average, self.near_means, self.near_average)

    @property
    def view(self) -> View:
        """The bank's samples."""
        edges = self.near.new_zeros(self.size, self.near.shape[-1])
        return View(self.log_p, self.near, self.assigned, self.available, edges)
