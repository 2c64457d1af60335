"""The network of GCNet and its training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.losses import task_loss
from ...harness.method import Method, Services, StagePlan
from ...harness.spec import DataSpec
from .graph import Graph, GraphNetwork, GraphStates, speaker_relations, temporal_relations, window_band
from .info import GCNetParameters
from .losses import counted_by_release, reconstruction_loss
from .packing import Packing

TEMPORAL_RELATIONS = 3


@dataclass(frozen=True)
class States:
    """What one pass of the network computes, as rows ``[N, …]`` of ``packing``.

    Attributes:
        packing: Layout of the rows.
        inputs: What entered the base encoder, ``[N, ΣD]``.
        base: H, ``[N, D1]``.
        graphs: Per graph (``"temporal"``, ``"speaker"``) its states.
        hidden: ``[N, D_h]``.
        outputs: Scores or logits, ``[N, K]``.
        reconstruction: ``[N, ΣD]``; of the first pass where there are two. ``None`` without a
            reconstruction head.
    """

    packing: Packing
    inputs: Tensor
    base: Tensor
    graphs: Mapping[str, GraphStates]
    hidden: Tensor
    outputs: Tensor
    reconstruction: Tensor | None


class GCNet(Method[GCNetParameters]):
    """Graph completion network (Lian et al., 2023).

    The utterance vectors of all modalities are concatenated in the order of the data set, absent
    ones are zero. Nothing is imputed: labels come from a hidden state that must also explain the
    absent modalities.

    Args:
        spec: Shape of the data. One-utterance dialogues leave only self-loops, which is warned of.
        parameters: Hyper-parameters.
        services: Not used.
    """

    band: Tensor
    temporal: Tensor
    column_scale: Tensor

    def __init__(self, spec: DataSpec, parameters: GCNetParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        if spec.longest_dialogue == 1:
            warnings.warn(
                f"GCNet on {spec.name!r}: no dialogues, the graphs are self-loops only", stacklevel=2
            )
        self.speakers = min(spec.speakers, hp.max_speakers)
        width = sum(spec.dims.values())
        base = 2 * hp.hidden
        convolution = (hp.graph_hidden or hp.hidden // 2) if hp.graph_conv else 0
        recurrent = nn.LSTM if hp.base_model == "lstm" else nn.GRU
        self.encoder = recurrent(width, hp.hidden, num_layers=2, bidirectional=True, dropout=hp.dropout)
        relations = {}
        if hp.use_temporal_graph:
            relations["temporal"] = TEMPORAL_RELATIONS
        if hp.use_speaker_graph:
            relations["speaker"] = self.speakers**2
        self.graphs = nn.ModuleDict(
            {
                name: GraphNetwork(base, convolution, count, hp.dropout, hp.time_attn)
                for name, count in relations.items()
            }
        )
        self.classifier = nn.Linear(base + convolution, spec.outputs)
        reconstructs = hp.loss_recon or hp.reccls
        self.reconstruction = nn.Linear(base + convolution, width) if reconstructs else None

        # Structures that never change, cut to the longest dialogue of each batch.
        steps = spec.longest_dialogue
        widths = torch.tensor([modality.dim for modality in spec.modalities])
        self.register_buffer("band", window_band(steps, hp.window_past, hp.window_future), persistent=False)
        self.register_buffer("temporal", temporal_relations(steps), persistent=False)
        self.register_buffer("column_scale", (1.0 / widths).repeat_interleave(widths), persistent=False)

    # Inputs.

    def available(self, batch: Batch) -> Tensor:
        """``[B, S, M]`` bool: what the model uses of the batch (all or nothing for the lower bound)."""
        if not self.parameters_.lower_bound:
            return batch.available
        return batch.available.all(dim=-1, keepdim=True).expand_as(batch.available)

    def inputs(self, batch: Batch) -> Tensor:
        """Concatenated features ``[B, S, ΣD]``, zero where absent, whatever was there."""
        features = torch.cat([batch.features[name] for name in self.spec.names], dim=-1)
        return torch.where(self._by_column(self.available(batch)), features, 0.0)

    def _by_column(self, flags: Tensor) -> Tensor:
        """``[..., M]`` to ``[..., ΣD]``: what is said of a modality, for each of its columns."""
        parts = zip(flags.unbind(-1), self.spec.modalities, strict=True)
        return torch.cat([flag[..., None].expand(*flag.shape, one.dim) for flag, one in parts], dim=-1)

    def packing(self, batch: Batch) -> Packing:
        """Which positions are computed: the real ones, or with ``pack_sequences`` off all."""
        count, steps = batch.real.shape
        lengths = batch.lengths if self.parameters_.pack_sequences else (steps,) * count
        return Packing.of(lengths, steps, batch.real.device)

    def graph(self, name: str, batch: Batch, dtype: torch.dtype) -> Graph:
        """The ``"temporal"`` or the ``"speaker"`` graph of every dialogue."""
        steps = batch.real.shape[1]
        self._reach(steps)
        edges = self.band[:steps, :steps] & batch.real[:, :, None] & batch.real[:, None, :]
        if name == "temporal":
            return Graph.of(edges, self.temporal[:steps, :steps], TEMPORAL_RELATIONS, dtype)
        return Graph.of(edges, speaker_relations(batch.speakers, self.speakers), self.speakers**2, dtype)

    def _reach(self, steps: int) -> None:
        """Rebuilds the window and the relations over time for longer dialogues than foreseen."""
        if steps <= len(self.band):
            return
        hp = self.parameters_
        self.band = window_band(steps, hp.window_past, hp.window_future).to(self.band.device)
        self.temporal = temporal_relations(steps).to(self.temporal.device)

    # Network.

    def forward(self, batch: Batch) -> States:
        """One pass over the batch, two with ``reccls``."""
        packing = self.packing(batch)
        inputs = packing.pack(self.inputs(batch))
        graphs = (
            {name: self.graph(name, batch, inputs.dtype) for name in self.graphs}
            if self.parameters_.graph_conv
            else {}
        )
        states = self._one_pass(inputs, packing, graphs, batch.real)
        if not self.parameters_.reccls:
            return states
        assert states.reconstruction is not None
        second = self._one_pass(states.reconstruction, packing, graphs, batch.real)
        return replace(second, reconstruction=states.reconstruction)

    def _one_pass(
        self, inputs: Tensor, packing: Packing, graphs: Mapping[str, Graph], real: Tensor
    ) -> States:
        base = packing.run(self.encoder, inputs)
        states = {
            name: cast(GraphStates, network(base, packing, graphs.get(name), real))
            for name, network in self.graphs.items()
        }
        hidden = torch.stack([state.hidden for state in states.values()]).sum(dim=0)
        return States(
            packing=packing,
            inputs=inputs,
            base=base,
            graphs=states,
            hidden=hidden,
            outputs=self.classifier(hidden),
            reconstruction=None if self.reconstruction is None else self.reconstruction(hidden),
        )

    def predict(self, batch: Batch) -> Prediction:
        """Scores or class probabilities ``[B, S]``, with the hidden state they are made from."""
        states = self(batch)
        outputs = states.packing.pad(states.outputs)
        prediction = prediction_from_outputs(outputs, self.spec.task == "regression")
        return replace(prediction, hidden=states.packing.pad(states.hidden))

    # Training.

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """``task``, ``reconstruction`` (if it is on) and their weighted sum ``total``.

        Raises:
            ValueError: The batch has no labels, or no targets though the reconstruction is on.
        """
        return self.losses_of(self(batch), batch)

    def losses_of(self, states: States, batch: Batch) -> Mapping[str, Tensor]:
        """The losses of a pass that has been made."""
        if batch.labels is None:
            raise ValueError("GCNet's losses need a batch with labels")
        hp = self.parameters_
        pack = states.packing.pack
        task = task_loss(states.outputs, pack(batch.labels), pack(batch.real), self.spec.task)
        if not hp.loss_recon:
            return {"total": task, "task": task}
        reconstruction = self.reconstruction_error(states, batch)
        return {
            "total": task + hp.w_rec * reconstruction,
            "task": task,
            "reconstruction": reconstruction,
        }

    def reconstruction_error(self, states: States, batch: Batch) -> Tensor:
        """The reconstruction loss L_rec of section 4, unweighted.

        Raises:
            ValueError: The batch has no targets.
        """
        if batch.targets is None:
            raise ValueError("GCNet with loss_recon needs batches with targets (privileged in training)")
        assert states.reconstruction is not None
        pack = states.packing.pack
        aligned = self.parameters_.recon_mask == "aligned"
        counted = batch.real if aligned else counted_by_release(batch.real)
        missing = self._by_column(pack(~self.available(batch) & counted[..., None]))
        targets = torch.cat([batch.targets[name] for name in self.spec.names], dim=-1)
        return reconstruction_loss(
            states.reconstruction, pack(targets), missing, self.column_scale, sum(batch.lengths)
        )

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """Adam with classic L2; the reconstruction head's L2 may be left to ``training_step``."""
        hp = self.parameters_
        head = [] if self.reconstruction is None else list(self.reconstruction.parameters())
        held = {id(parameter) for parameter in head}
        others = [parameter for parameter in self.parameters() if id(parameter) not in held]
        decay = 0.0 if self._switched_decay else hp.weight_decay
        groups = [{"params": others}, {"params": head, "weight_decay": decay}]
        return [torch.optim.Adam(groups, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)]

    def training_step(self, batch: Batch) -> Mapping[str, Tensor]:
        """One step of Adam. Rate 0 leaves the reconstruction head as it is (defect D13)."""
        (optimizer,) = self.optimizers
        losses = self.losses(batch)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        if self._switched_decay:
            self._decay_reconstruction(batch)
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    @property
    def _switched_decay(self) -> bool:
        """Whether the reconstruction head serves its loss alone, and idles where that is zero."""
        hp = self.parameters_
        return hp.loss_recon and hp.skip_idle_reconstruction and not hp.reccls

    @torch.no_grad()
    def _decay_reconstruction(self, batch: Batch) -> None:
        # Adam would turn a lone L2 term into a full step. Whether anything is missing is known on
        # the device only and not read back: the term is switched there.
        active = (~self.available(batch) & batch.real[..., None]).any()
        assert self.reconstruction is not None
        for parameter in self.reconstruction.parameters():
            assert parameter.grad is not None
            parameter.grad += self.parameters_.weight_decay * active * parameter
