"""The embedded data set ``synthetic``: the options of a protocol and the data they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import suggestion
from .errors import CorpusError
from .generator import STRENGTHS, WEAK, PartShape, SyntheticParameters, ViewShape, default_views, generate
from .records import Corpus, LabelInfo

Positive = Annotated[int, Field(ge=1)]


class SyntheticOptions(BaseModel):
    """What ``[data.synthetic]`` of a protocol may say.

    Attributes:
        seed: Seed of the data.
        dialogues: Dialogues of training, validation and test.
        mean_length: Mean utterances per dialogue.
        dims: Feature width per modality; their names are the modalities.
        lengths: Longest frame sequence per modality (feature set ``sequences``).
        classes: Names of the classes of the label ``emotion``, or their number.
        speakers: Largest number of speakers in one dialogue.
        strength: Factor on the strength of all views.
        absent: Share of utterances without a recording, per modality.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0)] = 0
    dialogues: tuple[Positive, Positive, Positive] = (60, 20, 30)
    mean_length: Positive = 12
    dims: dict[str, Positive] = Field(default_factory=lambda: {"text": 32, "audio": 16, "vision": 24})
    lengths: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    classes: tuple[str, ...] | Annotated[int, Field(ge=2)] = 4
    speakers: Positive = 2
    strength: Annotated[float, Field(ge=0)] = 1.0
    absent: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)

    def parameters(self) -> SyntheticParameters:
        """Parameters of the generator."""
        base = SyntheticParameters(seed=self.seed, speakers=self.speakers)
        known = {view.modality: view for view in default_views() if view.max_length > 1}
        views = []
        for modality, dim in self.dims.items():
            said, shown, lively = (self.strength * usual for usual in STRENGTHS.get(modality, WEAK))
            length = self.lengths.get(modality, known[modality].max_length if modality in known else 12)
            view = ViewShape(
                modality,
                dim,
                strength=(said, shown, lively),
                absent=self.absent.get(modality, 0.0),
            )
            views += [view, replace(view, features="sequences", max_length=length)]
        shortest, longest = max(1, self.mean_length // 3), 2 * self.mean_length
        parts = tuple(
            PartShape(name, count, count * self.mean_length, shortest, longest)
            for name, count in zip(("train", "valid", "test"), self.dialogues, strict=True)
        )
        return replace(base, views=tuple(views), parts=parts, labels=(base.labels[0], self._emotion(base)))

    def _emotion(self, base: SyntheticParameters) -> LabelInfo:
        if isinstance(self.classes, int):
            usual = base.labels[1].classes
            more = tuple(f"emotion {index}" for index in range(len(usual), self.classes))
            return LabelInfo("emotion", "class", classes=(*usual, *more)[: self.classes])
        return LabelInfo("emotion", "class", classes=self.classes)


def embedded_corpus(
    features: Mapping[str, str] | None = None, tokens: bool = False, **options: Any
) -> Corpus:
    """The embedded data set with the feature sets ``vectors`` (default) or ``sequences``.

    Raises:
        CorpusError: An option or a feature set is unknown or out of range.
    """
    try:
        chosen = SyntheticOptions(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        near = suggestion(key, SyntheticOptions.model_fields) if first["type"] == "extra_forbidden" else ""
        raise CorpusError(f"synthetic data: option {key!r}: {first['msg']}{near}") from None
    return generate(chosen.parameters()).corpus(features, tokens)
