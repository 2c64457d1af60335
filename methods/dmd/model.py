"""DMD as a method of the harness: inputs, losses, accumulation and the plateau schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.method import Method, Services, StagePlan
from ...harness.spec import DataSpec, ModalitySpec, Task
from .distillation import Distillation, edge_pairs
from .info import DMDParameters
from .losses import margin_loss, mean_over_present, orthogonality
from .network import DMDNetwork, ModalityShape, NetworkOutput
from .text import FrozenText, encode, trainable_copy


class DMD(Method[DMDParameters]):
    """Decoupled multimodal distilling on frame sequences or utterance vectors.

    It was made for complete data: an absent modality is a sequence of zeros. The fixed length of
    each modality is the data set's longest; shorter batches are padded at the end.
    """

    def __init__(self, spec: DataSpec, parameters: DMDParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        self._frozen_text: FrozenText | None = None
        width = 0
        if parameters.use_bert:
            language = services.language_model(parameters.bert)
            width = int(language.width)
            if parameters.use_finetune:
                self.text_encoder = trainable_copy(language.encoder)
            else:
                self._frozen_text = FrozenText(language.encoder)
        shapes = [modality_shape(modality, parameters, width) for modality in spec.modalities]
        self.network = DMDNetwork(shapes, spec.outputs, parameters)
        self._columns = [spec.names.index(name) for name in self.network.names]
        self._steps_per_epoch = 0
        self._batches = 0
        for graph in self._graphs():
            edges = torch.zeros(len(edge_pairs(len(shapes))))
            self.register_buffer(f"edges_{graph}", edges, persistent=False)

    def _graphs(self) -> list[str]:
        hp = self.parameters_
        return [name for name, used in (("homo", hp.homo_gd), ("hetero", hp.hetero_gd)) if used]

    # Inputs.

    def _inputs(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features ``[B, T0, D]`` and validity ``[B, T0]`` of each modality."""
        inputs, valid = {}, {}
        for index, name in enumerate(self.spec.names):
            present = batch.available[:, index, None]
            if name == "text" and self.parameters_.use_bert:
                features, seen = self._encode_text(batch, present)
            else:
                features = batch.features[name]
                features = features[:, None] if features.dim() == 2 else features
                frames = batch.frames_available
                seen = present.expand(features.shape[:2]) if frames is None else frames[name] & present
                features = torch.where(seen[..., None], features, 0.0)
            missing = self.network.shapes[name].length - features.shape[1]
            if missing < 0:
                raise ValueError(
                    f"{name}: a batch has {features.shape[1]} steps, the data set "
                    f"{self.network.shapes[name].length}"
                )
            inputs[name] = functional.pad(features, (0, 0, 0, missing))
            valid[name] = functional.pad(seen, (0, missing))
        return inputs, valid

    def _encode_text(self, batch: Batch, present: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded tokens; absent text is absent after the encoder as well as before it."""
        if batch.tokens is None or batch.token_mask is None:
            raise ValueError("use_bert: the batch has no token ids")
        hp = self.parameters_
        tokens = batch.tokens[:, : hp.token_length]
        mask = batch.token_mask[:, : hp.token_length]
        zero = hp.text_missing == "zero_features"
        if zero:
            tokens, mask = torch.where(present, tokens, 0), mask & present
        # An encoder has no answer to an utterance without tokens: it gets one, of which no use is made.
        safe = mask.clone()
        safe[:, 0] |= ~mask.any(dim=1)
        if self._frozen_text is not None:
            features = self._frozen_text(tokens, safe)
        else:
            features = encode(self.text_encoder, tokens, safe)
        seen = torch.ones_like(mask) if hp.padding == "features" else mask
        if zero:
            seen = seen & present
        return torch.where(seen[..., None], features, 0.0), seen

    def _forward(self, batch: Batch, heads: bool) -> NetworkOutput:
        inputs, valid = self._inputs(batch)
        return self.network(inputs, valid if self.parameters_.padding == "mask" else None, heads=heads)

    # What the harness calls.

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """All terms of spec section 7; ``"total"`` is their weighted sum."""
        assert batch.labels is not None
        output = self._forward(batch, heads=True)
        present = batch.available[:, self._columns] if self.parameters_.mask_losses else None
        graphs = distil(self.network, output, present)
        terms = loss_terms(self.network, output, graphs, batch.labels, self.spec.task, present)
        if self.training:
            for name, graph in graphs.items():
                self.get_buffer(f"edges_{name}").add_(graph.edges.detach().sum(1))
        groups = ("total", "task", "homo", "hetero", "recon", "cycle", "orthogonality", "margin")
        return {name: terms[name] for name in groups if name in terms}

    def predict(self, batch: Batch) -> Prediction:
        """The fused head's output."""
        final = self._forward(batch, heads=False).final
        prediction = prediction_from_outputs(final.logits, self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden=final.residual)

    def validation_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Loss of the fused output alone, which steers the learning rate."""
        assert batch.labels is not None
        logits = self._forward(batch, heads=False).final.logits
        return {"task": _task_loss(logits, batch.labels, self.spec.task)}

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """Adam over everything; a fine-tuned text encoder may have a rate of its own."""
        hp = self.parameters_
        text = [p for name, p in self.named_parameters() if name.startswith("text_encoder.")]
        rest = [p for name, p in self.named_parameters() if not name.startswith("text_encoder.")]
        groups: list[dict[str, Any]] = [{"params": rest}]
        if text:
            groups.append({"params": text, "lr": hp.bert_lr or hp.lr})
        return [torch.optim.Adam(groups, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)]

    def start_stage(self, plan: StagePlan) -> None:
        """Fresh optimiser and plateau schedule."""
        super().start_stage(plan)
        hp = self.parameters_
        self._steps_per_epoch = plan.steps_per_epoch
        self.schedulers = [
            ReduceLROnPlateau(optimizer, factor=hp.plateau_factor, patience=hp.plateau_patience)
            for optimizer in self.optimizers
        ]

    def start_epoch(self, epoch: int) -> None:
        """Accumulation starts anew: an unfinished group of the last epoch is forgotten."""
        self._batches = 0
        for graph in self._graphs():
            self.get_buffer(f"edges_{graph}").zero_()
        self.zero_grad(set_to_none=True)

    def clear_gradients(self) -> None:
        """Keeps them: batches are added up until ``update`` makes a step."""

    def update(self) -> None:
        """Every ``update_epochs`` batches is a step on the sum of their gradients.

        The sum, not the mean, is what the optimiser sees, and every element of it is clipped after
        each backward pass (spec section 10).
        """
        hp = self.parameters_
        if hp.gradient_clip is not None:
            nn.utils.clip_grad_value_(self.parameters(), hp.gradient_clip)
        self._batches += 1
        last = hp.accumulate == "all" and self._batches == self._steps_per_epoch
        if self._batches % hp.update_epochs == 0 or last:
            for optimizer in self.optimizers:
                optimizer.step()
            self.zero_grad(set_to_none=True)

    def end_epoch(self, epoch: int, validation: Mapping[str, float]) -> None:
        """Lowers the learning rate when the validation loss stalls."""
        loss = validation.get("loss/task")
        if loss is None:
            return
        for scheduler in self.schedulers:
            scheduler.step(round(loss, 4) if self.parameters_.round_validation else loss)

    def log(self) -> Mapping[str, float | Tensor]:
        """Mean edge weights of the epoch beside their prior, and kernels that had to shrink.

        ``edges_<graph>/<teacher>_to_<student>``, ``prior_<graph>/<teacher>_to_<student>``; with
        ``mask_losses``, edges are shares of all edges there were.
        """
        values: dict[str, float | Tensor] = {}
        names = self.network.names
        for graph in self._graphs():
            summed = self.get_buffer(f"edges_{graph}")
            prior = getattr(self.network, graph).prior
            means = summed / summed.sum().clamp(min=1e-12)
            for index, (student, teacher) in enumerate(edge_pairs(len(names))):
                edge = f"{names[teacher]}_to_{names[student]}"
                values[f"edges_{graph}/{edge}"] = means[index]
                values[f"prior_{graph}/{edge}"] = prior[index]
        for name, shape in self.network.shapes.items():
            if shape.kernel != _kernel(name, self.parameters_):
                values[f"kernel/{name}"] = float(shape.kernel)
        return values


def modality_shape(modality: ModalitySpec, hp: DMDParameters, encoder_width: int = 0) -> ModalityShape:
    """Shape of a modality; its kernel is 1 where sequences are shorter than the wanted one.

    Args:
        modality: The modality of the data set.
        hp: Hyper-parameters.
        encoder_width: Width of the text encoder's states if there is one, else 0.
    """
    dim, length = modality.dim, modality.max_length
    if modality.name == "text" and hp.use_bert:
        dim, length = encoder_width, hp.token_length
    kernel = _kernel(modality.name, hp)
    return ModalityShape(modality.name, dim, length, kernel if length >= kernel else 1)


def _kernel(name: str, hp: DMDParameters) -> int:
    kernels = {"text": hp.kernel_text, "audio": hp.kernel_audio, "vision": hp.kernel_vision}
    return kernels.get(name, 1)


def distil(
    network: DMDNetwork, output: NetworkOutput, present: Tensor | None = None
) -> dict[str, Distillation]:
    """Both graphs on the heads of a batch.

    Args:
        network: The network.
        output: Its forward pass.
        present: ``[B, M]`` bool in graph order, modalities that may teach and learn.
    """
    graphs: dict[str, Distillation] = {}
    if network.hp.homo_gd:
        heads = output.shared_heads.values()
        logits = torch.stack([head.logits for head in heads])
        graphs["homo"] = network.homo(logits, torch.stack([head.hidden for head in heads]), present)
    if network.hp.hetero_gd:
        heads = output.exclusive_heads.values()
        logits = torch.stack([head.logits for head in heads])
        graphs["hetero"] = network.hetero(logits, torch.stack([head.residual for head in heads]), present)
    return graphs


def loss_terms(
    network: DMDNetwork,
    output: NetworkOutput,
    graphs: Mapping[str, Distillation],
    labels: Tensor,
    task: Task,
    present: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every loss term of spec section 7, single (``"recon_text"``) and summed (``"recon"``).

    Args:
        network: The network.
        output: Its forward pass.
        graphs: Results of ``distil``.
        labels: ``[B]`` scores or classes.
        task: Task of the data.
        present: ``[B, M]`` bool in graph order; ``None``: absent modalities count like others.

    Returns:
        Scalars: ``task`` and ``task_<head>``; ``homo`` and ``hetero`` (weighted with ``lambda_gd``);
        ``recon``, ``cycle``, ``orthogonality``, each also by modality, and ``margin`` (not weighted);
        ``total``.
    """
    hp = network.hp
    masks = {name: None if present is None else present[:, i] for i, name in enumerate(network.names)}
    terms = {"task_all": _task_loss(output.final.logits, labels, task)}
    if hp.unimodal_tasks:
        assert output.shared_logits is not None
        terms["task_shared"] = _task_loss(output.shared_logits, labels, task)
        for kind, heads in (("homo", output.shared_heads), ("hetero", output.exclusive_heads)):
            for name, head in heads.items():
                terms[f"task_{kind}_{name}"] = _task_loss(head.logits, labels, task, masks[name])
    terms["task"] = torch.stack(list(terms.values())).sum()
    total = terms["task"]
    if "homo" in graphs:
        graph = graphs["homo"]
        loss = graph.logit + graph.reg
        if hp.homo_repr_weight:
            loss = loss + hp.homo_repr_weight * graph.representation
        terms["homo"] = hp.lambda_gd * loss
        total = total + terms["homo"]
    if "hetero" in graphs:
        graph = graphs["hetero"]
        terms["hetero"] = hp.lambda_gd * (graph.logit + graph.representation + graph.reg)
        total = total + terms["hetero"]
    if hp.decoupling:
        decoupling_terms(terms, output, labels, hp, task != "regression", masks, present)
        kept_apart = terms["margin"] + terms["orthogonality"]
        total = total + hp.lambda_dec * (terms["cycle"] + terms["recon"] + hp.gamma * kept_apart)
    terms["total"] = total
    return terms


def decoupling_terms(
    terms: dict[str, Tensor],
    output: NetworkOutput,
    labels: Tensor,
    hp: DMDParameters,
    classes: bool,
    masks: Mapping[str, Tensor | None],
    present: Tensor | None,
) -> None:
    """Adds reconstruction, cycle, orthogonality and margin losses to ``terms``."""
    vectors = []
    for name, part in output.parts.items():
        assert part.recon is not None
        assert part.again is not None
        assert part.margin is not None
        vectors.append(part.margin)
        terms[f"recon_{name}"] = mean_over_present((part.origin - part.recon).square(), masks[name])
        terms[f"cycle_{name}"] = mean_over_present((part.exclusive - part.again).square(), masks[name])
        terms[f"orthogonality_{name}"] = orthogonality(
            part.exclusive.transpose(1, 2), part.shared.transpose(1, 2), hp.ort_axis, masks[name]
        )
    for kind in ("recon", "cycle", "orthogonality"):
        terms[kind] = torch.stack([terms[f"{kind}_{name}"] for name in output.parts]).sum()
    terms["margin"] = margin_loss(torch.stack(vectors, dim=1), labels, classes, present)


def _task_loss(logits: Tensor, labels: Tensor, task: Task, present: Tensor | None = None) -> Tensor:
    """Mean absolute error of scores, or cross-entropy, over the samples that count."""
    if task == "regression":
        errors = (logits.squeeze(-1) - labels).abs()
    else:
        errors = functional.cross_entropy(logits, labels, reduction="none")
    return mean_over_present(errors, present)
