"""From a corpus and a protocol's data table to samples: targets, task, shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .corpus.records import Corpus
from .errors import UnknownName, UserError
from .spec import SENTIMENT_CLASSES, DataSpec, Level, ModalitySpec, Task

# Mappings of a score to classes: class names, and the class of each score (-1: leaves the data).
_SCORE_MAPPINGS = {
    "negative_nonnegative": ("negative", "non-negative"),
    "negative_positive": ("negative", "positive"),
    "negative_neutral_positive": SENTIMENT_CLASSES,
}


@dataclass(frozen=True)
class Samples:
    """A corpus with its targets.

    Attributes:
        corpus: The data.
        task: Task of the targets.
        mapping: How the label column became the target.
        targets: ``[N]`` float64 scores or int64 classes.
        classes: Class names in label order.
        score_range: Lowest and highest score of a regression.
        kept: ``[N]`` bool, False for utterances that the mapping leaves out.
    """

    corpus: Corpus
    task: Task
    mapping: str
    targets: np.ndarray
    classes: tuple[str, ...]
    score_range: tuple[float, float] | None
    kept: np.ndarray


def make_samples(corpus: Corpus, label: str, task: Task | None, mapping: str | None) -> Samples:
    """Maps a label column to targets.

    Args:
        corpus: The data.
        label: Label column.
        task: Wanted task; the mapping's own if ``None``.
        mapping: ``"score"``, ``"class"`` or a mapping of scores to classes; the label's own if
            ``None``.

    Raises:
        UserError: The column is unknown, or mapping and task don't fit it.
    """
    if label not in corpus.labels:
        raise UnknownName(f"label of {corpus.name}", label, corpus.labels)
    info = corpus.labels[label]
    mapping = mapping or info.kind
    values = corpus.utterances[label].to_numpy()
    if info.kind == "class":
        if mapping != "class":
            raise UserError(
                f"data.mapping {mapping!r} needs a score, but {corpus.name}.{label} holds classes"
            )
        own: Task = "binary" if len(info.classes) == 2 else "multiclass"
        _check_task(task, own, mapping)
        targets = values.astype(np.int64)
        return Samples(corpus, own, mapping, targets, info.classes, None, np.ones(len(values), bool))
    scores = values.astype(np.float64)
    if mapping == "score":
        _check_task(task, "regression", mapping)
        score_range = (info.low, info.high)
        kept = np.ones(len(values), bool)
        return Samples(corpus, "regression", mapping, scores, SENTIMENT_CLASSES, score_range, kept)
    if mapping not in _SCORE_MAPPINGS:
        raise UserError(f"data.mapping {mapping!r} needs classes, but {corpus.name}.{label} holds a score")
    classes = _SCORE_MAPPINGS[mapping]
    _check_task(task, "binary" if len(classes) == 2 else "multiclass", mapping)
    kept = scores != 0 if mapping == "negative_positive" else np.ones(len(values), bool)
    if mapping == "negative_neutral_positive":
        targets = np.sign(scores).astype(np.int64) + 1
    elif mapping == "negative_nonnegative":
        targets = (scores >= 0).astype(np.int64)
    else:
        targets = (scores > 0).astype(np.int64)
    return Samples(
        corpus, "binary" if len(classes) == 2 else "multiclass", mapping, targets, classes, None, kept
    )


def _check_task(wanted: Task | None, own: Task, mapping: str) -> None:
    if wanted is not None and wanted != own:
        raise UserError(f"data.task {wanted!r} doesn't fit the mapping {mapping!r}, which is {own!r}")


def choose_level(corpus: Corpus, takes: Sequence[Level]) -> tuple[Level, str]:
    """The level at which a method gets a corpus, and a note if something is lost.

    The first level without loss is taken, else the method's first choice.

    Returns:
        The level, and a note on a lossy conversion or an empty string.
    """
    sequences = any(features.lengths is not None for features in corpus.features.values())
    for level in takes:
        if level == "sequences" or not sequences:
            return level, ""
    return takes[0], "frame sequences reduced to their mean over valid frames"


def data_spec(samples: Samples, train: np.ndarray, level: Level) -> DataSpec:
    """What a method may know of the data.

    Args:
        samples: All samples.
        train: Training rows.
        level: Level of the batches.
    """
    corpus = samples.corpus
    utterances = corpus.utterances
    tokens = corpus.tokens
    sizes = utterances.groupby("dialogue", sort=False).size()
    speakers = utterances.groupby("dialogue", sort=False)["speaker"].nunique()
    counts: tuple[int, ...] = ()
    if samples.task != "regression":
        counts = tuple(int(n) for n in np.bincount(samples.targets[train], minlength=len(samples.classes)))
    return DataSpec(
        name=corpus.name,
        modalities=tuple(
            ModalitySpec(
                name=name,
                dim=features.dim,
                max_length=features.max_length if level == "sequences" else 1,
                features=features.name,
                vocabulary=tokens.vocabulary if tokens is not None and name == "text" else 0,
            )
            for name, features in corpus.features.items()
        ),
        task=samples.task,
        classes=samples.classes,
        score_range=samples.score_range,
        longest_dialogue=int(sizes.to_numpy().max()),
        speakers=max(1, int(speakers.to_numpy().max())),
        train_utterances=len(train),
        train_dialogues=int(utterances["dialogue"].iloc[train].nunique()),
        class_counts=counts,
        level=level,
    )
