"""Sections of a report page about protocol, masks, data and environment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .content import Background
from .html_tables import Tables, bullets, escaped

# Key, title and HTML of a section.
Section = tuple[str, str, str]


def background_sections(tables: Tables, background: Background) -> Iterator[Section]:
    """Sections about what runs say of themselves, as far as it is known."""
    if background.protocol:
        text = json.dumps(background.protocol, indent=2, ensure_ascii=False, default=str)
        facts = tables.table(
            ["setting", "value"], _facts(background.protocol), frozenset({0, 1}), frozenset({1})
        )
        whole = f"<details><summary>The whole protocol</summary><pre>{escaped(text)}</pre></details>"
        yield "protocol", "Protocol", facts + whole
    if background.masks:
        names = list(dict.fromkeys(name for draw in background.masks for name in draw.per_modality))
        rows = [
            [draw.data_set, draw.split, draw.condition, draw.seed, f"{draw.rate:.4f}"]
            + [f"{draw.per_modality[name]:.4f}" if name in draw.per_modality else "" for name in names]
            + [draw.hash[:12]]
            for draw in background.masks
        ]
        header = ["data set", "split", "condition", "mask seed", "realised rate", *names, "hash"]
        text_columns = frozenset({0, 1, 2, len(header) - 1})
        yield "masks", "Masks as they came out", tables.table(header, rows, text_columns)
    for key, title, records in (
        ("data", "Data", background.data),
        ("environment", "Environment", background.environments),
    ):
        if records:
            names = list(dict.fromkeys(name for record in records for name in record))
            rows = [[name, *(_plain(record.get(name, "")) for record in records)] for name in names]
            every = frozenset(range(len(records) + 1))
            header = ["", *(str(i) for i in range(1, len(records) + 1))]
            yield key, title, tables.table(header, rows, every, every - {0})
    if background.notes:
        yield "notes", "Notes of the runs", bullets(background.notes)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}: {_plain(item)}" for key, item in value.items() if item not in (None, "", {}, [])
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "" if value is None else str(value)


def _facts(protocol: Mapping[str, Any]) -> list[list[str]]:
    """The protocol without what stands elsewhere, a line a setting."""
    rows: list[list[str]] = []
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            rows += [
                [f"{name}.{key}", _plain(item)] for key, item in value.items() if item not in (None, {}, [])
            ]
        elif name == "methods" and isinstance(value, list):
            rows.append([name, ", ".join(str(item.get("label") or item.get("name")) for item in value)])
        elif value not in (None, "", {}, []):
            rows.append([name, _plain(value)])
    return rows
