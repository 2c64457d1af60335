"""Joins extracted features to data that may be there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..corpus.native import Contents
from ..corpus.records import FeatureSet
from .errors import ExtractionError
from .extract import Extracted


def onto(old: Contents | None, found: Contents) -> Contents:
    """The data that the features belong to: those that are there, if there are any.

    Args:
        old: The data folder's contents, if it exists.
        found: The source's utterances.

    Raises:
        ExtractionError: Both hold other utterances or labels.
    """
    if old is None:
        return found
    mine, theirs = [list(contents.utterances["id"]) for contents in (old, found)]
    if mine != theirs:
        other = sorted(set(mine) ^ set(theirs))
        example = f", for example {other[0]!r} is in one of them only" if other else ", in another order"
        raise ExtractionError(
            f"{old.name} holds other utterances than the source ({len(mine)} and {len(theirs)}{example}); "
            "choose another --name"
        )
    for label in found.labels:
        if label.column in old.utterances.columns:
            first, second = [
                contents.utterances[label.column].to_numpy(dtype=np.float64) for contents in (old, found)
            ]
            rows = np.flatnonzero(np.abs(first - second) > 1e-5)
            if len(rows):
                raise ExtractionError(
                    f"{old.name}: label {label.column!r} of {mine[rows[0]]!r} is {first[rows[0]]:g} "
                    f"there and {second[rows[0]]:g} in the source ({len(rows)} differ); choose another --name"
                )
    return old


def with_features(
    contents: Contents, features: Sequence[FeatureSet], reports: Sequence[Extracted], replace_existing: bool
) -> Contents:
    """Contents with extracted feature sets beside those that are there.

    Raises:
        ExtractionError: A feature set exists, differs by more than rounding, and is not to be replaced.
    """
    kept = list(contents.features)
    for item in features:
        key = (item.modality, item.name)
        old = next((found for found in kept if (found.modality, found.name) == key), None)
        if old is not None:
            if _agree(old, item) and not replace_existing:
                continue
            if not replace_existing:
                raise ExtractionError(
                    f"{contents.name} has another feature set {key[0]}/{key[1]} already; --replace replaces "
                    f"it, --set {key[0]}.name=NAME keeps both"
                )
            kept = [item if found is old else found for found in kept]
        else:
            kept.append(item)
    known = dict(contents.report.get("extraction", {}))
    known |= {f"{report.modality}/{report.name}": report.plain() for report in reports}
    notes = [note for note in contents.notes if not any(note.startswith(f"{key}: ") for key in known)]
    return replace(
        contents,
        features=tuple(kept),
        notes=(*notes, *(report.note() for report in reports)),
        report={**contents.report, "extraction": known},
    )


def _agree(first: FeatureSet, second: FeatureSet) -> bool:
    """Whether two feature sets are the same up to rounding, which depends on who shared a batch."""
    pairs = [(first.observed, second.observed), (first.lengths, second.lengths)]
    if first.values.shape != second.values.shape:
        return False
    if any(one is not None and two is not None and not np.array_equal(one, two) for one, two in pairs):
        return False
    return bool(np.allclose(first.values, second.values, rtol=1e-4, atol=1e-5))
