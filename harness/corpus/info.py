"""The record of a data set: what it is, how large, where it comes from.

Every ``datasets/<name>.py`` defines one ``INFO: DatasetInfo``. It must import quickly: no pandas and
no torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..spec import Task
from .records import LabelInfo


@dataclass(frozen=True)
class SplitRule:
    """How rows are divided into training, validation and test, always by whole dialogues.

    Attributes:
        kind: ``"column"``: a column with the values train, valid and test; without valid rows, a
            share of the training dialogues is drawn. ``"nested_folds"``: test on fold k, validate
            on the next fold (cyclically), train on the rest. ``"folds_with_validation"``: test on
            fold k, draw a share of the other dialogues for validation, train on the rest.
        column: Column of the utterance table. Fold columns hold integers, -1: in no fold.
        folds: Folds to run; ``None``: all of them.
        validation_share: Share of the training dialogues that is drawn for validation.
        seed: Data seed of that draw.
    """

    kind: Literal["column", "nested_folds", "folds_with_validation"] = "column"
    column: str = "split"
    folds: tuple[int, ...] | None = None
    validation_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class FeatureInfo:
    """A feature set that a data set is known to have.

    Attributes:
        modality: Name of the modality.
        name: Name of the feature set, as in the native folder.
        dim: Width of a vector or frame.
        max_length: Longest sequence; 1 for vectors.
        source: The extractor, in words.
    """

    modality: str
    name: str
    dim: int
    max_length: int = 1
    source: str = ""


@dataclass(frozen=True)
class PartInfo:
    """Known size of one part (a split or a fold) of a data set.

    Attributes:
        value: Value of the split or fold column (``"train"``, ``0``).
        dialogues: Number of dialogues or videos.
        utterances: Number of utterances.
        shortest: Utterances of the shortest dialogue.
        longest: Utterances of the longest dialogue.
    """

    value: str | int
    dialogues: int
    utterances: int
    shortest: int
    longest: int


@dataclass(frozen=True)
class DatasetInfo:
    """Record of a data set, kept in ``datasets/<name>.py``.

    Attributes:
        name: Registry name, the file's name.
        title: Name in tables.
        summary: One sentence.
        task: The usual task.
        label: Label column that the task is trained on.
        labels: All label columns that a native folder of this data set may have.
        features: Default feature set per modality, in mask order.
        other_features: Further feature sets that are known for it.
        split: Default rule for training, validation and test.
        parts: Known sizes by split or fold; the generator and the importers' size check use them.
        part_column: The split or fold column that ``parts`` refers to.
        speakers: Largest number of speakers in one dialogue.
        class_shares: Share of each class in label order, for the generator; empty: equal shares.
        expected: Files of the release that an import reads.
        release: Where the release comes from.
        import_command: The command that turns the release into a native folder.
        licence: Licence note.
        citation: BibTeX of the corpus.
        checksum: First 16 hex digits of SHA-256 over the lines "id, tab, label with six decimals",
            see ``label_checksum``; empty if unknown.
        embedded: Whether the data are generated and need no files.
    """

    name: str
    title: str
    summary: str
    task: Task
    label: str
    labels: tuple[LabelInfo, ...]
    features: tuple[FeatureInfo, ...]
    other_features: tuple[FeatureInfo, ...] = ()
    split: SplitRule = SplitRule()
    parts: tuple[PartInfo, ...] = ()
    part_column: str = "split"
    speakers: int = 1
    class_shares: tuple[float, ...] = ()
    expected: tuple[str, ...] = ()
    release: str = ""
    import_command: str = ""
    licence: str = ""
    citation: str = ""
    checksum: str = ""
    embedded: bool = False

    @property
    def default_features(self) -> Mapping[str, str]:
        """Default feature set name per modality, in mask order."""
        return {feature.modality: feature.name for feature in self.features}

    @property
    def label_info(self) -> LabelInfo:
        """The label column of the usual task."""
        return next(label for label in self.labels if label.column == self.label)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; empty for a score."""
        return self.label_info.classes

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score; ``None`` for classes."""
        label = self.label_info
        return (label.low, label.high) if label.kind == "score" else None

    def feature(self, modality: str, name: str) -> FeatureInfo | None:
        """The known feature set of this modality and name, if any."""
        known = (*self.features, *self.other_features)
        return next((item for item in known if (item.modality, item.name) == (modality, name)), None)
