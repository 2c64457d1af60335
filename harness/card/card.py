"""Gathers a data-set card and writes it as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..corpus.info import DatasetInfo
from ..corpus.native import Contents
from ..corpus.records import FeatureSet, LabelInfo
from ..corpus.report import LabelSummary, PartSummary, label_summary, part_summaries
from ..corpus.splits import crossing_dialogues, drawn_dialogues
from ..errors import UserError
from . import leaks
from .probe import Target, held_out, out_of_fold, target_of

LIMIT = 6000  # utterances that the probe reads; more are drawn by whole dialogues


@dataclass(frozen=True)
class Signal:
    """What a linear probe reads from modalities.

    Attributes:
        features: ``modality/feature set`` names, side by side.
        accuracy: Cross-validated by dialogue.
        weighted_f1: The same.
        auc: The same.
        test_accuracy: Trained on the training part, on the test part; NaN without a split.
        test_auc: The same.
    """

    features: tuple[str, ...]
    accuracy: float
    weighted_f1: float
    auc: float
    test_accuracy: float
    test_auc: float


@dataclass(frozen=True)
class Missing:
    """Share of utterances that have a modality.

    Attributes:
        feature: ``modality/feature set``.
        column: Split column; empty: all utterances.
        part: Its value.
        observed: Share in [0, 1].
        utterances: Utterances of the part.
    """

    feature: str
    column: str
    part: str
    observed: float
    utterances: int


@dataclass(frozen=True)
class Card:
    """A data-set card.

    Attributes:
        name: Name of the data set.
        fingerprint: Fingerprint of the folder.
        origin: Where the data come from.
        licence: Licence note.
        notes: Repairs, conversions, encoders.
        utterances: Number of utterances.
        dialogues: Number of dialogues.
        lengths: Shortest, median and longest dialogue, in utterances.
        speakers: Largest number of speakers in a dialogue.
        labels: Distribution of every label.
        parts: Sizes of splits and folds.
        target: What the probe reads, in words.
        majority: Share of the most frequent class.
        signal_rows: What the cross-validation runs over, in words.
        signals: What the probe reads from every feature set and combination.
        label_leaks: Comparison of every feature set over every split.
        kinds: Dialogues of two kinds, per feature set.
        contaminated: Held-out parts that suspicious dialogues lie in.
        crossing: Dialogues in two parts, per split or fold column.
        duplicates: Near-duplicate transcripts across parts.
        shared_rows: Held-out rows with the features of a training row, per ``column: feature``.
        missing: Realised missingness.
        patterns: Utterances per set of modalities that exist.
        findings: What a user must know, worst first.
    """

    name: str
    fingerprint: str
    origin: str
    licence: str
    notes: tuple[str, ...]
    utterances: int
    dialogues: int
    lengths: tuple[int, float, int]
    speakers: int
    labels: tuple[LabelSummary, ...]
    parts: tuple[PartSummary, ...]
    target: str
    majority: float
    signal_rows: str
    signals: tuple[Signal, ...]
    label_leaks: tuple[leaks.LabelLeak, ...]
    kinds: tuple[leaks.TwoKinds, ...]
    contaminated: tuple[leaks.Contamination, ...]
    crossing: Mapping[str, int]
    duplicates: tuple[leaks.Duplicate, ...]
    shared_rows: Mapping[str, int]
    missing: tuple[Missing, ...]
    patterns: Mapping[str, int]
    findings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def make_card(
    contents: Contents,
    fingerprint: str,
    info: DatasetInfo | None = None,
    label: str = "",
    limit: int = LIMIT,
) -> Card:
    """Looks at a data set from all sides.

    Args:
        contents: The data, all feature sets.
        fingerprint: Fingerprint of the folder.
        info: Record of the data set, if the name is known.
        label: Label column that the probe reads; empty: the usual one.
        limit: Most utterances that the probe reads.

    Raises:
        UserError: There is no such label, or scikit-learn is not installed.
    """
    table = contents.utterances
    chosen = _label(contents, info, label)
    everything = target_of(table, chosen)
    target = _drawn(everything, limit)
    sizes = table.groupby("dialogue").size().to_numpy()
    rows, folds, note = _signal_rows(contents, info, target)
    parts = _split_parts(contents, info, target)
    label_leaks = tuple(
        found
        for column in contents.split_columns
        for item in contents.features
        if (found := leaks.label_leak(item, target, column, _parts_of(contents, target, column)))
    )
    kinds = tuple(leaks.two_kinds(item, out_of_fold([item], target)) for item in contents.features)
    suspicious = _suspicious(label_leaks, kinds)
    contaminated = leaks.contamination(table, contents.split_columns, suspicious)
    crossing = {
        column: len(crossing_dialogues(table["dialogue"], table[column]))
        for column in (*contents.split_columns, *contents.fold_columns)
    }
    duplicates = tuple(
        pair for column in contents.split_columns for pair in leaks.near_duplicates(table, column)
    )
    shared = {
        f"{column}: {_name(item)}": leaks.shared_rows(item, table[column].to_numpy(dtype=object))
        for column in contents.split_columns
        for item in contents.features
    }
    return Card(
        name=contents.name,
        fingerprint=fingerprint,
        origin=contents.origin,
        licence=contents.licence,
        notes=contents.notes,
        utterances=len(table),
        dialogues=len(sizes),
        lengths=(int(sizes.min()), float(np.median(sizes)), int(sizes.max())),
        speakers=int(table.groupby("dialogue")["speaker"].nunique().to_numpy().max()),
        labels=tuple(label_summary(item, table) for item in contents.labels),
        parts=part_summaries(contents),
        target=_words(chosen, everything, target),
        majority=float(np.bincount(target.part(rows).classes).max() / rows.sum()),
        signal_rows=note,
        signals=_signals(contents.features, target, rows, folds, parts),
        label_leaks=label_leaks,
        kinds=kinds,
        contaminated=contaminated,
        crossing=crossing,
        duplicates=duplicates,
        shared_rows=shared,
        missing=_missing(contents),
        patterns=_patterns(contents.features),
        findings=_findings(label_leaks, kinds, contaminated, crossing, duplicates, contents),
    )


def _label(contents: Contents, info: DatasetInfo | None, wanted: str) -> LabelInfo:
    known = {label.column: label for label in contents.labels}
    if wanted and wanted not in known:
        raise UserError(f"{contents.name} has no label {wanted!r}; at hand: {', '.join(known)}")
    usual = info.label if info and info.label in known else next(iter(known), "")
    if not usual:
        raise UserError(f"{contents.name} has no labels")
    return known[wanted or usual]


def _drawn(target: Target, limit: int) -> Target:
    if len(target.rows) <= limit:
        return target
    names = drawn_dialogues(list(target.dialogues), limit / len(target.rows), seed=0)
    return target.part(np.isin(target.dialogues, np.array(names, dtype=object)))


def _words(label: LabelInfo, everything: Target, target: Target) -> str:
    said = f"{label.column}: {' / '.join(everything.names)}"
    if label.kind == "score":
        said += ", scores of exactly zero left out" if "negative" in everything.names else ""
    if len(target.rows) < len(everything.rows):
        said += f"; {len(target.rows)} of {len(everything.rows)} utterances, drawn by dialogue"
    return said


def _signal_rows(
    contents: Contents, info: DatasetInfo | None, target: Target
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Rows and folds of the cross-validation of the default split: never its test part."""
    rule = info.split if info else None
    table = contents.utterances
    column = rule.column if rule and rule.column in table else ""
    column = column or next(iter((*contents.split_columns, *contents.fold_columns)), "")
    if column in contents.split_columns:
        inside = np.isin(_parts_of(contents, target, column), ["train", "valid"])
        return inside, None, f"five folds by dialogue inside training and validation of {column!r}"
    if column in contents.fold_columns:
        folds = table[column].to_numpy()[target.rows]
        return folds >= 0, folds[folds >= 0], f"the folds of {column!r}"
    return np.ones(len(target.rows), dtype=bool), None, "five folds by dialogue"


def _split_parts(contents: Contents, info: DatasetInfo | None, target: Target) -> np.ndarray | None:
    column = info.split.column if info and info.split.column in contents.split_columns else ""
    column = column or next(iter(contents.split_columns), "")
    return _parts_of(contents, target, column) if column else None


def _parts_of(contents: Contents, target: Target, column: str) -> np.ndarray:
    return contents.utterances[column].to_numpy(dtype=object)[target.rows]


def _signals(
    features: Sequence[FeatureSet],
    target: Target,
    rows: np.ndarray,
    folds: np.ndarray | None,
    parts: np.ndarray | None,
) -> tuple[Signal, ...]:
    """Every feature set alone, then combinations of the first feature set of each modality."""
    first = {item.modality: item for item in reversed(features)}
    firsts = [item for item in features if first[item.modality] is item]
    several = [list(chosen) for size in range(2, len(firsts) + 1) for chosen in combinations(firsts, size)]
    training = target.part(np.isin(parts, ["train", "valid"])) if parts is not None else None
    test = target.part(parts == "test") if parts is not None else None
    signals = []
    for items in (*([item] for item in features), *several):
        inside = out_of_fold(items, target.part(rows), folds)
        outside = held_out(items, training, test) if training and test and len(test.rows) else None
        signals.append(
            Signal(
                tuple(_name(item) for item in items),
                inside.accuracy(),
                inside.weighted_f1(),
                inside.auc(),
                outside.accuracy() if outside else float("nan"),
                outside.auc() if outside else float("nan"),
            )
        )
    return tuple(signals)


def _name(item: FeatureSet) -> str:
    return f"{item.modality}/{item.name}"


def _suspicious(label_leaks: Sequence[leaks.LabelLeak], kinds: Sequence[leaks.TwoKinds]) -> tuple[str, ...]:
    """Dialogues whose labels some features know; those of a split count more than a guess."""
    by_split = {name for leak in label_leaks for name in leak.dialogues}
    return tuple(sorted(by_split or {name for kind in kinds for name in kind.dialogues}))


def _missing(contents: Contents) -> tuple[Missing, ...]:
    table = contents.utterances
    found = []
    for item in contents.features:
        found.append(Missing(_name(item), "", "all", float(item.observed.mean()), len(table)))
        for column in contents.split_columns:
            for part in ("train", "valid", "test"):
                inside = (table[column] == part).to_numpy()
                if inside.any():
                    share = float(item.observed[inside].mean())
                    found.append(Missing(_name(item), column, part, share, int(inside.sum())))
    return tuple(found)


def _patterns(features: Sequence[FeatureSet]) -> dict[str, int]:
    first = {item.modality: item for item in reversed(features)}
    modalities = list(dict.fromkeys(item.modality for item in features))
    rows = zip(*(first[name].observed for name in modalities), strict=True)
    counts = Counter(
        " + ".join(name for name, there in zip(modalities, row, strict=True) if there) or "nothing"
        for row in rows
    )
    return dict(counts.most_common())


def _findings(
    label_leaks: Sequence[leaks.LabelLeak],
    kinds: Sequence[leaks.TwoKinds],
    contaminated: Sequence[leaks.Contamination],
    crossing: Mapping[str, int],
    duplicates: Sequence[leaks.Duplicate],
    contents: Contents,
) -> tuple[str, ...]:
    found = [
        f"LEAK: {count} dialogues lie in two parts of {column!r}"
        for column, count in crossing.items()
        if count
    ]
    two = {f"{kind.modality}/{kind.feature}" for kind in kinds if kind.suspicious}
    for leak in label_leaks:
        if leak.suspicious:
            name = f"{leak.modality}/{leak.feature}"
            # A test part that is harder for another reason shows a gap too, but not two kinds of dialogues.
            said = (
                f"{name} reveals labels of the training dialogues of {leak.column!r}"
                if name in two
                else f"{name} may reveal labels of the training dialogues of {leak.column!r}, or its test "
                "part is of another kind"
            )
            found.append(
                f"{_word(name in two)}: {said}: dialogues held out from the probe are read with AUC "
                f"{leak.inside:.3f} inside training and {leak.outside:.3f} on test "
                f"({leak.gap / leak.error:.0f} standard errors); cross-validation inside these "
                f"{len(leak.dialogues)} dialogues says nothing"
            )
    by_split = {f"{leak.modality}/{leak.feature}" for leak in label_leaks if leak.suspicious}
    for kind in kinds:
        if kind.suspicious:
            name = f"{kind.modality}/{kind.feature}"
            found.append(
                f"{_word(name in by_split)}: whatever the split, {name} is read with accuracy "
                f"{kind.high:.3f} in {len(kind.dialogues)} dialogues and {kind.low:.3f} in the others, as if "
                "its extractor knew the labels of the former"
            )
    owners = " and ".join(sorted(by_split or two))
    for item in contaminated:
        word = _word(bool(by_split & two))
        found.append(
            f"{word}: {item.dialogues} of {item.of_dialogues} {item.part} dialogues of "
            f"{item.column!r} ({item.utterances} of {item.of_utterances} utterances) are among those whose "
            f"labels {owners} know: with these features its {item.part} scores are not honest"
        )
    for column in contents.split_columns:
        pairs = [pair for pair in duplicates if pair.column == column]
        if pairs:
            found.append(
                f"{len(pairs)} validation or test transcripts of {column!r} are nearly those of training, "
                f"such as {pairs[0].other} and {pairs[0].training}"
            )
    return tuple(found)


def _word(sure: bool) -> str:
    return "LEAK" if sure else "SUSPICION"
