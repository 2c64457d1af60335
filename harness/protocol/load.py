"""Reads protocol files: TOML, inheritance, overrides from the command line, clear errors."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import UserError, suggestion
from ..reading import Unreadable, parse_toml, read_toml
from .schema import ParameterFile, Protocol

# A protocol, its base, and perhaps the base of that one.
_LONGEST_CHAIN = 16
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlevel = 4


class ProtocolError(UserError):
    """A protocol file can't be used; the message names file, key and value."""


@dataclass(frozen=True)
class Overrides:
    """What the command line changes; it becomes part of the record.

    Attributes:
        settings: ``key=value`` pairs of ``--set``, values in TOML notation or bare text.
        methods: Methods of ``--methods``: labels or names of the file's entries, or registry names.
        seeds: Training seeds of ``--seeds``.
    """

    settings: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


def load_protocol(path: Path | str, overrides: Overrides | None = None) -> Protocol:
    """Reads, merges and validates a protocol file.

    Args:
        path: The TOML file.
        overrides: Changes from the command line.

    Raises:
        ProtocolError: The file is absent, is not TOML, extends itself, or breaks the schema.
    """
    path = Path(path)
    overrides = overrides or Overrides()
    document = _read(path, ())
    for setting in overrides.settings:
        _apply_setting(document, setting)
    if overrides.seeds is not None:
        document.setdefault("train", {})["seeds"] = list(overrides.seeds)
    if overrides.methods is not None:
        document["methods"] = _pick_methods(document.get("methods", []), overrides.methods)
    _include_parameters(document)
    try:
        return Protocol.model_validate(document)
    except ValidationError as error:
        raise ProtocolError(_explain(path, error)) from None


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in seen:
        chain = " -> ".join(str(item.name) for item in (*seen, resolved))
        raise ProtocolError(f"{path}: key 'extends': the files extend each other: {chain}")
    if len(seen) >= _LONGEST_CHAIN:
        raise ProtocolError(f"{path}: key 'extends': more than {_LONGEST_CHAIN} files extend each other")
    try:
        document = read_toml(path)
    except FileNotFoundError:
        near = [str(item) for item in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        raise ProtocolError(f"{path}: no such protocol file{suggestion(str(path), near)}") from None
    except (OSError, ValueError) as error:
        raise ProtocolError(f"{path}: not readable as TOML: {error}") from None
    _anchor_parameters(document, path.parent)
    parent = document.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str) or not parent.endswith(".toml"):
        raise ProtocolError(
            f"{path}: key 'extends': value {_shown(parent)} is not the path of a protocol file (.toml)"
        )
    return _merge(_read(path.parent / parent, (*seen, resolved)), document)


def _anchor_parameters(document: Mapping[str, Any], folder: Path) -> None:
    """Makes every ``params_from`` of a file relative to that file."""
    for entry in _included(document):
        entry["params_from"] = str(folder / entry["params_from"])


def _include_parameters(document: Mapping[str, Any]) -> None:
    """Fills in what the files of ``params_from`` say; the entry's own parameters win."""
    for entry in _included(document):
        path = Path(entry["params_from"])
        file = _read_parameters(path)
        belongs = {"method": entry.get("name"), "profile": entry.get("profile", "default")}
        for key, wanted in belongs.items():
            if getattr(file, key) != wanted:
                raise ProtocolError(
                    f"{path}: is for the {key} {getattr(file, key)!r}, but the entry that names it in "
                    f"'params_from' has {wanted!r}"
                )
        own = entry.get("parameters", {})
        if isinstance(own, dict):
            entry["parameters"] = {**file.parameters, **own}
        if file.tuned is not None:
            entry.setdefault("tuned", file.tuned.model_dump(exclude_none=True))


def _included(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("methods")
    return [
        entry
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("params_from"), str)
    ]


def _read_parameters(path: Path) -> ParameterFile:
    try:
        return ParameterFile.model_validate(read_toml(path))
    except ValidationError as error:
        raise ProtocolError(_explain(path, error, ParameterFile)) from None
    except (OSError, ValueError) as error:
        raise ProtocolError(f"{path}: key 'params_from': not readable as TOML: {error}") from None


def _shown(value: Any) -> str:
    """A value for a message, however long or deep it is."""
    return _SHORT.repr(value)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of the file are merged key by key; what stands under a key is replaced as a whole."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _apply_setting(document: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ProtocolError(f"--set {setting!r}: expected key=value, such as compute.epochs=5")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except Unreadable:
        value = text.strip()
    table: Any = document
    for part in parts[:-1]:
        table = _step_into(table, part, setting)
    last = parts[-1]
    if isinstance(table, list):
        _step_into(table, last, setting)
        table[int(last)] = value
    else:
        table[last] = value


def _step_into(table: Any, part: str, setting: str) -> Any:
    if isinstance(table, list):
        if not part.isdigit() or int(part) >= len(table):
            raise ProtocolError(f"--set {setting!r}: {part!r} is not an index below {len(table)}")
        return table[int(part)]
    if not isinstance(table, dict):
        raise ProtocolError(f"--set {setting!r}: there is no table above {part!r}")
    return table.setdefault(part, {})


def _pick_methods(entries: Sequence[Any], wanted: Sequence[str]) -> list[Any]:
    """The file's entries whose label or name is wanted; others are taken from the registry."""
    picked: list[Any] = []
    for name in wanted:
        found = [
            entry
            for entry in entries
            if isinstance(entry, dict) and name in (entry.get("label"), entry.get("name"))
        ]
        picked.extend(found or [{"name": name}])
    return picked


def _explain(path: Path, error: ValidationError, root: type[BaseModel] = Protocol) -> str:
    lines = []
    for issue in error.errors():
        parts, kind, value = issue["loc"], issue["type"], issue.get("input")
        key = ".".join(str(part) for part in parts)
        if kind == "extra_forbidden":
            near = suggestion(str(parts[-1]), _keys_at(parts[:-1], root))
            lines.append(f"{path}: unknown key '{key}' (value {_shown(value)}){near}")
        elif kind == "missing":
            lines.append(f"{path}: key '{key}' is missing")
        elif kind == "literal_error":
            allowed = issue.get("ctx", {})["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            near = suggestion(str(value), allowed)
            lines.append(f"{path}: key '{key}': value {_shown(value)} is not allowed{near}")
        elif kind == "too_short" and value:
            continue  # pydantic counts the valid items only; the invalid ones are listed already
        elif kind == "value_error":
            reason = issue["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: key '{key}': {reason}" if key else f"{path}: {reason}")
        else:
            lines.append(f"{path}: key '{key}': value {_shown(value)}: {issue['msg']}")
    return "\n".join(lines)


def _keys_at(location: Sequence[Any], root: type[BaseModel]) -> list[str]:
    """The keys that the table at this place may have."""
    model = root
    for part in location:
        if isinstance(part, int):
            continue
        within = [
            inner
            for name, info in model.model_fields.items()
            if part == (info.alias or name)
            for inner in _models_within(info.annotation)
        ]
        if not within:
            return []
        model = within[0]
    return sorted(info.alias or name for name, info in model.model_fields.items())


def _models_within(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for item in typing.get_args(annotation) for model in _models_within(item)]
