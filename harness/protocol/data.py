"""Loads the data sets of a protocol and divides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..corpus.catalogue import data_set_info, load_data_set
from ..corpus.info import SplitRule
from ..corpus.records import Corpus
from ..corpus.splits import Split, fold_numbers, make_split, with_split_column
from ..errors import UserError
from ..samples import make_samples
from .plan import DataPlan, parse_conditions
from .schema import DataEntry, Protocol


@dataclass(frozen=True)
class DataSource:
    """Where data come from, beside what the protocol says.

    Attributes:
        root: Folder of ``--data-root``.
        synthetic: Replace every data set by generated data of the same shapes.
        scale: Size of generated data relative to the data set's.
    """

    root: Path | None = None
    synthetic: bool = False
    scale: float = 1.0


def load_data(protocol: Protocol, source: DataSource) -> tuple[DataPlan, ...]:
    """Loads every data set of a protocol.

    Raises:
        UserError: Data are absent or don't fit the protocol; the message says what would do.
    """
    return tuple(_load_one(protocol, entry, source) for entry in protocol.data)


def _load_one(protocol: Protocol, entry: DataEntry, source: DataSource) -> DataPlan:
    info = data_set_info(entry.set, source.root, entry.root)
    corpus = _corpus(entry, source)
    if len(corpus.features) < 2:
        raise UserError(f"data.features of {entry.set!r}: two or more modalities are needed")
    samples = make_samples(corpus, entry.label or info.label, entry.task, entry.mapping)
    rule = info.split if entry.split is None else SplitRule(**entry.split.model_dump())
    if source.synthetic:
        corpus = with_split_column(corpus, rule)
        samples = replace(samples, corpus=corpus)
    splits = {
        fold: _keep(make_split(rule, corpus.utterances, fold), samples.kept)
        for fold in fold_numbers(rule, corpus.utterances)
    }
    test = parse_conditions(protocol.test.conditions, protocol, tuple(corpus.features))
    return DataPlan(entry, info, samples, splits, test)


def _corpus(entry: DataEntry, source: DataSource) -> Corpus:
    embedded = data_set_info(entry.set, source.root, entry.root).embedded
    if entry.synthetic and not embedded:
        raise UserError(f"data.synthetic belongs to the data set 'synthetic', not to {entry.set!r}")
    parameters = entry.synthetic if embedded else {"scale": source.scale} if source.synthetic else None
    return load_data_set(
        entry.set,
        entry.features,
        entry.tokens,
        source.root,
        entry.root,
        synthetic=source.synthetic and not embedded,
        parameters=parameters,
    )


def _keep(split: Split, kept: np.ndarray) -> Split:
    def rows(part: Sequence[int] | np.ndarray) -> np.ndarray:
        part = np.asarray(part)
        return part[kept[part]]

    return Split(rows(split.train), rows(split.valid), rows(split.test), split.fold)
