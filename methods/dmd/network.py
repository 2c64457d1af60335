"""The network of DMD, from feature sequences to outputs (spec sections 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .distillation import GraphDistillation, UnitSettings, edge_pairs, prior
from .info import DMDParameters
from .transformer import Dropouts, Encoder, Reading, encode

# Order of the nodes of both graphs, and of the sources of a target; further modalities follow.
GRAPH_ORDER = ("text", "vision", "audio")
SOURCE_ORDER = ("text", "audio", "vision")
# Teacher and student of the edges that the published prior favours.
FAVOURED_SHARED = (("text", "vision"), ("text", "audio"))
FAVOURED_EXCLUSIVE = (*FAVOURED_SHARED, ("vision", "audio"))


@dataclass(frozen=True)
class ModalityShape:
    """One modality as the network sees it.

    Attributes:
        name: Name of the modality.
        dim: Width D of its features.
        length: Fixed input length T0, part of parameter shapes.
        kernel: Width of its projecting convolution.
    """

    name: str
    dim: int
    length: int
    kernel: int

    @property
    def steps(self) -> int:
        """Length after the projection."""
        return self.length - self.kernel + 1


def in_order(names: Iterable[str], order: Sequence[str]) -> tuple[str, ...]:
    """The names in a known order, unknown ones behind in their own."""
    given = tuple(names)
    return tuple(n for n in order if n in given) + tuple(n for n in given if n not in order)


def unit_settings(hp: DMDParameters, names: Sequence[str], shared: bool) -> UnitSettings:
    """Settings of a graph over modalities ``names`` (in graph order)."""
    favoured = FAVOURED_SHARED if shared else FAVOURED_EXCLUSIVE
    published = hp.gd_prior == "published"
    logits = [
        float(published and (names[teacher], names[student]) in favoured)
        for student, teacher in edge_pairs(len(names))
    ]
    return UnitSettings(
        size=hp.homo_gd_size if shared else hp.hetero_gd_size,
        prior=prior(logits),
        reg=hp.gd_reg,
        metric=hp.gd_metric,
        alpha=hp.gd_alpha,
        representation="distance" if shared else hp.hetero_repr,
    )


@dataclass(frozen=True)
class HeadOutput:
    """Steps of a residual head: ``hidden`` after the ReLU, ``residual``, and ``logits``."""

    hidden: Tensor
    residual: Tensor
    logits: Tensor


class ResidualHead(nn.Module):
    """Linear, ReLU, dropout, linear, residual, linear.

    Args:
        width: Input width.
        hidden: Hidden width.
        outputs: Number of outputs C.
        dropout: Dropout of the hidden layer.
    """

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.output = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> HeadOutput:
        """Runs the head on ``x [B, width]``."""
        hidden = functional.relu(self.inner(x))
        residual = self.outer(self.dropout(hidden)) + x
        return HeadOutput(hidden, residual, self.output(residual))


@dataclass(frozen=True)
class Decoupled:
    """Parts of one modality, channels first ``[B, d, T]`` (spec section 3).

    Attributes:
        origin: Projection p.
        exclusive: Exclusive part s.
        shared: Shared part c.
        recon: Reconstruction r; ``None`` without decoupling, like the next two.
        again: Exclusive part s' of the reconstruction.
        margin: Margin vector m ``[B, d]``.
    """

    origin: Tensor
    exclusive: Tensor
    shared: Tensor
    recon: Tensor | None = None
    again: Tensor | None = None
    margin: Tensor | None = None


@dataclass(frozen=True)
class NetworkOutput:
    """Everything a forward pass computed; heads are by modality.

    Attributes:
        parts: Decoupled parts.
        shared_heads: Heads on the shared parts (inputs of the homogeneous graph).
        exclusive: e ``[B, (M-1)d]``.
        exclusive_heads: Heads on e (inputs of the heterogeneous graph).
        shared_logits: Output of the head on all shared parts; ``None`` if there is none.
        final: The fused head; its logits are the prediction.
    """

    parts: Mapping[str, Decoupled]
    shared_heads: Mapping[str, HeadOutput]
    exclusive: Mapping[str, Tensor]
    exclusive_heads: Mapping[str, HeadOutput]
    shared_logits: Tensor | None
    final: HeadOutput


class DMDNetwork(nn.Module):
    """DMD over two or more modalities.

    Args:
        shapes: The modalities, in any order.
        outputs: Number of outputs C.
        hp: Hyper-parameters.
        homo: Settings of the graph on shared parts; from ``hp`` if ``None``.
        hetero: Settings of the graph on exclusive parts; from ``hp`` if ``None``.
    """

    def __init__(
        self,
        shapes: Sequence[ModalityShape],
        outputs: int,
        hp: DMDParameters,
        homo: UnitSettings | None = None,
        hetero: UnitSettings | None = None,
    ) -> None:
        super().__init__()
        by_name = {shape.name: shape for shape in shapes}
        self.names = in_order(by_name, GRAPH_ORDER)
        self.shapes = {name: by_name[name] for name in self.names}
        self.hp = hp
        count, d = len(self.names), hp.hidden
        steps = {name: shape.steps for name, shape in self.shapes.items()}

        self.text_dropout = nn.Dropout(hp.text_dropout)
        self.project = self._each(
            lambda n: nn.Conv1d(self.shapes[n].dim, d, self.shapes[n].kernel, bias=False)
        )
        if hp.decoupling:
            self.private = self._each(lambda n: nn.Conv1d(d, d, 1, bias=False))
            self.shared = nn.Conv1d(d, d, 1, bias=False)
            self.decode = self._each(lambda n: nn.Conv1d(2 * d, d, 1, bias=False))
            self.margin = self._each(lambda n: nn.Linear(d * steps[n], d))

        # Heads that neither a task loss nor a graph reads are not built: nothing would train them.
        self.has_shared_heads = hp.unimodal_tasks or hp.homo_gd
        self.has_exclusive_heads = hp.unimodal_tasks or hp.hetero_gd
        if self.has_shared_heads:
            self.shared_heads = self._each(
                lambda n: ResidualHead(d * steps[n], d, outputs, hp.output_dropout)
            )
        self.shared_encoders = self._each(lambda n: self._encoder(d, hp.nlevels, steps[n], "text"))
        if hp.unimodal_tasks:
            self.shared_fusion = ResidualHead(count * d, count * d, outputs, hp.output_dropout)

        # One cross-modal encoder per ordered pair, one memory encoder per target.
        self.sources = {
            target: tuple(s for s in in_order(self.names, SOURCE_ORDER) if s != target)
            for target in self.names
        }
        self.cross = nn.ModuleDict()
        for target, sources in self.sources.items():
            for source in sources:
                seen = source if hp.crossmodal else target
                longest = max(steps[target], steps[seen])
                self.cross[f"{target}_from_{source}"] = self._encoder(d, hp.nlevels, longest, seen)
        wide = (count - 1) * d
        self.memory = self._each(lambda n: self._encoder(wide, max(hp.nlevels, 3), steps[n], "text"))
        if self.has_exclusive_heads:
            self.exclusive_heads = self._each(lambda n: ResidualHead(wide, wide, outputs, hp.output_dropout))

        self.gates = self._each(lambda n: nn.Linear(wide, wide))
        self.shared_gate = nn.Linear(count * d, count * d)
        fused = count * wide + count * d
        self.fusion = ResidualHead(fused, fused, outputs, hp.output_dropout)
        if hp.homo_gd:
            settings = homo or unit_settings(hp, self.names, shared=True)
            self.homo = GraphDistillation(count, outputs, d, settings)
        if hp.hetero_gd:
            settings = hetero or unit_settings(hp, self.names, shared=False)
            self.hetero = GraphDistillation(count, outputs, wide, settings)

    def forward(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None, heads: bool = True
    ) -> NetworkOutput:
        """Runs the network.

        Args:
            inputs: Per modality ``[B, T0, D]``, zero where nothing is available.
            valid: Per modality ``[B, T0]`` bool, True for data; without it, padding is where a
                projected step has an exact zero in channel 0.
            heads: Whether to run the parts that only training losses need.
        """
        decoupling = self.hp.decoupling and heads
        parts = {name: self._decouple(name, inputs[name], decoupling) for name in self.names}
        steps = {} if valid is None else {n: _windows(valid[n], self.shapes[n].kernel) for n in self.names}
        shared = {name: part.shared.transpose(1, 2) for name, part in parts.items()}
        exclusive = {name: part.exclusive.transpose(1, 2) for name, part in parts.items()}

        common = torch.cat(self._shared_states(shared, steps), dim=-1)
        reinforced = self._reinforce(exclusive, steps)

        own = {name: torch.sigmoid(self.gates[name](reinforced[name])) for name in self.names}
        all_shared = torch.sigmoid(self.shared_gate(common))
        if self.hp.fusion_gate == "multiply":
            own = {name: gate * reinforced[name] for name, gate in own.items()}
            all_shared = all_shared * common
        final = self.fusion(torch.cat([*own.values(), all_shared], dim=-1))
        if not heads:
            return NetworkOutput(parts, {}, reinforced, {}, None, final)
        return NetworkOutput(
            parts=parts,
            shared_heads={n: self.shared_heads[n](shared[n].flatten(1)) for n in self.names}
            if self.has_shared_heads
            else {},
            exclusive=reinforced,
            exclusive_heads={n: self.exclusive_heads[n](reinforced[n]) for n in self.names}
            if self.has_exclusive_heads
            else {},
            shared_logits=self.shared_fusion(common).logits if self.hp.unimodal_tasks else None,
            final=final,
        )

    def _decouple(self, name: str, features: Tensor, losses: bool) -> Decoupled:
        if name == "text":
            features = self.text_dropout(features)
        origin = self.project[name](features.transpose(1, 2))
        if not self.hp.decoupling:
            return Decoupled(origin, origin, origin)
        exclusive, shared = self.private[name](origin), self.shared(origin)
        if not losses:
            return Decoupled(origin, exclusive, shared)
        recon = self.decode[name](torch.cat([exclusive, shared], dim=1))
        margin = self.margin[name](shared.flatten(1))
        return Decoupled(origin, exclusive, shared, recon, self.private[name](recon), margin)

    def _shared_states(self, shared: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> list[Tensor]:
        """What stands for the shared part of each modality, ``[B, d]``."""
        readings = [
            Reading(self._coder("shared_encoders", n), shared[n], query_valid=steps.get(n))
            for n in self.names
        ]
        return self._pooled(readings, shared, steps)

    def _reinforce(self, exclusive: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """E ``[B, (M-1)d]`` of each modality: what its exclusive part learns from the others."""
        readings = []
        for target, sources in self.sources.items():
            for source in sources:
                encoder = self._coder("cross", f"{target}_from_{source}")
                seen = exclusive[source] if self.hp.crossmodal else None
                seen_valid = steps.get(source) if self.hp.crossmodal else None
                readings.append(Reading(encoder, exclusive[target], seen, steps.get(target), seen_valid))
        learned = iter(encode(readings))
        joined = {
            target: torch.cat([next(learned) for _ in sources], dim=-1)
            for target, sources in self.sources.items()
        }
        memories = [
            Reading(self._coder("memory", n), joined[n], query_valid=steps.get(n)) for n in self.names
        ]
        return dict(zip(self.names, self._pooled(memories, exclusive, steps), strict=True))

    def _coder(self, group: str, name: str) -> Encoder:
        encoder = getattr(self, group)[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def _pooled(
        self, readings: Sequence[Reading], given: Mapping[str, Tensor], steps: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """The step ``[B, e]`` that stands for each modality's encoded sequence."""
        if self.hp.pool == "last":
            return [encoded[:, -1] for encoded in encode(readings, last=True)]
        encoded = zip(self.names, encode(readings), strict=True)
        return [self._last_valid(states, given[name], steps.get(name)) for name, states in encoded]

    def _last_valid(self, encoded: Tensor, given: Tensor, valid: Tensor | None) -> Tensor:
        """The last valid step ``[B, e]`` of a sequence ``[B, T, e]``."""
        valid = given[..., 0] != 0 if valid is None else valid
        steps = torch.arange(1, valid.shape[1] + 1, device=valid.device)
        last = (valid * steps).amax(dim=1)
        # Where nothing is valid any step would do: all are made of biases alone.
        index = torch.where(last > 0, last, valid.shape[1]) - 1
        return encoded.gather(1, index[:, None, None].expand(-1, 1, encoded.shape[-1])).squeeze(1)

    def _encoder(self, width: int, layers: int, longest: int, source: str) -> Encoder:
        hp = self.hp
        attention = {"audio": hp.attn_dropout_audio, "vision": hp.attn_dropout_vision}
        dropouts = Dropouts(
            attention.get(source, hp.attn_dropout), hp.relu_dropout, hp.res_dropout, hp.embed_dropout
        )
        return Encoder(width, hp.heads, layers, longest, dropouts, hp.attn_mask)

    def _each(self, build: Callable[[str], nn.Module]) -> nn.ModuleDict:
        """One module per modality."""
        return nn.ModuleDict({name: build(name) for name in self.names})


def _windows(valid: Tensor, kernel: int) -> Tensor:
    """``[B, T]`` bool: windows of the projection that see at least one valid step."""
    return valid.unfold(1, kernel, 1).any(dim=-1)
