"""What can't be, or hardly can be, right in numbers of the literature."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from .published import Quotation


def check_quotations(quotations: Sequence[Quotation]) -> tuple[str, ...]:
    """Warnings about quotations that can't be, or hardly can be, right.

    - a share outside 0 to 100 per cent, a correlation outside [-1, 1], a negative error;
    - a two-class weighted F1 equal to 2p / (1 + p) at accuracy p, which is what a constant prediction
      gives if labels and predictions are swapped (the right value is 2p^2 / (1 + p));
    - columns of four or more numbers that are the same digit by digit.
    """
    return (*_impossible(quotations), *_swapped(quotations), *_twins(quotations))


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


def _swapped(quotations: Sequence[Quotation]) -> Iterator[str]:
    accuracy: dict[tuple[str, ...], Quotation] = {}
    for item in quotations:
        if re.fullmatch(r"acc2?(_?(has0|non0))?", item.metric.strip().lower()):
            zeros = "has0" if "has0" in item.metric.lower() else ""
            accuracy[item.source, item.data_set, item.method, item.condition, zeros] = item
    for item in quotations:
        match = re.match(r"w?f1(_?(has0|non0))?( |$)", item.metric.lower())
        if not match or "std" in item.metric:
            continue
        zeros = "has0" if "has0" in item.metric.lower() else ""
        other = accuracy.get((item.source, item.data_set, item.method, item.condition, zeros))
        if other is None:
            continue
        p, f1 = other.value * other.scale, item.value * item.scale
        if p > 0 and abs(f1 - 2 * p / (1 + p)) < 6e-4 and not math.isclose(p, 1.0):
            right = 100 * 2 * p * p / (1 + p)
            yield (
                f"F1 with swapped arguments: {_named(item)} = {item.value:g} is 2p/(1+p) of accuracy "
                f"{other.value:g}; a constant prediction has {right:.2f}"
            )


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
