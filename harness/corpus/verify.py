"""Checks a native folder against its manifest and against what the format promises."""

from __future__ import annotations

from pathlib import Path

from .digests import features_digest
from .errors import CorpusError
from .manifest import MANIFEST, read_manifest
from .native import (
    FEATURES,
    UTTERANCES,
    Contents,
    load_contents,
    make_manifest,
    ordered,
)
from .splits import SPLIT_VALUES, crossing_dialogues


def verify_folder(folder: Path) -> tuple[str, ...]:
    """Recomputes every digest and checks what the format promises.

    Returns:
        The problems in words; empty if the folder is sound.
    """
    try:
        manifest = read_manifest(folder)
        contents = load_contents(folder)
        again = ordered(contents)
    except CorpusError as error:
        return (str(error),)
    problems: list[str] = []
    recomputed = make_manifest(contents)
    if recomputed.utterances_digest != manifest.utterances_digest:
        problems.append(f"{UTTERANCES} does not agree with its digest")
    for stated, found in zip(manifest.features, recomputed.features, strict=True):
        if stated.digest != found.digest:
            problems.append(f"{stated.key} in {FEATURES} does not agree with its digest")
        elif stated != found:
            problems.append(f"{stated.key}: shape or number of observed rows is not what {MANIFEST} says")
    if recomputed.tokens != manifest.tokens:
        problems.append(f"tokens in {FEATURES} do not agree with their digest")
    if recomputed.fingerprint != manifest.fingerprint:
        problems.append(
            f"the fingerprint in {MANIFEST} is {manifest.fingerprint[:16]}…, "
            f"the content gives {recomputed.fingerprint[:16]}…"
        )
    if (manifest.utterances, manifest.dialogues) != (recomputed.utterances, recomputed.dialogues):
        problems.append(f"{MANIFEST} states other numbers of utterances or dialogues than the table has")
    if not again.utterances.equals(contents.utterances):
        problems.append(f"{UTTERANCES} is not sorted by dialogue and index")
    for kept, clean in zip(contents.features, again.features, strict=True):
        if features_digest(kept) != features_digest(clean) and not problems:
            problems.append(f"{kept.modality}/{kept.name} is not zero where it is absent or padding")
    return tuple(problems) + split_problems(contents)


def split_problems(contents: Contents) -> tuple[str, ...]:
    """What is wrong with split and fold columns: unknown values, dialogues that cross."""
    problems: list[str] = []
    table = contents.utterances
    for column in (*contents.split_columns, *contents.fold_columns):
        crossing = crossing_dialogues(table["dialogue"], table[column])
        if crossing:
            problems.append(f"column {column!r}: dialogue {crossing[0]!r} lies in two parts")
    for column in contents.split_columns:
        unknown = sorted(set(table[column]) - {*SPLIT_VALUES, ""})
        if unknown:
            problems.append(f"column {column!r}: unknown split {unknown[0]!r}")
    for column in contents.fold_columns:
        if (table[column].to_numpy() < -1).any():
            problems.append(f"column {column!r}: fold numbers start at 0, -1 means in no fold")
    return tuple(problems)
