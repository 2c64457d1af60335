"""What one study is: a method, its search space, and the trainings of a trial.

The test rows are taken out of the data here, before anything of a study can look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..corpus.records import Corpus
from ..corpus.splits import Split
from ..errors import UnknownName, UserError
from ..hashing import address
from ..metrics import metric
from ..protocol.plan import DataPlan, Execution, PlannedRun, Variant, make_plan, parse_conditions
from ..protocol.schema import NarrowEntry, Protocol
from ..record import HyperParameters
from ..samples import Samples
from ..schedules import Complete, Schedule, nominal_rate
from .space import SearchSpace, search_space

# Raised by every change that makes values of earlier trials incomparable.
OBJECTIVE_VERSION = 1


class NotTunable(UserError):
    """A method has nothing to search for, or does not apply to the data."""


@dataclass(frozen=True)
class ObjectiveCondition:
    """A condition of the objective.

    Attributes:
        name: Name of the condition.
        rate: Nominal missing rate, the axis of ``"area"``.
    """

    name: str
    rate: float


@dataclass(frozen=True)
class StudyPlan:
    """One study.

    Attributes:
        name: Name in Optuna's storage; studies of the same name have comparable trials.
        protocol: The protocol as a trial sees it: seeds and conditions are the study's.
        execution: Where and how trials are computed.
        variant: The method.
        base: The setting that the search starts from: the paper's, or the protocol's.
        space: What is searched.
        conditions: Conditions of the objective.
        runs: The trainings of a trial, by seed and training condition; their data have no test rows.
        note: What a reader must know of data that the study has seen, or empty.
    """

    name: str
    protocol: Protocol
    execution: Execution
    variant: Variant
    base: HyperParameters
    space: SearchSpace
    conditions: tuple[ObjectiveCondition, ...]
    runs: tuple[PlannedRun, ...]
    note: str

    @property
    def digest(self) -> str:
        """The hash at the end of the name."""
        return self.name.rpartition("/")[2]

    @property
    def higher_is_better(self) -> bool:
        """Direction of the objective."""
        return metric(self.protocol.metrics.primary).higher_is_better

    @property
    def objectives(self) -> int:
        """Number of values of a trial."""
        return len(self.conditions) if self.protocol.tune.aggregate == "multi" else 1

    @property
    def most_epochs(self) -> int:
        """Epochs of the longest training that a trial may have."""
        ranges = [item.distribution for item in self.space.dimensions if item.name == "epochs"]
        return max([self.base.epochs, *(int(getattr(item, "high", 0)) for item in ranges)])


def plan_study(
    protocol: Protocol,
    data: Sequence[DataPlan],
    execution: Execution,
    label: str,
    synthetic: bool = False,
) -> StudyPlan:
    """Defines the study of one method of a protocol.

    Args:
        protocol: The protocol.
        data: Its data, loaded.
        execution: Where and how trials are computed.
        label: Row name of the method.
        synthetic: Whether generated data stand in for the protocol's.

    Raises:
        NotTunable: The method does not apply, or nothing of it can be searched.
        UserError: The tune table does not fit the protocol.
    """
    if len(data) != 1:
        names = ", ".join(item.info.name for item in data)
        raise UserError(f"a study needs one data set, but the protocol {protocol.name!r} has {names}")
    (whole,) = data
    fold = _fold(protocol, whole)
    schedules = _conditions(protocol, whole)
    trial_protocol = _trial_protocol(protocol, schedules)
    only = replace(whole, splits={fold: whole.splits[fold]})

    def runs_of(execution: Execution) -> list[PlannedRun]:
        plan = make_plan(trial_protocol, [only], execution)
        return [run for run in plan.runs if run.variant.label == label]

    runs = runs_of(execution)
    if not runs:
        raise UnknownName(
            "method of the protocol", label, (item.label or item.name for item in protocol.methods)
        )
    variant, base = runs[0].variant, runs[0].parameters
    for run in runs:
        if run.skip:
            raise NotTunable(f"{label}: {run.skip}")
    compute = protocol.compute.model_dump()
    caps = {name for name in ("epochs", "patience", "batch_size") if compute[name] is not None}
    narrowing: dict[str, NarrowEntry | Literal[False]] = {
        **protocol.tune.space.get(variant.info.name, {}),
        **(protocol.tune.space.get(label, {}) if label != variant.info.name else {}),
    }
    own = protocol.tune
    space = search_space(
        variant.info.parameters, narrowing, caps | set(variant.entry.parameters), variant.info.name
    )
    if not space.dimensions:
        raise NotTunable(f"{label}: its record has no search range that the protocol leaves open")
    withheld = without_test(only, fold)
    digest = address(
        {
            "version": OBJECTIVE_VERSION,
            # Where it is computed does not define a study: workers of several machines may share it.
            "runs": [run.address for run in runs_of(Execution("any", 0, execution.precision))],
            "space": space.record(),
            "tune": own.model_dump(
                mode="json",
                include={"aggregate", "sampler", "sampler_options", "pruner", "pruner_options", "seed"},
            ),
        }
    )
    others = len(whole.splits) > 1
    return StudyPlan(
        name=f"{protocol.name}{'-SYNTHETIC' if synthetic else ''}/{label}/{digest}",
        protocol=trial_protocol,
        execution=execution,
        variant=variant,
        base=base,
        space=space,
        conditions=tuple(
            ObjectiveCondition(schedule.name, nominal_rate(schedule, whole.modalities))
            for schedule in schedules
        ),
        runs=tuple(replace(run, data=withheld) for run in runs),
        note=f"tuned on fold {fold}, whose training and validation data are test data of other folds"
        if others
        else "",
    )


def without_test(data: DataPlan, fold: int | None) -> DataPlan:
    """The data of one fold without its test rows: features, labels, tokens and ids are gone.

    Args:
        data: The data.
        fold: The fold.
    """
    split = data.splits[fold]
    rows = np.union1d(split.train, split.valid)
    kept = Split(
        np.searchsorted(rows, split.train),
        np.searchsorted(rows, split.valid),
        np.zeros(0, dtype=np.int64),
        split.fold,
    )
    samples = data.samples
    return replace(
        data,
        samples=Samples(
            corpus=_rows_of(samples.corpus, rows),
            task=samples.task,
            mapping=samples.mapping,
            targets=samples.targets[rows],
            classes=samples.classes,
            score_range=samples.score_range,
            kept=samples.kept[rows],
        ),
        splits={fold: kept},
    )


def _rows_of(corpus: Corpus, rows: np.ndarray) -> Corpus:
    tokens = corpus.tokens
    return replace(
        corpus,
        utterances=corpus.utterances.iloc[rows].reset_index(drop=True),
        features={
            name: replace(
                features,
                values=features.values[rows],
                lengths=None if features.lengths is None else features.lengths[rows],
                observed=features.observed[rows],
            )
            for name, features in corpus.features.items()
        },
        tokens=None
        if tokens is None
        else replace(tokens, ids=tokens.ids[rows], mask=tokens.mask[rows], special=tokens.special[rows]),
    )


def _fold(protocol: Protocol, data: DataPlan) -> int | None:
    folds = tuple(data.splits)
    if protocol.tune.fold is None:
        return folds[0]
    if protocol.tune.fold not in folds:
        raise UserError(f"tune.fold: {protocol.tune.fold} is not among the folds {list(folds)}")
    return protocol.tune.fold


def _conditions(protocol: Protocol, data: DataPlan) -> tuple[Schedule, ...]:
    """What the tune table says, or complete and the middle one of the incomplete conditions."""
    tune = protocol.tune
    if protocol.comparison.regime == "no_prior":
        if tune.conditions not in (None, ("complete",)):
            raise UserError("tune.conditions: regime 'no_prior' knows complete validation data only")
        return (Complete(),)
    if tune.conditions is not None:
        chosen = parse_conditions(tune.conditions, protocol, data.modalities)
    else:
        chosen = _default_conditions(protocol, data)
    if tune.aggregate == "area" and len({nominal_rate(item, data.modalities) for item in chosen}) < 2:
        raise UserError("tune.aggregate 'area' needs conditions of two or more rates")
    if tune.aggregate == "multi" and len(chosen) < 2:
        raise UserError("tune.aggregate 'multi' needs two or more conditions")
    return chosen


def _default_conditions(protocol: Protocol, data: DataPlan) -> tuple[Schedule, ...]:
    if protocol.comparison.regime == "matched" and protocol.train.conditions is not None:
        known = parse_conditions(protocol.train.conditions, protocol, data.modalities)
    else:
        known = data.test
    incomplete = [item for item in known if item.kind != "complete"]
    family = "random" if any(item.family == "random" for item in incomplete) else None
    middle = sorted(
        (item for item in incomplete if family is None or item.family == family),
        key=lambda item: nominal_rate(item, data.modalities),
    )
    return (Complete(), *(middle[len(middle) // 2 :][:1]))


def _trial_protocol(protocol: Protocol, schedules: Sequence[Schedule]) -> Protocol:
    """The protocol with the study's seeds and conditions; selection never sees test."""
    entries = tuple(schedule.model_dump(mode="json") for schedule in schedules)
    matched = protocol.comparison.regime == "matched"
    single = protocol.comparison.regime == "single"
    train: dict[str, object] = {"seeds": protocol.tune.seeds or protocol.train.seeds[:1]}
    if matched:
        train["conditions"] = entries
    selection = "best" if protocol.comparison.selection == "test" else protocol.comparison.selection
    return protocol.model_copy(
        update={
            "train": protocol.train.model_copy(update=train),
            "validation": protocol.validation.model_copy(update={"conditions": entries if single else None}),
            "comparison": protocol.comparison.model_copy(update={"selection": selection}),
            "compute": protocol.compute.model_copy(update={"audit": False}),
        }
    )
