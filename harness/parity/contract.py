"""What a method's ``parity.py`` provides, so that its golden cases can be run.

``methods/<name>/parity.py`` defines one mapping from the component names of a case to classes or
functions that build a ``Component``::

    COMPONENTS: Mapping[str, Callable[[Request], Component]] = {"stage1": Stage1, "stage2": Stage2}

The runner does the rest: it reads the case, builds a component for every section (and again for
other switches), loads the reference's weights through ``reference_parameters``, cuts the inputs,
runs ``forward``, differentiates, clips, steps and compares. A component therefore holds no
optimiser, no tolerance and no knowledge of files.

Names of outputs. ``Outcome.outputs`` may name a result in short (``"logits_a"``) or in full
(``"stage1.logits_a"``). For a golden name the runner tries, in this order: the full name; the name
without the section's name before it (``<section>.`` or ``<section>/``) or behind it
(``.<section>``); without the component's name before it; without the section's input prefix. The
same holds for the results of ``collect`` and for names in the expression ``of``.
``grad_norm`` (global norm of the gradient of the total) is computed by the runner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UnknownName, UserError
from ..record import HyperParameters, MethodInfo

P = TypeVar("P", bound=HyperParameters)


class ParityError(UserError):
    """A case can't be run: something in it is unknown, missing or contradictory."""


@dataclass(frozen=True)
class Request:
    """What to build for one section.

    Attributes:
        component: Name of the component.
        section: Name of the section.
        task: ``"regression"``, ``"multiclass"`` or ``None``.
        mode: ``"train"`` or ``"eval"``; the runner sets ``Component.module`` to it.
        constructor: Sizes in the reference's argument names, the section's on top of the case's.
        switches: Profile and switch values, the section's on top of the case's, then those of
            the comparison or of the strict pass.
        condition: Letters of the modalities that are available for the whole batch
            (``frozenset("av")``); ``None`` where the section has no condition.
    """

    component: str
    section: str
    task: Literal["regression", "multiclass"] | None
    mode: Literal["train", "eval"]
    constructor: Mapping[str, Any]
    switches: Mapping[str, Any]
    condition: frozenset[str] | None = None

    def check_constructor(self, known: Collection[str], required: Collection[str] = ()) -> None:
        """Raises ``ParityError`` if an argument is not in ``known``, or a required one is missing."""
        _check_names("constructor argument", self.constructor, known, self.section)
        for name in required:
            if name not in self.constructor:
                raise ParityError(f"section {self.section!r}: constructor lacks {name!r}")

    def check_condition(self, letters: Collection[str]) -> None:
        """Raises ``ParityError`` if the condition names an unknown modality letter."""
        _check_names("modality letter", self.condition or (), letters, self.section)

    def hyper_parameters(
        self,
        info: MethodInfo,
        kind: type[P],
        constructor: Mapping[str, Any] | None = None,
        ignore: Collection[str] = (),
    ) -> P:
        """Hyper-parameters from the profile, the constructor and the switches, checked.

        Args:
            info: Record with the profiles.
            kind: Hyper-parameter class.
            constructor: The constructor in our names, where it sets hyper-parameters.
            ignore: Switches that are no hyper-parameters (the component reads them itself).

        Raises:
            ParityError: A profile, a switch or a value is unknown.
        """
        switches = {name: value for name, value in self.switches.items() if name not in ignore}
        profile = switches.pop("profile", "default")
        if profile not in info.profiles:
            raise ParityError(str(UnknownName("profile", str(profile), info.profiles)))
        _check_names("switch", switches, kind.model_fields, self.section)
        try:
            return kind.model_validate({**info.profiles[profile], **(constructor or {}), **switches})
        except ValueError as error:
            raise ParityError(f"section {self.section!r}: {error}") from error


def _check_names(kind: str, given: Collection[str], known: Collection[str], section: str) -> None:
    for name in given:
        if name not in known:
            raise ParityError(f"section {section!r}: {UnknownName(kind, name, known)}")


@dataclass(frozen=True)
class ReferenceParameter:
    """One parameter of the reference, as a part of one of ours.

    ``view`` turns our parameter into the reference's layout. It must return a view that shares
    memory with its argument (indexing, slicing, transposing, reshaping of contiguous memory), so
    that it serves values, gradients and loading alike. The default is the identity.

    Attributes:
        tensor: Our parameter (or buffer).
        view: From our layout to the reference's.
    """

    tensor: Tensor
    view: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)

    @property
    def value(self) -> Tensor:
        """Value in the reference's layout, detached."""
        return self.view(self.tensor.detach())

    @property
    def gradient(self) -> Tensor | None:
        """Gradient in the reference's layout; ``None`` where there is none."""
        return None if self.tensor.grad is None else self.view(self.tensor.grad)


ReferenceParameters = Mapping[str, ReferenceParameter]


def reference_module(name: str, module: nn.Module) -> dict[str, ReferenceParameter]:
    """All parameters of a module whose names below ``name`` are the reference's."""
    dot = f"{name}." if name else ""
    return {dot + key: ReferenceParameter(value) for key, value in module.named_parameters()}


def load_reference(
    parameters: ReferenceParameters, weights: Mapping[str, Tensor], allow_extra: bool = True
) -> None:
    """Copies the reference's weights into ours.

    Args:
        parameters: Where each reference weight goes.
        weights: Weights under the reference's names, such as an authors' state dictionary.
        allow_extra: Whether weights that have no place here (dead parameters) are accepted.

    Raises:
        ParityError: A weight is missing, has another shape, or is unknown.
    """
    for name, parameter in parameters.items():
        if name not in weights:
            raise ParityError(f"weight {name!r} is missing")
        ours = parameter.value
        if ours.shape != weights[name].shape:
            raise ParityError(
                f"weight {name!r} has shape {list(weights[name].shape)}, expected {list(ours.shape)}"
            )
        ours.copy_(weights[name])
    extra = [name for name in weights if name not in parameters]
    if extra and not allow_extra:
        raise ParityError(f"unknown weights: {', '.join(sorted(extra))}")


@dataclass(frozen=True)
class Outcome:
    """What one forward pass computed.

    Attributes:
        outputs: Results by short or full name, attached to the graph (scalars as ``[]`` or
            ``[1]``, availability of gradients permitting). More results than a case asks for
            are fine.
        total: The total training loss under the switches in force; ``None`` where the component
            has none. Steps and accumulated gradients use it.
    """

    outputs: Mapping[str, Tensor]
    total: Tensor | None = None


@dataclass(frozen=True)
class Pass:
    """One forward pass of a section, for results that span several passes.

    Attributes:
        epoch: Counted from 0.
        batch: Position of the batch in the section's list, counted from 0.
        prefix: Input prefix of the batch (``"batch0."``).
        rate: Learning rate of the step after this pass; 0 if the section takes no step.
        outputs: Outputs of the pass, detached, and the total as ``"total"`` where there is one.
    """

    epoch: int
    batch: int
    prefix: str
    rate: float
    outputs: Mapping[str, Tensor]


class Component(ABC):
    """One component of a method, built from a ``Request``.

    Attributes:
        request: What it was built from.
        module: All parameters of the method (or of the unit). The optimiser of a case gets
            ``module.parameters()`` in one group. Sections that continue from one another
            (``start``) must build modules of the same structure: the state is handed on with
            ``state_dict``.
    """

    module: nn.Module

    def __init__(self, request: Request) -> None:
        self.request = request

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Runs the component on one batch.

        Args:
            inputs: All inputs under the section's input prefix, without it, already cut to the
                samples of ``batch``. Inputs whose gradient is asked for require it. Float
                tensors are float32. ``condition`` is not applied yet: it is in the request.
        """

    @abstractmethod
    def reference_parameters(self) -> ReferenceParameters:
        """Every parameter that the reference has and we need, by the reference's name.

        All of them must be in the weights of the section (without ``weights_prefix``). Weights
        of the file that no section of the case names here must be listed in the case's
        ``weights_unused``.
        """

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the section's weights (without ``weights_prefix``) before anything is computed.

        A component overrides this where the section uses a part of a weight only.
        """
        load_reference(self.reference_parameters(), weights)

    def input_name(self, name: str) -> str:
        """The input whose gradient an output names, where the case shortens that name."""
        return name

    def after_backward(self, outcome: Outcome) -> None:  # noqa: B027
        """Called after each backward pass of the total, before clipping; may edit ``.grad``."""

    def collect(self, passes: Sequence[Pass]) -> Mapping[str, Tensor]:
        """Results over the passes of the section (loss curves, outputs of the n-th batch)."""
        return {}


class ReferenceServices:
    """Services for a method that is built for a golden case: no data, no language models."""

    device = torch.device("cpu")

    def generator(self, name: str) -> torch.Generator:
        """A generator of fixed seed; golden cases draw nothing that is compared."""
        return torch.Generator().manual_seed(0)

    def language_model(self, name: str) -> Any:
        """Raises ``LookupError``: a case brings the weights of its language model."""
        raise LookupError(f"language model {name!r} is not part of a golden case")


def gradient_norm(parameters: Collection[Tensor]) -> Tensor:
    """Global L2 norm over all gradients there are."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
