"""Expressions of outputs, such as ``"reg + 2 * logit"`` or ``"sum(prototypes * probe)"``.

Grammar: sums, differences and products of names, numbers and parentheses, and ``sum(...)``. Names
may hold letters, digits, dots, underscores and slashes; there is no division.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from .contract import ParityError

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][\w./]*)|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<sign>[-+*()]))"
)


def evaluate(text: str, value: Callable[[str], Tensor]) -> Tensor:
    """The value of an expression.

    Args:
        text: The expression.
        value: Looks a name up; raises ``ParityError`` for unknown names.

    Raises:
        ParityError: The text is no expression of this grammar.
    """
    tokens = _tokens(text)
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take(expected: str = "") -> str:
        nonlocal position
        token = peek()
        if not token or (expected and token != expected):
            raise ParityError(f"expression {text!r}: expected {expected or 'a value'!r}, got {token!r}")
        position += 1
        return token

    def atom() -> Tensor:
        token = take()
        if token == "-":
            return -atom()
        if token == "(" or (token == "sum" and peek() == "("):
            if token == "sum":
                take("(")
            inner = total()
            take(")")
            return inner.sum() if token == "sum" else inner
        if token[0].isdigit():
            return torch.tensor(float(token))
        if token in "+*)":
            raise ParityError(f"expression {text!r}: unexpected {token!r}")
        return value(token)

    def product() -> Tensor:
        result = atom()
        while peek() == "*":
            take()
            result = result * atom()
        return result

    def total() -> Tensor:
        result = product()
        while peek() in ("+", "-"):
            result = result + product() if take() == "+" else result - product()
        return result

    try:
        result = total()
    except RecursionError:
        raise ParityError(f"expression {text[:60]!r}...: nested too deeply") from None
    if position < len(tokens):
        raise ParityError(f"expression {text!r}: unexpected {peek()!r}")
    return result


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ParityError(f"expression {text!r}: can't read {text[position:]!r}")
        tokens.append(match[match.lastgroup or 0])
        position = match.end()
    return tokens
