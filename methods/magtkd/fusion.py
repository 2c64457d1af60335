"""The fusion network over a dialogue: one stream per modality, the anchor's last (spec section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import Block, Gate, position_table
from .info import MAGTKDParameters

ORDER = ("text", "audio", "vision")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Modalities in the order of the method, unknown ones behind in their own."""
    given = tuple(names)
    return tuple(n for n in ORDER if n in given) + tuple(n for n in given if n not in ORDER)


def pair(source: str, anchor: str) -> str:
    """Name of the block and gate from a source to an anchor."""
    return f"{source}_to_{anchor}"


@dataclass(frozen=True)
class FusionOutput:
    """What a forward pass computed; mappings are by modality or by ``pair``.

    Attributes:
        encoded: Outputs of the blocks ``[B, T, H]``.
        factors: Gate factors ``[B, T, H]``; empty without gates.
        gated: ``encoded`` after the gates.
        hidden: Streams ``[B, T, H]``.
        logits: Outputs of the streams' heads ``[B, T, C]``, as far as there are heads.
        prediction: ``[B, T, C]`` the anchor's logits, or their mean over streams without an anchor.
        teacher: Modality whose stream the others follow.
    """

    encoded: Mapping[str, Tensor]
    factors: Mapping[str, Tensor]
    gated: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor]
    logits: Mapping[str, Tensor]
    prediction: Tensor
    teacher: str


class AnchorFusion(nn.Module):
    """Streams that read one another through gated cross-attention.

    Args:
        widths: Feature width of each modality in use.
        outputs: Number of outputs C.
        hp: Hyper-parameters.
        longest: Longest dialogue.
    """

    positions: Tensor

    def __init__(self, widths: Mapping[str, int], outputs: int, hp: MAGTKDParameters, longest: int) -> None:
        super().__init__()
        self.names = in_order(widths)
        self.hp = hp
        width = hp.hidden_dim
        self.anchor = None if hp.anchor == "none" else self._present(hp.anchor)
        self.teacher = self.anchor or self.names[0]

        self.project = nn.ModuleDict(
            {
                name: nn.Linear(widths[name], width)
                for name in self.names
                if widths[name] != width or hp.project == "always"
            }
        )
        if hp.missing == "mask":
            self.absent = nn.ParameterDict(
                {name: nn.Parameter(torch.randn(width) * 0.02) for name in self.names}
            )
        if hp.use_position:
            self.register_buffer("positions", position_table(longest, width), persistent=False)
        if hp.use_speaker:
            self.padding = 2 if hp.speaker_padding == "reference" else hp.max_speakers
            self.speakers = nn.Embedding(hp.max_speakers + 1, width, padding_idx=self.padding)
            nn.init.normal_(self.speakers.weight, std=0.1)

        pairs = [
            pair(source, anchor)
            for anchor in self.names
            for source in self._sources(anchor)
            if not self._shares(source, anchor)
        ]
        inner = hp.ff_dim or width
        self.blocks = nn.ModuleDict(
            {name: Block(width, hp.num_heads, inner, hp.dropout, hp.attention) for name in pairs}
        )
        self.gates = nn.ModuleDict()
        if hp.gate != "none":
            for name in pairs:
                self.gates[name] = Gate(width, floor=hp.gate == "relu_sigmoid")
        self.reduce = nn.ModuleDict({name: nn.Linear(len(self.names) * width, width) for name in self.names})
        # A head that no loss and no prediction reads is not built: nothing would train it.
        read = hp.branch_ce or (hp.logit_kd and outputs > 1) or self.anchor is None
        heads = self.names if read else (self.teacher,)
        self.heads = nn.ModuleDict({name: nn.Linear(width, outputs) for name in heads})

    def forward(
        self,
        features: Mapping[str, Tensor],
        speakers: Tensor,
        real: Tensor,
        observed: Mapping[str, Tensor] | None = None,
    ) -> FusionOutput:
        """Runs the network.

        Args:
            features: Per modality ``[B, T, d]``.
            speakers: ``[B, T]`` int64 speaker ids local to the dialogue.
            real: ``[B, T]`` bool, False on padding.
            observed: Per modality ``[B, T]`` bool; ``None``: features are taken as they are.
        """
        streams = {
            name: self._input(name, features[name], None if observed is None else observed[name])
            for name in self.names
        }
        keys = dict.fromkeys(self.names, real)
        if observed is not None and self.hp.missing == "mask":
            keys = {name: real & observed[name] for name in self.names}
        embedding = self._embedding(speakers, real)
        queries = {name: stream + embedding for name, stream in streams.items()}
        encoded: dict[str, Tensor] = {}
        factors: dict[str, Tensor] = {}
        gated: dict[str, Tensor] = {}
        hidden: dict[str, Tensor] = {}

        def build(anchor: str, sources: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> None:
            """Adds the stream of an anchor, from embedded sources."""
            parts = []
            for source in self._sources(anchor):
                name = pair(source, anchor)
                used = pair(anchor, anchor) if self._shares(source, anchor) else name
                encoded[name] = self.blocks[used](
                    queries[anchor], sources[source], keys[source], same=source == anchor
                )
                if self.gates:
                    factors[name] = self.gates[used](encoded[name])
                    gated[name] = encoded[name] * factors[name]
                else:
                    gated[name] = encoded[name]
                parts.append(gated[name])
            hidden[anchor] = self.reduce[anchor](torch.cat(parts, dim=-1))

        for name in self.names:
            if name != self.anchor:
                build(name, queries, keys)
        if self.anchor is not None:
            # The other streams are finished: as sources they have something to say everywhere.
            finished = {name: hidden[name] + embedding for name in hidden}
            everywhere = {name: real for name in hidden}
            build(
                self.anchor,
                {**finished, self.anchor: queries[self.anchor]},
                {**everywhere, self.anchor: keys[self.anchor]},
            )
        logits = {name: head(hidden[name]) for name, head in self.heads.items()}
        if self.anchor is None:
            prediction = torch.stack(list(logits.values())).mean(0)
        else:
            prediction = logits[self.anchor]
        return FusionOutput(encoded, factors, gated, hidden, logits, prediction, self.teacher)

    def _input(self, name: str, features: Tensor, observed: Tensor | None) -> Tensor:
        """A modality at model width, absent utterances replaced by token or zero."""
        if observed is not None:
            # Also before the projection: absent content must not reach its gradient either.
            features = torch.where(observed[..., None], features, 0.0)
        stream = self.project[name](features) if name in self.project else features
        if observed is None:
            return stream
        absent = self.absent[name] if self.hp.missing == "mask" else stream.new_zeros(())
        return torch.where(observed[..., None], stream, absent)

    def _embedding(self, speakers: Tensor, real: Tensor) -> Tensor:
        """Position and speaker E, ``[B, T, H]`` or broadcastable."""
        embedding = torch.zeros((), device=real.device)
        if self.hp.use_position:
            embedding = self.positions[: real.shape[1]]
        if self.hp.use_speaker:
            known = speakers.clamp(max=self.hp.max_speakers - 1)
            embedding = embedding + self.speakers(torch.where(real, known, self.padding))
        return embedding

    def _sources(self, anchor: str) -> tuple[str, ...]:
        """Sources of a stream in the order of concatenation, itself first."""
        return (anchor, *(name for name in self.names if name != anchor))

    def _shares(self, source: str, anchor: str) -> bool:
        """Whether a source uses the anchor's own block and gate."""
        return self.hp.share_text_blocks and anchor == self.anchor and source != anchor

    def _present(self, wanted: str) -> str:
        return wanted if wanted in self.names else self.names[0]
