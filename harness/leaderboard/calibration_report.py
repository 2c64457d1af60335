"""Measured error rates of the default test, and of those that people use by habit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..hashing import derive_seed
from ..metrics import weighted_f1
from .calibration import FAMILY_GRID, GRID, Scenario, Simulated, simulate
from .multiplicity import holm
from .significance import Differences, satterthwaite, seed_part, two_sided_p

FloatArray = npt.NDArray[np.float64]

SEEDS = (3, 5, 10)
ALPHA = 0.05
METHODS, CONDITIONS = 6, 15
# Added to the margin of one method where power and coverage are measured: about five points.
ADVANTAGE = 0.25

DEFAULT = "default"
SATTERTHWAITE = "Satterthwaite t"
UTTERANCES = "utterance bootstrap"
HABITS = (
    "paired t, seeds",
    "unpaired t, seeds",
    "Wilcoxon, seeds",
    "dialogues only",
    UTTERANCES,
    "McNemar, one seed",
)
TESTS = (DEFAULT, SATTERTHWAITE, *HABITS)


@dataclass(frozen=True)
class Measurement:
    """What was measured in one scenario with one number of seeds, as shares.

    Attributes:
        scenario: Name of the scenario.
        seeds: Seeds of each method.
        replicates: Simulated leaderboards.
        false_positives: Per test: share of p < 0.05 under the null.
        power: Per test: share of p < 0.05 with the advantage.
        coverage: Share of the default test's 95 % intervals that hold the true difference.
        width: Their mean width.
        width_of_dialogues: Mean width of intervals that ignore seeds.
        advantage: The true difference.
    """

    scenario: str
    seeds: int
    replicates: int
    false_positives: Mapping[str, float]
    power: Mapping[str, float]
    coverage: float
    width: float
    width_of_dialogues: float
    advantage: float


@dataclass(frozen=True)
class FamilyMeasurement:
    """Family-wise error over 15 pairs x 15 conditions with Holm's correction.

    Attributes:
        scenario: Name of the scenario.
        seeds: Seeds of each method.
        replicates: Simulated leaderboards.
        errors: Per test: share of leaderboards with any false claim.
    """

    scenario: str
    seeds: int
    replicates: int
    errors: Mapping[str, float]


def pair_differences(values: FloatArray) -> Differences:
    """Differences of two methods from jackknife values ``[..., 2, S, D]``."""
    seeds, dialogues = values.shape[-2:]
    variances = values.mean(axis=-1).var(axis=-1, ddof=1)
    seed_variance, df = seed_part(variances, np.full(variances.shape, float(seeds)))
    paired = values.mean(axis=-2)
    paired = paired[..., 0, :] - paired[..., 1, :]
    return Differences(
        paired.mean(axis=-1),
        seed_variance,
        df,
        paired.var(axis=-1, ddof=1) / dialogues,
        np.full(df.shape, dialogues - 1.0),
    )


def p_values(board: Simulated) -> dict[str, FloatArray]:
    """p-values ``[R]`` of every test for two methods under one condition."""
    values = board.dialogue_values()[:, :, 0]
    found = pair_differences(values)
    scores = values.mean(axis=-1)
    pairs = scores[:, 0] - scores[:, 1]
    seeds = pairs.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        unpaired = np.asarray(stats.ttest_ind(scores[:, 0], scores[:, 1], axis=-1, equal_var=False)[1])
        paired = np.asarray(stats.ttest_1samp(pairs, 0.0, axis=-1)[1])
    error = found.standard_error
    single = 2 * stats.t.sf(np.abs(found.value) / error, satterthwaite_df(found, values))
    return {
        DEFAULT: found.p,
        SATTERTHWAITE: single,
        "paired t, seeds": paired,
        "unpaired t, seeds": unpaired,
        "Wilcoxon, seeds": wilcoxon_p(pairs) if seeds > 1 else np.ones(len(pairs)),
        "dialogues only": two_sided_p(found.value, 0.0, 1.0, found.dialogue_variance, found.dialogue_df),
        UTTERANCES: utterance_p(board, values),
        "McNemar, one seed": mcnemar_p(board.right[:, 0, 0, 0, 0], board.right[:, 1, 0, 0, 0]),
    }


def satterthwaite_df(found: Differences, values: FloatArray) -> FloatArray:
    """Degrees of freedom of the usual short cut: three parts, the seeds of each method and dialogues."""
    seeds = values.shape[-2]
    parts = values.mean(axis=-1).var(axis=-1, ddof=1) / seeds
    three = np.concatenate([parts, found.dialogue_variance[..., None]], axis=-1)
    return satterthwaite(three, np.array([seeds - 1.0, seeds - 1.0, values.shape[-1] - 1.0]))


def wilcoxon_p(pairs: FloatArray) -> FloatArray:
    """Exact two-sided p-values of Wilcoxon's signed-rank test over the last axis, at most about 12 long."""
    count = pairs.shape[-1]
    ranks = stats.rankdata(np.abs(pairs), axis=-1)
    signs = np.array(list(itertools.product((0, 1), repeat=count)), dtype=np.float64)
    null = ranks @ signs.T
    seen = (ranks * (pairs > 0)).sum(axis=-1, keepdims=True)
    low, high = (null <= seen + 1e-9).mean(axis=-1), (null >= seen - 1e-9).mean(axis=-1)
    return np.minimum(2 * np.minimum(low, high), 1.0)


def utterance_p(board: Simulated, values: FloatArray) -> FloatArray:
    """Resampling utterances as if they were independent, seeds averaged.

    Its large-sample form: the normal test with the jackknife's variance over utterances.
    """
    # A jackknife value depends on the utterance's cell of the confusion matrix alone: four per run.
    right = board.right[:, :, 0]
    hits = right.sum(axis=-1, dtype=np.float64)
    upper = board.positive[:, None, None, None]
    count, size = upper.shape[-1], upper.sum(axis=-1, dtype=np.float64)
    upper_hits = (right & upper).sum(axis=-1, dtype=np.float64)
    lower_hits = hits - upper_hits
    cells = np.stack([lower_hits, count - size - lower_hits, size - upper_hits, upper_hits], axis=-1)
    without = weighted_f1((cells[..., None, :] - np.eye(4)).reshape(*cells.shape, 2, 2))
    middle = (without * cells).sum(axis=-1, keepdims=True) / count
    correct_lower, wrong_lower, wrong_upper, correct_upper = np.moveaxis(
        -(count - 1) * (without - middle), -1, 0
    )
    gain = np.where(upper, (correct_upper - wrong_upper)[..., None], (correct_lower - wrong_lower)[..., None])
    base = np.where(upper, wrong_upper[..., None], wrong_lower[..., None])
    influence = (base + gain * right).mean(axis=(2, 3))
    error = (influence[:, 0] - influence[:, 1]).std(axis=-1, ddof=1) / count**0.5
    scores = values.mean(axis=(-1, -2))
    return 2 * stats.norm.sf(np.abs(scores[:, 0] - scores[:, 1]) / error)


def mcnemar_p(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> FloatArray:
    """Exact McNemar test of right and wrong predictions ``[..., N]`` of one run each."""
    b, c = (first & ~second).sum(axis=-1), (~first & second).sum(axis=-1)
    return np.minimum(2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5), 1.0)


def measure(scenario: Scenario, seeds: int, replicates: int, habits: int, seed: int = 0) -> Measurement:
    """Error rates, power and coverage of one pair of methods.

    Args:
        scenario: Variances.
        seeds: Seeds of each method.
        replicates: Leaderboards under the null; half as many with the advantage.
        habits: Leaderboards in which all tests are made; in the others the cheap ones.
        seed: Seed of the simulation.
    """
    rng = np.random.default_rng(derive_seed(seed, "calibration", scenario.name, str(seeds)))
    null = _rejections(rng, scenario, seeds, replicates, habits, 0.0)
    power = _rejections(rng, scenario, seeds, replicates // 2, habits // 2, ADVANTAGE)
    found = [
        pair_differences(board.dialogue_values()[:, :, 0])
        for board in _boards(rng, scenario, seeds, replicates // 2, ADVANTAGE)
    ]
    values = np.concatenate([item.value for item in found])
    reach = np.concatenate([item.reach(ALPHA) for item in found])
    only = np.concatenate(
        [stats.t.isf(ALPHA / 2, item.dialogue_df) * item.dialogue_variance**0.5 for item in found]
    )
    truth = float(values.mean())
    covered = float(np.mean(np.abs(values - truth) <= reach))
    return Measurement(
        scenario.name, seeds, replicates, null, power, covered, 2 * float(reach.mean()),
        2 * float(only.mean()), truth,
    )  # fmt: skip


def _boards(
    rng: np.random.Generator, scenario: Scenario, seeds: int, replicates: int, advantage: float
) -> Iterator[Simulated]:
    for start in range(0, replicates, 100):
        count = min(100, replicates - start)
        yield simulate(rng, scenario, replicates=count, seeds=seeds, advantage=advantage)


def _rejections(
    rng: np.random.Generator, scenario: Scenario, seeds: int, replicates: int, habits: int, advantage: float
) -> dict[str, float]:
    """Share of p < 0.05 of every test."""
    found: dict[str, list[FloatArray]] = {}
    for index, board in enumerate(_boards(rng, scenario, seeds, replicates, advantage)):
        if index * 100 < habits:
            own = p_values(board)
        else:
            values = board.dialogue_values()[:, :, 0]
            own = {DEFAULT: pair_differences(values).p}
        for name, p in own.items():
            found.setdefault(name, []).append(p)
    return {name: float(np.mean(np.concatenate(p) < ALPHA)) for name, p in found.items()}


def measure_family(scenario: Scenario, seeds: int, replicates: int, seed: int = 0) -> FamilyMeasurement:
    """Family-wise error of Holm's correction: 15 pairs of 6 exchangeable methods, 15 conditions."""
    rng = np.random.default_rng(derive_seed(seed, "calibration", "family", scenario.name, str(seeds)))
    first, second = (np.array(x) for x in zip(*itertools.combinations(range(METHODS), 2), strict=True))
    wrong: dict[str, list[bool]] = {DEFAULT: [], SATTERTHWAITE: []}
    for start in range(0, replicates, 10):
        board = simulate(
            rng, scenario, replicates=min(10, replicates - start), seeds=seeds, methods=METHODS,
            conditions=CONDITIONS, masks=1,
        )  # fmt: skip
        values = np.swapaxes(board.dialogue_values(), 1, 2)
        pairs = np.stack([values[:, :, first], values[:, :, second]], axis=3)
        found = pair_differences(pairs)
        single = 2 * stats.t.sf(np.abs(found.value) / found.standard_error, satterthwaite_df(found, pairs))
        for name, p in ((DEFAULT, found.p), (SATTERTHWAITE, single)):
            wrong[name] += [bool((holm(own.ravel()) < ALPHA).any()) for own in p]
    return FamilyMeasurement(
        scenario.name, seeds, replicates, {name: float(np.mean(own)) for name, own in wrong.items()}
    )


def audit(
    scenarios: Sequence[Scenario] = GRID,
    families: Sequence[Scenario] = FAMILY_GRID,
    seeds: Sequence[int] = SEEDS,
    *,
    replicates: int = 1000,
    habits: int = 300,
    family_replicates: int = 200,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Measurement], list[FamilyMeasurement]]:
    """Measures the whole grid."""
    singles: list[Measurement] = []
    for count, scenario in itertools.product(seeds, scenarios):
        progress(f"{scenario.name}, {count} seeds")
        singles.append(measure(scenario, count, replicates, habits))
    joint: list[FamilyMeasurement] = []
    for count, scenario in itertools.product(seeds, families):
        progress(f"family of {METHODS * (METHODS - 1) // 2 * CONDITIONS}: {scenario.name}, {count} seeds")
        joint.append(measure_family(scenario, count, family_replicates))
    return singles, joint


def render_audit(singles: Sequence[Measurement], joint: Sequence[FamilyMeasurement]) -> str:
    """The measurements as Markdown tables, in per cent."""
    from tabulate import tabulate

    def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
        return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)

    counts = sorted({item.seeds for item in singles})
    lines: list[str] = []
    if singles:
        rows = []
        for test in TESTS:
            row = [test]
            for count in counts:
                own = [m.false_positives[test] for m in singles if m.seeds == count]
                row.append(f"{_percent(np.mean(own))} ({_percent(min(own))} to {_percent(max(own))})")
            for count in counts:
                row.append(_percent(np.mean([m.power[test] for m in singles if m.seeds == count])))
            rows.append(row)
        header = [
            "test",
            *(f"false positives, {n} seeds" for n in counts),
            *(f"power, {n} seeds" for n in counts),
        ]
        lines += ["Nominal 5 %; mean over scenarios (lowest to highest); power at about five points.", ""]
        lines += [table(rows, header), ""]
        rows = [
            [
                m.scenario,
                str(m.seeds),
                *(_percent(m.false_positives[test]) for test in TESTS),
                _percent(m.power[DEFAULT]),
                _percent(m.coverage),
                f"{100 * m.width:.1f}",
                f"{100 * m.width_of_dialogues:.1f}",
            ]
            for m in singles
        ]
        header = ["scenario", "seeds", *TESTS, "power", "coverage", "width", "width without seeds"]
        lines += ["False positives of every test; power, coverage and width (points) of the default.", ""]
        lines += [table(rows, header), ""]
    if joint:
        rows = [
            [m.scenario, str(m.seeds), _percent(m.errors[DEFAULT]), _percent(m.errors[SATTERTHWAITE])]
            for m in joint
        ]
        size = METHODS * (METHODS - 1) // 2 * CONDITIONS
        text = f"Family-wise error over {size} tests with Holm's correction"
        lines += [f"{text}, {joint[0].replicates} leaderboards each.", ""]
        lines += [table(rows, ["scenario", "seeds", DEFAULT, SATTERTHWAITE]), ""]
    return "\n".join(lines)


def _percent(share: float | np.floating) -> str:
    return f"{100 * share:.1f}"
