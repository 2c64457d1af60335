"""Finds methods: folders of ``methods/``, installed plug-ins, and import paths of a protocol.

Only records are imported here; a network is imported when a run needs it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UnknownName, UserError
from .record import MethodInfo

if TYPE_CHECKING:
    from .method import Method

ENTRY_POINTS = "imer_bench.methods"
_PACKAGE = __name__.rsplit(".", 2)[0] + ".methods"
_FOLDER = Path(__file__).resolve().parent.parent / "methods"


@cache
def method_names() -> tuple[str, ...]:
    """Names of all methods at hand: our folders and installed plug-ins."""
    plugins = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return tuple(sorted(shipped_methods() | plugins))


@cache
def shipped_methods() -> frozenset[str]:
    """Names of the methods of this project; asking for their records imports no foreign code."""
    return frozenset(item.parent.name for item in _FOLDER.glob("*/info.py"))


@cache
def method_info(name: str) -> MethodInfo:
    """The record of a method.

    Args:
        name: Registry name, or ``"package.module:ATTRIBUTE"`` for code that lives elsewhere.

    Raises:
        UnknownName: There is no such method; the nearest name is suggested.
        UserError: The import path can't be imported or holds no record.
    """
    if ":" in name:
        return _load(name)
    if (_FOLDER / name / "info.py").is_file():
        return _load(f"{_PACKAGE}.{name}.info:INFO")
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        return _load(point.value)
    raise UnknownName("method", name, method_names())


def _load(path: str) -> MethodInfo:
    module, _, attribute = path.partition(":")
    try:
        info = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method {path!r} can't be imported: {error}") from error
    except (Exception, SystemExit) as error:  # foreign code may do anything when it is imported
        raise UserError(f"method {path!r} can't be imported: {type(error).__name__}: {error}") from error
    if not isinstance(info, MethodInfo):
        raise UserError(f"method {path!r} is a {type(info).__name__}, not a MethodInfo")
    return replace(info, package=module.rpartition(".")[0] or module)


def is_foreign(info: MethodInfo) -> bool:
    """Whether a method's code lives outside this project."""
    return not info.package.startswith(_PACKAGE)


def method_class(info: MethodInfo) -> type[Method]:
    """Imports the network of a method.

    Raises:
        UserError: The record names a class that can't be imported.
    """
    module, _, name = info.model.partition(":")
    try:
        return getattr(importlib.import_module(module, info.package), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"method {info.name!r}: {info.model!r} can't be imported: {error}") from error
