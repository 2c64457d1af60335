"""Hashes and seeds: pure functions of plain values, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any


def canonical(value: Any) -> str:
    """Canonical JSON of plain values: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, frozenset | set):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"not a plain value: {type(value).__name__}")


def address(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) that depends on a seed and a path of names.

    Every random number of the harness comes from a generator seeded this way, so that adding one
    use of randomness never shifts another.
    """
    digest = hashlib.blake2b(canonical([seed, *names]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
