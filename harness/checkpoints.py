"""Where the files of a pretrained model are, and the hash of its weights; torch is not needed here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

# A folder that holds models under their Hugging Face ids (``sentence-transformers/all-MiniLM-L6-v2/``).
ROOT_VARIABLE = "IMER_PRETRAINED"
# Weights as safetensors only: a pickle could run code. Variants in other precisions are left out.
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_FILES = ["*.json", "*.txt", "*.model", *_WEIGHTS]
_TRUE = {"1", "ON", "YES", "TRUE"}


def local_folder(name: str, revision: str = "") -> Path | None:
    """The folder of a model that is on this machine, or ``None``; the network is not asked.

    Args:
        name: A folder, or a Hugging Face id: looked for below ``IMER_PRETRAINED``, then in the
            Hugging Face cache.
        revision: Commit, tag or branch, for the cache.

    Raises:
        LookupError: The name is neither a folder nor a Hugging Face id.
    """
    root = os.environ.get(ROOT_VARIABLE)
    for folder in (Path(name).expanduser(), *([Path(root).expanduser() / name] if root else [])):
        if folder.is_dir():
            # Sentence encoders may keep the transformer in a folder of its own.
            inner = folder / "0_Transformer"
            return inner if (inner / "config.json").is_file() else folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": _FILES}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **options))
    except HFValidationError as error:
        raise LookupError(f"it is no folder and no Hugging Face id ({error})") from None
    except (LocalEntryNotFoundError, OSError):
        return None
    return cached if weight_files(cached) else None


def model_folder(name: str, revision: str = "") -> Path:
    """The folder of a model, fetched from the hub if it is not here and the hub answers within seconds.

    Args:
        name: A folder or a Hugging Face id (see ``local_folder``).
        revision: Commit, tag or branch of the id.

    Raises:
        LookupError: The model is not at hand; the message says why.
    """
    found = local_folder(name, revision)
    if found is not None:
        return found
    reason = _why_no_download()
    if reason:
        raise LookupError(reason)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise LookupError(f"the hub did not deliver it ({error})") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model."""
    return [path for pattern in _WEIGHTS for path in sorted(folder.glob(pattern))]


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the weight files in order of name.

    For a single file it is what ``sha256sum`` prints and what the hub shows on the file's page.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _why_no_download() -> str:
    """Why the hub cannot be asked, in words; empty if it can."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return f"it is not in the local cache and {variable} is set"
    from huggingface_hub import constants, get_session

    try:  # The library itself retries for minutes where there is no network.
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        return f"it is not in the local cache and {constants.ENDPOINT} cannot be reached"
    return ""
