"""Studies of the tiny protocol, on a real database."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import optuna
from sqlalchemy import event
from sqlalchemy.engine import Engine

from imer_bench.harness.protocol.plan import DataPlan, Execution
from imer_bench.harness.studies.definition import StudyPlan, plan_study
from imer_bench.harness.studies.objective import Objective
from imer_bench.harness.studies.study import Budget, open_study, work

from tiny import tiny_plan

METHOD = "methods=[{name='tunable:INFO', label='small'}]"


def quick_databases() -> None:
    """Tests need no protection from power cuts, which costs a study of tiny trials most of its time."""
    if not event.contains(Engine, "connect", _hurry):
        event.listen(Engine, "connect", _hurry)


def _hurry(connection, _record) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


quick_databases()

# What goes wrong on demand is not searched unless a test asks for it.
CALM = "tune.space.tunable={fault=false}"


def small_plan(folder: Path, *settings: str, data=lambda data: data, space: str = CALM) -> StudyPlan:
    """A study of the small method.

    Args:
        folder: Where the protocol is written.
        settings: ``key=value`` settings of the protocol.
        data: Changes the loaded data.
        space: The setting that narrows the space.
    """
    plan = tiny_plan(folder, METHOD, "compute={threads=1}", space, *settings)
    loaded: list[DataPlan] = [data(item) for item in plan.data]
    return plan_study(plan.protocol, loaded, Execution("cpu", 1, "float32"), "small")


def run_study(plan: StudyPlan, folder: Path, trials: int, **options) -> optuna.Study:
    """Runs a study to so many trials in all, with its database in the folder."""
    study = open_study(plan, f"sqlite:///{folder / 'studies.db'}", folder / "shared")
    work(study, Objective(plan, folder / "shared"), Budget(trials), folder / "shared", **options)
    return study


def poisoned(data: DataPlan) -> DataPlan:
    """The same data with test rows that would wreck whatever looks at them."""
    corpus = data.samples.corpus
    rows = next(iter(data.splits.values())).test
    features = {}
    for name, item in corpus.features.items():
        values = item.values.copy()
        values[rows] = float("nan")
        features[name] = replace(item, values=values)
    targets = data.samples.targets.copy()
    targets[rows] = float("nan")
    samples = replace(data.samples, corpus=replace(corpus, features=features), targets=targets)
    return replace(data, samples=samples)
