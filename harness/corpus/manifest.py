"""``manifest.json``: what a native folder holds, with a digest of every part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import CorpusError

SCHEMA = 1
MANIFEST = "manifest.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureEntry(_Record):
    """A feature set in the manifest."""

    modality: str
    name: str
    dim: int
    max_length: int
    sequence: bool
    observed: int
    note: str = ""
    digest: str

    @property
    def key(self) -> str:
        """Prefix of the tensors of this feature set."""
        return f"{self.modality}/{self.name}"


class TokenEntry(_Record):
    """Token ids in the manifest."""

    max_length: int
    unknown: int
    vocabulary: int
    tokenizer: str = ""
    digest: str


class LabelEntry(_Record):
    """A label column in the manifest."""

    column: str
    kind: Literal["score", "class"]
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0


class PartEntry(_Record):
    """Size of a split or fold, as the import report has it."""

    column: str
    value: str
    dialogues: int
    utterances: int


class Manifest(_Record):
    """``manifest.json``: what a native folder holds, with a digest of every part."""

    schema_version: int = Field(alias="schema")
    name: str
    synthetic: bool = False
    utterances: int
    dialogues: int
    utterances_digest: str
    labels: Annotated[tuple[LabelEntry, ...], Field(min_length=1)]
    features: tuple[FeatureEntry, ...]
    tokens: TokenEntry | None = None
    split_columns: tuple[str, ...] = ()
    fold_columns: tuple[str, ...] = ()
    fingerprint: str
    origin: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = Field(default_factory=dict)

    def parts(self) -> tuple[PartEntry, ...]:
        """Sizes of splits and folds.

        Raises:
            CorpusError: The import report in the manifest holds something else.
        """
        try:
            return _PARTS.validate_python(self.report.get("parts", ()))
        except ValidationError as error:
            raise CorpusError(
                f"{MANIFEST} of {self.name!r} is broken at report.parts: {error.errors()[0]['msg']}"
            ) from None

    def speakers(self) -> int:
        """Largest number of speakers in one dialogue; 1 where the import report does not say."""
        found = self.report.get("speakers", 1)
        return found if isinstance(found, int) else 1

    def feature_sets(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the feature sets per modality."""
        names: dict[str, list[str]] = {}
        for entry in self.features:
            names.setdefault(entry.modality, []).append(entry.name)
        return {modality: tuple(found) for modality, found in names.items()}


_PARTS: TypeAdapter[tuple[PartEntry, ...]] = TypeAdapter(tuple[PartEntry, ...])


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a native folder.

    Raises:
        CorpusError: It is absent, broken, or of another schema version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CorpusError(f"{folder} is not a native data folder: it has no {MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorpusError(f"{path} is broken at {where or 'its beginning'}: {first['msg']}") from None
    if manifest.schema_version != SCHEMA:
        raise CorpusError(f"{path} has schema {manifest.schema_version}, this version reads schema {SCHEMA}")
    return manifest
