"""Files that are never half-written: a temporary name beside the target, then a rename.

What is renamed is on the disk before its name is, so that after a power cut a file is the old one
or the new one, and never a name without content.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError

# Faults of the folder that is written to, and none of what is written.
_FAULTS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENOLCK,  # a share without its lock service
        errno.EXDEV,  # a part of the folder was moved behind a link
    }
)


class CannotWrite(UserError):
    """The folder takes no files: it is full, over its quota, read-only or broken.

    Args:
        path: What was to be written.
        reason: Why it can't be, in the system's words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"can't write {path}: {reason}; the same command continues once it can be written")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns faults of the folder into ``CannotWrite``, whatever library meets them.

    Args:
        path: What is written.
    """
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        number = _error_number(error)
        if number not in _FAULTS:
            raise
        raise CannotWrite(path, os.strerror(number)) from error


def _error_number(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # Libraries in Rust say it in words: "I/O error: No space left on device (os error 28)".
    found = re.search(r"\bos error (\d+)\b", str(error))
    return int(found[1]) if found else 0


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Raises:
        CannotWrite: The folder takes no files.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, _prefix(path))
        descriptor, temporary = _held_file(path)
        try:
            yield temporary
            os.chmod(temporary, 0o644)
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def flush(path: Path) -> None:
    """Brings a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to flush and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def move_whole(folder: Path, target: Path) -> None:
    """Renames a folder once all its files are on the disk.

    Args:
        folder: A folder of files.
        target: Its new name, on the same file system; must not exist.
    """
    for item in folder.iterdir():
        flush(item)
    flush(folder)
    os.replace(folder, target)
    flush(target.parent)


def _prefix(path: Path) -> str:
    return f".{os.fsencode(path.name)[:60].decode(errors='ignore')}."


def _held_file(path: Path) -> tuple[int, Path]:
    """A new temporary file, locked for as long as its writer lives."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".part", dir=path.parent)
        with suppress(OSError):  # without locks, leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            if os.stat(name).st_ino == os.fstat(descriptor).st_ino:
                return descriptor, Path(name)
        os.close(descriptor)


def remove_leftovers(folder: Path, prefix: str = ".") -> None:
    """Removes what killed processes left in a folder: temporary files that nobody holds.

    Args:
        folder: The folder; those inside it are left alone.
        prefix: What the names of temporary files begin with.
    """
    for leftover in folder.glob(f"{glob.escape(prefix)}*.part"):
        with suppress(OSError):
            descriptor = os.open(leftover, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; half characters of broken file names are escaped."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; NaN is written as null, as JSON has no such number."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """A value as JSON, NaN as null."""
    return json.dumps(_no_nan(value), indent=1, ensure_ascii=False, allow_nan=False)


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes one JSON value a line, whole or not at all; NaN is written as null."""
    lines = (json.dumps(_no_nan(row), ensure_ascii=False, allow_nan=False) for row in rows)
    write_text(path, "".join(line + "\n" for line in lines))


def _no_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): _no_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(item) for item in value]
    return value
