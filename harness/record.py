"""The record of a method: what it is, what it takes, and its typed hyper-parameters.

Every ``methods/<name>/info.py`` defines one ``INFO: MethodInfo``. It must import quickly: no torch
here, the network is named by ``model`` and imported when a run needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from .spec import DataSpec, Level, Task


@dataclass(frozen=True)
class FloatRange:
    """Search range of a real hyper-parameter, both ends included."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class IntRange:
    """Search range of an integer hyper-parameter, both ends included."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Search space of a categorical hyper-parameter."""

    values: tuple[Any, ...]


Search = FloatRange | IntRange | Choice


@dataclass(frozen=True)
class When:
    """A hyper-parameter matters, and is tuned, only where another one has one of these values.

    ::

        window: Annotated[int, IntRange(1, 9), When("recurrent", (True,))] = 3
    """

    name: str
    values: tuple[Any, ...]


CallKind = Literal["training_step", "predict", "validation_losses"]
CALLS: tuple[CallKind, ...] = ("training_step", "predict", "validation_losses")


class HyperParameters(BaseModel):
    """Base of every method's hyper-parameters.

    Annotate a field with a search range to make it tunable::

        lr: Annotated[float, Field(gt=0), FloatRange(1e-5, 1e-2, log=True)] = 1e-3

    Attributes:
        epochs: Total number of training epochs over all stages.
        batch_size: Dialogues or utterances per batch, by the level the method takes.
        patience: Epochs without a better validation score before training stops; ``None``: never.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    epochs: int = 20
    batch_size: int = 32
    patience: int | None = None

    @classmethod
    def search_space(cls) -> dict[str, Search]:
        """The annotated search range of every tunable hyper-parameter."""
        return {
            name: item
            for name, info in cls.model_fields.items()
            for item in info.metadata
            if isinstance(item, FloatRange | IntRange | Choice)
        }

    @classmethod
    def search_conditions(cls) -> dict[str, When]:
        """On which other hyper-parameter a tunable one depends, where it does."""
        return {
            name: item
            for name, info in cls.model_fields.items()
            for item in info.metadata
            if isinstance(item, When)
        }

    def privileged(self) -> tuple[str, ...]:
        """What the method sees of absent modalities under these settings.

        ``"targets"``: the true features of absent modalities during training.
        ``"complete_stage"``: a training stage on complete data whatever the schedule.
        """
        return ()


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str = ""
    arxiv: str = ""


@dataclass(frozen=True)
class Reference:
    """The authors' released code."""

    repository: str
    commit: str
    licence: str


@dataclass(frozen=True)
class MethodInfo:
    """Record of a method, kept in ``methods/<name>/info.py``.

    Attributes:
        name: Registry name, the folder's name.
        title: Name in tables.
        summary: One sentence.
        model: ``"<module>:<class>"`` of the network, relative to the record's package when it
            starts with a dot (``".model:LateFusion"``).
        parameters: Typed hyper-parameters.
        takes: Levels of input in order of preference. The harness converts where it can.
        tasks: Tasks the method can be trained for.
        context: What a prediction may look at: the utterance alone, or its dialogue.
        predicts_score: Whether it predicts a score on a regression (MAE and correlation are
            "not applicable" otherwise).
        profiles: Named presets of hyper-parameters; ``"default"`` always exists.
        data_set_parameters: Settings per data set name (the paper's where known).
        paper: Where it was published; ``None`` for baselines.
        reference: The authors' code; ``None`` where there is none.
        numerics_version: Raised by every change that changes numbers.
        wants_tokens: Whether batches should carry text token ids where the data set has them.
        batch_dependent: Profiles whose predictions depend on the rest of the batch.
        stacks: Answers which calls (``"training_step"``, ``"predict"``, ``"validation_losses"``) the
            networks of several runs can answer as one under these settings (``compute.stack``). It
            takes losses and predictions that ``torch.vmap`` can trace and that keep what they
            remember in buffers, written in place.
        applies: Answers a reason to skip for a data set and settings, or ``None``.
        package: Import package of the record, filled in by the registry.
    """

    name: str
    title: str
    summary: str
    model: str
    parameters: type[HyperParameters]
    takes: tuple[Level, ...]
    tasks: frozenset[Task]
    context: Literal["utterance", "dialogue"] = "utterance"
    predicts_score: bool = True
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    data_set_parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper: Paper | None = None
    reference: Reference | None = None
    numerics_version: int = 1
    wants_tokens: bool = False
    batch_dependent: frozenset[str] = frozenset()
    stacks: Callable[[HyperParameters], Collection[CallKind]] = lambda parameters: ()
    applies: Callable[[DataSpec, HyperParameters], str | None] = lambda spec, parameters: None
    package: str = ""
