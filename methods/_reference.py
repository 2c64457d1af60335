"""The authors' names, inputs and metrics that MoMKE and ComP share: parameters, batches, measures."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from ..harness.batch import Batch
from ..harness.metrics import confusion_matrix, unweighted_accuracy, weighted_f1
from ..harness.parity.contract import ParityError, ReferenceParameter, Request, reference_module
from ..harness.spec import SENTIMENT_CLASSES, DataSpec, ModalitySpec
from ._blocks import JointHead, ModalityTransformer, TransformerLayer

# Letters of the authors' parameter names, in their order of the modalities.
LETTERS: Mapping[str, str] = {"audio": "a", "text": "t", "vision": "v"}
_DIMS = {"audio": "adim", "text": "tdim", "vision": "vdim"}
_ROLES = {"audio": "audio", "text": "text", "vision": "visual"}

# Constructor arguments of both references that are hyper-parameters of ours.
HYPER_PARAMETERS: Mapping[str, str] = {
    "D_e": "hidden",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
}
CONSTRUCTOR = frozenset({*_DIMS.values(), "n_classes", *HYPER_PARAMETERS})


class _Third:
    """The n-th third of a packed query-key-value parameter."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, packed: Tensor) -> Tensor:
        return packed.unflatten(0, (3, -1))[self.index]


def check_letters(names: tuple[str, ...]) -> None:
    """Raises ``ValueError`` if the modalities are not those of the authors' weights."""
    if tuple(names) != tuple(LETTERS):
        raise ValueError(f"the authors' weights are for audio, text and vision, not {', '.join(names)}")


def transformer_parameters(pattern: str, stack: ModalityTransformer) -> dict[str, ReferenceParameter]:
    """Parameters of a stack; ``pattern`` holds ``{}`` for the number of the layer."""
    found: dict[str, ReferenceParameter] = {}
    for number, layer in enumerate(stack.layers):
        assert isinstance(layer, TransformerLayer)
        name = pattern.format(number)
        for third, letter in enumerate("qkv"):
            for kind, packed in layer.qkv.named_parameters():
                found[f"{name}.{letter}.{kind}"] = ReferenceParameter(packed, _Third(third))
        found |= reference_module(f"{name}.mlp", layer.mlp)
    return found


def head_parameters(head: JointHead) -> dict[str, ReferenceParameter]:
    """Parameters of the joint head."""
    return reference_module("proj1", head.projection) | reference_module("nlp_head", head.classifier)


def reference_spec(request: Request, length: int) -> DataSpec:
    """The data of a golden case.

    Raises:
        ParityError: A size is missing or the number of classes contradicts the task.
    """
    sizes = request.constructor
    for name in (*_DIMS.values(), "n_classes"):
        if not isinstance(sizes.get(name), int):
            raise ParityError(f"section {request.section!r}: constructor needs a whole {name!r}")
    regression = request.task == "regression"
    if request.task is None or regression != (sizes["n_classes"] == 1):
        raise ParityError(
            f"section {request.section!r}: task {request.task!r} with {sizes['n_classes']} outputs"
        )
    return DataSpec(
        name=request.section,
        modalities=tuple(ModalitySpec(name, sizes[size]) for name, size in _DIMS.items()),
        task="regression" if regression else "multiclass",
        classes=SENTIMENT_CLASSES if regression else tuple(f"class {k}" for k in range(sizes["n_classes"])),
        score_range=(-3.0, 3.0) if regression else None,
        longest_dialogue=length,
        speakers=2,
        train_utterances=1,
        train_dialogues=1,
        level="dialogues",
    )


def reference_batch(
    inputs: Mapping[str, Tensor], spec: DataSpec, condition: Collection[str] | None, complete: bool
) -> Batch:
    """A batch from the authors' inputs, with the speaking party's features and mask.

    Args:
        inputs: ``features`` or ``features_complete`` [S, B, A+T+V], or the role arrays;
            ``modality_mask`` [S, B, 3] or the role masks; ``umask``, ``labels``, ``speakers`` [B, S].
        spec: Sizes.
        condition: Letters of what is available everywhere, or ``None``: follow the masks.
        complete: Take the complete features and an all-ones mask.
    """
    real = inputs["umask"] != 0
    guest = inputs["speakers"] != 0
    if condition is not None or complete:
        key = "features_complete"
        letters = set(LETTERS.values()) if condition is None else set(condition)
        mask = torch.tensor([letter in letters for letter in LETTERS.values()], device=real.device)
        mask = mask.expand(*real.shape, len(LETTERS))
    else:
        key = "features"
        mask = _spoken_mask(inputs, guest)
    if key in inputs:
        parts = inputs[key].transpose(0, 1).split(list(spec.dims.values()), dim=-1)
        features = dict(zip(spec.names, parts, strict=True))
    else:
        features = {name: _spoken(inputs, _ROLES[name], guest) for name in spec.names}
    mask = mask & real[..., None]
    return Batch(
        features={
            name: torch.where(mask[..., index, None], features[name], 0.0)
            for index, name in enumerate(spec.names)
        },
        available=mask,
        real=real,
        speakers=inputs["speakers"],
        lengths=tuple(real.sum(dim=1).tolist()),
        rows=torch.where(real, real.flatten().cumsum(0).view_as(real) - 1, -1),
        labels=inputs["labels"],
    )


def _spoken(inputs: Mapping[str, Tensor], role: str, guest: Tensor) -> Tensor:
    host, other = (inputs[f"{role}_{party}"].transpose(0, 1) for party in ("host", "guest"))
    return torch.where(guest[..., None], other, host)


def _spoken_mask(inputs: Mapping[str, Tensor], guest: Tensor) -> Tensor:
    if "modality_mask" in inputs:
        return inputs["modality_mask"].transpose(0, 1) != 0
    host, other = (inputs[f"mask_{party}"].view(*guest.shape, -1) for party in ("host", "guest"))
    return torch.where(guest[..., None], other, host) != 0


def reference_metrics(logits: Tensor, heads: Tensor, batch: Batch, spec: DataSpec) -> dict[str, Tensor]:
    """Metrics as both references compute them.

    Args:
        logits: Joint outputs ``[B, S, K]``.
        heads: Outputs of the unimodal heads ``[M, B, S, K]``.
        batch: Labels. A regression counts utterances whose label is not 0, with y > 0 against z > 0;
            classes count the real ones.
        spec: Task.
    """
    assert batch.labels is not None
    regression = spec.task == "regression"
    counted = (batch.real & (batch.labels != 0)) if regression else batch.real
    labels = batch.labels[counted].cpu().numpy()

    def classes(outputs: Tensor) -> np.ndarray:
        chosen = outputs.detach()[counted]
        decided = chosen[..., 0] > 0 if regression else chosen.argmax(dim=-1)
        return decided.cpu().numpy().astype(np.int64)

    true = (labels > 0).astype(np.int64) if regression else labels
    count = 2 if regression else spec.outputs
    confusion = confusion_matrix(true, classes(logits), count)
    found = {
        "acc": float(np.mean(true == classes(logits))),
        "f1": float(weighted_f1(confusion)),
        "corr_or_ua": float(unweighted_accuracy(confusion)),
    }
    if regression:
        scores = logits.detach()[counted][..., 0].cpu().double().numpy()
        found["mae"] = float(np.mean(np.abs(scores - labels)))
        if len(labels) > 1:
            found["corr_or_ua"] = float(np.corrcoef(scores, labels)[0, 1])
    named = {name: torch.tensor(value) for name, value in found.items()}
    named["acc_atv"] = torch.tensor([float(np.mean(true == classes(head))) for head in heads])
    return {f"metric.{name}": value for name, value in named.items()}
