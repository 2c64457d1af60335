"""Copies a study to MLflow: a parent run per study, a child per trial.

Optuna's storage is the truth. The copy is made in the background of the process that the user
started; where MLflow is out of reach the study goes on without it, and the next call catches up.
"""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..tracking.entry import DataSetEntry, Point, RunEntry, Status, experiment_name, metric_key
from ..tracking.executions import Execution
from ..tracking.mlflow_store import MlflowStore, is_refusal, reason
from .definition import StudyPlan
from .output import value_of
from .study import BASE, REASON, SETTING, counted

_EVERY = 2.0
_STATUS: dict[TrialState, Status] = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}


class StudyMirror:
    """Mirrors the trials of one study while it runs.

    Args:
        study: The study, opened for this mirror alone.
        plan: Its definition.
        folder: ``studies/<label>``.
        results: The results folder.
        command: The command line, for the record.
    """

    def __init__(
        self, study: optuna.Study, plan: StudyPlan, folder: Path, results: Path, command: str
    ) -> None:
        self._study, self._plan, self._folder, self._results = study, plan, folder, results
        self._execution = Execution(command=command, id=plan.digest)
        self._closing = threading.Event()
        self._done: set[int] = set()
        self._problem = ""
        self._store: MlflowStore | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-study", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 30.0) -> str:
        """Copies what is left and answers what there is to say; call it when the outputs are written."""
        self._closing.set()
        self._thread.join(timeout)
        if self._problem or self._thread.is_alive():
            why = self._problem or f"no answer for {timeout:g} s"
            return f"MLflow: trials wait for the next call of tune ({why})"
        return f"MLflow: {len(self._done)} trials in {self._store.uri}" if self._store is not None else ""

    def _work(self) -> None:
        while True:
            last = self._closing.wait(_EVERY)
            try:
                self._copy(last)
                self._problem = ""
            except Exception as error:
                self._problem = reason(error)
            if last:
                return

    def _copy(self, last: bool) -> None:
        trials = counted(self._study.get_trials(deepcopy=False))
        fresh = [trial for trial in trials if trial.number not in self._done]
        if self._store is None and fresh:
            self._results.mkdir(parents=True, exist_ok=True)
            self._store = MlflowStore(self._results)
        if self._store is None:
            return
        for trial in fresh:
            try:
                self._store.log(trial_entry(trial, self._plan, self._folder), self._execution)
            except Exception as error:
                if not is_refusal(error):
                    raise
            self._done.add(trial.number)
        if last:
            self._finish(self._store)

    def _finish(self, store: MlflowStore) -> None:
        from mlflow.tracking import MlflowClient

        name = _experiment(self._plan)
        store.show(name, {f"validation/{self._plan.protocol.metrics.primary}"})
        store.finish(name, self._execution, None)
        client = MlflowClient(store.uri)
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        query = f"tags.kind = 'execution' and tags.execution = '{self._execution.id}'"
        for parent in client.search_runs([experiment.experiment_id], query):
            client.set_tag(parent.info.run_id, "mlflow.runName", f"study {self._plan.name}")
            for file in sorted(self._folder.glob("*.*")):
                client.log_artifact(parent.info.run_id, str(file))


def _experiment(plan: StudyPlan) -> str:
    synthetic = plan.runs[0].data.samples.corpus.synthetic
    return experiment_name(f"{plan.protocol.name} studies", synthetic)


def trial_entry(trial: FrozenTrial, plan: StudyPlan, folder: Path) -> RunEntry:
    """What MLflow shows of one trial.

    Args:
        trial: A trial that counts.
        plan: The study.
        folder: ``studies/<label>``, which holds ``study.json``.
    """
    started = _milliseconds(trial.datetime_start or trial.datetime_complete)
    finished = max(started, _milliseconds(trial.datetime_complete))
    primary, data = plan.protocol.metrics.primary, plan.runs[0].data.samples.corpus
    reports = sorted(trial.intermediate_values.items())
    points = [
        Point(metric_key("validation", "best so far"), value, started, step)
        for step, value in reports
        if value == value
    ]
    final = {f"condition/{name}/{primary}": v for name, v in trial.user_attrs.get("conditions", {}).items()}
    value = value_of(plan, trial)
    if value is not None:
        final[f"validation/{primary}"] = value
    points += [Point(metric_key(name), number, finished) for name, number in final.items()]
    tags = {
        "study": plan.name,
        "trial": str(trial.number),
        "method": plan.variant.info.name,
        "label": plan.variant.label,
        "status": trial.state.name.lower(),
        "setting": BASE if trial.user_attrs.get(SETTING) == BASE else "sampled",
        **({"error": trial.user_attrs[REASON]} if REASON in trial.user_attrs else {}),
    }
    parameters = {f"hp.{name}": str(item) for name, item in trial.params.items()}
    content = json.dumps(
        [plan.name, trial.number, trial.state.name, trial.values, parameters], sort_keys=True
    )
    return RunEntry(
        experiment=_experiment(plan),
        name=f"{plan.variant.label}/trial{trial.number}",
        address=f"{plan.digest}-{trial.number}",
        digest=hashlib.sha256(content.encode()).hexdigest()[:16],
        status=_STATUS.get(trial.state, "FAILED"),
        started=started,
        finished=finished,
        parameters=parameters,
        tags=tags,
        points=tuple(points),
        data_set=DataSetEntry(
            name=data.name,
            digest=data.fingerprint[:16],
            source=json.dumps({"uri": data.origin or data.name}),
            profile=json.dumps({"rows": "training and validation"}),
        ),
        columns=frozenset({f"validation/{primary}"}),
        masks="",
        file=folder / "study.json",
    )


def _milliseconds(moment: datetime | None) -> int:
    return int((moment or datetime.now()).timestamp() * 1000)
