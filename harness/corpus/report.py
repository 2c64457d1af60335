"""What an import found: counts, distributions, widths, zero rows, and what looks wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from .errors import CorpusError
from .info import DatasetInfo
from .native import Contents
from .records import FeatureSet, LabelInfo
from .verify import split_problems


@dataclass(frozen=True)
class LabelSummary:
    """Distribution of one label column.

    Attributes:
        column: Name of the column.
        kind: ``"score"`` or ``"class"``.
        counts: Utterances per class; for scores those below, at and above zero, or near every whole
            number where no score is negative.
        low: Lowest score found.
        high: Highest score found.
        mean: Mean score.
    """

    column: str
    kind: str
    counts: Mapping[str, int]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True)
class PartSummary:
    """Size of one split or fold.

    Attributes:
        column: Split or fold column.
        value: Its value.
        dialogues: Number of dialogues.
        utterances: Number of utterances.
    """

    column: str
    value: str
    dialogues: int
    utterances: int


@dataclass(frozen=True)
class FeatureSummary:
    """One feature set.

    Attributes:
        modality: Name of the modality.
        name: Name of the feature set.
        dim: Width of a vector or frame.
        max_length: Longest sequence; 1 for vectors.
        observed: Share of utterances with a recording.
        zero_rows: Share of utterances whose values are all zero, absent ones included.
        low: Lowest value.
        high: Highest value.
    """

    modality: str
    name: str
    dim: int
    max_length: int
    observed: float
    zero_rows: float
    low: float
    high: float


@dataclass(frozen=True)
class ImportReport:
    """The result of an import, as printed and as kept in the manifest.

    Attributes:
        name: Name of the data set.
        format: Format of the release.
        folder: Where the native folder is.
        utterances: Number of utterances.
        dialogues: Number of dialogues.
        speakers: Largest number of speakers in one dialogue.
        labels: Distribution of every label column.
        parts: Sizes of splits and folds.
        features: Feature sets.
        tokens: Longest token sequence; 0 if there are none.
        checksum: Checksum over ids and labels, see ``label_checksum``.
        fingerprint: Fingerprint of the folder.
        notes: Repairs and conversions.
        warnings: What a user should look at.
    """

    name: str
    format: str
    folder: str
    utterances: int
    dialogues: int
    speakers: int
    labels: tuple[LabelSummary, ...]
    parts: tuple[PartSummary, ...]
    features: tuple[FeatureSummary, ...]
    tokens: int
    checksum: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def text(self) -> str:
        """The report for a terminal."""
        from tabulate import tabulate

        rows = [
            [
                item.modality,
                item.name,
                item.dim,
                item.max_length if item.max_length > 1 else "vector",
                f"{100 * item.observed:.1f} %",
                f"{100 * item.zero_rows:.1f} %",
                f"{item.low:.4g} .. {item.high:.4g}",
            ]
            for item in self.features
        ]
        head = ["modality", "feature set", "width", "frames", "observed", "zero rows", "range"]
        lines = [
            f"{self.name}: {self.utterances} utterances in {self.dialogues} dialogues, "
            f"up to {self.speakers} speaker{'s' if self.speakers > 1 else ''} each",
            f"  folder       {self.folder}",
            f"  fingerprint  {self.fingerprint[:16]}",
            "",
        ]
        for label in self.labels:
            counts = ", ".join(f"{name} {count}" for name, count in label.counts.items())
            scores = (
                f" in {label.low:g} .. {label.high:g}, mean {label.mean:.3f};"
                if label.kind == "score"
                else ":"
            )
            lines.append(f"  label {label.column}{scores} {counts}")
        for column in dict.fromkeys(part.column for part in self.parts):
            sizes = ", ".join(
                f"{part.value} {part.utterances} in {part.dialogues}"
                for part in self.parts
                if part.column == column
            )
            lines.append(f"  {column}: {sizes}")
        lines += ["", tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True)]
        if self.tokens:
            lines.append(f"token ids: up to {self.tokens} per utterance")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def make_report(
    contents: Contents, format_name: str, folder: str, fingerprint: str, warnings: tuple[str, ...] = ()
) -> ImportReport:
    """Summarises what an import found."""
    table = contents.utterances
    column = contents.labels[0].column if contents.labels else ""
    speakers = table.groupby("dialogue")["speaker"].nunique()
    return ImportReport(
        name=contents.name,
        format=format_name,
        folder=folder,
        utterances=len(table),
        dialogues=len(set(table["dialogue"])),
        speakers=int(np.max(speakers.to_numpy())),
        labels=tuple(label_summary(label, table) for label in contents.labels),
        parts=part_summaries(contents),
        features=tuple(_feature_summary(item) for item in contents.features),
        tokens=int(contents.tokens.ids.shape[1]) if contents.tokens else 0,
        checksum=label_checksum(table, column) if column else "",
        fingerprint=fingerprint,
        notes=contents.notes,
        warnings=warnings,
    )


def check_contents(contents: Contents, info: DatasetInfo | None) -> tuple[str, ...]:
    """Checks labels, splits and sizes.

    Returns:
        What looks wrong but may be meant.

    Raises:
        CorpusError: A label is out of range, or a dialogue lies in two splits.
    """
    table = contents.utterances
    for label in contents.labels:
        values = table[label.column].to_numpy()
        low, high = (label.low, label.high) if label.kind == "score" else (0, len(label.classes) - 1)
        bad = ~((values >= low) & (values <= high))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise CorpusError(
                f"label {label.column!r} of utterance {table['id'].iloc[first]!r} is {values[first]}, "
                f"outside {low:g} .. {high:g} ({int(bad.sum())} such)"
            )
    problems = split_problems(contents)
    if problems:
        raise CorpusError("; ".join(problems) + ": splits go by whole dialogues")
    warnings: list[str] = []
    for column in contents.split_columns:
        present = set(table[column])
        empty = [part for part in ("train", "valid", "test") if part not in present]
        if empty:
            warnings.append(f"column {column!r} has no {' and no '.join(empty)} rows")
    return (*warnings, *(_size_warnings(contents, info) if info else ()))


def label_checksum(table: pd.DataFrame, column: str) -> str:
    """First 16 hex digits of SHA-256 over "id, tab, label with six decimals", sorted by dialogue."""
    lines = [f"{name}\t{float(value):.6f}\n" for name, value in zip(table["id"], table[column], strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _size_warnings(contents: Contents, info: DatasetInfo) -> list[str]:
    warnings: list[str] = []
    table = contents.utterances
    if info.part_column in table.columns:
        for part in info.parts:
            found = list(table[info.part_column]).count(part.value)
            if found != part.utterances:
                warnings.append(
                    f"{info.part_column} {part.value}: {found} utterances, {part.utterances} are known"
                )
    if info.checksum and info.label in table.columns:
        found = label_checksum(table, info.label)
        if found != info.checksum:
            warnings.append(f"checksum over ids and labels is {found}, {info.checksum} is known")
    for item in contents.features:
        known = info.feature(item.modality, item.name)
        if known and known.dim != item.dim:
            warnings.append(f"{item.modality}/{item.name} has the width {item.dim}, {known.dim} is known")
    return warnings


def label_summary(label: LabelInfo, table: pd.DataFrame) -> LabelSummary:
    """Distribution of one label column."""
    values = table[label.column].to_numpy()
    if label.kind == "class":
        found = Counter(int(value) for value in values)
        counts = {name: found[index] for index, name in enumerate(label.classes)}
        return LabelSummary(label.column, "class", counts)
    if label.low < 0:
        counts = {"<0": (values < 0).sum(), "=0": (values == 0).sum(), ">0": (values > 0).sum()}
    else:
        counts = {
            f"about {value:g}": (np.round(values) == value).sum() for value in np.unique(np.round(values))
        }
    signs = {name: int(count) for name, count in counts.items()}
    return LabelSummary(
        label.column, "score", signs, float(values.min()), float(values.max()), float(values.mean())
    )


def part_summaries(contents: Contents) -> tuple[PartSummary, ...]:
    """Sizes of the parts of all split and fold columns."""
    parts: list[PartSummary] = []
    for column in (*contents.split_columns, *contents.fold_columns):
        groups = {str(value): group for value, group in contents.utterances.groupby(column)}
        order = [name for name in ("train", "valid", "test") if name in groups]
        for value in order or sorted(groups):
            rows = groups[value]
            parts.append(PartSummary(column, value, len(set(rows["dialogue"])), len(rows)))
    return tuple(parts)


def _feature_summary(item: FeatureSet) -> FeatureSummary:
    flat = item.values.reshape(len(item.values), -1)
    return FeatureSummary(
        modality=item.modality,
        name=item.name,
        dim=item.dim,
        max_length=item.max_length,
        observed=float(item.observed.mean()),
        zero_rows=float((~flat.any(axis=1)).mean()),
        low=float(flat.min()),
        high=float(flat.max()),
    )
