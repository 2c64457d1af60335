"""Finds methods: folders of ``methods/``, installed plug-ins, and import paths of a protocol.

Only records are imported here; a network is imported when a run needs it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UnknownName, UserError
from .record import MethodInfo

if TYPE_CHECKING:
    from .method import Method

# What a run's notes about foreign code begin with.
FOREIGN_CODE = "foreign code:"
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


@dataclass(frozen=True)
class ForeignCode:
    """Code from outside this project that a run executes.

    Attributes:
        module: Its module or package.
        place: Its file or folder.
        sha256: Over the module, or over all Python files of the package, names included.
    """

    module: str
    place: str
    sha256: str


def foreign_code(info: MethodInfo) -> tuple[ForeignCode, ...]:
    """The code of a foreign method: the package of its record, and that of its network if it is another.

    What these import in turn is not followed.
    """
    if not is_foreign(info):
        return ()
    network = info.model.partition(":")[0]
    packages = [info.package]
    if not network.startswith(".") and network.rpartition(".")[0] != info.package:
        packages.append(network)
    return tuple(_code_of(package) for package in dict.fromkeys(packages))


def _code_of(package: str) -> ForeignCode:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return ForeignCode(package, "no file", "")
    origin = Path(spec.origin) if spec.origin else Path(next(iter(spec.submodule_search_locations or ())))
    if not spec.submodule_search_locations:
        return ForeignCode(package, str(origin), hashlib.sha256(_content(origin)).hexdigest())
    folder = origin if origin.is_dir() else origin.parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(_content(file)).digest())
    return ForeignCode(package, str(folder), digest.hexdigest())


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""  # a built-in module has none


def known_info(name: str) -> MethodInfo | None:
    """The record of a method if no code has to be imported for it that is not ours or here already.

    What a results folder names is not asked for: only a protocol may import foreign code.
    """
    if name in shipped_methods():
        return method_info(name)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        if point.module in sys.modules:
            return method_info(name)
    return None


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
