"""Translates golden cases of MAGTKD into this implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...harness.errors import UnknownName
from ...harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    Pass,
    ReferenceParameter,
    ReferenceParameters,
    Request,
)
from ...harness.spec import Task
from .checkpoints import LETTERS, reference_name
from .fusion import AnchorFusion, FusionOutput
from .heads import UtteranceHead, head_losses
from .info import INFO, MAGTKDParameters
from .model import fusion_losses, real_rows

# Ours to the case's.
_MODALITIES = {"text": "text", "audio": "audio", "vision": "video"}


def _hyper_parameters(request: Request, constructor: Mapping[str, Any]) -> MAGTKDParameters:
    """Hyper-parameters: profile, then preset, then constructor, then switches."""
    switches = dict(request.switches)
    preset = switches.pop("preset", None)
    values: Mapping[str, Any] = {}
    if preset is not None:
        if preset not in INFO.profiles:
            raise ParityError(str(UnknownName("preset", str(preset), INFO.profiles)))
        values = INFO.profiles[preset]
    if switches.get("anchor") == "video":
        switches["anchor"] = "vision"
    ours = replace(request, switches=switches)
    return ours.hyper_parameters(INFO, MAGTKDParameters, {**values, **constructor})


class Fusion(Component):
    """Sections 3 and 4 of the specification."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor(("hidden_dim", "n_head", "dropout", "clsNum", "n_speaker"))
        given = request.constructor
        width = given["hidden_dim"]
        constructor = {
            "hidden_dim": width,
            "num_heads": given["n_head"],
            "dropout": given["dropout"],
            "max_speakers": given["n_speaker"],
        }
        self.hp = _hyper_parameters(request, constructor)
        self.task: Task = request.task or "multiclass"
        self.module = AnchorFusion(
            {name: width for name in _MODALITIES}, given["clsNum"], self.hp, longest=512
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Every stream and every loss term under the reference's names."""
        features = {ours: inputs[theirs].transpose(0, 1) for ours, theirs in _MODALITIES.items()}
        real = inputs["umask"] > 0
        output: FusionOutput = self.module(features, inputs["speaker"].long(), real)
        rows = real_rows(real, int(real.sum()))
        labels = inputs["labels"].flatten()[rows]
        labels = labels.float() if self.task == "regression" else labels.long()
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        counted = dict.fromkeys(_MODALITIES, everywhere)
        terms = fusion_losses(output, rows, labels, counted, everywhere, self.hp, self.task, everything=True)
        return Outcome({**_streams(output), **_losses(terms, output.teacher)}, total=terms["total"])

    def reference_parameters(self) -> ReferenceParameters:
        """Parameters that the reference has."""
        named = {reference_name(ours): value for ours, value in self.module.named_parameters()}
        return {name: ReferenceParameter(value) for name, value in named.items() if name is not None}

    def collect(self, passes: Sequence[Pass]) -> Mapping[str, Tensor]:
        """Loss before each step and its learning rate."""
        return {
            "loss": torch.stack([one.outputs["total"] for one in passes]),
            "lr": torch.tensor([one.rate for one in passes], dtype=torch.float64),
        }


def _letters(pair: str) -> str:
    source, _, anchor = pair.partition("_to_")
    return f"{LETTERS[source]}_{LETTERS[anchor]}"


def _streams(output: FusionOutput) -> dict[str, Tensor]:
    return {
        **{f"enc.{_letters(pair)}": value for pair, value in output.encoded.items()},
        **{f"gated.{_letters(pair)}": value for pair, value in output.gated.items()},
        **{f"hidden_{LETTERS[name]}": value for name, value in output.hidden.items()},
        **{f"logits_{LETTERS[name]}": value for name, value in output.logits.items()},
    }


def _losses(terms: Mapping[str, Tensor], teacher: str) -> dict[str, Tensor]:
    named = {"loss.total": terms["total"], f"loss.ce_{LETTERS[teacher]}": terms["ce"]}
    for ours, value in terms.items():
        kind, _, name = ours.rpartition("_")
        if name in LETTERS:
            named[f"loss.{kind}_{LETTERS[name]}"] = value
    return named


class Heads(Component):
    """Section 5 of the specification: a frozen teacher and one student."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        request.check_constructor(("input_dim", "hidden_dim", "clsNum"))
        given = request.constructor
        # No fusion is built: its number of heads only has to divide the width.
        constructor = {"hidden_dim": given["hidden_dim"], "num_heads": 1}
        self.hp = _hyper_parameters(request, constructor)
        sizes = given["input_dim"], given["hidden_dim"], given["clsNum"]
        self.teacher, self.student = UtteranceHead(*sizes), UtteranceHead(*sizes)
        self.teacher.requires_grad_(False)
        self.module = nn.ModuleDict({"teacher": self.teacher, "student": self.student})

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Both heads and the student's losses."""
        teacher = self.teacher(inputs["teacher_features"])
        student = self.student(inputs["student_features"])
        task: Task = self.request.task or "multiclass"
        everywhere = torch.ones(len(inputs["labels"]), dtype=torch.bool, device=inputs["labels"].device)
        terms = head_losses(
            student, teacher, inputs["labels"], everywhere, everywhere, task, self.hp, everything=True
        )
        variant = self.request.switches.get("preset", self.request.section)
        named = {f"loss.{name}": value for name, value in terms.items()}
        named[f"loss.total_{variant}"] = terms["total"]
        for who, (hidden, logits) in (("teacher", teacher), ("student", student)):
            named |= {f"hidden_{who}": hidden, f"logits_{who}": logits}
        return Outcome(named, total=terms["total"])

    def reference_parameters(self) -> ReferenceParameters:
        """Parameters of both heads."""
        theirs = {"project": "proj", "output": "W"}
        found = {}
        for ours, value in self.module.named_parameters():
            who, part, leaf = ours.split(".")
            found[f"{who}.{theirs[part]}.{leaf}"] = ReferenceParameter(value)
        return found


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {"fusion": Fusion, "heads": Heads}
