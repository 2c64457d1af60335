"""MAGTKD as a method of the harness: stages, losses, learning-rate schedule, logged gates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ...harness.batch import Batch, Prediction, prediction_from_outputs
from ...harness.method import Method, Services, Stage, StagePlan
from ...harness.spec import DataSpec, Task
from .fusion import AnchorFusion, FusionOutput
from .heads import UtteranceHead, head_losses
from .info import MAGTKDParameters
from .losses import feature_distillation, logit_distillation, task_loss

FUSION, TEACHER, STUDENT, STUDENTS = "fusion", "teacher", "student ", "students"


class MAGTKD(Method[MAGTKDParameters]):
    """Anchor-gated fusion of utterance vectors over a dialogue, with or without stage 1."""

    def __init__(self, spec: DataSpec, parameters: MAGTKDParameters, services: Services) -> None:
        super().__init__(spec, parameters, services)
        hp = parameters
        chosen = spec.names if hp.modalities is None else tuple(n for n in spec.names if n in hp.modalities)
        if not chosen:
            raise ValueError(f"MAGTKD: none of {hp.modalities} is among {', '.join(spec.names)}")
        widths = {name: spec.dims[name] for name in chosen}
        self.heads = nn.ModuleDict()
        if hp.stage1 == "heads":
            for name, dim in widths.items():
                self.heads[name] = UtteranceHead(dim, hp.hidden_dim, spec.outputs)
            widths = dict.fromkeys(chosen, hp.hidden_dim)
        self.fusion = AnchorFusion(widths, spec.outputs, hp, spec.longest_dialogue)
        self._columns = {name: spec.names.index(name) for name in self.fusion.names}
        self._gates: dict[str, Tensor] = {}
        self._utterances = 0
        self._enter(FUSION)

    # Stages.

    def stages(self) -> tuple[Stage, ...]:
        """Teacher, students and fusion with ``stage1 = "heads"``; else the fusion alone."""
        hp = self.parameters_
        first: list[str] = []
        if self.heads:
            students = [name for name in self.fusion.names if name != self.fusion.teacher]
            first = [TEACHER]
            if students:
                joint = hp.distill_run == "joint"
                first += [STUDENTS] if joint else [STUDENT + name for name in students]
        stages = [Stage(name, hp.head_epochs, select=False) for name in first]
        rest = hp.epochs - len(first) * hp.head_epochs
        return (*stages, Stage(FUSION, rest, patience=hp.patience))

    def start_stage(self, plan: StagePlan) -> None:
        """Trains the parts of the stage, with a fresh optimiser and schedule."""
        self._enter(plan.stage.name)
        super().start_stage(plan)
        hp = self.parameters_
        if hp.schedule == "reference":
            warmup = self.spec.train_dialogues
            total = warmup * plan.stage.epochs
        else:
            warmup = hp.warmup_epochs * plan.steps_per_epoch
            total = plan.steps_per_epoch * plan.stage.epochs

        def factor(taken: int) -> float:
            return warmup_decay(taken, warmup, total)

        self.schedulers = [LambdaLR(optimizer, factor) for optimizer in self.optimizers]

    def _enter(self, stage: str) -> None:
        """Freezes everything but what the stage trains."""
        self._stage = stage
        self.zero_grad(set_to_none=True)
        self.fusion.requires_grad_(stage == FUSION)
        for name, head in self.heads.items():
            head.requires_grad_(name in self._trained_heads())

    def _trained_heads(self) -> tuple[str, ...]:
        teacher = self.fusion.teacher
        if self._stage == TEACHER:
            return (teacher,)
        if self._stage == STUDENTS:
            return tuple(name for name in self.fusion.names if name != teacher)
        return (self._stage.removeprefix(STUDENT),) if self._stage.startswith(STUDENT) else ()

    def build_optimizers(self, plan: StagePlan) -> list[torch.optim.Optimizer]:
        """AdamW on what the stage trains."""
        hp = self.parameters_
        trainable = [p for p in self.parameters() if p.requires_grad]
        return [torch.optim.AdamW(trainable, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)]

    def update(self) -> None:
        """One step of optimiser and schedule."""
        super().update()
        for scheduler in self.schedulers:
            scheduler.step()

    # Losses and predictions.

    def _observed(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch.available[..., column] for name, column in self._columns.items()}

    def _forward(self, batch: Batch) -> FusionOutput:
        observed = self._observed(batch)
        features: Mapping[str, Tensor] = batch.features
        if self.heads:
            features = {
                name: head.hidden(torch.where(observed[name][..., None], features[name], 0.0))  # type: ignore[operator]
                for name, head in self.heads.items()
            }
        return self.fusion(features, batch.speakers, batch.real, observed)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Losses of the current stage."""
        assert batch.labels is not None
        rows = real_rows(batch.real, sum(batch.lengths))
        labels = batch.labels.flatten()[rows]
        observed = {name: seen.flatten()[rows] for name, seen in self._observed(batch).items()}
        if self._stage != FUSION:
            return self._head_losses(batch, rows, labels, observed)
        output = self._forward(batch)
        if self.training:
            self._note_gates(output, batch.real, len(rows))
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        all_count = self.parameters_.branch_loss_on == "all"
        counted = dict.fromkeys(observed, everywhere) if all_count else observed
        taught = observed[output.teacher] if self.parameters_.kd_requires_text else everywhere
        return fusion_losses(output, rows, labels, counted, taught, self.parameters_, self.spec.task)

    def _head_losses(
        self, batch: Batch, rows: Tensor, labels: Tensor, observed: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        def answer(name: str) -> tuple[Tensor, Tensor]:
            features = batch.features[name].flatten(0, 1)[rows]
            return self.heads[name](torch.where(observed[name][:, None], features, 0.0))

        teacher = self.fusion.teacher
        lesson = None
        if self._stage != TEACHER:
            with torch.no_grad():
                lesson = answer(teacher)
        terms: dict[str, Tensor] = {}
        for name in self._trained_heads():
            taught = observed[name] & observed[teacher]
            losses = head_losses(
                answer(name), lesson, labels, observed[name], taught, self.spec.task, self.parameters_
            )
            terms |= {f"{kind}_{name}": value for kind, value in losses.items() if kind != "total"}
            terms["total"] = terms["total"] + losses["total"] if "total" in terms else losses["total"]
        return terms

    def predict(self, batch: Batch) -> Prediction:
        """The anchor stream's output."""
        output = self._forward(batch)
        hidden = output.hidden[output.teacher]
        prediction = prediction_from_outputs(output.prediction, self.spec.task == "regression")
        return Prediction(prediction.score, prediction.probabilities, hidden=hidden)

    # Gates.

    def start_epoch(self, epoch: int) -> None:
        """Means of the gates start anew."""
        self._gates = {}
        self._utterances = 0

    def _note_gates(self, output: FusionOutput, real: Tensor, utterances: int) -> None:
        self._utterances += utterances
        for name, factor in output.factors.items():
            summed = torch.where(real, factor.detach().mean(-1), 0.0).sum()
            self._gates[name] = self._gates[name] + summed if name in self._gates else summed

    def log(self) -> Mapping[str, float | Tensor]:
        """Mean gate factor of the epoch for every ``gate/<source>_to_<anchor>``."""
        return {f"gate/{name}": summed / self._utterances for name, summed in self._gates.items()}


def warmup_decay(taken: int, warmup: int, total: int) -> float:
    """Factor on the learning rate after ``taken`` steps: 0 to 1 over ``warmup``, to 0 at ``total``."""
    if taken < warmup:
        return taken / warmup
    return max(0.0, (total - taken) / max(1, total - warmup))


def real_rows(real: Tensor, count: int) -> Tensor:
    """Flat positions ``[count]`` of the real utterances, in order; nothing is read from the device."""
    return torch.argsort((~real).flatten().to(torch.uint8), stable=True)[:count]


def fusion_losses(
    output: FusionOutput,
    rows: Tensor,
    labels: Tensor,
    counted: Mapping[str, Tensor],
    taught: Tensor,
    hp: MAGTKDParameters,
    task: Task,
    everything: bool = False,
) -> dict[str, Tensor]:
    """All terms of spec sections 4.1 and 4.2, with the sets of section 6.

    Args:
        output: The forward pass.
        rows: ``[N]`` flat positions of the real utterances.
        labels: ``[N]``.
        counted: Per modality ``[N]`` bool, utterances whose stream losses count.
        taught: ``[N]`` bool, utterances that may teach.
        hp: Hyper-parameters.
        task: Task of the data.
        everything: Whether to compute terms that the settings leave out of the total.

    Returns:
        Scalars: ``ce`` of the prediction; per other stream ``ce_<m>``, ``inter_<m>``,
        ``intra_<m>``, ``logit_kd_<m>``, ``feature_kd_<m>``, and their sum ``branch_<m>``; ``total``.
    """
    logits = {name: value.flatten(0, 1)[rows] for name, value in output.logits.items()}
    hidden = {name: value.flatten(0, 1)[rows] for name, value in output.hidden.items()}
    prediction = output.prediction.flatten(0, 1)[rows]
    squared = hp.regression_loss == "l2"
    terms = {"ce": task_loss(prediction, labels, torch.ones_like(taught), task, squared)}
    total = terms["ce"]
    weights = {"text": hp.weight_text, "audio": hp.weight_audio}
    teacher = output.teacher
    for name in hidden:
        if name == teacher:
            continue
        both = counted[name] & taught
        found: dict[str, Tensor] = {}
        branch: list[Tensor] = []
        if hp.branch_ce or (everything and name in logits):
            found["ce"] = task_loss(logits[name], labels, counted[name], task, squared)
            branch += [found["ce"]] * hp.branch_ce
        if task != "regression" and (hp.logit_kd or (everything and name in logits)):
            lesson = logits[teacher].detach() if hp.detach_teacher else logits[teacher]
            kd = logit_distillation(logits[name], lesson, both, hp.tau)
            found |= {"inter": kd.inter, "intra": kd.intra, "logit_kd": kd.total}
            branch += [kd.total] * hp.logit_kd
        if hp.feature_kd or everything:
            lesson = hidden[teacher].detach() if hp.detach_teacher else hidden[teacher]
            found["feature_kd"] = feature_distillation(hidden[name], lesson, both, hp.feature_temperature)
            branch += [found["feature_kd"]] * hp.feature_kd
        if branch:
            found["branch"] = torch.stack(branch).sum()
            total = total + weights.get(name, hp.weight_video) * found["branch"]
        terms |= {f"{kind}_{name}": value for kind, value in found.items()}
    terms["total"] = total
    return terms
