"""What a study leaves in the results folder: best parameters, trials, summary.

::

    results/<protocol>/studies/
      summary.json                 budgets and gains of all methods that were tuned
      tuned.toml                   the protocol with its tuned methods, to be run
      <label>/
        best.toml                  for params_from of a protocol
        summary.json, trials.csv
        history.png, importance.png, slice.png, contour.png, expected.png
        <hash>/                    locks of workers, validation predictions for the gain
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from ..cells import csv_cell
from ..files import write_json, write_text
from ..leaderboard.info import TableInfo
from ..leaderboard.intervals import IntervalSettings
from ..metrics import metric
from ..protocol.schema import MethodEntry
from ..store import folder_name
from .definition import StudyPlan
from .estimates import Gain, aggregate, expected_best, gain
from .study import BASE, REASON, SETTING, WORKER, counted, predictions_file, spent, was_lost

GAIN_COVERS = (
    "another sample of validation dialogues, for these trained models; not another training seed, and not "
    "that the best of several trials was picked on these dialogues, which makes the gain optimistic: the "
    "gain that counts is between the two rows of the protocol's leaderboard"
)


def value_of(plan: StudyPlan, trial: FrozenTrial) -> float | None:
    """The one value of a trial: its objective, or the mean of several; ``None`` without one."""
    if trial.state != TrialState.COMPLETE:
        return None
    return float(np.mean(trial.values))


def best_trial(plan: StudyPlan, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the best value (the best mean of several objectives), the earliest of equals."""
    sign = 1 if plan.higher_is_better else -1
    done = [item for item in trials if item.state == TrialState.COMPLETE]
    return max(done, key=lambda item: (sign * float(np.mean(item.values)), -item.number), default=None)


def base_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The trial of the base setting, if it has a value."""
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get(SETTING) == BASE:
            return trial
    return None


def write_outputs(study: optuna.Study, plan: StudyPlan, folder: Path, storage: str) -> dict[str, Any]:
    """Writes everything but the plots and answers the summary.

    Args:
        study: The study.
        plan: Its definition.
        folder: ``studies/<label>``.
        storage: Its storage, without passwords.
    """
    trials = study.get_trials(deepcopy=False)
    best, base = best_trial(plan, trials), base_trial(trials)
    summary = _summary(study, plan, folder, storage, trials, best, base)
    write_json(folder / "summary.json", summary)
    write_text(folder / "trials.csv", _table(plan, trials))
    if best is not None:
        write_text(folder / "best.toml", _best_file(plan, best, summary))
    return summary


def write_overview(folder: Path) -> dict[str, Any]:
    """Joins the summaries of all methods: who was given which budget.

    Args:
        folder: ``studies``.
    """
    found = {}
    for path in sorted(folder.glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        keys = ("study", "budget", "base", "best", "gain", "note")
        found[summary["label"]] = {key: summary[key] for key in keys}
    trials = {entry["budget"]["counted"] for entry in found.values()}
    overview = {"methods": found, "equal_trials": len(trials) <= 1}
    write_json(folder / "summary.json", overview)
    return overview


def write_definition(plan: StudyPlan, folder: Path) -> None:
    """Writes what the study is, before its first trial."""
    objective, search = _definition(plan)
    write_json(folder / "study.json", {"study": plan.name, "objective": objective, "search": search})


def write_tuned_protocol(
    path: Path, protocol: Path, plans: Sequence[StudyPlan], entries: Sequence[MethodEntry]
) -> None:
    """A protocol that extends another one: its methods, and their tuned variants.

    Args:
        path: The file to write, in ``studies``.
        protocol: The protocol that was tuned.
        plans: Studies whose ``best.toml`` exists.
        entries: Method entries that stay.
    """
    lines = [f"extends = {toml(os.path.relpath(protocol.resolve(), path.resolve().parent))}", ""]
    for entry in entries:
        kept = entry.model_dump(mode="json", exclude_defaults=True)
        if "params_from" in kept:
            kept["params_from"] = os.path.relpath(Path(kept["params_from"]).resolve(), path.resolve().parent)
            kept.pop("tuned", None)
        lines += ["[[methods]]", *(f"{key} = {toml(value)}" for key, value in kept.items()), ""]
    for plan in plans:
        entry = plan.variant.entry
        kept = entry.model_dump(mode="json", exclude_defaults=True, include={"name", "profile", "parameters"})
        kept["params_from"] = f"{folder_name(plan.variant.label)}/best.toml"
        kept["label"] = f"{plan.variant.label} (tuned)"
        lines += ["[[methods]]", *(f"{key} = {toml(value)}" for key, value in kept.items()), ""]
    write_text(path, "\n".join(lines))


def _summary(
    study: optuna.Study,
    plan: StudyPlan,
    folder: Path,
    storage: str,
    trials: Sequence[FrozenTrial],
    best: FrozenTrial | None,
    base: FrozenTrial | None,
) -> dict[str, Any]:
    done, tune = counted(trials), plan.protocol.tune
    states = [item.state for item in done]
    values = _found_values(plan, done)
    found = _gain(plan, folder, best, base)
    objective, search = _definition(plan)
    return {
        "study": plan.name,
        "storage": storage,
        "label": plan.variant.label,
        "method": plan.variant.info.name,
        "profile": plan.variant.profile,
        "data_set": plan.runs[0].data.info.name,
        "synthetic": plan.runs[0].data.samples.corpus.synthetic,
        "fold": plan.runs[0].fold,
        "note": plan.note,
        "objective": objective,
        "search": search,
        "budget": {
            "trials": None if tune.seconds is not None else tune.trials,
            "seconds_allowed": tune.seconds,
            "counted": len(done),
            "complete": states.count(TrialState.COMPLETE),
            "pruned": states.count(TrialState.PRUNED),
            "failed": states.count(TrialState.FAIL),
            "lost_and_queued_again": sum(was_lost(item) for item in trials if item.state.is_finished()),
            "seconds": round(spent(done), 3),
            "epochs": sum(item.user_attrs.get("epochs", 0) for item in done),
            "workers": len({item.user_attrs.get(WORKER) for item in done}),
        },
        "base": _shown(plan, base),
        "best": _shown(plan, best),
        "front": _front(study) if plan.objectives > 1 else None,
        "gain": None if found is None else {**asdict(found), "covers": GAIN_COVERS},
        "importance": importance(study, plan),
        "expected_best": expected_best(values, plan.higher_is_better).tolist(),
    }


def _definition(plan: StudyPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Objective and search as plain values."""
    tune = plan.protocol.tune
    objective = {
        "metric": plan.protocol.metrics.primary,
        "higher_is_better": plan.higher_is_better,
        "aggregate": tune.aggregate,
        "conditions": {item.name: item.rate for item in plan.conditions},
        "seeds": list(plan.protocol.train.seeds),
        "trainings_a_trial": len(plan.runs),
        "data": "validation rows only; test rows are taken out before the first trial",
    }
    search = {
        "sampler": tune.sampler,
        "sampler_options": tune.sampler_options,
        "pruner": tune.pruner,
        "pruner_options": tune.pruner_options,
        "seed": tune.seed,
        "space": plan.space.record(),
    }
    return objective, search


def _shown(plan: StudyPlan, trial: FrozenTrial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {
        "trial": trial.number,
        "value": value_of(plan, trial),
        "conditions": trial.user_attrs["conditions"],
        "parameters": trial.params,
        "is_base": trial.user_attrs.get(SETTING) == BASE,
    }


def _front(study: optuna.Study) -> list[dict[str, Any]]:
    """Trials that no other one beats on every condition."""
    return [
        {"trial": item.number, "values": item.values, "parameters": item.params} for item in study.best_trials
    ]


def importance(study: optuna.Study, plan: StudyPlan) -> dict[str, float]:
    """Share of each hyper-parameter in what the trials differ by; empty if there are too few."""
    sign = -1 if plan.higher_is_better else 1  # the evaluator asks what makes the target low
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(
                study, target=lambda trial: sign * float(np.mean(trial.values))
            )
    except (ValueError, RuntimeError, ZeroDivisionError, ImportError):
        return {}


def _found_values(plan: StudyPlan, done: Sequence[FrozenTrial]) -> list[float]:
    """What each trial found: its value, the last report if it was pruned, the worst of all if it failed."""
    known: list[float | None] = []
    for trial in done:
        reports = trial.intermediate_values
        last = reports[max(reports)] if reports and trial.state == TrialState.PRUNED else None
        known.append(last if trial.state == TrialState.PRUNED else value_of(plan, trial))
    finite = [value for value in known if value is not None and math.isfinite(value)]
    if not finite:
        return []
    worst = min(finite) if plan.higher_is_better else max(finite)
    return [worst if value is None or not math.isfinite(value) else value for value in known]


def _gain(plan: StudyPlan, folder: Path, best: FrozenTrial | None, base: FrozenTrial | None) -> Gain | None:
    if best is None or base is None:
        return None
    board = plan.protocol.leaderboard
    paths = [predictions_file(folder / plan.digest, item.number) for item in (best, base)]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        rates = [item.rate for item in plan.conditions]
        kind = plan.protocol.tune.aggregate
        first, second = (
            aggregate(kind, list(item.user_attrs["conditions"].values()), rates, plan.higher_is_better)
            for item in (best, base)
        )
        value = float(first - second) * (1 if plan.higher_is_better else -1)
        return Gain(value, None, None, board.confidence, 0, f"{', '.join(absent)} is on another machine")
    spec, primary = plan.runs[0].spec, plan.protocol.metrics.primary
    return gain(
        pd.read_parquet(paths[0]),
        pd.read_parquet(paths[1]),
        metric(primary),
        TableInfo(spec.task, spec.classes, spec.score_range, primary, (primary,)),
        plan.protocol.tune.aggregate,
        {item.name: item.rate for item in plan.conditions},
        IntervalSettings(board.confidence, board.resamples, board.seed),
        plan.runs[0].data.info.name,
    )


def _table(plan: StudyPlan, trials: Sequence[FrozenTrial]) -> str:
    """All trials as CSV, those that were lost included."""
    conditions = [item.name for item in plan.conditions]
    header = ["number", "state", "setting", "value", *conditions, "seconds", "epochs", *plan.space.names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, "reason", "retry_of", "worker"])
    for trial in trials:
        own, seconds = trial.user_attrs, trial.duration
        writer.writerow(
            csv_cell(value)
            for value in [
                trial.number,
                "LOST" if was_lost(trial) else trial.state.name,
                own.get(SETTING, ""),
                value_of(plan, trial),
                *(own.get("conditions", {}).get(name) for name in conditions),
                None if seconds is None else round(seconds.total_seconds(), 3),
                own.get("epochs"),
                *(trial.params.get(name) for name in plan.space.names),
                own.get(REASON, ""),
                own.get("retry_of"),
                own.get(WORKER),
            ]
        )
    return text.getvalue()


def _best_file(plan: StudyPlan, best: FrozenTrial, summary: Mapping[str, Any]) -> str:
    budget = summary["budget"]
    tuned = {"trials": budget["counted"], "study": plan.name, "seconds": budget["seconds"], "note": plan.note}
    value, primary = value_of(plan, best), plan.protocol.metrics.primary
    lines = [
        f"# Trial {best.number} of study {plan.name}: {primary} {value:.4f} on validation.",
        '# In a protocol: [[methods]] name = ..., params_from = "<this file>"',
        f"method = {toml(plan.variant.entry.name)}",
        f"profile = {toml(plan.variant.profile)}",
        "",
        "[parameters]",
        *(f"{name} = {toml(item)}" for name, item in best.params.items()),
        "",
        "[tuned]",
        *(f"{name} = {toml(item)}" for name, item in tuned.items()),
    ]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A plain value in TOML's notation.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's text is TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml(item)}' for key, item in value.items())} }}"
    raise TypeError(f"TOML has no {type(value).__name__}")
