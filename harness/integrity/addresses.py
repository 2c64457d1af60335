"""Address and comparison hash of a run, made again from what its record says."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..hashing import address
from ..protocol.plan import (
    ENGINE_NUMERICS,
    AddressParts,
    condition_parts,
    parse_conditions,
    tested_schedules,
    training_schedules,
    validation_schedules,
)
from ..protocol.schema import Protocol
from ..registry import method_info, shipped_methods
from ..run_file import RUN_FILE
from ..schedules import MASK_VERSION, Schedule
from .findings import Finding


@dataclass(frozen=True)
class Schedules:
    """The schedules of one run, as its protocol names them.

    Attributes:
        train: Training schedule.
        validation: Validation conditions.
        test: Test conditions of the run.
        trained: Training schedules of the whole protocol.
        tested: Test conditions of the whole protocol.
    """

    train: Schedule
    validation: tuple[Schedule, ...]
    test: tuple[Schedule, ...]
    trained: tuple[Schedule, ...]
    tested: tuple[Schedule, ...]


def schedules_of(protocol: Protocol, modalities: Sequence[str], train_condition: str) -> Schedules | None:
    """The schedules of a run; ``None`` if its protocol trains on no such condition.

    Raises:
        UserError: A condition can't be understood.
    """
    tested = parse_conditions(protocol.test.conditions, protocol, modalities)
    trained = training_schedules(protocol, modalities, tested)
    train = next((item for item in trained if item.name == train_condition), None)
    if train is None:
        return None
    validation = validation_schedules(protocol, modalities, tested, train)
    return Schedules(train, validation, tested_schedules(protocol, tested, train), trained, tested)


def check_address(
    record: Mapping[str, Any], protocol: Protocol, schedules: Schedules, data: Mapping[str, Any]
) -> Iterator[Finding]:
    """The address that method, settings, machine, data and masks of the record give.

    Args:
        record: The record.
        protocol: Its protocol.
        schedules: Its schedules.
        data: The part of the address that only the data can give, recorded or made from them.
    """
    conditions = condition_parts(protocol, schedules.train, schedules.validation, schedules.test)
    stated = {
        "fingerprint": (record["data"]["fingerprint"], data.get("data")),
        "scale": (record["data"]["scale"], data.get("scale")),
        "seed": (record["identity"]["seed"], data.get("seed")),
        "selection": (record["marks"]["selection"], protocol.comparison.selection),
        "primary": (record["table"]["primary"], protocol.metrics.primary),
        "regime": (record["identity"]["regime"], protocol.comparison.regime),
    }
    for name, (here, there) in stated.items():
        if here != there:
            yield Finding("altered", RUN_FILE, f"{name} is {here!r} in one place and {there!r} in another")
            return
    candidates = [
        AddressParts({**_method(record), "method": entry.name}, data, conditions)
        for entry in protocol.methods
    ]
    if record["address"] not in {parts.address for parts in candidates}:
        text = "the address is not that of the method, settings, machine, data and masks that it states"
        yield Finding("altered", RUN_FILE, text)
    elif record["identity"]["variant"] not in {parts.variant_address for parts in candidates}:
        yield Finding("altered", RUN_FILE, "the row's address is not that of the method and its settings")


def _method(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the address about what computed the run; the method's name is the protocol's."""
    identity, environment, tuned = record["identity"], record["environment"], record["marks"].get("tuned")
    hashed = record["hashed"]
    return {
        "method_numerics": identity["method_numerics"],
        "parameters": identity["hyper_parameters"],
        "level": identity["level"],
        "engine_numerics": identity["engine_numerics"],
        "masks": MASK_VERSION if hashed is None else hashed["method"].get("masks"),
        "torch": environment["torch"],
        "device": environment["device"],
        "threads": environment["threads"],
        "precision": environment["precision"],
        **({"tuned": [tuned["study"], tuned["trials"]]} if tuned is not None else {}),
    }


def check_comparison(
    record: Mapping[str, Any], protocol: Protocol, schedules: Schedules
) -> Iterator[Finding]:
    """The comparison hash of a run of schema 2 or later, and that it is about this run's data and masks."""
    parts = record["hashed"]["comparison"]
    if address(parts) != record["comparison_hash"]:
        yield Finding("altered", RUN_FILE, "the comparison hash is not that of the parts that are recorded")
        return
    validated = protocol.validation.conditions
    expected = {
        "data": record["data"]["fingerprint"],
        "modalities": list(record["data"]["features"]),
        "scale": record["data"]["scale"],
        "train": [item.model_dump(mode="json") for item in schedules.trained],
        "validation": None
        if validated is None
        else [
            item.model_dump(mode="json")
            for item in parse_conditions(validated, protocol, list(record["data"]["features"]))
        ],
        "validation_masks": list(protocol.validation.mask_seeds),
        "test": [item.model_dump(mode="json") for item in schedules.tested],
        "test_masks": list(protocol.test.mask_seeds),
        "regime": protocol.comparison.regime,
        "selection": protocol.comparison.selection,
        "primary": protocol.metrics.primary,
    }
    for name, value in expected.items():
        if parts.get(name) != value:
            yield Finding("altered", RUN_FILE, f"the comparison hash is of other {name} than the run has")
    if record["hashed"]["data"].get("split") not in parts.get("splits", ()):
        yield Finding("altered", RUN_FILE, "the comparison hash is of other splits than the run has")


def check_versions(record: Mapping[str, Any]) -> Iterator[Finding]:
    """Versions that decide numbers and are others here: information, as the run is what it was."""
    identity, hashed = record["identity"], record["hashed"]
    pairs = [
        ("engine numerics", identity["engine_numerics"], ENGINE_NUMERICS),
        ("torch", record["environment"]["torch"], importlib.metadata.version("torch")),
    ]
    if hashed is not None:
        pairs.append(("mask version", hashed["method"].get("masks"), MASK_VERSION))
    # Asking any other method for its record would import code that the results name.
    if identity["method"] in shipped_methods():
        try:
            here = method_info(identity["method"]).numerics_version
            pairs.append((f"numerics version of {identity['method']}", identity["method_numerics"], here))
        except UserError:
            pass
    for name, then, now in pairs:
        if then != now:
            yield Finding("drift", name, f"made by another version: {then}, here {now}")
