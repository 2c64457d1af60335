"""``manifest.json`` of a run folder: size and SHA-256 of each of its files, ``run.json`` among them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .files import write_json
from .hashing import canonical
from .run_file import DamagedRun, NewerRun, read_json

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-256 of a file, in hexadecimal."""

    bytes: int
    sha256: str


def plain_files(folder: Path) -> tuple[str, ...]:
    """Names of the plain files of a run folder but its manifest, sorted; links and folders are none."""
    return tuple(
        sorted(
            item.name
            for item in folder.iterdir()
            if item.name != MANIFEST and stat.S_ISREG(item.lstat().st_mode)
        )
    )


def file_digest(path: Path) -> FileDigest:
    """Reads a file once."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(file.tell(), digest)


def write_manifest(folder: Path) -> None:
    """Writes the manifest of a folder whose files are complete."""
    files = {name: vars(file_digest(folder / name)) for name in plain_files(folder)}
    write_json(folder / MANIFEST, {"schema": MANIFEST_SCHEMA, "files": files})


def read_manifest(folder: Path) -> Mapping[str, FileDigest] | None:
    """What the files of a run folder were when it was published; ``None`` without a manifest.

    Raises:
        DamagedRun: The manifest is broken.
        NewerRun: It was written by a newer version.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    value = read_json(file)
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > MANIFEST_SCHEMA:
        raise NewerRun(
            f"{file}: has schema {str(schema)[:20]}, and this version of IMER-Bench reads schema "
            f"{MANIFEST_SCHEMA}; use the version that wrote it, or a newer one"
        )
    try:
        manifest = _Manifest.model_validate(value)
    except ValidationError as error:
        issue = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in issue["loc"])
        raise DamagedRun(f"{file}: {f'key {where}: ' if where else ''}{issue['msg']}") from None
    return {name: FileDigest(entry.bytes, entry.sha256) for name, entry in manifest.files.items()}


def digest_of(files: Mapping[str, FileDigest]) -> str:
    """SHA-256 over names and digests of the files of one run."""
    content = canonical({name: digest.sha256 for name, digest in files.items()})
    return hashlib.sha256(content.encode()).hexdigest()


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class _Entry(_Strict):
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Manifest(_Strict):
    schema_version: Annotated[Literal[1], Field(alias="schema")]
    files: dict[str, _Entry]
