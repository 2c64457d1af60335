"""What can't be, or hardly can be, right in numbers of the literature."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from .checks import f1_ceiling
from .published import Quotation


def check_quotations(quotations: Sequence[Quotation]) -> tuple[str, ...]:
    """Warnings about quotations that can't be, or hardly can be, right.

    - a share outside 0 to 100 per cent, a correlation outside [-1, 1], a negative error;
    - a two-class weighted F1 equal to 2p / (1 + p) at accuracy p, which is what a constant prediction
      gives if labels and predictions are swapped (the right value is 2p^2 / (1 + p));
    - a two-class weighted F1 above what its accuracy allows, whatever the share of the classes;
    - columns of four or more numbers that are the same digit by digit.
    """
    return (*_impossible(quotations), *_above_accuracy(quotations), *_twins(quotations))


def _impossible(quotations: Iterable[Quotation]) -> Iterator[str]:
    for item in quotations:
        name = re.split(r"[ _(]", item.metric.lower())[0]
        if " std" in item.metric.lower() or "_std" in item.metric.lower():
            continue
        wrong = (
            (name in ("mae",) and item.value < 0)
            or (name in ("corr",) and abs(item.value) > 1 and abs(item.value) * item.scale > 1)
            or (re.match(r"acc|f1|wf1|wa$|ua$|weighted", name) and not 0 <= item.value * item.scale <= 1)
        )
        if wrong:
            yield f"impossible value: {_named(item)} = {item.value:g}"


def _above_accuracy(quotations: Sequence[Quotation]) -> Iterator[str]:
    accuracy: dict[tuple[str, ...], Quotation] = {}
    for item in quotations:
        if re.fullmatch(r"acc2?(_?(has0|non0))?", item.metric.strip().lower()):
            accuracy[_place(item)] = item
    for item in quotations:
        other = accuracy.get(_place(item))
        if (
            other is None
            or "std" in item.metric
            or not re.match(r"w?f1(_?(has0|non0))?( |$)", item.metric.lower())
        ):
            continue
        p, f1 = other.value * other.scale, item.value * item.scale
        # A mean over conditions needn't keep what holds for each of them.
        if not 0 < p < 1 or re.match(r"mean|avg|average|macro", item.condition.lower()):
            continue
        if abs(f1 - 2 * p / (1 + p)) < 6e-4:
            right = 100 * 2 * p * p / (1 + p)
            yield (
                f"F1 with swapped arguments: {_named(item)} = {item.value:g} is 2p/(1+p) of accuracy "
                f"{other.value:g}; a constant prediction has {right:.2f}"
            )
        elif f1 > p + 0.01 and _binary(item) and f1 > _ceiling(round(p, 3)) + 1e-3:
            yield (
                f"F1 above what accuracy allows: {_named(item)} = {item.value:g} at accuracy "
                f"{other.value:g}, at most {100 * _ceiling(round(p, 3)):.1f}"
            )


def _place(item: Quotation) -> tuple[str, ...]:
    zeros = "has0" if "has0" in item.metric.lower() else ""
    return item.source, item.data_set, item.method, item.condition, zeros


def _binary(item: Quotation) -> bool:
    return any(name in item.data_set.lower() for name in ("mosi", "mosei", "sims"))


@cache
def _ceiling(accuracy: float) -> float:
    """Largest two-class weighted F1 at an accuracy, over all shares of the classes."""
    return max(f1_ceiling(accuracy, share / 40) for share in range(20, 39))


def _twins(quotations: Iterable[Quotation]) -> Iterator[str]:
    columns: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for item in quotations:
        if "std" in item.metric:
            continue
        place = columns.setdefault((item.source, item.metric, item.data_set), {})
        place.setdefault(item.method, {})[item.condition] = item.value
    seen: dict[tuple[str, str, frozenset[tuple[str, float]]], str] = {}
    for (source, name, data_set), methods in columns.items():
        for method, values in methods.items():
            if len(values) < 4 or len(set(values.values())) < 3:
                continue
            where = f"{method} on {data_set}"
            other = seen.setdefault((source, name, frozenset(values.items())), where)
            if other != where:
                yield f"the same {len(values)} numbers of {name} for {other} and for {where} ({source})"


def _named(item: Quotation) -> str:
    return f"{item.metric} of {item.method} on {item.data_set}, {item.condition} ({item.source})"
