"""What a protocol file may say, validated key by key.

One file says everything that decides a number: data, split, seeds, masks, regime, selection,
budget, methods, metrics. ``docs/protocols.md`` is the reference for users.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA = 1

Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
ScheduleEntry = str | dict[str, Any]


class Section(BaseModel):
    """Base of all tables of a protocol: unknown keys are errors, values don't change."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class SplitEntry(Section):
    """How rows are divided into training, validation and test.

    Attributes:
        kind: ``"column"``: a column with the values train, valid and test. ``"nested_folds"``: test
            on fold k, validate on fold k + 1 (cyclically), train on the rest.
            ``"folds_with_validation"``: test on fold k, validation is a fixed share of the training
            dialogues drawn by ``seed``.
        column: Column of the utterance table.
        folds: Folds to run; all of them if absent.
        validation_share: Share of the training dialogues, for ``"folds_with_validation"``.
        seed: Data seed of that draw.
    """

    kind: Literal["column", "nested_folds", "folds_with_validation"]
    column: str
    folds: tuple[int, ...] | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Seed = 0


class DataEntry(Section):
    """One data set and how it becomes samples.

    Attributes:
        set: Name of the data set.
        root: Folder that holds it; else ``--data-root``, ``IMER_DATA``, ``./data``.
        features: Feature set per modality, in mask order; the data set's own if absent.
        scale: Feature scaling, fitted on observed training rows.
        task: Task; the data set's own if absent.
        label: Label column; the data set's own if absent.
        mapping: How the label column becomes the target. ``"score"`` and ``"class"`` take it as it
            is; the others map a score: ``"negative_nonnegative"``, ``"negative_positive"`` (scores
            of zero leave the data), ``"negative_neutral_positive"``.
        split: A split column (in short: its name) or folds; the data set's own if absent.
        tokens: Load token ids for methods that want them.
        synthetic: Size of generated data: parameters of the generator, for ``synthetic`` only.
    """

    set: str
    root: str | None = None
    features: dict[str, str] | None = None
    scale: Literal["none", "standard"] = "standard"
    task: Literal["regression", "binary", "multiclass"] | None = None
    label: str | None = None
    mapping: (
        Literal["score", "class", "negative_nonnegative", "negative_positive", "negative_neutral_positive"]
        | None
    ) = None
    split: SplitEntry | None = None
    tokens: bool = False
    synthetic: dict[str, Any] = Field(default_factory=dict)

    @field_validator("split", mode="before")
    @classmethod
    def _column_in_short(cls, value: Any) -> Any:
        return {"kind": "column", "column": value} if isinstance(value, str) else value


class ComparisonEntry(Section):
    """The five answers that decide whether two results may be compared.

    Attributes:
        unit: What is lost: a whole ``"modality"`` of an utterance, or single ``"frame"``s.
        pattern: Distribution of patterns at a given rate, for every ``random-<rate>``.
        draw: Whether training masks are drawn anew each ``"epoch"`` or ``"frozen"``. Validation and
            test masks are always fixed by their mask seeds and shared by all methods.
        regime: ``"matched"``: one model per condition, trained on it. ``"single"``: one model,
            trained on ``train.schedule``, tested on all conditions. ``"no_prior"``: single, with
            complete training and complete validation data.
        selection: Which epoch is tested: the ``"best"`` on validation, the ``"last"``, or the best
            on ``"test"`` (only to reproduce printed numbers; marked in every table).
    """

    unit: Literal["modality", "frame"] = "modality"
    pattern: Literal["keep_one", "imder", "independent", "gcnet_legacy"] = "keep_one"
    draw: Literal["epoch", "frozen"] = "epoch"
    regime: Literal["matched", "single", "no_prior"]
    selection: Literal["best", "last", "test"] = "best"


class TrainEntry(Section):
    """Training seeds and schedules.

    Attributes:
        seeds: Training seeds: initialisation, order of batches, dropout and training masks.
        schedule: Training schedule of the single regime.
        conditions: Training conditions of the matched regime; the test conditions if absent.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    schedule: ScheduleEntry | None = None
    conditions: tuple[ScheduleEntry, ...] | None = None


class ValidationEntry(Section):
    """Masks under which the epoch is chosen.

    Attributes:
        conditions: Validation conditions; absent: the training condition (matched), the test
            conditions (single), complete (no prior).
        mask_seeds: Seeds of the validation masks.
    """

    conditions: tuple[ScheduleEntry, ...] | None = None
    mask_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (101,)


class TestEntry(Section):
    """Test conditions and their masks.

    Attributes:
        conditions: Test conditions, by name or table; ``"preset:<name>"`` stands for a preset's.
        mask_seeds: Seeds of the test masks, apart from those of training and validation.
    """

    conditions: Annotated[tuple[ScheduleEntry, ...], Field(min_length=1)]
    mask_seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (201, 202, 203)


class ComputeEntry(Section):
    """The budget, the same for all methods.

    Attributes:
        epochs: Overrides every method's own number of epochs.
        patience: Overrides every method's own patience.
        batch_size: Overrides every method's own batch size.
        max_minutes: Time limit of one run; a run over it fails.
        threads: CPU threads of one run.
        precision: ``"float32"`` or ``"bf16"`` (autocast).
        stack: Runs of a method, differing in their seed, that are trained as one network, where the
            method can be; 1: none.
        audit: Record test metrics of every epoch where selection can't read them.
        checkpoint_seconds: At most this much work is lost to a kill, or an epoch, or 200 times
            what writing a checkpoint takes; they are written after an epoch.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    precision: Literal["float32", "bf16"] = "float32"
    stack: Annotated[int, Field(ge=1, le=1000)] = 1
    audit: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 2.0


class TunedEntry(Section):
    """What a search for hyper-parameters cost.

    Attributes:
        trials: Trials that counted, failed and pruned ones included.
        study: Name of the study.
        seconds: Compute of all trials.
        note: What a reader must know, such as what a study on one fold has seen.
    """

    trials: Annotated[int, Field(ge=1)]
    study: str = ""
    seconds: Annotated[float, Field(ge=0)] | None = None
    note: str = ""


class ParameterFile(Section):
    """A file that ``params_from`` names.

    Attributes:
        method: The method that the parameters belong to.
        profile: The profile that they were found with.
        parameters: Hyper-parameters that differ from the profile's.
        tuned: What the search for them cost.
    """

    method: str
    profile: str = "default"
    parameters: dict[str, Any]
    tuned: TunedEntry | None = None


class MethodEntry(Section):
    """One row of the comparison.

    Attributes:
        name: Registry name, or ``"package.module:INFO"`` of a method that lives elsewhere.
        profile: Preset of the method's record.
        label: Row name in tables; the name (and profile) if absent.
        parameters: Hyper-parameters that differ from the profile's.
        params_from: A TOML file of parameters, such as ``best.toml`` of a study; relative to the
            protocol file. ``parameters`` wins where both name one.
        tuned: What the search for these parameters cost, so that tables can show it; taken from
            ``params_from`` where that file says it.
    """

    name: str
    profile: str = "default"
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    params_from: str | None = None
    tuned: TunedEntry | None = None


class MetricsEntry(Section):
    """Which metrics are reported.

    Attributes:
        primary: Metric of selection and ranking.
        report: Metrics of the tables; those of the task if absent.
    """

    primary: str = "wf1"
    report: tuple[str, ...] | None = None


class LeaderboardEntry(Section):
    """How tables are made.

    Attributes:
        confidence: Level of the intervals.
        resamples: Bootstrap resamples of dialogues.
        seed: Seed of the resampling.
        alpha: Error rate of each family of tests.
        correction: Correction for many tests: ``"holm"`` or ``"bh"`` (Benjamini-Hochberg).
        family: Tests that are corrected together: ``"all"`` pairs and columns, the pairs of each
            ``"column"``, or those of the ``"ranking"`` column alone.
        relevant_difference: Difference, in the metric's unit, that seeds needed are counted for.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: Seed = 0
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    correction: Literal["holm", "bh"] = "holm"
    family: Literal["all", "column", "ranking"] = "all"
    relevant_difference: Annotated[float, Field(gt=0)] = 0.01


class NarrowEntry(Section):
    """A part of a hyper-parameter's search space.

    Attributes:
        low: Lowest value of a range.
        high: Highest value of a range.
        values: Values of a choice.
    """

    low: float | None = None
    high: float | None = None
    values: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None


class TuneEntry(Section):
    """How ``bench.py tune`` searches for hyper-parameters: on validation data, with an equal budget.

    Attributes:
        trials: Trials of every method.
        seconds: Compute of every method instead: no trial starts after so many seconds of trials,
            summed over workers.
        conditions: Conditions of the objective; absent: complete and the middle one of the
            incomplete ones. ``matched``: a model is trained on each; otherwise one is validated on
            all of them.
        seeds: Training seeds of a trial; absent: the first of ``train.seeds``.
        aggregate: What becomes of the conditions: their ``"mean"``, the ``"worst"``, the
            ``"area"`` under the curve over rates, or an objective each (``"multi"``).
        fold: The fold whose validation data are used, where there are folds; absent: the first.
        sampler: Optuna's sampler.
        sampler_options: Its options.
        pruner: Optuna's pruner; ``"none"``: every trial is trained to its end.
        pruner_options: Its options.
        seed: Seed of the sampler.
        space: By method or label, what narrows the record's search space: ``{low, high}``,
            ``{values}``, or ``false`` to leave a hyper-parameter alone.
    """

    trials: Annotated[int, Field(ge=1, le=100_000)] = 50
    seconds: Annotated[float, Field(gt=0)] | None = None
    conditions: Annotated[tuple[ScheduleEntry, ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    aggregate: Literal["mean", "worst", "area", "multi"] = "mean"
    fold: int | None = None
    sampler: Literal["tpe", "random", "gp", "cmaes", "qmc", "nsgaii", "brute_force"] = "tpe"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    pruner: Literal[
        "median", "percentile", "successive_halving", "hyperband", "patient", "threshold", "none"
    ] = "median"
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    seed: Seed = 0
    space: dict[str, dict[str, NarrowEntry | Literal[False]]] = Field(default_factory=dict)


class Protocol(Section):
    """A whole protocol file.

    Attributes:
        schema_version: Version of this format (key ``schema``).
        name: Name of the protocol and of its results folder.
        description: One or two sentences for tables and reports.
        literature: Allow the literature's nominal rate 0.7, which with three modalities is 2/3.
        data: One data set or several (``[data]`` or ``[[data]]``).
        comparison: The five answers that decide comparability.
        train: Training seeds and schedules.
        validation: Masks under which the epoch is chosen.
        test: Test conditions and their masks.
        compute: The budget.
        methods: The rows of the comparison.
        metrics: What is reported.
        leaderboard: How tables are made.
        tune: How hyper-parameters are searched for; never part of an address.
    """

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    description: str = ""
    literature: bool = False
    data: Annotated[tuple[DataEntry, ...], Field(min_length=1)]
    comparison: ComparisonEntry
    train: TrainEntry
    validation: ValidationEntry = ValidationEntry()
    test: TestEntry
    compute: ComputeEntry = ComputeEntry()
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)]
    metrics: MetricsEntry = MetricsEntry()
    leaderboard: LeaderboardEntry = LeaderboardEntry()
    tune: TuneEntry = TuneEntry()

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _regime_has_its_schedule(self) -> Protocol:
        regime, train = self.comparison.regime, self.train
        if regime == "single" and train.schedule is None:
            raise ValueError("regime 'single' needs train.schedule")
        if regime != "single" and train.schedule is not None:
            raise ValueError(f"train.schedule belongs to regime 'single', not to {regime!r}")
        if regime != "matched" and train.conditions is not None:
            raise ValueError(f"train.conditions belongs to regime 'matched', not to {regime!r}")
        if regime == "no_prior" and self.validation.conditions not in (None, ("complete",)):
            raise ValueError("regime 'no_prior' validates on complete data only")
        shared = set(self.validation.mask_seeds) & set(self.test.mask_seeds)
        if shared:
            raise ValueError(f"validation and test share the mask seeds {sorted(shared)}; keep them apart")
        for section, seeds in (
            ("train.seeds", train.seeds),
            ("validation.mask_seeds", self.validation.mask_seeds),
            ("test.mask_seeds", self.test.mask_seeds),
        ):
            if len(set(seeds)) != len(seeds):
                raise ValueError(f"{section} repeats a seed: {list(seeds)}")
        return self
