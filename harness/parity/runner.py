"""Runs a golden case section by section and compares every tensor it names."""

from __future__ import annotations

import copy
import importlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from ..errors import UnknownName, UserError
from ..registry import method_info, method_names
from .case import Case, Clip, Comparison, Optimizer, Section, Tolerance, matches
from .compare import Difference, deviation, region, sorted_edges
from .contract import Component, Outcome, ParityError, Pass, Request, gradient_norm
from .expression import evaluate


def run_case(case: Case, device: str = "cpu", strict: bool = False) -> list[Difference]:
    """Computes a case and compares it.

    Args:
        case: The case.
        device: Where to compute; always in float32 without reduced-precision products.
        strict: Run the tighter pass that the case describes; empty if it describes none.

    Returns:
        One difference per compared tensor, and one per section for the weights that must get no
        gradient.

    Raises:
        ParityError: Something in the case is unknown or can't be computed.
    """
    if strict and case.description.strict is None:
        return []
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(case.description.torch_seed)
            return _CaseRun(case, torch.device(device), strict).differences()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def components(method: str) -> Mapping[str, Callable[[Request], Component]]:
    """The components that a method's ``parity.py`` offers.

    Raises:
        ParityError: The method is unknown or has no parity module.
    """
    if method not in method_names():  # an import path in a case must not run code
        raise ParityError(str(UnknownName("method", method, method_names())))
    try:
        module = importlib.import_module(".parity", method_info(method).package)
        return module.COMPONENTS
    except (UserError, ImportError, AttributeError) as error:
        raise ParityError(f"no parity module for method {method!r}: {error}") from error


@dataclass
class _State:
    """What a section ends with and another may start from."""

    module: dict[str, Any]
    optimizer: dict[str, Any] | None
    taken: int


@dataclass
class _Computed:
    """Everything one section produced under one set of switches."""

    section: Section
    component: Component
    batches: list[dict[str, Tensor]]
    passes: list[Pass] = field(default_factory=list)
    collected: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: dict[tuple[str, str], dict[str, Tensor | None]] = field(default_factory=dict)
    norm: Tensor | None = None
    still: list[Difference] = field(default_factory=list)
    end: _State | None = None


class _CaseRun:
    def __init__(self, case: Case, device: torch.device, strict: bool) -> None:
        self.case = case
        self.description = case.description
        self.device = device
        self.tolerance = self.description.tolerance
        self.extra: dict[str, Any] = {}
        if strict and self.description.strict is not None:
            self.tolerance = self.description.strict.tolerance
            self.extra = self.description.strict.switches
        self.components = components(self.description.method)
        self.sections = {section.name: section for section in self.description.sections}
        self.done: dict[tuple[str, str], _Computed] = {}
        self.loaded: set[str] = set()

    def differences(self) -> list[Difference]:
        for section in self.description.sections:
            self.computed(section, {})
        found: list[Difference] = []
        for entry, names in zip(self.description.compare, self.case.names, strict=True):
            computed = self.computed(self.sections[entry.section], entry.switches)
            found += [self.difference(name, entry, computed) for name in names]
        for section in self.description.sections:
            found += self.computed(section, {}).still
        unused = self.description.weights_unused
        left = [name for name in self.case.weights if name not in self.loaded and not matches(name, unused)]
        if left:
            raise ParityError(f"weights that no section loads: {', '.join(sorted(left))}")
        return found

    # Computing.

    def computed(self, section: Section, switches: Mapping[str, Any]) -> _Computed:
        key = (section.name, json.dumps(switches, sort_keys=True))
        if key not in self.done:
            self.done[key] = self.compute(section, switches)
        return self.done[key]

    def compute(self, section: Section, switches: Mapping[str, Any]) -> _Computed:
        component = self.build(section, switches)
        run = _Computed(section, component, [self.inputs(section, p) for p in section.prefixes])
        optimizer, taken = self.start(section, component)
        before = {name: item.value.clone() for name, item in component.reference_parameters().items()}
        entries = [
            entry
            for entry in self.description.compare
            if entry.section == section.name and entry.switches == switches
        ]
        for entry in entries:
            if entry.wrt == "input":
                self.require_gradients(entry, run)
        outcome = component.forward(run.batches[0])
        self.differentiate(run, outcome, entries)
        if any(entry.kind == "accumulated" for entry in entries):
            self.accumulate(run, entries)
        taken = self.step(run, outcome, optimizer, taken)
        run.collected = component.collect(run.passes)
        self.check_still(run, before)
        run.end = _State(
            copy.deepcopy(component.module.state_dict()),
            copy.deepcopy(optimizer.state_dict()) if optimizer else None,
            taken,
        )
        return run

    def build(self, section: Section, switches: Mapping[str, Any]) -> Component:
        if section.component not in self.components:
            raise ParityError(str(UnknownName("component", section.component, self.components)))
        mode = section.mode or self.description.mode
        request = Request(
            component=section.component,
            section=section.name,
            task=self.description.task,
            mode=mode,
            constructor={**self.description.constructor, **section.constructor},
            switches={**self.description.switches, **section.switches, **switches, **self.extra},
            condition=None if section.condition is None else frozenset(section.condition),
        )
        component = self.components[section.component](request)
        component.module.to(self.device, torch.float32).train(mode == "train")
        return component

    def weights(self, section: Section) -> dict[str, Tensor]:
        prefix = section.weights_prefix
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.case.weights.items()
            if name.startswith(prefix)
        }

    def start(self, section: Section, component: Component) -> tuple[torch.optim.Optimizer | None, int]:
        """Loads parameters and builds the optimiser, or continues with those of another section."""
        parameters = component.reference_parameters()
        self.loaded |= {section.weights_prefix + name for name in parameters}
        settings = self.description.optimizer
        trainable = list(component.module.parameters())
        optimizer = _optimizer(settings, trainable) if settings is not None and trainable else None
        if section.start == "weights":
            component.load(self.weights(section))
            return optimizer, 0
        end = self.computed(self.sections[section.start], {}).end
        assert end is not None
        component.module.load_state_dict(end.module)
        if optimizer is not None and end.optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(end.optimizer))
        return optimizer, end.taken

    def inputs(self, section: Section, prefix: str) -> dict[str, Tensor]:
        found = {
            name.removeprefix(prefix): self.cut(name, tensor, section).to(self.device)
            for name, tensor in self.case.inputs.items()
            if name.startswith(prefix)
        }
        if self.case.inputs and not found:
            raise ParityError(f"section {section.name!r}: no input starts with {prefix!r}")
        return found

    def cut(self, name: str, tensor: Tensor, section: Section) -> Tensor:
        """Keeps the samples of ``batch`` along the axis that is declared as the batch's (B, B*S)."""
        if section.batch is None:
            return tensor
        shapes = self.description.tensors.inputs
        declared = next((item.shape for glob, item in shapes.items() if fnmatchcase(name, glob)), "param")
        if declared == "param":
            raise ParityError(f"input {name!r} has no declared shape, so 'batch' can't cut it")
        dims = {**self.description.dims, **section.dims}
        keep = torch.tensor(section.batch)
        for axis, symbol in enumerate(declared):
            match = re.fullmatch(r"\s*(B\d*)\s*(?:\*.*)?", symbol) if isinstance(symbol, str) else None
            if match is None:
                continue
            size = dims.get(match[1])
            size = tensor.shape[axis] if size is None else size
            if not 0 <= int(keep.min()) <= int(keep.max()) < size:
                raise ParityError(f"section {section.name!r}: batch {section.batch} of {size} samples")
            blocks = tensor.unflatten(axis, (size, -1)).index_select(axis, keep)
            tensor = blocks.flatten(axis, axis + 1)
        return tensor

    def require_gradients(self, entry: Comparison, run: _Computed) -> None:
        for name in self.names_of(entry):
            key = self.input_key(name.removeprefix(entry.prefix or ""), run)
            run.batches[0][key].requires_grad_()

    def names_of(self, entry: Comparison) -> tuple[str, ...]:
        return self.case.names[[item is entry for item in self.description.compare].index(True)]

    def input_key(self, name: str, run: _Computed) -> str:
        short = name.removeprefix(run.section.prefixes[0])
        for key in (name, short, run.component.input_name(short)):
            if key in run.batches[0]:
                return key
        raise ParityError(str(UnknownName("input", name, run.batches[0])))

    def differentiate(self, run: _Computed, outcome: Outcome, entries: list[Comparison]) -> None:
        """Gradients of every scalar that is asked for, and of the total."""
        self.record(run, outcome, 0, 0, 0.0)
        wanted = [entry.of for entry in entries if entry.kind == "gradient" and entry.of]
        scalars = {text: self.scalar(text, run, run.batches[0], outcome.outputs) for text in wanted}
        if outcome.total is not None and outcome.total.requires_grad:
            self.backward(run, outcome, outcome.total)
            run.norm = gradient_norm(list(run.component.module.parameters()))
            self.check_no_gradient(run, "the total")
        for text, scalar in scalars.items():
            self.backward(run, outcome, scalar)
            self.check_no_gradient(run, text)
            parameters = run.component.reference_parameters()
            run.gradients[text, "parameters"] = {k: _copy(p.gradient) for k, p in parameters.items()}
            run.gradients[text, "inputs"] = {k: _copy(t.grad) for k, t in run.batches[0].items()}
        self.clear(run)

    def backward(self, run: _Computed, outcome: Outcome, scalar: Tensor) -> None:
        self.clear(run)
        if not scalar.requires_grad:
            raise ParityError(f"section {run.section.name!r}: the loss depends on no parameter")
        scalar.sum().backward(retain_graph=True)
        if scalar is outcome.total:
            run.component.after_backward(outcome)

    def clear(self, run: _Computed) -> None:
        run.component.module.zero_grad(set_to_none=True)
        for tensor in run.batches[0].values():
            tensor.grad = None

    def scalar(
        self, text: str, run: _Computed, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> Tensor:
        def value(name: str) -> Tensor:
            for key, batch in candidates(name, run.section):
                if batch == 0 and key in outputs:
                    return outputs[key]
            if name in inputs:
                return inputs[name]
            raise ParityError(str(UnknownName("output", name, outputs)))

        result = evaluate(text, value)
        if result.numel() != 1:
            raise ParityError(f"section {run.section.name!r}: {text!r} is not a scalar")
        return result

    def accumulate(self, run: _Computed, entries: list[Comparison]) -> None:
        settings = self.description.optimizer
        assert settings is not None
        parameters = list(run.component.module.parameters())
        for text in {entry.of for entry in entries if entry.kind == "accumulated" and entry.of}:
            self.clear(run)
            for inputs in run.batches:
                outcome = run.component.forward(inputs)
                self.scalar(text, run, inputs, outcome.outputs).sum().backward()
                run.component.after_backward(outcome)
                _clip(settings.clip, "each_backward", parameters)
            _clip(settings.clip, "each_step", parameters)
            named = run.component.reference_parameters()
            run.gradients[text, "accumulated"] = {k: _copy(p.gradient) for k, p in named.items()}
        self.clear(run)

    def step(
        self, run: _Computed, first: Outcome, optimizer: torch.optim.Optimizer | None, taken: int
    ) -> int:
        """The passes of a section, with its optimiser steps if it has any."""
        section, component, settings = run.section, run.component, self.description.optimizer
        if not section.steps:
            with torch.no_grad():
                for index in range(1, section.epochs * len(run.batches)):
                    epoch, batch = divmod(index, len(run.batches))
                    self.record(run, component.forward(run.batches[batch]), epoch, batch, 0.0)
            return taken
        assert settings is not None
        if optimizer is None:
            raise ParityError(f"section {section.name!r} steps, but its component has no parameters")
        passes = section.steps * settings.accumulate
        planned = section.epochs * len(run.batches)
        if planned not in (1, passes):
            raise ParityError(
                f"section {section.name!r}: {planned} passes don't make {section.steps} steps of "
                f"{settings.accumulate} batches"
            )
        run.passes.clear()
        parameters = list(component.module.parameters())
        optimizer.zero_grad(set_to_none=True)
        for index in range(passes):
            epoch, batch = divmod(index, len(run.batches))
            outcome = first = component.forward(run.batches[batch]) if index else first
            if outcome.total is None:
                raise ParityError(f"section {section.name!r}: component without a total can't step")
            rate = settings.lr * (settings.schedule.factor(taken) if settings.schedule else 1.0)
            self.record(run, outcome, epoch, batch, rate)
            outcome.total.sum().backward()
            component.after_backward(outcome)
            _clip(settings.clip, "each_backward", parameters)
            if (index + 1) % settings.accumulate:
                continue
            _clip(settings.clip, "each_step", parameters)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            taken += 1
        return taken

    def record(self, run: _Computed, outcome: Outcome, epoch: int, batch: int, rate: float) -> None:
        outputs = {name: tensor.detach().clone() for name, tensor in outcome.outputs.items()}
        if outcome.total is not None:
            outputs["total"] = outcome.total.detach().clone()
        run.passes.append(Pass(epoch, batch, run.section.prefixes[batch], rate, outputs))

    # Weights that must get no gradient and not move.

    def quiet(self, run: _Computed) -> Iterator[str]:
        patterns = self.description.no_gradient.get(run.section.name, [])
        for name in run.component.reference_parameters():
            if matches(run.section.weights_prefix + name, patterns):
                yield name

    def check_no_gradient(self, run: _Computed, of: str) -> None:
        parameters = run.component.reference_parameters()
        largest = 0.0
        for name in self.quiet(run):
            gradient = parameters[name].gradient
            if gradient is not None:
                largest = max(largest, float(gradient.abs().max()))
        self.still(run, f"no gradient of {of}", largest)

    def check_still(self, run: _Computed, before: Mapping[str, Tensor]) -> None:
        parameters = run.component.reference_parameters()
        if run.section.steps:
            moved = [float((parameters[k].value - before[k]).abs().max()) for k in self.quiet(run)]
            self.still(run, "not moved", max(moved, default=0.0))

    def still(self, run: _Computed, name: str, largest: float) -> None:
        if run.section.name in self.description.no_gradient:
            ratio = math.inf if largest else 0.0
            run.still.append(Difference(name, run.section.name, "no_gradient", largest, ratio))

    # Comparing.

    def difference(self, name: str, entry: Comparison, run: _Computed) -> Difference:
        default = self.tolerance
        tolerance = Tolerance(
            atol=default.atol if entry.atol is None else entry.atol,
            rtol=default.rtol if entry.rtol is None else entry.rtol,
        )
        golden = self.case.outputs[name]
        try:
            if entry.kind == "edges":
                ours, golden = self.edges(name, run)
            else:
                ours = self.ours(name, entry, run)
            where = self.where(entry, run, golden.shape)
            error, ratio = deviation(ours, golden, tolerance, where)
        except ParityError as problem:
            return Difference(name, entry.section, entry.kind, problem=str(problem))
        return Difference(name, entry.section, entry.kind, error, ratio)

    def ours(self, name: str, entry: Comparison, run: _Computed) -> Tensor:
        if entry.kind == "value":
            return self.value(name, run)
        short = name.removeprefix(entry.prefix or "")
        if entry.kind == "parameter":
            parameters = run.component.reference_parameters()
            if short not in parameters:
                raise ParityError(str(UnknownName("parameter", short, parameters)))
            return parameters[short].value
        of = entry.of or ""
        if entry.wrt == "input":
            gradient = run.gradients[of, "inputs"][self.input_key(short, run)]
        else:
            found = run.gradients[of, "accumulated" if entry.kind == "accumulated" else "parameters"]
            if short not in found:
                raise ParityError(str(UnknownName("parameter", short, found)))
            gradient = found[short]
        if gradient is None:
            raise ParityError(f"{of!r} has no gradient with respect to {short!r}")
        return gradient

    def value(self, name: str, run: _Computed) -> Tensor:
        for key, batch in candidates(name, run.section):
            if key in run.collected:
                return run.collected[key]
            # With steps, only the first batch is seen at the parameters the section starts with.
            if (batch == 0 or not run.section.steps) and key in run.passes[batch].outputs:
                return run.passes[batch].outputs[key]
            if key == "grad_norm" and run.norm is not None:
                return run.norm
        raise ParityError("missing: the component doesn't produce it")

    def edges(self, name: str, run: _Computed) -> tuple[Tensor, Tensor]:
        """Ours and the golden one, both sorted by source and target."""
        if "edge_index" in name:
            index, kind = name, name.replace("edge_index", "edge_type")
        else:
            index, kind = name.replace("edge_type", "edge_index"), name
        if index not in self.case.outputs or kind not in self.case.outputs:
            raise ParityError("edges need an edge_index and an edge_type of the same name")
        ours = sorted_edges(self.value(index, run).cpu(), self.value(kind, run).cpu())
        golden = sorted_edges(self.case.outputs[index], self.case.outputs[kind])
        return (ours[0], golden[0]) if name == index else (ours[1], golden[1])

    def where(self, entry: Comparison, run: _Computed, shape: torch.Size) -> Tensor | None:
        if entry.where is None:
            return None
        for name in (entry.where.mask, run.section.prefixes[0] + entry.where.mask):
            if name in self.case.inputs:
                return region(entry.where, self.cut(name, self.case.inputs[name], run.section), shape)
        raise ParityError(str(UnknownName("mask", entry.where.mask, self.case.inputs)))


def candidates(name: str, section: Section) -> Iterator[tuple[str, int]]:
    """Short names that a golden name may have in a section, with the batch they belong to."""
    yield name, 0
    for before in (section.name, section.component):
        for sign in "./":
            if name.startswith(before + sign):
                yield name.removeprefix(before + sign), 0
        if before == section.name and name.endswith(f".{before}"):
            yield name.removesuffix(f".{before}"), 0
    for batch, prefix in enumerate(section.prefixes):
        if prefix and name.startswith(prefix):
            yield name.removeprefix(prefix), batch


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _optimizer(settings: Optimizer, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    first, second = settings.betas
    return kinds[settings.name](
        parameters,
        lr=settings.lr,
        betas=(first, second),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def _clip(clip: Clip | None, when: str, parameters: list[torch.nn.Parameter]) -> None:
    if clip is None or clip.when != when:
        return
    if clip.kind == "value":
        torch.nn.utils.clip_grad_value_(parameters, clip.value)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, clip.value)
