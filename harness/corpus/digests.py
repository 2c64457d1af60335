"""Digests of content: the same numbers give the same digest, whatever file holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ..hashing import canonical
from .records import FeatureSet, LabelInfo, TokenSet


def utterances_digest(table: pd.DataFrame) -> str:
    """SHA-256 over the columns of an utterance table, by name; row order counts."""
    digest = hashlib.sha256()
    for column in sorted(str(name) for name in table.columns):
        values = table[column]
        digest.update(canonical(["column", column]).encode())
        if pd.api.types.is_integer_dtype(values):
            digest.update(b"i" + values.to_numpy(dtype="<i8").tobytes())
        elif pd.api.types.is_float_dtype(values):
            digest.update(b"f" + values.to_numpy(dtype="<f8").tobytes())
        else:
            digest.update(b"s" + canonical([str(value) for value in values]).encode())
    return digest.hexdigest()


def features_digest(item: FeatureSet) -> str:
    """SHA-256 over modality, name, values, lengths and observed flags of a feature set."""
    digest = hashlib.sha256(canonical([item.modality, item.name]).encode())
    for array in (item.values, item.lengths, item.observed):
        _update(digest, array)
    return digest.hexdigest()


def tokens_digest(tokens: TokenSet) -> str:
    """SHA-256 over token ids and masks."""
    digest = hashlib.sha256(canonical([tokens.unknown, tokens.vocabulary, tokens.tokenizer]).encode())
    for array in (tokens.ids, tokens.mask, tokens.special):
        _update(digest, array)
    return digest.hexdigest()


def _update(digest: Any, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(b"none")
        return
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest.update(canonical([little.dtype.str, list(little.shape)]).encode())
    digest.update(little.data)


def fingerprint(
    name: str,
    labels: tuple[LabelInfo, ...],
    table_digest: str,
    feature_digests: Mapping[tuple[str, str], str],
    token_digest: str,
) -> str:
    """SHA-256 over everything that training can see: 64 hexadecimal digits.

    The order of modalities does not count: it decides nothing but the order of mask columns.
    """
    parts = {
        "schema": 1,
        "name": name,
        "labels": [asdict(label) | {"low": float(label.low), "high": float(label.high)} for label in labels],
        "utterances": table_digest,
        "features": sorted([*pair, digest] for pair, digest in feature_digests.items()),
        "tokens": token_digest,
    }
    return hashlib.sha256(canonical(parts).encode()).hexdigest()
