"""Commands that are killed, and what their results must be in the end."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd

from kills import Scenario
from tiny import SEVERAL, TINY
from warm import Warm

_TUNED = """
[[methods]]
name = "tunable:INFO"
label = "small"

[tune]
conditions = ["complete"]
pruner = "none"

[tune.space.tunable]
fault = false
"""
_SETTINGS = ("--set", "compute.checkpoint_seconds=0", "--seeds", "1,2")
_QUIET = {"IMER_NO_MLFLOW": "1", "IMER_NO_REPORT": "1"}
_RUN = ("--protocol", "tiny.toml", *_SETTINGS)


def _protocol(more: str):
    def prepare(folder: Path) -> None:
        (folder / "tiny.toml").write_text(TINY + more, encoding="utf-8")

    return prepare


# What is compared.


def same_runs(folder: Path, reference: Path) -> None:
    """The same runs with the same bytes, the same tables, and no epoch twice."""
    for pattern in ("predictions.parquet", "model.safetensors"):
        paths = [
            sorted(item.relative_to(here) for item in here.rglob(pattern)) for here in (folder, reference)
        ]
        assert paths[0] == paths[1]
        assert paths[0]
        for path in paths[0]:
            assert (folder / path).read_bytes() == (reference / path).read_bytes(), path
    for run in folder.glob("results/*/runs/*"):
        record = json.loads((run / "run.json").read_text())
        assert record["status"] == "finished", record["error"]
        steps = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]
        assert steps == list(range(len(steps)))
    same_tables(folder, reference)


def same_tables(folder: Path, reference: Path) -> None:
    """The same numbers in all tables."""
    for name in ("leaderboard.csv", "leaderboard.md"):
        (one,), (other,) = (list(here.glob(f"results/*/{name}")) for here in (folder, reference))
        assert one.read_text() == other.read_text()


def same_study(folder: Path, reference: Path) -> None:
    """As many trials that count, none lost for good, and one value for one setting."""
    tables = [_trials(here) for here in (folder, reference)]
    counted = [table[table["state"] == "COMPLETE"] for table in tables]
    assert len(counted[0]) == len(counted[1])
    assert set(tables[0]["state"]) <= {"COMPLETE", "LOST"}
    lost = set(tables[0]["number"][tables[0]["state"] == "LOST"])
    assert lost <= set(tables[0]["retry_of"].dropna()), "a trial that was not begun again"
    both = pd.merge(*counted, on=["lr", "deep", "hidden"])
    assert len(both), "not even the default setting"
    assert (both["value_x"] == both["value_y"]).all()
    (summary,) = folder.glob("results/*/studies/small/summary.json")
    assert json.loads(summary.read_text())["budget"]["counted"] == len(counted[1])
    assert list(folder.glob("results/*/studies/small/best.toml"))


def _trials(folder: Path) -> pd.DataFrame:
    (path,) = folder.glob("results/*/studies/small/trials.csv")
    return pd.read_csv(path)


def same_data(folder: Path, reference: Path) -> None:
    """The same imported files, byte for byte."""
    found = [
        {
            str(path.relative_to(here)): path.read_bytes()
            for path in (here / "data").rglob("*")
            if path.is_file()
        }
        for here in (folder, reference)
    ]
    assert found[0].keys() == found[1].keys()
    assert found[0] == found[1]


def same_mlflow(folder: Path, reference: Path) -> None:
    """Every run once, finished, with every epoch of every metric."""
    rows = [_mlflow(here / "mlflow.db") for here in (folder, reference)]
    assert rows[0] == rows[1]
    assert rows[0]


def _mlflow(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as database:
        return database.execute(
            "select r.name, r.status, (select count(*) from metrics m where m.run_uuid = r.run_uuid),"
            " (select count(*) from params p where p.run_uuid = r.run_uuid) from runs r"
            " where r.lifecycle_stage = 'active' order by r.name"
        ).fetchall()


# What they start from.


def _release(folder: Path) -> None:
    release = folder / "release"
    release.mkdir()
    table = [
        {"id": f"d{d}_{n}", "dialogue": f"d{d}", "index": n, "mood": (d + n) % 5 + 1, "fold": d}
        for d in range(40)
        for n in range(10)
    ]
    (release / "utterances.json").write_text(json.dumps(table))
    np.save(release / "text.npy", np.random.default_rng(0).normal(size=(400, 400)))
    np.save(release / "audio_small.npy", np.random.default_rng(1).normal(size=(400, 300)))


_IMPORT = ("data", "import", "release", "--name", "mine", "--data-root", "data", "--label", "mood:score:1:5")


def _results(warm: Warm, cache: Path):
    """Copies results that are computed once."""

    def prepare(folder: Path) -> None:
        if not cache.exists():
            cache.mkdir()
            _protocol(SEVERAL)(cache)
            call = warm.start(cache, _RUN, _QUIET)
            assert warm.wait() == 0, call.text
        shutil.copytree(cache / "results", folder / "results")

    return prepare


def scenarios(warm: Warm, cache: Path) -> dict[str, Scenario]:
    """Every scenario by name.

    Args:
        warm: Computes what some of them start from.
        cache: A folder for it that need not be there.
    """
    results = _results(warm, cache)
    found = [
        Scenario("run", _protocol(SEVERAL), [_RUN], same_runs, _QUIET, "results"),
        Scenario("run --jobs 2", _protocol(SEVERAL), [(*_RUN, "--jobs", "2")], same_runs, _QUIET, "results"),
        Scenario(
            "tune",
            _protocol(_TUNED),
            [("tune", "--protocol", "tiny.toml", "--method", "small", "--trials", "6", "--no-plots")],
            same_study,
            _QUIET,
            "results",
        ),
        Scenario("data import", _release, [_IMPORT], same_data, _QUIET, "data"),
        Scenario(
            "leaderboard", results, [("leaderboard", "tiny")], same_tables, {"IMER_NO_MLFLOW": "1"}, "results"
        ),
        Scenario("mlflow sync", results, [("mlflow", "sync")], same_mlflow, {}, "."),
    ]
    return {scenario.name: scenario for scenario in found}
