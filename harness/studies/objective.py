"""One trial: trains the study's models with the suggested settings and scores them on validation."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from ..engine.calls import alone
from ..engine.deadline import deadline
from ..engine.evaluation import Condition, Evaluation, Predicted, score
from ..engine.run import (
    RunServices,
    SplitCache,
    Workshop,
    build_method,
    own_random_state,
    prepare_torch,
    training_job,
)
from ..engine.training import Job, Progress, Training
from ..files import CannotWrite, written_whole
from ..language_models import LanguageModels
from ..method import Stage
from ..protocol.plan import PlannedRun
from ..record import HyperParameters
from ..store import Store
from .definition import StudyPlan
from .estimates import aggregate
from .study import BASE, REASON, SETTING, Interrupt, TrialFailed, predictions_file


class NoValue(ValueError):
    """The primary metric is not defined on the validation predictions."""


@dataclass
class Trained:
    """What the trainings of a trial have brought so far.

    Attributes:
        bests: Best value of every finished training.
        values: Values by condition, one for every seed.
        frames: Validation predictions.
        epochs: Epochs of all trainings.
    """

    bests: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    frames: list[pd.DataFrame] = field(default_factory=list)
    epochs: int = 0


class Objective:
    """The objective of a study; data, masks and language models are shared by all its trials.

    Args:
        plan: The study.
        folder: Where validation predictions are kept, for the interval of the gain.
        interrupt: Asked after every epoch whether this worker must stop.
    """

    def __init__(self, plan: StudyPlan, folder: Path, interrupt: Interrupt = lambda: False) -> None:
        self.plan = plan
        self._folder = folder
        self._interrupt = interrupt
        # Nothing of a trial enters the protocol's store.
        store = Store(folder)
        self._shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())

    def __call__(self, trial: optuna.Trial) -> float | list[float]:
        """Runs a trial.

        Returns:
            Its value, or one per condition for the aggregate ``"multi"``.

        Raises:
            TrialPruned: The pruner stops it.
            TrialFailed: It has no value; its attribute ``reason`` says why.
            KeyboardInterrupt: This worker must stop.
            CannotWrite: The results folder takes no files.
        """
        trained = Trained()
        try:
            self._train(trial, trained, self._parameters(trial))
            return self._finish(trial, trained)
        except optuna.TrialPruned:
            trial.set_user_attr("epochs", trained.epochs)
            raise
        except optuna.exceptions.UpdateFinishedTrialError:
            raise  # another worker took this one for dead
        except (CannotWrite, optuna.exceptions.StorageInternalError, SQLAlchemyError):
            raise  # a fault of the disk or the storage is none of the trial
        except Exception as problem:
            trial.set_user_attr("epochs", trained.epochs)
            trial.set_user_attr(REASON, f"{type(problem).__name__}: {problem}"[:500])
            failure = TrialFailed(str(problem))
        # Memory of a trial that ran out of it goes back before the next one starts.
        gc.collect()
        if self.plan.execution.device == "cuda":
            torch.cuda.empty_cache()
        raise failure

    def _parameters(self, trial: optuna.Trial) -> HyperParameters:
        plan, base = self.plan, self.plan.base
        if trial.user_attrs.get(SETTING) == BASE:
            # What of the base setting lies outside of the space stays as it is, unknown to the sampler.
            inside = plan.space.values_of(base)
            for item in plan.space.dimensions:
                if item.name in inside:
                    item.suggest(trial)
            return base
        values = {**base.model_dump(), **plan.space.suggest(trial, base)}
        try:
            parameters = type(base).model_validate(values)
        except ValidationError as error:
            raise ValueError(f"settings don't fit each other: {error.errors()[0]['msg']}") from None
        reason = plan.variant.info.applies(plan.runs[0].spec, parameters)
        if reason:
            raise ValueError(f"does not apply: {reason}")
        return parameters

    def _train(self, trial: optuna.Trial, trained: Trained, parameters: HyperParameters) -> None:
        prepare_torch(self.plan.execution)
        device = torch.device(self.plan.execution.device)
        with own_random_state(self.plan.execution.device):
            for index, planned in enumerate(self.plan.runs):
                run = replace(planned, parameters=parameters)
                with deadline(self.plan.protocol.compute.max_minutes):
                    self._train_one(trial, trained, index, run, device)

    def _train_one(
        self, trial: optuna.Trial, trained: Trained, index: int, run: PlannedRun, device: torch.device
    ) -> None:
        job = training_job(run, self._shop)
        method = build_method(run, RunServices(run.seed, device, self._shop.models))

        before = trained.epochs

        def report(stage: Stage, progress: Progress) -> None:
            trained.epochs = before + progress.step
            if self._interrupt():
                raise KeyboardInterrupt
            now = _selected(job, progress)
            if now is not None:
                step = index * self.plan.most_epochs + progress.step - 1
                self._report(trial, step, [*trained.bests, now])

        progress = Training(job, method, report).run()
        labels = job.valid.labels.cpu().numpy()
        draws: dict[str, list[float]] = {}
        evaluation = Evaluation(job.valid, job.validation, job.evaluation_batch, job.precision, job.joined)
        for condition, predicted in zip(job.validation, alone(evaluation.predict(method)), strict=True):
            value = score(predicted, labels, job.spec, [job.primary])[job.primary]
            if value is None or not np.isfinite(value):
                raise NoValue(f"{job.primary} is not defined on condition {condition.name!r}")
            draws.setdefault(condition.name, []).append(value)
            trained.frames.append(_frame(run, job, condition, labels, predicted))
        for name, values in draws.items():
            trained.values.setdefault(name, []).append(float(np.mean(values)))
        final = _selected(job, progress)
        trained.bests.append(
            float(np.mean([np.mean(values) for values in draws.values()])) if final is None else final
        )
        end = (index + 1) * self.plan.most_epochs - 1
        if progress.step < self.plan.most_epochs:
            # So that trials which stopped early can be compared with those which did not.
            self._report(trial, end, trained.bests)

    def _report(self, trial: optuna.Trial, step: int, values: Sequence[float]) -> None:
        if self.plan.objectives > 1:
            return  # Optuna prunes single objectives only
        trial.report(float(np.mean(values)), step)
        if trial.user_attrs.get(SETTING) != BASE and trial.should_prune():
            raise optuna.TrialPruned

    def _finish(self, trial: optuna.Trial, trained: Trained) -> float | list[float]:
        plan = self.plan
        values = {item.name: float(np.mean(trained.values[item.name])) for item in plan.conditions}
        trial.set_user_attr("conditions", values)
        trial.set_user_attr("epochs", trained.epochs)
        rates = [item.rate for item in plan.conditions]
        kind = plan.protocol.tune.aggregate
        value = float(aggregate(kind, list(values.values()), rates, plan.higher_is_better))
        if trial.user_attrs.get(SETTING) == BASE or self._is_best(trial, value):
            frame = pd.concat(trained.frames, ignore_index=True)
            with written_whole(predictions_file(self._folder, trial.number)) as path:
                frame.to_parquet(path, index=False)
        return list(values.values()) if plan.objectives > 1 else value

    def _is_best(self, trial: optuna.Trial, value: float) -> bool:
        states = (optuna.trial.TrialState.COMPLETE,)
        done = [float(np.mean(item.values)) for item in trial.study.get_trials(deepcopy=False, states=states)]
        sign = 1 if self.plan.higher_is_better else -1
        return all(sign * value >= sign * other for other in done)


def _selected(job: Job, progress: Progress) -> float | None:
    """Validation score of the epoch that would be kept now; ``None`` if no epoch can be yet."""
    if job.selection == "last":
        value: Any = progress.history[-1].get(f"validation/{job.primary}")
        return value
    if not np.isfinite(progress.best_score):
        return None
    return progress.best_score if job.higher_is_better else -progress.best_score


def _frame(
    run: PlannedRun, job: Job, condition: Condition, labels: np.ndarray, predicted: Predicted
) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "seed": run.seed,
        "train_condition": run.train.name,
        "condition": condition.name,
        "mask_seed": pd.array([condition.mask_seed] * len(labels), dtype="Int64"),
        "dialogue": job.valid.utterances["dialogue"].to_numpy(),
        "utterance": job.valid.ids,
        "y_true": labels.astype(np.float64),
    }
    if predicted.score is not None:
        columns["score"] = predicted.score
    if predicted.probabilities is not None:
        for index, probability in enumerate(predicted.probabilities.T):
            columns[f"class_{index}"] = probability
    return pd.DataFrame(columns)
