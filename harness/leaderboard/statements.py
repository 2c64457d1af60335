"""Claims in plain sentences: what the data say, and what they cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import median

from ..metrics import Metric, metric
from .claims import Claims, Comparison
from .power import smallest_p_of_habitual_tests
from .records import Board, Row
from .robustness import rate_of

_CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}
# Fewest seeds that a table should rest on.
FEW_SEEDS = 5


def with_statements(board: Board) -> Board:
    """The board with sentences in its claims."""
    if board.claims is None:
        return board
    said, limits = tuple(statements(board)), tuple(limits_of(board))
    return replace(board, claims=replace(board.claims, statements=said, limits=limits))


def amount(value: float, item: Metric) -> str:
    """A difference without its sign: points of a percentage, or the metric's own unit."""
    return f"{abs(100 * value):.1f} points" if item.percent else f"{abs(value):.3f}"


def p_text(p: float) -> str:
    """A p-value as it is printed."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def statements(board: Board) -> list[str]:
    """What the claims say about methods, best rows first."""
    claims = board.claims
    if claims is None:
        return []
    item = metric(claims.metric)
    ranked = [row.label for row in board.rows if row.kind == "method"]
    found: list[str] = []
    undecided: list[str] = []
    untested: list[str] = []
    for a, b in combinations(ranked, 2):
        own = [x for column in board.columns if (x := claims.comparison(a, b, column.name)) is not None]
        if not own:
            continue
        if all(x.p is None for x in own):
            untested.append(f"{a} and {b}")
            continue
        for winner, loser in ((a, b), (b, a)):
            won = [x for x in own if x.better == winner]
            if won:
                found.append(_sentence(winner, loser, won, own, claims, item))
        if not any(x.significant for x in own):
            undecided.append(f"{a} and {b}")
    for overall in claims.overall:
        if overall.better is not None and overall.p_adjusted is not None and len(overall.columns) > 1:
            loser = overall.b if overall.better == overall.a else overall.a
            found.append(
                f"{overall.better} beats {loser} in every family ({', '.join(overall.columns)}), "
                f"{_adjusted(overall.p_adjusted, claims)}."
            )
    best = claims.best_of(board.ranked_by)
    if best is not None and len(best.p) > 1:
        others = [label for label in best.members if label != best.best]
        rest = f"not worse than it at this level: {', '.join(others)}" if others else "all others are worse"
        sure = f"{100 * (1 - claims.settings.alpha):g} %"
        found.append(
            f"Best in {board.ranked_by}: {best.best}; {rest} (with {sure} confidence the set has the best)."
        )
    if len(undecided) == len(ranked) * (len(ranked) - 1) // 2 > 1:
        found.append("The data cannot tell any two methods apart, in any column.")
    elif undecided:
        found.append(f"The data cannot tell apart, in any column: {'; '.join(undecided)}.")
    if untested:
        found.append(f"No test is possible with a single seed: {'; '.join(untested)}.")
    return found


def _sentence(
    winner: str,
    loser: str,
    won: Sequence[Comparison],
    own: Sequence[Comparison],
    claims: Claims,
    item: Metric,
) -> str:
    """One sentence for all columns in which a row beats another."""
    parts = [_single(x, claims, item) for x in won if x.kind == "mean"]
    rated = [x for x in own if x.kind == "condition" and rate_of(x.column) is not None]
    hits = [x for x in won if x in rated]
    # Rates are summed up by one threshold where the won ones are the highest or the lowest of them.
    summary = _by_rate(hits, rated)
    others = [x for x in won if x.kind == "condition" and (summary is None or x not in hits)]
    if summary is not None:
        parts.append(f"{summary} by {_range(hits, claims, item)}")
    if len(others) > 3:
        parts.append(f"in {', '.join(x.column for x in others)} by {_range(others, claims, item)}")
    else:
        parts += [_single(x, claims, item) for x in others]
    lost = [x.column for x in own if x.better == loser]
    open_ = [x.column for x in own if x.better is None and x.kind == "condition"]
    tail = f"; {loser} beats {winner} in {', '.join(lost)}" if lost else ""
    lower = {x.column for x in rated} - {x.column for x in hits}
    if summary is not None and lower and lower <= set(open_):
        rest = [name for name in open_ if name not in lower]
        tail += f"; at {'lower' if '≥' in summary else 'higher'} rates the data cannot tell"
        tail += f", nor in {', '.join(rest)}" if rest else ""
    elif open_:
        tail += f"; the data cannot tell in {', '.join(open_)}"
    return f"{winner} beats {loser} {', '.join(parts)}{tail}."


def _by_rate(hits: Sequence[Comparison], rated: Sequence[Comparison]) -> str | None:
    if len(hits) < 2 or len({x.column.rpartition("-")[0] for x in rated}) > 1:
        return None
    rate: Callable[[Comparison], float] = lambda x: rate_of(x.column) or 0.0  # noqa: E731
    ordered = sorted(rated, key=rate)
    ours = sorted(hits, key=rate)
    if ours == ordered:
        return "at all rates"
    if ours == ordered[-len(ours) :]:
        return f"at rates ≥ {rate(ours[0]):g}"
    if ours == ordered[: len(ours)]:
        return f"at rates ≤ {rate(ours[-1]):g}"
    return None


def _single(x: Comparison, claims: Claims, item: Metric) -> str:
    ends = x.interval or (0.0, 0.0)
    # Said from the winner's side: the sign goes, unless the uncorrected interval holds 0.
    low, high = sorted(map(abs, ends) if ends[0] * ends[1] > 0 else ends)
    scale = 100 if item.percent else 1
    digits = 1 if item.percent else 3
    reach = f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]" if x.interval else ""
    return f"in {x.column} by {amount(x.difference, item)}{reach}, {_adjusted(x.p_adjusted or 0.0, claims)}"


def _range(items: Sequence[Comparison], claims: Claims, item: Metric) -> str:
    if len(items) == 1:
        return _single(items[0], claims, item).partition(" by ")[2]
    scale = 100 if item.percent else 1
    sizes = [abs(scale * x.difference) for x in items]
    digits = 1 if item.percent else 3
    largest = max(x.p_adjusted or 0.0 for x in items)
    unit = " points" if item.percent else ""
    text = p_text(largest).replace("p =", "p ≤")
    name = _CORRECTIONS[claims.settings.correction]
    return f"{min(sizes):.{digits}f} to {max(sizes):.{digits}f}{unit}, {name}-adjusted {text}"


def _adjusted(p: float, claims: Claims) -> str:
    return f"{_CORRECTIONS[claims.settings.correction]}-adjusted {p_text(p)}"


def limits_of(board: Board) -> list[str]:
    """What the board's data can't carry, and what it would take."""
    claims = board.claims
    if claims is None:
        return []
    item = metric(claims.metric)
    found: list[str] = []
    methods = [row for row in board.rows if row.kind == "method"]
    seeds = sorted({count for row in methods if (count := _seeds(row, board)) > 0})
    if seeds:
        found += _of_seeds(seeds[0], claims)
    ranked = [x for x in claims.comparisons if x.column == board.ranked_by and x.detectable is not None]
    if ranked:
        single = amount(median(x.detectable or 0.0 for x in ranked), item)
        strict = amount(median(x.detectable_adjusted or 0.0 for x in ranked), item)
        found.append(
            f"In {board.ranked_by} a true difference of {single} (median over pairs) would be found with "
            f"{100 * claims.settings.power:g} % power by a single test, of {strict} at the strictest "
            "corrected level."
        )
        target = amount(claims.settings.relevant_difference, item)
        found.append(f"To find a difference of {target} there by a single test: {_needed(ranked)}.")
    return found


def _needed(items: Sequence[Comparison]) -> str:
    known = sorted(x.seeds_needed for x in items if x.seeds_needed is not None)
    words: list[str] = []
    if known:
        counts = f"{known[0]}" if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
        words.append(f"{counts} seeds of each method")
    if len(known) < len(items):
        words.append(
            f"for {len(items) - len(known)} of {len(items)} pairs 100 seeds would not do: more test "
            "dialogues are needed"
        )
    return "; ".join(words)


def _of_seeds(seeds: int, claims: Claims) -> list[str]:
    if seeds == 1:
        return ["One seed cannot tell a better method from a lucky training: no test is made."]
    reached = smallest_p_of_habitual_tests(seeds)
    found: list[str] = []
    unable = {name: p for name, p in reached.items() if p >= claims.settings.alpha}
    if unable:
        words = " and ".join(f"{name} (smallest possible p {p:.3g})" for name, p in unable.items())
        found.append(
            f"No test of seeds alone that goes by ranks or permutations can reach p < "
            f"{claims.settings.alpha:g} with {seeds} seeds: {words}."
        )
    strictest = claims.settings.alpha / max(claims.family_size, 1)
    if not unable and claims.family_size > 1 and reached["Wilcoxon signed-rank"] >= strictest:
        found.append(
            f"After correction for {claims.family_size} tests Wilcoxon's signed-rank test over {seeds} seeds "
            "can never be significant, whatever the data."
        )
    if seeds < FEW_SEEDS:
        found.append(
            f"{seeds} seeds: seed variance is hardly known, and intervals are wide; {FEW_SEEDS} or more are "
            "advised, 10 for small differences."
        )
    return found


def _seeds(row: Row, board: Board) -> int:
    return len(row.cells[board.info.primary][board.ranked_by].by_seed)
