"""What a board's numbers can carry: records of comparisons, best sets, variance and limits.

The estimand of every comparison is the expected paired difference of two TRAINING PROCEDURES in the
primary metric, over training seeds, test masks and new dialogues of the same kind. All numbers are in
the metric's own unit (fractions, not per cent); tables scale them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .intervals import Interval

Correction = Literal["holm", "bh"]
# Which comparisons form one family of tests: all pairs and columns; the pairs of each column by
# itself; the pairs of the ranking column alone.
FamilyScope = Literal["all", "column", "ranking"]
ColumnKind = Literal["condition", "mean"]


@dataclass(frozen=True)
class ClaimSettings:
    """How claims are made.

    Attributes:
        alpha: Error rate of each family of tests; intervals have the level 1 - alpha.
        correction: Holm (family-wise error) or Benjamini-Hochberg (false discovery rate).
        family: Which comparisons form one family.
        relevant_difference: Difference, in the metric's unit, that seeds needed are counted for.
        power: Power that minimum detectable differences and seeds needed are computed for.
    """

    alpha: float = 0.05
    correction: Correction = "holm"
    family: FamilyScope = "all"
    relevant_difference: float = 0.01
    power: float = 0.8


@dataclass(frozen=True)
class Comparison:
    """Two rows in one column.

    Attributes:
        a: Label of the first row.
        b: Label of the second row.
        column: Column name.
        kind: A condition, or the mean over a family's conditions.
        difference: Score of a minus score of b.
        interval: Interval of the difference at level 1 - alpha, not corrected for multiplicity;
            ``None`` where no test is possible (fewer than two seeds of a trained row).
        p: p-value, not corrected; ``None`` where no test is possible.
        p_adjusted: p-value corrected within its family; ``None`` where it is in no family.
        better: Label of the row that is better at the corrected level; ``None``: can't be told.
        standard_error: Standard error of the difference.
        df: Degrees of freedom (Satterthwaite).
        effect: Standardised difference: difference over the standard deviation of the paired
            differences of common seeds; ``None`` with fewer than two common seeds or no spread.
        probability: Probability that a run of a scores better than a run of b on this test set, over
            all pairs of seeds, ties counted half.
        seeds: Numbers of seeds of a and b.
        detectable: Smallest true difference that would be found with the settings' power at the seeds
            at hand, uncorrected alpha.
        detectable_adjusted: The same at the strictest corrected level (alpha / family size).
        seeds_needed: Seeds of each row to find ``relevant_difference`` at uncorrected alpha; ``None``
            if no number would do on this test set, because dialogues alone vary too much.
    """

    a: str
    b: str
    column: str
    kind: ColumnKind
    difference: float
    interval: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    better: str | None = None
    standard_error: float | None = None
    df: float | None = None
    effect: float | None = None
    probability: float | None = None
    seeds: tuple[int, int] = (0, 0)
    detectable: float | None = None
    detectable_adjusted: float | None = None
    seeds_needed: int | None = None

    @property
    def significant(self) -> bool:
        """Whether a difference is shown at the corrected level."""
        return self.better is not None


@dataclass(frozen=True)
class Overall:
    """Two rows over all families: is one better in EVERY family?

    Means are never taken across families, so the overall claim is an intersection-union test: its
    p-value is the largest of the families' p-values if all differences point the same way, else 1.

    Attributes:
        a: Label of the first row.
        b: Label of the second row.
        columns: One column per family: its mean, or its only condition.
        p: p-value.
        p_adjusted: Corrected over all pairs.
        better: Label of the row that is better in every family; ``None``: can't be told.
    """

    a: str
    b: str
    columns: tuple[str, ...]
    p: float | None
    p_adjusted: float | None = None
    better: str | None = None


@dataclass(frozen=True)
class Component:
    """One source of variation of one cell.

    Attributes:
        name: ``"training seed"``, ``"mask draw"``, ``"dialogues"``, ``"seed x dialogue"``, ``"fold"``.
        sd: Standard deviation of one unit of it: of one seed, one mask draw, one fold; for
            ``"dialogues"`` of a whole test set of this size.
        standard_error: What it adds to the standard error of the cell's mean.
        units: How many units there are.
    """

    name: str
    sd: float
    standard_error: float
    units: int


@dataclass(frozen=True)
class BestSet:
    """Rows of one column that are not significantly worse than the best (multiple comparisons with the best).

    With confidence 1 - alpha the truly best row is among the members.

    Attributes:
        column: Column name.
        best: Label with the best mean.
        members: Labels not worse than the best, the best one included.
        p: Per label: smallest level at which it would be left out; 1 for the best one.
        untested: Labels without a test (holes, fewer than two seeds): neither in nor out.
    """

    column: str
    best: str
    members: tuple[str, ...]
    p: Mapping[str, float] = field(default_factory=dict)
    untested: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claims:
    """Everything a board may say.

    Attributes:
        metric: Name of the metric that is compared: the primary one.
        settings: How claims were made.
        test: Name of the test in words.
        comparisons: Every pair of methods in every column, without holes.
        against_no_information: Every row against ``no information``, with a family of its own.
        overall: Every pair over all families.
        family_size: Number of tests that p-values of ``comparisons`` were corrected for (of each
            family, where columns are families).
        best: Best set of each column.
        components: Per label, per column name: the sources of variation.
        statements: What can be said, in plain sentences.
        limits: What can't be said and what it would take, in plain sentences.
    """

    metric: str
    settings: ClaimSettings
    test: str
    comparisons: tuple[Comparison, ...] = ()
    against_no_information: tuple[Comparison, ...] = ()
    overall: tuple[Overall, ...] = ()
    family_size: int = 0
    best: tuple[BestSet, ...] = ()
    components: Mapping[str, Mapping[str, tuple[Component, ...]]] = field(default_factory=dict)
    statements: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    def comparison(self, a: str, b: str, column: str) -> Comparison | None:
        """The comparison of two rows in this order; ``None`` if there is none."""
        from dataclasses import replace

        for item in self.comparisons:
            if item.column != column or {item.a, item.b} != {a, b}:
                continue
            if item.a == a:
                return item
            return replace(
                item,
                a=a,
                b=b,
                difference=-item.difference,
                interval=None if item.interval is None else (-item.interval[1], -item.interval[0]),
                effect=None if item.effect is None else -item.effect,
                probability=None if item.probability is None else 1 - item.probability,
                seeds=(item.seeds[1], item.seeds[0]),
            )
        return None

    def best_of(self, column: str) -> BestSet | None:
        """Best set of a column."""
        return next((item for item in self.best if item.column == column), None)


@dataclass(frozen=True)
class Bounded:
    """A number with its interval at level 1 - alpha, where it has one."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Robustness:
    """How one row bears missing modalities, in the primary metric; entries that don't apply are ``None``.

    Attributes:
        label: Row.
        mean: Per family: mean over its conditions.
        area: Area under the curve of score against missing rate (trapezoid; raw).
        area_normalised: The same over the span of rates.
        rates: Rates of the curve; 0 is complete data.
        drop: Per column: complete minus this score.
        relative_drop: Per column: drop over (complete minus no information).
        retention: Per column: (score minus no information) over (complete minus no information).
        worst: Score of the worst condition, with a bootstrap interval.
        worst_condition: Its name.
        shapley: Per modality: Shapley contribution (exact, from all fixed subsets; the empty set is
            worth ``no information``).
        shares: Per modality: its share of the positive contributions, 0..1.
        evenness: 0 (one modality carries all) .. 1 (even).
        lost_at: Lowest missing rate from which on the row can't be told from no information.
    """

    label: str
    mean: Mapping[str, float] = field(default_factory=dict)
    area: float | None = None
    area_normalised: Bounded | None = None
    rates: tuple[float, ...] = ()
    drop: Mapping[str, float] = field(default_factory=dict)
    relative_drop: Mapping[str, float] = field(default_factory=dict)
    retention: Mapping[str, float] = field(default_factory=dict)
    worst: Bounded | None = None
    worst_condition: str = ""
    shapley: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    evenness: float | None = None
    lost_at: float | None = None


@dataclass(frozen=True)
class AcrossDataSets:
    """Rows ranked over independent data sets (Demšar 2006); only with five or more of them.

    Attributes:
        data_sets: Data sets.
        column: Column whose means are ranked.
        labels: Rows that have a value in every data set.
        mean_ranks: Mean rank of each label, 1 is best.
        statistic: Friedman's statistic.
        p: Its p-value.
        exact: Whether the p-value is exact (permutations) or from the chi-squared distribution.
        critical_difference: Nemenyi's critical difference of mean ranks.
        pairs: Per pair of labels: Nemenyi p-value.
        groups: Sets of labels, by rank, that can't be told apart (bars of the diagram).
    """

    data_sets: tuple[str, ...]
    column: str
    labels: tuple[str, ...]
    mean_ranks: Mapping[str, float]
    statistic: float
    p: float
    exact: bool
    critical_difference: float
    pairs: Mapping[tuple[str, str], float]
    groups: tuple[tuple[str, ...], ...]
