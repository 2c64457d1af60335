"""``manifest.json``: what a native folder holds, with a digest of every part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    kind: str
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0


class Manifest(_Record):
    """``manifest.json``: what a native folder holds, with a digest of every part."""

    schema_version: int = Field(alias="schema")
    name: str
    synthetic: bool = False
    utterances: int
    dialogues: int
    utterances_digest: str
    labels: tuple[LabelEntry, ...]
    features: tuple[FeatureEntry, ...]
    tokens: TokenEntry | None = None
    split_columns: tuple[str, ...] = ()
    fold_columns: tuple[str, ...] = ()
    fingerprint: str
    origin: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = Field(default_factory=dict)

    def feature_sets(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the feature sets per modality."""
        names: dict[str, list[str]] = {}
        for entry in self.features:
            names.setdefault(entry.modality, []).append(entry.name)
        return {modality: tuple(found) for modality, found in names.items()}


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
