"""Sound and pictures from files. What cannot be read says why, and is never replaced by something else.

Readers: WAV through SciPy; FLAC, OGG, MP3 through soundfile; films and their sound tracks through
PyAV; folders of pictures through Pillow. The last three are optional.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..hashing import address
from .errors import Unreadable

WAVE = (".wav",)
SOUND = (".flac", ".ogg", ".mp3", ".aiff", ".aif")
FILM = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4a", ".aac")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
# A film may name others to be read with it; they are files of this machine or nothing.
_ONLY_FILES = {"protocol_whitelist": "file"}
_SHORTEST = 1 / 25  # seconds of a segment that count as anything at all


@dataclass(frozen=True)
class Recording:
    """One utterance in a file or a folder of pictures.

    Attributes:
        path: The file, or a folder of frames in order of name.
        start: First second; ``None``: the beginning.
        end: Last second; ``None``: the end.
        half: The half of the picture that shows the speaker; empty: all of it.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    half: Literal["", "left", "right"] = ""

    def content(self) -> str:
        """Address of the bytes and the segment.

        Raises:
            Unreadable: There is no such file.
        """
        segment = [self.start, self.end, self.half]
        try:
            if self.path.is_dir():
                frames = [_file_digest(path) for path in picture_files(self.path)]
                return address([frames, segment])
            return address([_file_digest(self.path), self.path.suffix.lower(), segment])
        except FileNotFoundError:
            raise Unreadable("no file", permanent=False) from None
        except OSError as error:
            raise Unreadable(f"the file cannot be opened ({error.strerror})", permanent=False) from None

    def extent(self) -> int:
        """Roughly how long the recording is, for batching: microseconds, bytes or pictures."""
        if self.start is not None and self.end is not None:
            return int(1e6 * (self.end - self.start))
        if self.path.is_dir():
            return len(picture_files(self.path))
        return self.path.stat().st_size


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in order of name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def read_sound(recording: Recording, rate: int, max_seconds: float) -> np.ndarray:
    """Mono samples.

    Args:
        recording: A WAV or other sound file, or a film.
        rate: Samples per second of the answer.
        max_seconds: The rest is cut off.

    Returns:
        ``[n]`` float32, n > 0.

    Raises:
        Unreadable: The file is broken, has no sound, or its reader is not installed.
    """
    suffix = recording.path.suffix.lower()
    if suffix in WAVE:
        samples, found = _read_wave(recording.path)
    elif suffix in SOUND:
        samples, found = _read_soundfile(recording.path)
    elif suffix in FILM:
        samples, found = _read_sound_track(recording.path)
    else:
        known = " ".join((*WAVE, *SOUND, *FILM))
        raise Unreadable(f"no reader for sound in {suffix or 'this file'} (known: {known})", permanent=False)
    first = round((recording.start or 0.0) * found)
    last = len(samples) if recording.end is None else round(recording.end * found)
    last = min(last, first + round(max_seconds * found))
    samples = samples[first:last]
    if not len(samples):
        raise Unreadable("no samples")
    if not np.isfinite(samples).all():
        raise Unreadable("samples that are not finite")
    if found != rate:
        from scipy.signal import resample_poly

        common = gcd(found, rate)
        samples = resample_poly(samples, rate // common, found // common)
    return np.ascontiguousarray(samples, dtype=np.float32)


def read_frames(recording: Recording, count: int) -> list[np.ndarray]:
    """Frames at the centres of ``count`` equal parts; a short recording repeats frames.

    Args:
        recording: A film or a folder of pictures.
        count: Number of frames.

    Returns:
        ``count`` pictures ``[height, width, 3]`` uint8.

    Raises:
        Unreadable: There is no picture, it is broken, or its reader is not installed.
    """
    suffix = recording.path.suffix.lower()
    if recording.path.is_dir():
        frames = _read_pictures(recording.path, count)
    elif suffix in FILM:
        frames = _read_film(recording, count)
    else:
        known = " ".join(FILM)
        raise Unreadable(
            f"no reader for pictures in {suffix or 'this file'} (known: {known}, folders)", permanent=False
        )
    return [_half(frame, recording.half) for frame in frames]


def sampled(total: int, count: int) -> list[int]:
    """Positions of ``count`` frames out of ``total``: floor((i + 1/2)·total/count)."""
    return [int((index + 0.5) * total / count) for index in range(count)]


def _half(frame: np.ndarray, half: str) -> np.ndarray:
    middle = frame.shape[1] // 2
    return {"": frame, "left": frame[:, :middle], "right": frame[:, middle:]}[half]


@cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _need(module: str, package: str, path: Path) -> None:
    if not _installed(module):
        raise Unreadable(f"reading {path.suffix} needs the package {package} (pip install {package})", False)


def _read_wave(path: Path) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():  # unknown chunks after the samples do no harm
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except Exception as error:
        raise Unreadable(f"broken WAV file ({_first_line(error)})") from None
    return _mono(samples), int(rate)


def _read_soundfile(path: Path) -> tuple[np.ndarray, int]:
    _need("soundfile", "soundfile", path)
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except Exception as error:
        raise Unreadable(f"broken sound file ({_first_line(error)})") from None
    return _mono(samples), int(rate)


def _mono(samples: np.ndarray) -> np.ndarray:
    """The mean over channels, in -1..1."""
    if samples.dtype.kind == "u":  # 8 bit WAV
        scaled = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        scaled = (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    else:
        scaled = samples.astype(np.float32)
    return scaled.mean(axis=1) if scaled.ndim == 2 else scaled


def _read_sound_track(path: Path) -> tuple[np.ndarray, int]:
    _need("av", "av", path)
    import av

    try:
        with av.open(str(path), options=_ONLY_FILES) as container:
            if not container.streams.audio:
                raise Unreadable("the film has no sound track")
            stream = container.streams.audio[0]
            rate = int(stream.rate)
            to_float = av.AudioResampler(format="fltp", rate=rate)
            blocks = [
                block.to_ndarray().mean(axis=0)
                for frame in container.decode(stream)
                for block in to_float.resample(frame)
            ]
            blocks += [block.to_ndarray().mean(axis=0) for block in to_float.resample(None)]
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"broken sound track ({_first_line(error)})") from None
    if not blocks:
        raise Unreadable("no samples")
    return np.concatenate(blocks), rate


def _read_film(recording: Recording, count: int) -> list[np.ndarray]:
    _need("av", "av", recording.path)
    import av

    try:
        with av.open(str(recording.path), options=_ONLY_FILES) as container:
            if not container.streams.video:
                raise Unreadable("the film has no pictures")
            # Twice through the file: what is kept is `count` frames, not all of a long recording.
            total = sum(1 for _ in _film_frames(container, recording))
            if not total:
                raise Unreadable("no frames")
            wanted = sampled(total, count)
            kept: dict[int, np.ndarray] = {}
            for position, frame in enumerate(_film_frames(container, recording)):
                if position in wanted:
                    kept[position] = frame.to_ndarray(format="rgb24")
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"broken film ({_first_line(error)})") from None
    if not set(wanted) <= set(kept):
        raise Unreadable("frames cannot be decoded")
    return [kept[position] for position in wanted]


def _film_frames(container: Any, recording: Recording) -> Any:
    """Decoded frames of the segment, from its beginning."""
    stream = container.streams.video[0]
    start = recording.start or 0.0
    end = float("inf") if recording.end is None else max(recording.end, start + _SHORTEST)
    container.seek(int(start * 1_000_000))  # to the key frame before it
    for frame in container.decode(stream):
        at = frame.time or 0.0
        if at >= end:
            return
        if at >= start:
            yield frame


def _read_pictures(folder: Path, count: int) -> list[np.ndarray]:
    if not _installed("PIL"):
        raise Unreadable("reading pictures needs the package pillow (pip install pillow)", False)
    from PIL import Image

    files = picture_files(folder)
    if not files:
        raise Unreadable("no frames")
    frames: dict[int, np.ndarray] = {}
    for position in sampled(len(files), count):
        if position not in frames:
            try:
                with Image.open(files[position]) as picture:
                    frames[position] = np.asarray(picture.convert("RGB"))
            except Exception as error:
                raise Unreadable(f"broken picture {files[position].name} ({_first_line(error)})") from None
    return [frames[position] for position in sampled(len(files), count)]


def _file_digest(path: Path) -> str:
    state = path.stat()
    return _digest(str(path), state.st_size, state.st_mtime_ns)


@cache
def _digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file; one film may hold many utterances."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
