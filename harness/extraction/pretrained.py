"""Checkpoints by Hugging Face id or local folder, known by the hash of their weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import model_folder, weight_files
from ..hashing import address
from .errors import EncoderNotFound

# What a configuration says about where it was saved, not about what it computes.
_INCIDENTAL = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "torch_dtype",
    "dtype",
    "_commit_hash",
)


@dataclass(frozen=True)
class Checkpoint:
    """A model on this machine.

    Attributes:
        name: Name it was asked for by.
        folder: Its files.
        revision: Commit on the hub; empty for a local folder.
        config: Its configuration, as plain values.
        weights: SHA-256 over names, types, shapes and bytes of its weights.
    """

    name: str
    folder: Path
    revision: str
    config: dict[str, Any]
    weights: str

    @property
    def identity(self) -> dict[str, str]:
        """What decides its outputs; the same for the same checkpoint under another name."""
        config = {key: value for key, value in self.config.items() if key not in _INCIDENTAL}
        return {"weights": self.weights, "config": address(config)}


def find_checkpoint(name: str, revision: str = "") -> Checkpoint:
    """Finds a checkpoint: a local folder, then ``IMER_PRETRAINED``, the local cache, the hub.

    Args:
        name: Hugging Face id or local folder with ``config.json`` and safetensors weights.
        revision: Commit, tag or branch of the id.

    Raises:
        EncoderNotFound: It is not at hand, or has no safetensors weights.
    """
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise EncoderNotFound(f"no encoder {name!r}: there is no such folder")
    try:
        folder = model_folder(name, revision)
    except LookupError as error:
        raise EncoderNotFound(_not_at_hand(name, str(error))) from None
    commit = folder.name if folder.parent.name == "snapshots" else ""
    config = folder / "config.json"
    if not config.is_file():
        raise EncoderNotFound(f"no encoder {name!r}: {folder} has no config.json")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderNotFound(f"no encoder {name!r}: {config} is broken ({error})") from None
    return Checkpoint(name, folder, commit, settings, _weights_hash(name, folder))


def _not_at_hand(name: str, reason: str) -> str:
    return (
        f"no encoder {name!r} at hand: {reason}. Ways out: fetch it into the Hugging Face cache on a machine "
        f"with a network (`hf download {name}`, then copy the cache or set HF_HOME), or name a local folder "
        "with config.json, model.safetensors and its tokenizer or preprocessor files"
    )


def _weights_hash(name: str, folder: Path) -> str:
    """SHA-256 over the tensors in order of name, whatever files they are spread over."""
    from safetensors import SafetensorError, safe_open

    files = weight_files(folder)
    if not files:
        raise EncoderNotFound(
            f"encoder {name!r} has no safetensors weights in {folder}; pickled weights are not read because "
            "they can run code. Convert it once where you trust it: "
            f"AutoModel.from_pretrained({name!r}).save_pretrained(FOLDER), its tokenizer or "
            "preprocessor beside it, and name FOLDER"
        )
    digest = hashlib.sha256()
    try:
        places: dict[str, Path] = {}
        for path in files:
            with safe_open(str(path), framework="pt") as file:
                places |= dict.fromkeys(file.keys(), path)
        handles = {path: safe_open(str(path), framework="pt") for path in files}
        for tensor_name, path in sorted(places.items()):
            tensor = handles[path].get_tensor(tensor_name)
            digest.update(f"{tensor_name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(dtype=_bytes()).numpy().data)
    except (OSError, SafetensorError) as error:
        raise EncoderNotFound(f"encoder {name!r}: its weights cannot be read ({error})") from None
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8
