"""Feeds changed files to the command line, and judges what comes of it.

An input is **refused** (exit code 1 or 2, a message) or **accepted** (0, and the surface's own check of
what came out); everything else is a finding: a traceback, another exit code, a silent refusal, a hang,
memory out of proportion, a file that was written though the input was refused.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from fuzzing_mutations import mutated

# Processor seconds and MiB that one input of at most 1 MiB may take.
MOST_SECONDS = 20.0
MOST_MEMORY = 1024
# Beyond this wall time nothing answers, not even to a signal: the process is given up.
GIVEN_UP = 120.0

Kind = Literal[
    "refused", "accepted", "traceback", "exit code", "silence", "hang", "memory", "written", "unsound"
]


@dataclass(frozen=True)
class Surface:
    """One kind of file that somebody else may have written.

    Attributes:
        name: Its name in tables.
        kind: Format, as in ``fuzzing_mutations``.
        file: The file that is changed, relative to the folder of the example; a pattern that fits one.
        make: Writes the valid example into an empty folder.
        read: Reads it as a user would; answers the exit code.
        output: Where an accepted input may write, relative to the folder; emptied after every input.
        sound: What is wrong with an accepted input's output; empty if nothing.
        weight: Share of the inputs of a long run: less than 1 where an input takes long.
    """

    name: str
    kind: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], int]
    output: str = "out"
    sound: Callable[[Path], str] = lambda folder: ""
    weight: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What came of one input."""

    kind: Kind
    text: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether it must not happen."""
        return self.kind not in ("refused", "accepted")

    @property
    def place(self) -> str:
        """Where it happened, to tell findings apart."""
        lines = [line for line in self.text.splitlines() if line.lstrip().startswith("File")]
        return f"{self.kind}: {lines[-1].strip() if lines else ''} {self.text.splitlines()[-1][:160]}"


class _Hang(BaseException):
    """The processor time of an input is spent."""


class Bench:
    """A folder with the valid example of a surface, in which one file is replaced over and over."""

    def __init__(self, surface: Surface, folder: Path) -> None:
        self.surface = surface
        self.folder = folder
        surface.make(folder)
        (self._file,) = folder.glob(surface.file)
        self.example = self._file.read_bytes()
        self._output = folder / surface.output
        self._before = self._listing()

    def mutated(self, random: Random, others: Sequence[bytes] = ()) -> bytes:
        """The example, changed."""
        return mutated(self.example, self.surface.kind, random, (self.example, *others))

    def attempt(self, content: bytes) -> Verdict:
        """Reads the folder with this content in the place of the example's."""
        self._file.write_bytes(content)
        try:
            verdict = self._judged()
            if verdict.kind == "refused" and (written := self._written()):
                return Verdict("written", ", ".join(written[:5]))
            if verdict.kind == "accepted" and (problem := self.surface.sound(self.folder)):
                return Verdict("unsound", problem)
            return verdict
        finally:
            shutil.rmtree(self._output, ignore_errors=True)

    def _judged(self) -> Verdict:
        out, err = io.StringIO(), io.StringIO()
        peak = _Peak()
        try:
            with redirect_stdout(out), redirect_stderr(err), limited(MOST_SECONDS):
                code = self.surface.read(self.folder)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except _Hang:
            return Verdict("hang", traceback.format_exc())
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict("traceback", traceback.format_exc())
        if peak.grown() > MOST_MEMORY:
            return Verdict("memory", f"{peak.grown()} MiB")
        said = err.getvalue() + out.getvalue()
        if "Traceback (most recent call last)" in said:
            return Verdict("traceback", said)
        if code == 0:
            return Verdict("accepted")
        if code not in (1, 2):
            return Verdict("exit code", str(code))
        return Verdict("refused", said) if said.strip() else Verdict("silence")

    def _listing(self) -> Mapping[str, tuple[int, int]]:
        """Size and time of every file but the one that is changed; locks are no content."""
        found = {}
        for path in self.folder.rglob("*"):
            if path != self._file and path.is_file() and not {"locks", ".locks"} & set(path.parts):
                status = path.stat()
                found[str(path.relative_to(self.folder))] = (status.st_size, status.st_mtime_ns)
        return found

    def _written(self) -> list[str]:
        now = self._listing()
        return sorted(
            name for name in now.keys() | self._before.keys() if now.get(name) != self._before.get(name)
        )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what takes more processor time; ends the process where nothing answers."""

    def stop(number: int, frame: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    faulthandler.dump_traceback_later(GIVEN_UP, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        faulthandler.cancel_dump_traceback_later()


class _Peak:
    """The highest memory of this process since now, where Linux says it."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start = self._now()

    def grown(self) -> int:
        """MiB."""
        return (self._now() - self._start) >> 10

    def _now(self) -> int:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def limit_address_space(mebibytes: int) -> None:
    """No allocation of this process may go beyond what it has now and this; for processes of their own."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (mebibytes << 20), resource.RLIM_INFINITY))


@dataclass
class Tally:
    """Inputs of one surface, counted by what came of them."""

    surface: str
    engine: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: dict[str, str] = field(default_factory=dict)  # place -> input, in hexadecimal
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, verdict: Verdict, content: bytes) -> None:
        """Counts one input, and keeps the smallest of every finding."""
        self.counts[verdict.kind] = self.counts.get(verdict.kind, 0) + 1
        if verdict.is_finding:
            known = self.findings.get(verdict.place)
            if known is None or len(known) > 2 * len(content):
                self.findings[verdict.place] = content.hex()
                self.texts[verdict.place] = verdict.text

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return sum(self.counts.values())

    @property
    def row(self) -> list[object]:
        """Surface, engine, tried, refused, accepted, findings."""
        found = self.tried - self.counts.get("refused", 0) - self.counts.get("accepted", 0)
        return [
            self.surface,
            self.engine,
            self.tried,
            self.counts.get("refused", 0),
            self.counts.get("accepted", 0),
            found,
        ]
