"""Commands killed at random moments, some with a power cut: called again, they end as if nothing had been.

The quick part kills two commands a few times. ``python -m pytest -m slow tests/faults/test_kills.py -s``
kills each of six forty times and prints what happened.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tabulate import tabulate

from kill_scenarios import scenarios
from kills import Tally, broken, unbroken
from warm import SERVICES, Warm, server

NAMES = ("run", "run --jobs 2", "tune", "data import", "leaderboard", "mlflow sync")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("computed once") / "cache"


@pytest.fixture(scope="module")
def rows():
    """Of the table that is printed at the end."""
    found: list[list[object]] = []
    yield found
    if found:
        print("\n" + tabulate(found, ["command", "rounds", "kills", "damaged", "files"], "github"))


def kill(name: str, warm: Warm, cache: Path, folder: Path, kills: int, each: int, damage: float) -> Tally:
    scenario = scenarios(warm, cache)[name]
    changes = unbroken(warm, scenario, folder / "whole")
    tally = Tally()
    moments = random.Random(f"kills of {name}")
    while tally.kills < kills:
        number = tally.rounds
        most = min(each, kills - tally.kills)
        broken(warm, scenario, folder / f"{number}", folder / "whole", changes, moments, tally, most, damage)
        assert tally.rounds < 20 + 2 * kills, "it ends before it is killed"
    return tally


@pytest.fixture(scope="module")
def with_services():
    with Warm(SERVICES) as warm:
        yield warm


@pytest.mark.parametrize(("name", "kills"), [("run", 5), ("data import", 5)])
def test_killed_a_few_times_it_ends_as_unbroken(name, kills, cache, tmp_path):
    kill(name, server(), cache, tmp_path, kills, each=kills, damage=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_forty_times_it_ends_as_unbroken(name, with_services, cache, tmp_path, rows):
    tally = kill(name, with_services, cache, tmp_path, kills=40, each=5, damage=0.5)
    damages = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.damages.items()))
    rows.append([name, tally.rounds, tally.kills, sum(tally.damages.values()), damages])
    assert tally.kills >= 40
