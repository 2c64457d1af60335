"""What is extracted from each modality: one typed record each, changed with ``--set text.pooling=words``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import suggestion
from .errors import ExtractionError

# "last" is the encoder's output; "mean4" and "sum4" combine its last four hidden states.
Layers = Annotated[str, Field(pattern=r"^(last|(mean|sum)[1-9]\d*)$")]
Positive = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    revision: str = ""
    name: str = ""
    layers: Layers = "last"
    sequence: bool = False
    normalise: bool = False
    batch: Positive = 16

    def feature_name(self) -> str:
        """Name of the feature set: the model's last name and what differs from the defaults."""
        if self.name:
            return self.name
        parts = [re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(self.model).name)]
        for field, default in type(self).model_fields.items():
            value = getattr(self, field)
            if field in ("model", "revision", "name", "batch") or value == default.default:
                continue
            if field in ("pooling", "layers"):
                parts.append(str(value))
            else:
                parts.append(field if value is True else f"{field}{value}")
        return "-".join(parts)


class TextSettings(_Settings):
    """Transcripts.

    Attributes:
        model: Hugging Face id or local folder.
        revision: Commit, tag or branch of the id; empty: the default branch.
        name: Name of the feature set; empty: made from the model and the settings.
        layers: ``last``, ``meanK`` or ``sumK`` over the last K hidden states.
        pooling: ``mean`` over all tokens, ``content`` without special tokens, ``words`` (tokens to
            words, then words to the utterance), ``first`` token.
        sequence: Store a vector per token, or per word with ``pooling="words"``, without special
            tokens, instead of one per utterance.
        normalise: Scale vectors to unit length.
        lower: Lower-case the transcript first.
        max_tokens: Longest input; 0: what the model takes, at most 512.
        context: Neighbours before and after the utterance that the encoder reads as well.
        batch: Utterances per batch.
    """

    pooling: Literal["mean", "content", "words", "first"] = "mean"
    lower: bool = False
    max_tokens: Annotated[int, Field(ge=0)] = 0
    context: Annotated[int, Field(ge=0)] = 0
    batch: Positive = 32


class AudioSettings(_Settings):
    """Sound.

    Attributes:
        pooling: ``mean`` over valid frames, or the ``first`` frame.
        max_seconds: Sound after this many seconds is cut off.
        stride: Frames that one step of a sequence averages.
    """

    pooling: Literal["mean", "first"] = "mean"
    max_seconds: Annotated[float, Field(gt=0)] = 30.0
    stride: Positive = 1


class VisionSettings(_Settings):
    """Pictures.

    Attributes:
        pooling: ``mean`` over patches, or the ``first`` (class) token; then mean over frames.
        frames: Frames sampled evenly; 0: what a video encoder was trained on, 8 for image encoders.
    """

    pooling: Literal["mean", "first"] = "mean"
    frames: Annotated[int, Field(ge=0)] = 0
    batch: Positive = 8


Settings = TextSettings | AudioSettings | VisionSettings
KINDS: Mapping[str, type[TextSettings] | type[AudioSettings] | type[VisionSettings]] = {
    "text": TextSettings,
    "audio": AudioSettings,
    "vision": VisionSettings,
}


def make_settings(models: Mapping[str, str], changes: Sequence[str] = ()) -> dict[str, Settings]:
    """Settings per modality.

    Args:
        models: Encoder per modality.
        changes: ``modality.field=value``, as in ``text.layers=sum4``.

    Raises:
        ExtractionError: A modality, field or value is not known.
    """
    values: dict[str, dict[str, Any]] = {modality: {"model": model} for modality, model in models.items()}
    for change in changes:
        key, equals, value = change.partition("=")
        modality, dot, field = key.partition(".")
        if not equals or not dot:
            raise ExtractionError(f"--set {change!r}: expected MODALITY.FIELD=VALUE (text.layers=sum4)")
        if modality not in values:
            raise ExtractionError(f"--set {change!r}: no encoder was given for {modality!r}")
        if field not in KINDS[modality].model_fields:
            near = suggestion(field, KINDS[modality].model_fields)
            raise ExtractionError(f"--set {change!r}: {modality} has no setting {field!r}{near}")
        values[modality][field] = value
    made: dict[str, Settings] = {}
    for modality, fields in values.items():
        try:
            made[modality] = KINDS[modality].model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (modality, *first["loc"]))
            raise ExtractionError(f"{where} = {first['input']!r}: {first['msg']}") from None
    return made
