"""``run.json``: what a run says of itself, in every version that was ever written.

Readers get the form of ``RUN_SCHEMA`` whatever wrote the file: ``_MIGRATIONS`` bring older ones up to
it in memory, the file stays as it is. A file of a newer version is refused.

=======  =============================================================================================
version  change
=======  =============================================================================================
1        the first
2        ``hashed``: what address and comparison hash are hashes of, so that both can be recomputed
         without the data (``null`` where a run comes from version 1). ``manifest.json`` beside it.
=======  =============================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError

RUN_FILE = "run.json"
RUN_SCHEMA = 2

# A record has some 10 kB; a file of this size is none, and is not read into memory.
_LARGEST = 64 * 2**20


class DamagedRun(UserError):
    """A run can't be used; the message names the file and what is wrong with it."""


class NewerRun(UserError):
    """A run was written by a newer version of this project."""


def read_record(folder: Path) -> tuple[dict[str, Any], int]:
    """The record of a run folder, checked, in the form of ``RUN_SCHEMA``.

    Returns:
        The record, and the schema version that it was written in.

    Raises:
        DamagedRun: ``run.json`` is absent, broken, or no record of a run.
        NewerRun: It was written by a newer version.
    """
    file = folder / RUN_FILE
    record = read_json(file)
    if not isinstance(record, dict):
        raise DamagedRun(f"{file}: holds a {type(record).__name__}, not the record of a run")
    written = record.get("schema")
    refuse_newer(file, written)
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise DamagedRun(f"{file}: schema {written!r} is none that was ever written")
    try:
        for version in range(written, RUN_SCHEMA):
            record = _MIGRATIONS[version](record)
        RunRecord.model_validate(record)
    except ValidationError as error:
        issue = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in issue["loc"])
        raise DamagedRun(f"{file}: {f'key {where}: ' if where else ''}{issue['msg']}") from None
    return record, written


def read_json(file: Path) -> Any:
    """The value of a JSON file; numbers that JSON doesn't have are refused.

    Raises:
        DamagedRun: It is absent, no plain file, too large or broken.
    """
    try:
        if not file.is_file():
            raise DamagedRun(f"{file}: there is no such file")
        if file.stat().st_size > _LARGEST:
            raise DamagedRun(f"{file}: is too large to be what its name says")
        return json.loads(file.read_bytes(), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedRun(f"{file}: not readable as JSON: {error}") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def refuse_newer(file: Path, schema: object) -> None:
    """Raises ``NewerRun`` if a version is above what this code reads."""
    if isinstance(schema, int) and schema > RUN_SCHEMA:
        raise NewerRun(
            f"{file}: was written with schema {str(schema)[:20]}, and this version of IMER-Bench reads "
            f"schemas 1 to {RUN_SCHEMA}; use the version that wrote it, or a newer one"
        )


def _without_hashed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "schema": 2, "hashed": None}


# Version -> what makes the next version of it.
_MIGRATIONS: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _without_hashed}


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Moment = Annotated[str, AfterValidator(_moment)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Scores = dict[str, Finite | None]


class _Part(BaseModel):
    # Keys that are added without a new version must not break older readers.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", strict=True, protected_namespaces=())


class TablePart(_Part):
    """What the table of predictions needs beside its rows."""

    task: Literal["regression", "binary", "multiclass"]
    classes: list[str]
    score_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None
    primary: str
    metrics: list[str]


class IdentityPart(_Part):
    """Which run it is."""

    protocol: str
    method: str
    label: str
    profile: str
    hyper_parameters: dict[str, Any]
    data_set: str
    fold: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None
    regime: str
    train_condition: str
    test_conditions: dict[str, str]
    seed: Count
    level: Literal["dialogues", "vectors", "sequences"]
    variant: Hash
    method_numerics: int
    engine_numerics: int


class TunedPart(_Part):
    """Where tuned hyper-parameters come from."""

    trials: Count


class MarksPart(_Part):
    """What tables must say of it."""

    synthetic: bool
    privileged: list[str]
    selection: str
    context: str
    tuned: TunedPart | None = None
    notes: list[str]


class DataPart(_Part):
    """What it was computed on."""

    name: str
    fingerprint: str
    features: dict[str, str]
    scale: str
    mapping: str
    utterances: dict[Literal["train", "valid", "test"], Count]


class EnvironmentPart(_Part):
    """Where it was computed."""

    torch: str
    device: str
    threads: Annotated[int, Field(ge=1, lt=2**16)]
    precision: str
    stacked: bool = False


class TimingsPart(_Part):
    """When, and for how long."""

    started: Moment
    finished: Moment
    wall_s: Finite


class HashedPart(_Part):
    """What its hashes are hashes of; see ``protocol.plan.address_parts``."""

    method: dict[str, Any]
    data: dict[str, Any]
    conditions: dict[str, Any]
    comparison: dict[str, Any]


class ErrorPart(_Part):
    """Why it has no result."""

    type: str
    message: str


class DrawPart(_Part):
    """One draw of a condition's masks, as it turned out."""

    seed: Count | None
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    realised_rate: Finite
    per_modality: dict[str, Finite]
    patterns: dict[str, Finite]
    repaired: Count


class MetricsPart(_Part):
    """Its scores: of the tested epoch on validation, and per test condition."""

    validation: Scores
    test: dict[str, Scores]


class RunRecord(_Part):
    """``run.json`` in the form of ``RUN_SCHEMA``; what only a finished run has is optional."""

    address: Hash
    comparison_hash: Hash
    name: str
    table: TablePart
    identity: IdentityPart
    marks: MarksPart
    data: DataPart
    environment: EnvironmentPart
    timings: TimingsPart
    hashed: HashedPart | None
    protocol: dict[str, Any]
    status: Literal["finished", "failed", "diverged"]
    error: ErrorPart | None
    metrics: MetricsPart | None = None
    masks: dict[Literal["train", "validation", "test"], dict[str, list[DrawPart]]] | None = None
    epochs: Count | None = None
    best_epoch: Annotated[int, Field(ge=-1, lt=2**63)] | None = None
    language_models: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_what_its_status_needs(self) -> RunRecord:
        if self.status != "finished":
            if self.error is None:
                raise ValueError(f"a run that {self.status} must have an 'error'")
            return self
        for name in ("metrics", "masks", "epochs", "best_epoch"):
            if getattr(self, name) is None:
                raise ValueError(f"a finished run must have {name!r}")
        return self
