"""Reads the field's pickles as data: an allow-list, and stand-ins instead of the real constructors.

A pickle is a program. This package lets it build containers, strings, bytes, numbers, NumPy arrays and
scalars, and, only where a release needs it, torch tensors (as arrays; torch itself is not asked). Walls:

1. Opcodes come from a table: no persistent ids, no extension registry, no out-of-band buffers, no
   instances. The pure Python unpickler runs them, so that each can be checked where it acts: lengths
   never exceed what is left of the file, lists take items, dictionaries take plain keys.
2. Every global is looked up in a fixed table by its full name; nothing is imported, dotted names lead
   nowhere, and everything else is a ``ForbiddenGlobal`` that names it.
3. The table holds stand-ins. The real ``numpy.dtype`` and ``numpy.ndarray`` accept states (flags,
   strides, buffers) that break memory safety, so dtypes are rebuilt from their letter codes and
   arrays from bytes of the right length. The stand-ins themselves cannot be changed by a pickle.
4. A value that shares its parts may be small in memory and without bound when it is written out; such
   values, and those that hold themselves, are refused (``expansion``).
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from .expansion import check_expansion
from .reader import Bounded, Reader
from .stand_ins import plain_constructors
from .tensors import tensor_constructors

# What a file begins with that is something else than a pickle.
_OTHER_FORMATS = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"PK\x03\x04": "a zip archive (or what torch.save writes)",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
}


def read_pickle(source: Path | bytes, allow_torch: bool = False, encoding: str = "latin1") -> Any:
    """Reads a pickle of plain data.

    Args:
        source: A file, or the pickle itself.
        allow_torch: Rebuild torch tensors, as NumPy arrays.
        encoding: For the byte strings of Python 2.

    Raises:
        ForbiddenGlobal: The pickle asks for anything outside the allow-list. Nothing was executed.
        CorpusError: The stream is broken or does what no release does.
    """
    name = source.name if isinstance(source, Path) else "the pickle"
    table = plain_constructors() | (tensor_constructors() if allow_torch else {})
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            _refuse_other_formats(stream.read(512), name)
            stream.seek(0)
            value = Reader(Bounded(stream), name, table, encoding).load()
    except CorpusError:
        raise
    except OSError as error:
        raise CorpusError(f"{source} cannot be read: {error.strerror}") from None
    except (Exception, RecursionError, MemoryError) as error:
        raise CorpusError(f"{name} is not a sound pickle: {_reason(error)}") from None
    check_expansion(value, name)
    return value


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError) or (
        isinstance(error, pickle.UnpicklingError) and "truncated" in str(error)
    ):
        return "it ends early"
    return f"{type(error).__name__}: {error}"


def _refuse_other_formats(start: bytes, name: str) -> None:
    kinds = [kind for magic, kind in _OTHER_FORMATS.items() if start.startswith(magic)]
    kinds += ["a tar archive"] if start[257:262] == b"ustar" else []
    if kinds:
        raise CorpusError(
            f"{name} is not a sound pickle but {kinds[0]}; archives are not opened, unpack it first"
        )
