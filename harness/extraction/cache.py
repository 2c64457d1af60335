"""Extracted features on disk, found by the content of the input and by what encoded it.

::

    <root>/<address of the encoder>/
        encoder.json             weights, preprocessing, pooling: everything that decides a value
        <address of a batch>.safetensors    one tensor per input, named by the hash of its content

A batch is written whole or not at all, so a killed extraction loses the batch at work and nothing
else. Names of models and of utterances are no part of an address: the same checkpoint under two
names, and the same sentence in two data sets, are stored once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..files import write_json, written_whole
from ..hashing import address

_UNREADABLE = "unreadable"


class FeatureCache:
    """Features of one encoder with one set of settings.

    Args:
        root: Folder of all caches.
        identity: Everything that decides a value, as plain values.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        self.folder = root / address(dict(identity))
        self._identity = dict(identity)
        self._places: dict[str, Path] = {}
        self._unreadable: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            with safe_open(str(path), framework="numpy") as file:
                said = json.loads((file.metadata() or {}).get(_UNREADABLE, "{}"))
                self._places |= dict.fromkeys(file.keys(), path)
                self._unreadable |= said
        except (OSError, SafetensorError, ValueError):
            return  # a damaged file holds nothing; its batch is encoded and written again

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._unreadable

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Inputs whose content cannot be read, with the reason."""
        return self._unreadable

    def write(self, features: Mapping[str, np.ndarray], unreadable: Mapping[str, str]) -> None:
        """Adds one batch: features by content key, and what could not be read."""
        if not features and not unreadable:
            return
        if not (self.folder / "encoder.json").exists():
            write_json(self.folder / "encoder.json", self._identity)
        path = self.folder / f"{address(sorted([*features, *unreadable]))}.safetensors"
        with written_whole(path) as temporary:
            arrays = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in features.items()}
            save_file(arrays, temporary, metadata={_UNREADABLE: json.dumps(dict(unreadable))})
        self._places |= dict.fromkeys(features, path)
        self._unreadable |= unreadable

    def read(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Features by content key; keys without features are left out."""
        by_file: dict[Path, list[str]] = {}
        for key in dict.fromkeys(keys):
            if key in self._places:
                by_file.setdefault(self._places[key], []).append(key)
        found: dict[str, np.ndarray] = {}
        for path, wanted in by_file.items():
            with safe_open(str(path), framework="numpy") as file:
                found |= {key: file.get_tensor(key) for key in wanted}
        return found
