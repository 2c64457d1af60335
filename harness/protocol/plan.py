"""Expands a protocol into runs, each with its address.

A run is one (method variant, data set, fold, training condition, seed), tested on its conditions.
Nothing here imports torch: planning is quick, and a finished protocol is recognised without it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..corpus.info import DatasetInfo
from ..corpus.splits import Split
from ..errors import UnknownName, UserError
from ..hashing import address
from ..record import HyperParameters, MethodInfo
from ..registry import method_info
from ..samples import Samples, choose_level, data_spec
from ..schedules import (
    MASK_VERSION,
    Complete,
    Schedule,
    canonical,
    check_schedule,
    parse_schedule,
    presets,
    read_schedule,
)
from ..spec import DataSpec
from .schema import DataEntry, MethodEntry, Protocol, ScheduleEntry

if TYPE_CHECKING:
    from .data import DataSource

# Raised by every change of the engine that changes numbers.
ENGINE_NUMERICS = 2


@dataclass(frozen=True)
class Variant:
    """One row of the comparison.

    Attributes:
        label: Row name in tables.
        info: Record of the method.
        profile: Preset of hyper-parameters.
        entry: The protocol's entry.
    """

    label: str
    info: MethodInfo
    profile: str
    entry: MethodEntry

    @property
    def shown_profile(self) -> str:
        """The profile as tables show it: with the trials that found its parameters, if any."""
        tuned = self.entry.tuned
        return self.profile if tuned is None else tuned_profile(self.profile, tuned.trials)


def tuned_profile(profile: str, trials: int) -> str:
    """How tables show a profile whose parameters were searched for."""
    return f"{profile}, tuned in {trials} trials"


@dataclass(frozen=True)
class DataPlan:
    """One data set of a protocol, loaded.

    Attributes:
        entry: The protocol's entry.
        info: Record of the data set.
        samples: Data and targets.
        splits: Training, validation and test rows by fold (``None``: no folds).
        test: Test conditions.
    """

    entry: DataEntry
    info: DatasetInfo
    samples: Samples
    splits: Mapping[int | None, Split]
    test: tuple[Schedule, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in mask order."""
        return tuple(self.samples.corpus.features)


@dataclass(frozen=True)
class Execution:
    """Where and how runs are computed; part of every address.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads of one run.
        precision: ``"float32"`` or ``"bf16"``.
        stack: Runs that are trained as one network where they can be. Numbers differ by rounding, and
            in what dropout draws: an address says whether, not with how many.
    """

    device: str
    threads: int
    precision: str
    stack: int = 1

    @classmethod
    def of(cls, protocol: Protocol, device: str) -> Execution:
        """How a protocol's runs are computed on a device."""
        compute = protocol.compute
        return cls(device, compute.threads, compute.precision, compute.stack)


@dataclass(frozen=True)
class PlannedRun:
    """One run, before it is computed.

    Attributes:
        variant: Method and row name.
        data: The data set.
        fold: Fold, or ``None``.
        seed: Training seed.
        regime: Regime of the protocol.
        selection: Which epoch is tested.
        train: Training schedule.
        validation: Validation conditions.
        test: Test conditions.
        parameters: Resolved hyper-parameters.
        spec: Shape of the data for this method.
        note: Note on a lossy conversion of the input, or empty.
        skip: Why the method does not apply here, or empty.
        address: Run address; empty if skipped.
        stage_address: Address of what leading shared stages depend on; empty if skipped.
        variant_address: Address of method, settings and execution: runs of one row agree in it.
        comparison_hash: Results share a ranking if and only if this agrees.
    """

    variant: Variant
    data: DataPlan
    fold: int | None
    seed: int
    regime: str
    selection: str
    train: Schedule
    validation: tuple[Schedule, ...]
    test: tuple[Schedule, ...]
    parameters: HyperParameters
    spec: DataSpec
    note: str
    skip: str
    address: str
    stage_address: str
    variant_address: str
    comparison_hash: str

    @property
    def name(self) -> str:
        """Readable name, for folders and logs."""
        parts = [self.variant.label, self.data.info.name]
        if self.fold is not None:
            parts.append(f"fold{self.fold}")
        return "-".join([*parts, self.train.name, f"seed{self.seed}"])


@dataclass(frozen=True)
class Plan:
    """All runs of a protocol.

    Attributes:
        protocol: The protocol.
        execution: Where and how.
        data: The data sets.
        runs: Runs in the order they are computed.
        source: Where the data were loaded from; ``None`` for data that were made in memory.
    """

    protocol: Protocol
    execution: Execution
    data: tuple[DataPlan, ...]
    runs: tuple[PlannedRun, ...]
    source: DataSource | None = None

    def shard(self, index: int, count: int) -> Plan:
        """Part ``index`` of ``count`` (counted from 1); the parts together are the plan."""
        return replace(self, runs=self.runs[index - 1 :: count])


def make_plan(
    protocol: Protocol,
    data: Sequence[DataPlan],
    execution: Execution,
    source: DataSource | None = None,
) -> Plan:
    """Expands a protocol.

    Args:
        protocol: The protocol.
        data: Its data sets, loaded (``load_data``).
        execution: Where and how runs are computed.
        source: Where the data were loaded from, for workers that load them again.

    Raises:
        UserError: A method, profile, hyper-parameter or condition can't be used.
    """
    variants = protocol_variants(protocol)
    runs: list[PlannedRun] = []
    for plan in data:
        # All seeds of a row share everything but the seed.
        schedules = training_schedules(protocol, plan.modalities, plan.test)
        rows = [
            _planned_row(protocol, plan, execution, variant, fold, train)
            for fold in plan.splits
            for train in schedules
            for variant in variants
        ]
        runs += [_with_seed(row, seed) for seed in protocol.train.seeds for row in rows]
    _refuse_twins(runs)
    return Plan(protocol, execution, tuple(data), tuple(runs), source)


def parse_conditions(
    entries: Iterable[ScheduleEntry], protocol: Protocol, modalities: Sequence[str]
) -> tuple[Schedule, ...]:
    """Conditions by name, table or preset, each once.

    Args:
        entries: What the protocol file says.
        protocol: The protocol.
        modalities: Modalities in mask order.

    Raises:
        UserError: A condition can't be understood or does not fit the protocol's unit of loss.
    """
    found: dict[str, Schedule] = {}
    for entry in entries:
        if isinstance(entry, str) and entry.startswith("preset:"):
            preset = presets(entry.removeprefix("preset:"), modalities)
            schedules = tuple(_drawn(schedule, protocol) for schedule in preset.test)
        else:
            schedules = (parse_condition(entry, protocol, modalities),)
        for schedule in schedules:
            _check_unit(schedule, protocol)
            found.setdefault(schedule.name, schedule)
    return tuple(found.values())


def _drawn(schedule: Schedule, protocol: Protocol) -> Schedule:
    """A preset's schedule with the protocol's answer to how often training draws."""
    if schedule.kind in ("complete", "fixed"):
        return schedule
    return schedule.model_copy(update={"draw": protocol.comparison.draw})


@cache
def _torch_version() -> str:
    """Read without an import of torch."""
    return importlib.metadata.version("torch")


def parse_condition(entry: ScheduleEntry, protocol: Protocol, modalities: Sequence[str]) -> Schedule:
    """One schedule by name (``"random-0.3"``) or as a table."""
    comparison = protocol.comparison
    where = f"condition {entry!r}"
    try:
        if isinstance(entry, str):
            return parse_schedule(
                entry, modalities, comparison.pattern, comparison.draw, literature=protocol.literature
            )
        table = {"literature": protocol.literature, **entry} if entry.get("kind") == "random" else entry
        schedule = read_schedule(table)
        check_schedule(schedule, modalities)
        return canonical(schedule, modalities)
    except ValidationError as error:
        issue = error.errors()[0]
        key = ".".join(str(part) for part in issue["loc"])
        raise UserError(f"protocol {protocol.name!r}: {where}: {key}: {issue['msg']}") from None
    except ValueError as error:
        raise UserError(f"protocol {protocol.name!r}: {where}: {error}") from None


def _check_unit(schedule: Schedule, protocol: Protocol) -> None:
    if schedule.kind == "frames" and protocol.comparison.unit != "frame":
        raise UserError(
            f"protocol {protocol.name!r}: condition {schedule.name!r} loses frames, but comparison.unit is "
            f"{protocol.comparison.unit!r}; set it to 'frame'"
        )


def training_schedules(
    protocol: Protocol, modalities: Sequence[str], test: tuple[Schedule, ...]
) -> tuple[Schedule, ...]:
    """What models are trained on, a model each, on data with these modalities and test conditions."""
    train = protocol.train
    if protocol.comparison.regime == "no_prior":
        return (Complete(),)
    if protocol.comparison.regime == "single":
        assert train.schedule is not None
        return parse_conditions([train.schedule], protocol, modalities)
    if train.conditions is not None:
        return parse_conditions(train.conditions, protocol, modalities)
    return test


def validation_schedules(
    protocol: Protocol, modalities: Sequence[str], test: tuple[Schedule, ...], train: Schedule
) -> tuple[Schedule, ...]:
    """What a model that is trained on ``train`` is validated on."""
    if protocol.comparison.regime == "no_prior":
        return (Complete(),)
    if protocol.validation.conditions is not None:
        return parse_conditions(protocol.validation.conditions, protocol, modalities)
    return (train,) if protocol.comparison.regime == "matched" else test


def tested_schedules(protocol: Protocol, test: tuple[Schedule, ...], train: Schedule) -> tuple[Schedule, ...]:
    """What a model that is trained on ``train`` is tested on."""
    matched = protocol.comparison.regime == "matched" and protocol.train.conditions is None
    return (train,) if matched else test


def protocol_variants(protocol: Protocol) -> tuple[Variant, ...]:
    """The rows of the comparison.

    Raises:
        UserError: A method or profile is unknown, or two rows have one label.
    """
    variants: dict[str, Variant] = {}
    for entry in protocol.methods:
        info = method_info(entry.name)
        if entry.profile not in info.profiles:
            raise UnknownName(f"profile of {info.name}", entry.profile, info.profiles)
        marks = [] if entry.profile == "default" else [entry.profile]
        marks += ["tuned"] if entry.tuned is not None else []
        plain = f"{info.name} ({', '.join(marks)})" if marks else info.name
        label = entry.label or plain
        if label in variants:
            raise UserError(
                f"protocol {protocol.name!r}: two methods are labelled {label!r}; give one a label"
            )
        variants[label] = Variant(label, info, entry.profile, entry)
    return tuple(variants.values())


def resolve_parameters(protocol: Protocol, variant: Variant, data_set: str) -> HyperParameters:
    """Hyper-parameters of a variant on a data set.

    Later ones win: the record's defaults, its values for the data set, the profile, the protocol's
    compute table, the protocol's entry.

    Raises:
        UserError: A hyper-parameter is unknown or out of range.
    """
    info = variant.info
    compute = protocol.compute
    caps = {"epochs": compute.epochs, "patience": compute.patience, "batch_size": compute.batch_size}
    values: dict[str, Any] = {
        **info.data_set_parameters.get(data_set, {}),
        **info.profiles[variant.profile],
        **{name: value for name, value in caps.items() if value is not None},
        **variant.entry.parameters,
    }
    unknown = set(values) - set(info.parameters.model_fields)
    for name in sorted(unknown):
        raise UnknownName(
            f"hyper-parameter of {info.name} (in method {variant.label!r})",
            name,
            info.parameters.model_fields,
        )
    try:
        return info.parameters.model_validate(values)
    except ValidationError as error:
        issue = error.errors()[0]
        key = ".".join(str(part) for part in issue["loc"])
        raise UserError(
            f"method {variant.label!r}: hyper-parameter {key!r}: value {issue.get('input')!r}: {issue['msg']}"
        ) from None


@dataclass(frozen=True)
class _Row:
    """The runs of one variant, data set, fold and training condition, but for their seed.

    Attributes:
        run: A run without seed and addresses.
        parts: What its addresses are hashes of; ``None`` if it is skipped.
    """

    run: PlannedRun
    parts: AddressParts | None


def _planned_row(
    protocol: Protocol,
    data: DataPlan,
    execution: Execution,
    variant: Variant,
    fold: int | None,
    train: Schedule,
) -> _Row:
    info = variant.info
    parameters = resolve_parameters(protocol, variant, data.info.name)
    level, note = choose_level(data.samples.corpus, info.takes)
    spec = data_spec(data.samples, data.splits[fold].train, level)
    run = PlannedRun(
        variant=variant,
        data=data,
        fold=fold,
        seed=0,
        regime=protocol.comparison.regime,
        selection=protocol.comparison.selection,
        train=train,
        validation=validation_schedules(protocol, data.modalities, data.test, train),
        test=tested_schedules(protocol, data.test, train),
        parameters=parameters,
        spec=spec,
        note=note,
        skip=_reason_to_skip(info, spec, parameters, data.samples.task),
        address="",
        stage_address="",
        variant_address="",
        comparison_hash=comparison_hash(protocol, data),
    )
    return _Row(run, None if run.skip else address_parts(protocol, execution, run))


def _with_seed(row: _Row, seed: int) -> PlannedRun:
    if row.parts is None:
        return replace(row.run, seed=seed)
    parts = replace(row.parts, data={**row.parts.data, "seed": seed})
    return replace(
        row.run,
        seed=seed,
        address=parts.address,
        stage_address=parts.stage_address,
        variant_address=parts.variant_address,
    )


def _reason_to_skip(info: MethodInfo, spec: DataSpec, parameters: HyperParameters, task: str) -> str:
    if task not in info.tasks:
        return f"not defined for the task {task!r}"
    return info.applies(spec, parameters) or ""


@dataclass(frozen=True)
class AddressParts:
    """What the addresses of a run are hashes of; kept in its record.

    Attributes:
        method: What computes: method, settings, engine, machine class.
        data: What it is computed on, but for the masks.
        conditions: Masks, and how the tested epoch is chosen.
    """

    method: Mapping[str, Any]
    data: Mapping[str, Any]
    conditions: Mapping[str, Any]

    @property
    def address(self) -> str:
        """Run address."""
        return address({**self.method, **self.data, **self.conditions})

    @property
    def stage_address(self) -> str:
        """Address of what leading shared stages depend on."""
        return address({**self.method, **self.data})

    @property
    def variant_address(self) -> str:
        """Runs of one row agree in it."""
        return address(self.method)


def address_parts(protocol: Protocol, execution: Execution, run: PlannedRun) -> AddressParts:
    """What the addresses of a planned run are hashes of."""
    conditions = condition_parts(protocol, run.train, run.validation, run.test)
    data = {**data_identity(run.data, run.fold), "seed": run.seed}
    return AddressParts(_method_identity(execution, run), data, conditions)


def condition_parts(
    protocol: Protocol, train: Schedule, validation: Sequence[Schedule], test: Sequence[Schedule]
) -> dict[str, Any]:
    """The part of a run's address about masks, selection and what is tested.

    Args:
        protocol: Protocol of the run.
        train: Training schedule.
        validation: Validation conditions.
        test: Test conditions.
    """
    return {
        "train": train.model_dump(mode="json"),
        "validation": [schedule.model_dump(mode="json") for schedule in validation],
        "validation_masks": protocol.validation.mask_seeds,
        "test": [schedule.model_dump(mode="json") for schedule in test],
        "test_masks": protocol.test.mask_seeds,
        "selection": protocol.comparison.selection,
        "primary": protocol.metrics.primary,
        **({"audit": True} if protocol.compute.audit else {}),
    }


def _method_identity(execution: Execution, run: PlannedRun) -> dict[str, Any]:
    tuned = run.variant.entry.tuned
    return {
        "method": run.variant.entry.name,
        "method_numerics": run.variant.info.numerics_version,
        "parameters": run.parameters.model_dump(mode="json"),
        "level": run.spec.level,
        "engine_numerics": ENGINE_NUMERICS,
        "masks": MASK_VERSION,
        "torch": _torch_version(),
        "device": execution.device,
        "threads": execution.threads,
        "precision": execution.precision,
        **({"stacked": True} if can_stack(execution, run) else {}),
        # A study may find the record's own settings: still a row of its own, with its own budget.
        **({"tuned": [tuned.study, tuned.trials]} if tuned is not None else {}),
    }


def can_stack(execution: Execution, run: PlannedRun) -> bool:
    """Whether a run is trained in a stack."""
    return execution.stack > 1 and bool(run.variant.info.stacks(run.parameters))


def stacks_of(execution: Execution, runs: Iterable[PlannedRun]) -> list[tuple[PlannedRun, ...]]:
    """Runs in the groups in which they are computed: of one row, fold and training condition.

    Args:
        execution: Where and how.
        runs: Planned runs.

    Returns:
        Groups of up to ``execution.stack`` runs, in the order of their first ones.
    """
    groups: list[list[PlannedRun]] = []
    open_groups: dict[tuple[object, ...], list[PlannedRun]] = {}
    for run in runs:
        key = (run.variant.label, id(run.data), run.fold, run.train.name)
        group = open_groups.get(key)
        if group is None or not can_stack(execution, run) or len(group) == execution.stack:
            group = open_groups[key] = []
            groups.append(group)
        group.append(run)
    return [tuple(group) for group in groups]


def data_identity(data: DataPlan, fold: int | None) -> dict[str, Any]:
    """What the runs of a fold are computed on, but for the masks."""
    return {
        "data": data.samples.corpus.fingerprint,
        "scale": data.entry.scale,
        "tokens": data.entry.tokens,
        "target": [data.entry.label or data.info.label, data.samples.mapping],
        "split": _split_hash(data, fold),
    }


def comparison_hash(protocol: Protocol, data: DataPlan) -> str:
    """Hash of what results must agree in to share a ranking."""
    return address(comparison_parts(protocol, data))


def comparison_parts(protocol: Protocol, data: DataPlan) -> dict[str, Any]:
    """What results must agree in to share a ranking: never the method, its budget or its seeds."""
    comparison = protocol.comparison
    trained = training_schedules(protocol, data.modalities, data.test)
    validated = protocol.validation.conditions
    return {
        "data": data.samples.corpus.fingerprint,
        "modalities": data.modalities,
        "scale": data.entry.scale,
        "target": [data.entry.label or data.info.label, data.samples.mapping],
        "masks": MASK_VERSION,
        "splits": [_split_hash(data, fold) for fold in data.splits],
        "train": [schedule.model_dump(mode="json") for schedule in trained],
        "validation": None
        if validated is None
        else [
            schedule.model_dump(mode="json")
            for schedule in parse_conditions(validated, protocol, data.modalities)
        ],
        "validation_masks": protocol.validation.mask_seeds,
        "test": [schedule.model_dump(mode="json") for schedule in data.test],
        "test_masks": protocol.test.mask_seeds,
        "regime": comparison.regime,
        "selection": comparison.selection,
        "primary": protocol.metrics.primary,
    }


def _split_hash(data: DataPlan, fold: int | None) -> str:
    ids = data.samples.corpus.utterances["id"].to_numpy()
    split = data.splits[fold]
    return address([sorted(ids[rows].tolist()) for rows in (split.train, split.valid, split.test)])


def _refuse_twins(runs: Iterable[PlannedRun]) -> None:
    owner: dict[str, str] = {}
    for run in runs:
        other = owner.setdefault(run.address, run.variant.label) if run.address else run.variant.label
        if other != run.variant.label:
            raise UserError(f"methods {other!r} and {run.variant.label!r} are the same run under two labels")
