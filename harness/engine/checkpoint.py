"""State of a run in one safetensors file: nested dictionaries and lists, no pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import written_whole


class DamagedState(Exception):
    """A file of state is cut off or changed: what it holds can't be trusted."""


def save_state(path: Path, state: Any) -> None:
    """Writes nested dictionaries, lists and tuples of tensors and plain values.

    Keys may be strings or integers (optimisers use both). The file is whole or absent.

    Args:
        path: The file.
        state: The state; tensors of any device and dtype.

    Raises:
        TypeError: A leaf is neither a tensor nor a plain value.
    """
    parts = _Parts()
    structure = json.dumps(parts.take_apart(state))
    tensors = {name: value.cpu() for name, value in parts.tensors.items()}
    metadata = {"structure": structure, "checksum": _checksum(structure, tensors)}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Reads what ``save_state`` wrote.

    Args:
        path: The file.
        device: Where tensors go.

    Raises:
        DamagedState: The file is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        structure = metadata["structure"]
        if metadata["checksum"] != _checksum(structure, tensors):
            raise DamagedState(f"{path} is damaged: its content does not agree with its checksum")
        moved = {name: value.to(device) for name, value in tensors.items()}
        return _put_together(json.loads(structure), moved)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedState(f"{path} is damaged: {error}") from error


def _checksum(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """A checksum against accidents: cut off, zeroed or mixed up on a disk that failed."""
    total = zlib.crc32(structure.encode())
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


class _Parts:
    """The tensors of a state, each once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}
        self._storages: set[int] = set()

    def take_apart(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": self._name(value)}
        if isinstance(value, dict):
            return {"dict": [[key, self.take_apart(item)] for key, item in value.items()]}
        if isinstance(value, list):
            return {"list": [self.take_apart(item) for item in value]}
        if isinstance(value, tuple):
            return {"tuple": [self.take_apart(item) for item in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        raise TypeError(f"training state holds a {type(value).__name__}; tensors and plain values only")

    def _name(self, tensor: Tensor) -> str:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = name = f"t{len(self.tensors)}"
            own = tensor.detach().contiguous()
            storage = own.untyped_storage()
            # Views and tied tensors share storage, which the format refuses.
            if storage.data_ptr() in self._storages or storage.nbytes() != own.nbytes:
                own = own.clone()
            self._storages.add(own.untyped_storage().data_ptr())
            self.tensors[name] = own
        return self._names[id(tensor)]


def _put_together(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _put_together(item, tensors) for key, item in content}
    if kind == "list":
        return [_put_together(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_put_together(item, tensors) for item in content)
    return content
