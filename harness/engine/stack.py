"""The networks of several runs as one, for small networks that leave a device idle.

Runs of one method with one shape of data differ in their numbers only. Stacked, every tensor has a
leading axis for the runs, and one call (``torch.vmap``) does the work of all. Results are those of the
runs alone up to rounding: each draws its own random numbers (``draws``), has its own batches and masks,
and its own optimiser, which sees its own network as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from ..batch import Batch, Prediction
from ..method import Method
from .calls import Call, autocast
from .draws import Draw, OwnDraws


class Stack:
    """The networks of some methods; their parameters and buffers become views of stacked ones.

    What a network keeps from call to call must be in its buffers and written in place.

    Args:
        methods: Methods of one class, settings and stage of training.
        generators: Where each draws its random numbers from.

    Raises:
        TypeError: The methods have a training step of their own, which a stack would pass over.
    """

    def __init__(self, methods: Sequence[Method], generators: Sequence[torch.Generator]) -> None:
        if type(methods[0]).training_step is not Method.training_step:
            name = type(methods[0]).__name__
            raise TypeError(f"{name} has its own training_step and can't be stacked, as its record says")
        self._methods = methods
        self._generators = generators
        self._owners = [list(_owners(method)) for method in methods]
        # Under the names that they have in ``_Function``.
        self._tensors = {
            f"method.{name}": _stacked(own)
            for named in (nn.Module.named_parameters, nn.Module.named_buffers)
            for name, own in _by_name(methods, named)
        }
        self._required = [(value, value.requires_grad) for value in methods[0].parameters()]
        trained = [name for name, value in methods[0].named_parameters() if value.requires_grad]
        self._leaves = [self._tensors[f"method.{name}"].requires_grad_() for name in trained]
        self._own = [[method.get_parameter(name) for name in trained] for method in methods]
        # What is drawn in a call, by the shapes that it is given.
        self._noted: dict[tuple[Any, ...], list[Draw]] = {}
        self._runs = torch.arange(len(methods), device=generators[0].device)

    def holds(self, method: Method) -> bool:
        """Whether a method is in the stack."""
        return any(method is own for own in self._methods)

    def is_whole(self) -> bool:
        """Whether the methods still have the stack's tensors: none replaced, frozen or set free."""
        return all(tensors[name] is tensor for own in self._owners for tensors, name, tensor in own) and all(
            value.requires_grad == before for value, before in self._required
        )

    def carry_out(self, calls: Sequence[Call]) -> list[Any]:
        """What each method answers to its call; all calls are of one kind."""
        return _ANSWERS[calls[0].kind](self, calls)

    def _training_step(self, calls: Sequence[Call]) -> list[dict[str, Tensor]]:
        losses = self._call(calls, lambda method, batch: dict(method.losses(batch)))
        for method in self._methods:
            method.clear_gradients()
        gradients = torch.autograd.grad(losses["total"].sum(), self._leaves, allow_unused=True)
        with torch.no_grad():
            for position, gradient in enumerate(gradients):
                if gradient is None:
                    continue
                # Laid out as the parameters are: fused optimisers take that for granted.
                for own, part in zip(self._own, gradient.contiguous().unbind(), strict=True):
                    before = own[position].grad
                    own[position].grad = part if before is None else before + part
        for method in self._methods:
            method.update()
        apart = {name: value.detach().unbind() for name, value in losses.items()}
        return [{name: parts[run] for name, parts in apart.items()} for run in range(len(calls))]

    @torch.no_grad()
    def _predict(self, calls: Sequence[Call]) -> list[Prediction]:
        def function(method: Method, batch: Batch) -> dict[str, Tensor]:
            prediction = method.predict(batch)
            both = {"score": prediction.score, "probabilities": prediction.probabilities}
            return {name: value for name, value in both.items() if value is not None}

        answer = {name: value.unbind() for name, value in self._call(calls, function).items()}
        found = []
        for run, call in enumerate(calls):
            own = {name: parts[run] for name, parts in answer.items()}
            steps = call.batch.real.shape[1:]  # without what other runs' dialogues are longer
            if steps:
                own = {name: value[:, : steps[0]] for name, value in own.items()}
            found.append(Prediction(**own))
        return found

    @torch.no_grad()
    def _validation_losses(self, calls: Sequence[Call]) -> list[dict[str, Tensor]]:
        terms = self._call(calls, lambda method, batch: dict(method.validation_losses(batch)))
        return [{name: value[run] for name, value in terms.items()} for run in range(len(calls))]

    def _call(
        self, calls: Sequence[Call], function: Callable[[Method, Batch], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """A function of every method and its batch; the answers are stacked."""
        # What is drawn for a run must not depend on how long the dialogues of the others are.
        least = self._methods[0].spec.longest_dialogue if calls[0].kind == "training_step" else 0
        batch, axes, rest = _together([call.batch for call in calls], least)
        network = _Function(self._methods[0], function)

        def one(
            tensors: dict[str, Tensor], given: Mapping[str, Any], run: Tensor, drawn: list[Tensor] | None
        ) -> dict[str, Tensor]:
            # Every call of a torch function pays for it, so only where something may be drawn.
            training = network.method.training
            with OwnDraws(self._generators, run, noted, drawn) if training else nullcontext():
                return functional_call(network, tensors, (replace(rest, **given),))

        sizes = (calls[0].kind, *(tuple(value.shape) for value in tree_leaves(batch)))
        noted = self._noted.setdefault(sizes, [])
        drawn = [draw.of(self._generators) for draw in noted] or None
        with autocast(self._runs.device, calls[0].precision), _attention(self._runs.device):
            axes = (0, axes, 0, None if drawn is None else 0)
            return torch.vmap(one, in_dims=axes)(self._tensors, batch, self._runs, drawn)


_ANSWERS: Mapping[str, Callable[[Stack, Sequence[Call]], list[Any]]] = {
    "training_step": Stack._training_step,
    "predict": Stack._predict,
    "validation_losses": Stack._validation_losses,
}


class _Function(nn.Module):
    """A function of a method as a module, whose tensors ``functional_call`` can replace."""

    def __init__(self, method: Method, function: Callable[[Method, Batch], dict[str, Tensor]]) -> None:
        super().__init__()
        self.method = method
        self._function = function

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self._function(self.method, batch)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention by matrix products on a CPU, whose own kernel would be called run by run."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _owners(method: Method) -> Any:
    """Every parameter and buffer with the dictionary that holds it."""
    for module in method.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield tensors, name, tensor


def _by_name(methods: Sequence[Method], named: Any) -> Any:
    for parts in zip(*(named(method) for method in methods), strict=True):
        yield parts[0][0], [tensor for _, tensor in parts]


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one, of which each becomes a view."""
    whole = torch.stack([tensor.detach().contiguous() for tensor in tensors])
    for tensor, part in zip(tensors, whole.unbind(), strict=True):
        tensor.data = part
    return whole


def _together(batches: Sequence[Batch], least: int) -> tuple[dict[str, Any], dict[str, Any], Batch]:
    """The tensors of some batches stacked, their axes for ``vmap``, and a batch for all the rest.

    Dialogues are padded to the longest, or to ``least``; ``lengths`` are the longest of each position.
    """
    first = batches[0]
    shared = not least and all(batch is first for batch in batches)
    longest = [max(lengths) for lengths in zip(*(batch.lengths for batch in batches), strict=True)]
    steps = None if first.real.dim() == 1 else max(least, *(batch.real.shape[1] for batch in batches))

    def joined(parts: list[Tensor], filling: int) -> Tensor:
        return parts[0] if shared else _padded(parts, steps, filling)

    fields: dict[str, Any] = {}
    for name, value in vars(first).items():
        own = [vars(batch)[name] for batch in batches]
        if isinstance(value, Tensor):
            fields[name] = joined(own, -1 if name == "rows" else 0)
        elif isinstance(value, Mapping):
            fields[name] = {key: joined([part[key] for part in own], 0) for key in value}
    axis = None if shared else 0
    axes = {
        name: dict.fromkeys(value, axis) if isinstance(value, Mapping) else axis
        for name, value in fields.items()
    }
    return fields, axes, replace(first, lengths=tuple(longest))


def _padded(tensors: Sequence[Tensor], steps: int | None, filling: int) -> Tensor:
    """Tensors ``[B, S, ...]`` of any S stacked as ``[K, B, steps, ...]``; ``None``: they have no S."""
    if steps is None:
        return torch.stack(list(tensors))
    first = tensors[0]
    whole = first.new_full((len(tensors), first.shape[0], steps, *first.shape[2:]), filling)
    for own, tensor in zip(whole, tensors, strict=True):
        own[:, : tensor.shape[1]] = tensor
    return whole
