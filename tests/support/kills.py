"""Kills commands at seeded random moments, damages what they wrote last, and lets them go on.

A moment is counted in changes of the files that a command writes, as seen from outside: kills so
fall before, between and within its writes, however fast the machine is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from warm import Warm

# What a call may take on a loaded machine before the test takes it for hanging.
_PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.003

State = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: Name in the table.
        prepare: Puts into a folder what the command starts from.
        commands: Arguments of the calls, one after the other.
        same: Asserts that a folder has the results of the unbroken one.
        environment: Variables of its processes.
        watched: Folder below the working folder whose changes are counted.
    """

    name: str
    prepare: Callable[[Path], None]
    commands: Sequence[Sequence[object]]
    same: Callable[[Path, Path], None]
    environment: Mapping[str, str] = field(default_factory=dict)
    watched: str = "."


@dataclass
class Tally:
    """What happened to a scenario.

    Attributes:
        rounds: Times it was run to its end.
        kills: Processes that were killed.
        damages: Damaged files by kind of file.
    """

    rounds: int = 0
    kills: int = 0
    damages: Counter[str] = field(default_factory=Counter)


def state_of(folder: Path) -> State:
    """Every file below a folder with inode, size and time of change."""
    found: dict[str, tuple[int, int, int]] = {}
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    about = entry.stat(follow_symlinks=False)
                    found[entry.path] = (about.st_ino, about.st_size, about.st_mtime_ns)
        except FileNotFoundError:
            continue  # renamed or removed at this moment
    return found


def unbroken(warm: Warm, scenario: Scenario, folder: Path) -> list[int]:
    """Runs a scenario without kills and answers the changes that each of its calls makes."""
    folder.mkdir()
    scenario.prepare(folder)
    counts: list[int] = []
    for arguments in scenario.commands:
        call = warm.start(folder, arguments, scenario.environment)
        counts.append(_watch(folder / scenario.watched, call.pid, None))
        assert warm.wait() == 0, call.text
    return counts


def broken(
    warm: Warm,
    scenario: Scenario,
    folder: Path,
    reference: Path,
    changes: Sequence[int],
    moments: random.Random,
    tally: Tally,
    most: int,
    damage: float = 0.0,
) -> None:
    """Runs a scenario to its end with up to ``most`` kills, and compares the result.

    Args:
        warm: Starts the calls.
        scenario: The scenario.
        folder: A new folder.
        reference: The folder of the unbroken run.
        changes: What ``unbroken`` answered.
        moments: When to kill and what to damage.
        tally: Is added to.
        most: Kills of this round.
        damage: Probability that a kill is followed by the damage of a power cut.
    """
    folder.mkdir()
    scenario.prepare(folder)
    watched = folder / scenario.watched
    kills = 0
    published: State = {}
    hurt: set[tuple[Path, int]] = set()
    for arguments, count in zip(scenario.commands, changes, strict=True):
        while True:
            before = state_of(watched)
            call = warm.start(folder, arguments, scenario.environment)
            end = 1 + int(count * moments.random() ** 1.5) if kills < most else None
            _watch(watched, call.pid, end, moments.uniform(0, 0.01))
            code = warm.wait()
            if code == -signal.SIGKILL:
                kills += 1
                tally.kills += 1
                assert_whole(folder, hurt)
                published = assert_published_once(folder, published)
                path = hurt_newest(watched, before, moments) if moments.random() < damage else None
                if path is not None:
                    tally.damages[kind_of(path, watched)] += 1
                    if path.exists():
                        hurt.add((path, path.stat().st_ino))
                continue
            assert code == 0, f"exit {code} of {arguments}: {call.text}"
            break
    tally.rounds += 1
    assert_whole(folder, set())
    assert_published_once(folder, published)
    assert_nothing_left(folder)
    scenario.same(folder, reference)


def _watch(folder: Path, pid: int, end: int | None, delay: float = 0.0) -> int:
    """Counts changes until the process ends, or kills its group after so many of them."""
    last = state_of(folder)
    count = 0
    limit = time.monotonic() + _PATIENCE_SECONDS
    while True:
        now = state_of(folder)
        count += len(set(now.items()) ^ set(last.items()))
        last = now
        if end is not None and count >= end:
            time.sleep(delay)
            _kill_group(pid)
            return count
        if _has_ended(pid):
            return count
        if time.monotonic() > limit:
            _kill_group(pid)
            raise AssertionError(f"process {pid} did not end within {_PATIENCE_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was quicker
        os.killpg(pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# What must hold after every kill.


def assert_whole(folder: Path, hurt: Set[tuple[Path, int]]) -> None:
    """Whatever has its final name can be read to its end, but for what we have hurt ourselves."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file() or (path, path.stat().st_ino) in hurt:
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118
                    file.get_slice(name)


def assert_published_once(folder: Path, before: State) -> State:
    """A run that was in the store stays as it is: nothing is computed a second time."""
    now = {
        str(path.parent): (about.st_ino, about.st_size, about.st_mtime_ns)
        for path in folder.glob("results/*/runs/*/run.json")
        for about in (path.stat(),)
    }
    changed = [name for name, about in before.items() if now.get(name) != about]
    assert not changed, f"computed again or lost: {changed}"
    return now


def assert_nothing_left(folder: Path) -> None:
    """No leftovers of killed processes: nothing blocks, nothing grows."""
    names = [path for path in folder.rglob("*") if path.name.endswith((".part", ".old", ".removed", ".new"))]
    work = [*folder.glob("results/*/work/*"), *folder.glob("results/*/studies/*/*/workers/*")]
    assert not names, names
    assert not work, work


# A power cut.


def hurt_newest(folder: Path, before: State, moments: random.Random) -> Path | None:
    """Cuts, zeroes or drops the file that was being written last; ``None`` where there is none.

    A file that has been brought to the disk before it got its name survives a power cut, so only
    temporary files, checkpoints and tables are hurt.
    """
    now = state_of(folder)
    written = [Path(name) for name, about in now.items() if before.get(name) != about]
    written = [path for path in written if _is_volatile(path) and path.stat().st_size > 0]
    if not written:
        return None
    path = max(written, key=lambda item: item.stat().st_mtime_ns)
    size = path.stat().st_size
    start = moments.randrange(size)
    how = moments.choice(("cut", "zero", "drop"))
    if how == "drop":
        path.unlink()
    elif how == "cut":
        os.truncate(path, start)
    else:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(size - start))
    return path


def _is_volatile(path: Path) -> bool:
    temporary = any(part.startswith(".") for part in path.parts) and not path.name.endswith((".lock", ".db"))
    return temporary or "work" in path.parts or path.name.startswith(("leaderboard.", "tables."))


def kind_of(path: Path, folder: Path) -> str:
    """Name of a damaged file for the table, without addresses."""
    parts = path.relative_to(folder).parts
    name = "*.part" if path.name.endswith(".part") else path.name
    inside = next((part for part in ("runs", "work", "stages", "studies") if part in parts), "")
    return f"{inside}/{'*.safetensors' if inside == 'stages' and name != '*.part' else name}".lstrip("/")
