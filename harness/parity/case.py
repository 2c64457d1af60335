"""Golden cases: the typed form of ``case.json`` and its three files of tensors.

Everything unknown is an error: a field, a key, a kind, a pattern that is no output's, an output
that no pattern or more than one names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..reading import read_json
from .contract import ParityError

Mode = Literal["train", "eval"]
Kind = Literal["value", "gradient", "parameter", "accumulated", "edges"]


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tolerance(_Record):
    """``|ours - golden| <= atol + rtol * |golden|``."""

    atol: float = Field(ge=0, allow_inf_nan=False)
    rtol: float = Field(ge=0, allow_inf_nan=False)


class Where(_Record):
    """Compare only where an input mask is 1.

    Attributes:
        mask: Name of the input.
        axes: Axis ``k`` of the mask runs along axis ``axes[k]`` of the output.
        column: Use ``mask[:, column]``.
    """

    mask: str
    axes: list[int]
    column: int | None = None


class Comparison(_Record):
    """One entry of ``compare``."""

    names: list[str] = Field(min_length=1)
    section: str
    switches: dict[str, Any] = Field(default_factory=dict)
    atol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rtol: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    kind: Kind = "value"
    prefix: str | None = None
    of: str | None = None
    wrt: Literal["input"] | None = None
    where: Where | None = None

    @model_validator(mode="after")
    def _complete(self) -> Comparison:
        if self.kind in ("gradient", "parameter", "accumulated") and self.prefix is None:
            raise ValueError(f"a comparison of kind {self.kind!r} needs a prefix")
        if self.kind in ("gradient", "accumulated") and self.of is None:
            raise ValueError(f"a comparison of kind {self.kind!r} needs 'of'")
        if self.wrt is not None and self.kind != "gradient":
            raise ValueError("'wrt' belongs to the kind 'gradient'")
        return self


class Section(_Record):
    """One computation."""

    name: str
    component: str
    mode: Mode | None = None
    constructor: dict[str, Any] = Field(default_factory=dict)
    switches: dict[str, Any] = Field(default_factory=dict)
    weights_prefix: str = ""
    input_prefix: str | list[str] = ""
    batch: list[int] | None = Field(default=None, min_length=1)
    condition: str | None = Field(default=None, pattern="^[atv]*$")
    start: str = "weights"
    epochs: int = Field(default=1, ge=1)
    steps: int = Field(default=0, ge=0)
    dims: dict[str, int | None] = Field(default_factory=dict)
    about: str = ""

    @property
    def prefixes(self) -> list[str]:
        """Input prefix of every batch, in order."""
        return [self.input_prefix] if isinstance(self.input_prefix, str) else self.input_prefix


class Clip(_Record):
    """Clipping of gradients."""

    kind: Literal["norm", "value"]
    value: float = Field(gt=0)
    when: Literal["each_step", "each_backward"]


class Schedule(_Record):
    """Learning-rate schedule."""

    name: Literal["linear_warmup_decay"]
    warmup_steps: int = Field(ge=0)
    total_steps: int = Field(ge=1)

    def factor(self, taken: int) -> float:
        """Factor of the learning rate after ``taken`` steps."""
        if taken < self.warmup_steps:
            return taken / self.warmup_steps
        return max(0.0, (self.total_steps - taken) / (self.total_steps - self.warmup_steps))


class Optimizer(_Record):
    """Optimiser of a case."""

    name: Literal["adam", "adamw"]
    lr: float
    betas: list[float] = Field(min_length=2, max_length=2)
    eps: float
    weight_decay: float
    clip: Clip | None
    schedule: Schedule | None
    accumulate: int = Field(ge=1)
    steps: int = Field(ge=0)


class TensorShape(_Record):
    """Declared shape of a tensor; for readers of the files, the runner needs none."""

    shape: list[int | str | None] | Literal["param"]
    dtype: str
    about: str
    prefix: str | None = None


class Tensors(_Record):
    """Declared shapes of inputs and outputs by glob, the first match holds."""

    inputs: dict[str, TensorShape]
    outputs: dict[str, TensorShape]


class Strict(_Record):
    """A second, tighter pass."""

    switches: dict[str, Any]
    tolerance: Tolerance


class Description(_Record):
    """``case.json``."""

    version: Literal[1] = Field(alias="schema")
    method: str
    case: str
    reference: str
    what: str
    task: Literal["regression", "multiclass"] | None
    mode: Mode
    torch_seed: int
    constructor: dict[str, Any]
    switches: dict[str, Any]
    dims: dict[str, int | None]
    sections: list[Section] = Field(min_length=1)
    optimizer: Optimizer | None
    tolerance: Tolerance
    compare: list[Comparison] = Field(min_length=1)
    informational: list[str]
    weights_unused: list[str]
    no_gradient: dict[str, list[str]] = Field(default_factory=dict)
    strict: Strict | None = None
    tensors: Tensors
    notes: list[str]

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        known: set[str] = set()
        for section in self.sections:
            if section.name in known:
                raise ValueError(f"section {section.name!r} occurs twice")
            if section.start != "weights" and section.start not in known:
                raise ValueError(f"section {section.name!r} starts from unknown section {section.start!r}")
            known.add(section.name)
            if section.steps and (self.optimizer is None or self.optimizer.steps != section.steps):
                raise ValueError(
                    f"section {section.name!r} takes {section.steps} steps, the optimizer says "
                    f"{self.optimizer.steps if self.optimizer else None}"
                )
        for name in [*self.no_gradient, *(entry.section for entry in self.compare)]:
            if name not in known:
                raise ValueError(f"unknown section {name!r}")
        if self.optimizer is None and any(entry.kind == "accumulated" for entry in self.compare):
            raise ValueError("accumulated gradients need an optimizer")
        return self


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a tensor name matches one of the shell globs, case-sensitively."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Case:
    """One golden case in memory.

    Attributes:
        folder: Where it lies.
        description: What was computed.
        weights: Reference weights by their original names.
        inputs: Inputs.
        outputs: Golden results.
        names: Names of the outputs of every entry of ``compare``, in its order.
    """

    folder: Path
    description: Description
    weights: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    names: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """``<method>/<case>``."""
        return f"{self.description.method}/{self.description.case}"


def read_case(folder: Path) -> Case:
    """Reads and checks the four files of a case.

    Raises:
        ParityError: A file is missing or broken, or something in ``case.json`` is unknown,
            missing or contradictory; the message names it.
    """
    try:
        description = Description.model_validate(read_json(folder / "case.json"))
        weights, inputs, outputs = (
            load_file(folder / f"{name}.safetensors") for name in ("weights", "inputs", "outputs")
        )
    except ValidationError as error:
        problems = [f"{_place(item['loc'])}: {item['msg']}" for item in error.errors()]
        raise ParityError(f"{folder / 'case.json'}: {'; '.join(problems)}") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ParityError(f"{folder}: {error}") from error
    for name, golden in outputs.items():
        if golden.is_floating_point() and not golden.isfinite().all():
            raise ParityError(f"{folder}: golden tensor {name!r} is not finite")
    return Case(folder, description, weights, inputs, outputs, _assign(folder, description, outputs))


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "case"


def _assign(
    folder: Path, description: Description, outputs: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], ...]:
    """Which entry compares which output; every output belongs to exactly one pattern."""
    count = dict.fromkeys(outputs, 0)
    names: list[tuple[str, ...]] = []
    for entry in description.compare:
        found: list[str] = []
        for pattern in entry.names:
            hits = [name for name in outputs if fnmatchcase(name, pattern)]
            if not hits and not any(sign in pattern for sign in "*?["):
                raise ParityError(f"{folder}: output {pattern!r} is compared but not stored")
            for name in hits:
                count[name] += 1
            found += hits
        if not found:
            raise ParityError(f"{folder}: no output matches {', '.join(entry.names)}")
        names.append(tuple(sorted(found)))
    for pattern in description.informational:
        for name in outputs:
            count[name] += fnmatchcase(name, pattern)
    for name, times in count.items():
        if times != 1:
            raise ParityError(
                f"{folder}: output {name!r} is named by {times} patterns of compare and informational, "
                "expected exactly one"
            )
    return tuple(names)
