"""How LaTeX tables look: options, and reading them from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ..errors import UnknownName, UserError
from .latex_grid import Layout

Spread = Literal["sd", "interval", "none"]


@dataclass(frozen=True)
class LatexOptions:
    """How tables look.

    Attributes:
        metrics: Metrics, one table each; the primary one if empty.
        columns: Columns by name; all if empty.
        precision: Decimals; ``None``: 1 in per cent, else 3.
        percent: Whether shares are shown times 100; ``None``: as the metric is usually shown.
        spread: Beside the mean: the standard deviation over seeds, the interval, or nothing.
        transpose: Conditions as rows and methods as columns.
        siunitx: Numbers in columns of siunitx, aligned at the decimal point.
        layout: ``"auto"``: the narrowest float that it fits, split in several if it fits none.
        baseline: Label that significant differences are marked against.
        cite: Whether methods are cited.
    """

    metrics: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    precision: int | None = None
    percent: bool | None = None
    spread: Spread = "sd"
    transpose: bool = False
    siunitx: bool = False
    layout: Layout = "auto"
    baseline: str = ""
    cite: bool = True


def latex_options(settings: Iterable[str]) -> LatexOptions:
    """Options from texts such as ``"precision=2"`` and ``"metrics=wf1,acc2"``.

    Raises:
        UserError: A name is unknown, or a value is none of the option.
    """
    known = {item.name: item.type for item in fields(LatexOptions)}
    values: dict[str, Any] = {}
    for text in settings:
        name, found, value = text.partition("=")
        if name not in known:
            raise UnknownName("option of LaTeX tables", name, known)
        if not found:
            raise UserError(f"--latex {text}: give a value, such as {name}=...")
        values[name] = _value(name, value)
    return LatexOptions(**values)


def _value(name: str, text: str) -> Any:
    choices = {"spread": get_args(Spread), "layout": get_args(Layout)}
    if name in choices:
        if text not in choices[name]:
            raise UserError(f"--latex {name}={text}: must be one of {', '.join(choices[name])}")
        return text
    if name in ("metrics", "columns"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name == "precision":
        if not text.isdecimal() or int(text) > 9:
            raise UserError(f"--latex precision={text}: must be a number of decimals, 0 to 9")
        return int(text)
    if name in ("percent", "transpose", "siunitx", "cite"):
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in truth:
            raise UserError(f"--latex {name}={text}: must be true or false")
        return truth[text.lower()]
    return text
