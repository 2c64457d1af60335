"""From scores to claims: every pair in every column, corrected together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..hashing import derive_seed
from .claims import BestSet, Claims, ClaimSettings, Comparison, Component, Overall
from .effects import probability_of_improvement, standardised_difference
from .influence import Scores
from .multiplicity import adjust, intersection_union, not_worse_p
from .power import detectable_differences, seeds_needed
from .significance import differences, spread

TEST = (
    "seeds and dialogues crossed: paired jackknife values of dialogues, variance of independent "
    "trainings, Behrens-Fisher distribution"
)
_DRAWS = 20_000


@dataclass(frozen=True)
class ScoredColumn:
    """Scores of all rows in one column.

    Attributes:
        name: Column name.
        family: Family of its conditions.
        is_mean: Whether it is the mean over a family.
        scores: Per label in the order of the board; rows with a hole are left out.
        no_information: The reference row; ``None`` where the metric has none.
    """

    name: str
    family: str
    is_mean: bool
    scores: Mapping[str, Scores]
    no_information: Scores | None = None


def make_claims(
    metric: str,
    columns: Sequence[ScoredColumn],
    settings: ClaimSettings | None = None,
    *,
    ranked_by: str = "",
    higher_is_better: bool = True,
    components: Mapping[str, Mapping[str, tuple[Component, ...]]] | None = None,
) -> Claims:
    """Claims of one board; statements and limits are added by ``statements``.

    Args:
        metric: Name of the metric.
        columns: Scores, column by column.
        settings: Error rate, correction and family.
        ranked_by: Column that rows are ordered by.
        higher_is_better: Direction of the metric.
        components: Sources of variation of each cell.
    """
    settings = settings or ClaimSettings()
    jobs = [(column, a, b) for column in columns for a, b in itertools.combinations(column.scores, 2)]
    compared = _compared(jobs, settings)
    in_family = [settings.family != "ranking" or item.column == ranked_by for item in compared]
    compared, size = _corrected(compared, in_family, settings, higher_is_better)
    alone = _compared(
        [
            (
                replace_scores(column, {label: own, "no information": column.no_information}),
                label,
                "no information",
            )
            for column in columns
            if column.no_information is not None
            for label, own in column.scores.items()
        ],
        settings,
    )
    alone, _ = _corrected(alone, [True] * len(alone), replace(settings, family="all"), higher_is_better)
    return Claims(
        metric=metric,
        settings=settings,
        test=TEST,
        comparisons=tuple(compared),
        against_no_information=tuple(alone),
        overall=tuple(_overall(columns, compared, settings, higher_is_better)),
        family_size=size,
        best=tuple(_best(column, settings.alpha, higher_is_better) for column in columns if column.scores),
        components=components or {},
    )


def replace_scores(column: ScoredColumn, scores: Mapping[str, Scores | None]) -> ScoredColumn:
    """The column with other rows."""
    return replace(column, scores={label: own for label, own in scores.items() if own is not None})


def _compared(jobs: Sequence[tuple[ScoredColumn, str, str]], settings: ClaimSettings) -> list[Comparison]:
    """Comparisons before correction; adjusted detectable differences follow with the family's size."""
    tested = [column.scores[a].testable and column.scores[b].testable for column, a, b in jobs]
    pairs = [
        (column.scores[a], column.scores[b])
        for (column, a, b), able in zip(jobs, tested, strict=True)
        if able
    ]
    found = differences(pairs)
    p, reach, error, df = found.p, found.reach(settings.alpha), found.standard_error, found.df
    detectable = detectable_differences(found, settings.alpha, settings.power)
    strictest = detectable_differences(found, settings.alpha / max(len(jobs), 1), settings.power)
    needed = seeds_needed(pairs, settings.relevant_difference, settings.alpha, settings.power)
    result: list[Comparison] = []
    index = 0
    for (column, a, b), able in zip(jobs, tested, strict=True):
        first, second = column.scores[a], column.scores[b]
        value = first.mean - second.mean
        item = Comparison(
            a,
            b,
            column.name,
            "mean" if column.is_mean else "condition",
            value,
            effect=_effect(first, second),
            probability=probability_of_improvement(first.by_seed, second.by_seed),
            seeds=(len(first.seeds), len(second.seeds)),
        )
        if able:
            item = replace(
                item,
                interval=(value - float(reach[index]), value + float(reach[index])),
                p=float(p[index]),
                standard_error=float(error[index]),
                df=float(df[index]),
                detectable=float(detectable[index]),
                detectable_adjusted=float(strictest[index]),
                seeds_needed=needed[index],
            )
            index += 1
        result.append(item)
    return result


def _effect(a: Scores, b: Scores) -> float | None:
    common = [seed for seed in a.seeds if seed in b.seeds] if a.trained and b.trained else []
    first = [a.by_seed[a.seeds.index(seed)] for seed in common]
    second = [b.by_seed[b.seeds.index(seed)] for seed in common]
    return standardised_difference(first, second)


def _corrected(
    items: Sequence[Comparison], in_family: Sequence[bool], settings: ClaimSettings, higher: bool
) -> tuple[list[Comparison], int]:
    """Comparisons with adjusted p-values, and the size of the (largest) family."""
    families: dict[str, list[int]] = {}
    for index, (item, counted) in enumerate(zip(items, in_family, strict=True)):
        if counted and item.p is not None:
            families.setdefault(item.column if settings.family == "column" else "", []).append(index)
    result = list(items)
    for members in families.values():
        adjusted = adjust([items[index].p or 0.0 for index in members], settings.correction)
        for index, p in zip(members, adjusted, strict=True):
            item = items[index]
            better = None
            if p < settings.alpha and item.difference != 0:
                better = item.a if (item.difference > 0) == higher else item.b
            result[index] = replace(item, p_adjusted=float(p), better=better)
    return result, max((len(members) for members in families.values()), default=0)


def _overall(
    columns: Sequence[ScoredColumn], items: Sequence[Comparison], settings: ClaimSettings, higher: bool
) -> list[Overall]:
    means = {column.family for column in columns if column.is_mean}
    shown = tuple(column.name for column in columns if column.is_mean or column.family not in means)
    by_pair: dict[tuple[str, str], list[Comparison]] = {}
    for item in items:
        if item.column in shown:
            by_pair.setdefault((item.a, item.b), []).append(item)
    found: list[Overall] = []
    for (a, b), own in by_pair.items():
        known = [item.p for item in own if item.p is not None]
        complete = len(own) == len(shown) and len(known) == len(own)
        p = intersection_union(known, [item.difference for item in own]) if complete else None
        better = None if p is None else (a if (own[0].difference > 0) == higher else b)
        found.append(Overall(a, b, shown, p, better=better))
    tested = [item for item in found if item.p is not None]
    adjusted = iter(adjust([item.p or 0.0 for item in tested], settings.correction))
    result: list[Overall] = []
    for item in found:
        if item.p is None:
            result.append(item)
            continue
        p = float(next(adjusted))
        result.append(replace(item, p_adjusted=p, better=item.better if p < settings.alpha else None))
    return result


def _best(column: ScoredColumn, alpha: float, higher: bool) -> BestSet:
    """Multiple comparisons with the best: every row against all that score better than it."""
    sign = 1.0 if higher else -1.0
    means = {label: sign * own.mean for label, own in column.scores.items()}
    best = max(means, key=lambda label: means[label])
    able = [label for label, own in column.scores.items() if own.testable]
    p = {
        label: _not_worse(label, [other for other in able if other != label], column, sign) for label in able
    }
    members = tuple(label for label in able if p[label] >= alpha or label == best)
    if best not in members:
        members = (best, *members)
    return BestSet(column.name, best, members, p, tuple(x for x in column.scores if x not in able))


def _not_worse(label: str, rivals: Sequence[str], column: ScoredColumn, sign: float) -> float:
    own = column.scores[label]
    others = [column.scores[rival] for rival in rivals]
    lead = np.array([sign * (other.mean - own.mean) for other in others])
    if not others or lead.max() <= 0:
        return 1.0
    two_sided = differences([(other, own) for other in others]).p
    one_sided = np.where(lead > 0, two_sided / 2, 1 - two_sided / 2)
    dialogues = len(own.by_dialogue)
    paired = np.stack([other.by_dialogue - own.by_dialogue for other in others])
    covariance = np.atleast_2d(np.cov(paired)) / dialogues + spread(own) / len(own.seeds)
    covariance += np.diag([spread(other) / len(other.seeds) for other in others])
    scale = np.sqrt(np.diag(covariance))
    correlation = np.divide(
        covariance, np.outer(scale, scale), out=np.eye(len(others)), where=np.outer(scale, scale) > 0
    )
    rng = np.random.default_rng(derive_seed(0, "leaderboard", "best"))
    draws = rng.standard_normal((_DRAWS, len(others)))
    return not_worse_p(one_sided, correlation, draws)


def one_sample_interval(scores: Scores, alpha: float) -> tuple[float, float] | None:
    """Interval of a row's own score over seeds, masks and dialogues; ``None`` with one seed."""
    if not scores.testable:
        return None
    nothing = Scores((), np.zeros(1), np.zeros(len(scores.by_dialogue)), 0.0, trained=False)
    nothing = replace(nothing, seeds=(0,))
    reach = float(differences([(scores, nothing)]).reach(alpha)[0])
    return scores.mean - reach, scores.mean + reach


def sources_of_variation(
    scores: Scores, by_draw: np.ndarray | None = None, folds: np.ndarray | None = None
) -> tuple[Component, ...]:
    """Variance components of one cell (methods of moments; negative estimates are 0).

    Seeds and dialogues are crossed: MS_seed = D var_seed + MS_rest and so on (Searle, Casella and
    McCulloch 1992, chapter 4). Mask draws are crossed with seeds on the same test set; their effect is
    part of the dialogues' one as well, as masks are drawn utterance by utterance. Folds hold dialogues: the
    component is what their means vary beyond what dialogues explain.

    Args:
        scores: The cell.
        by_draw: ``[S, M]`` score of each seed and mask draw.
        folds: ``[D]`` fold of each dialogue.
    """
    if not scores.testable:
        return ()
    seeds, dialogues = len(scores.seeds), len(scores.by_dialogue)
    rest = scores.interaction / dialogues
    seed = max(spread(scores) - rest, 0.0)
    of_dialogues = float(np.var(scores.by_dialogue, ddof=1)) / dialogues
    own = max(of_dialogues - rest / seeds, 0.0)
    found = [
        Component("training seed", seed**0.5, (seed / seeds) ** 0.5, seeds),
        Component("dialogues", own**0.5, own**0.5, dialogues),
        Component("seed x dialogue", rest**0.5, (rest / seeds) ** 0.5, seeds * dialogues),
    ]
    if by_draw is not None and by_draw.shape[1] > 1:
        count = by_draw.shape[1]
        columns = float(np.var(by_draw.mean(axis=0), ddof=1))
        centred = by_draw - by_draw.mean(axis=0) - by_draw.mean(axis=1, keepdims=True) + by_draw.mean()
        left = float((centred**2).sum()) / max((seeds - 1) * (count - 1), 1)
        mask = max(columns - left / by_draw.shape[0], 0.0)
        found.append(Component("mask draw", mask**0.5, (mask / count) ** 0.5, count))
    if folds is not None and len(names := np.unique(folds)) > 1:
        groups = [scores.by_dialogue[folds == name] for name in names]
        within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
        within /= max(dialogues - len(groups), 1)
        sizes = np.array([len(group) for group in groups], dtype=np.float64)
        between = sum(len(group) * (group.mean() - scores.mean) ** 2 for group in groups) / (len(groups) - 1)
        typical = (dialogues - (sizes**2).sum() / dialogues) / (len(groups) - 1)
        fold = max((float(between) - within) / typical, 0.0)
        found.append(Component("fold", fold**0.5, (fold / len(groups)) ** 0.5, len(groups)))
    return tuple(found)
