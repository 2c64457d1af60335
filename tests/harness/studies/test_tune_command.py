"""``bench.py tune`` as its user calls it: real processes, real kills, a real database."""

import contextlib
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import quick_databases

from imer_bench.harness.cli import main

from tiny import write_tiny

ROOT = Path(__file__).resolve().parents[3]

SLOW_METHOD = """
[[methods]]
name = "tunable:INFO"
label = "slow"
parameters = { pause = 0.2 }

[tune]
conditions = ["complete"]
pruner = "none"

[tune.space.tunable]
fault = false
"""


def environment(**more: str) -> dict[str, str]:
    support = str(ROOT / "tests" / "support")
    plain = {"IMER_NO_MLFLOW": "1", "PYTHONPATH": support, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **plain, **more}


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)]


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command within this process, in a folder of its own: what it answers and prints."""
    quick_databases()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMER_NO_MLFLOW", "1")
    monkeypatch.setenv("IMER_NO_REPORT", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(item) for item in arguments])
        return code, *capsys.readouterr()

    return call


def bench(folder: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=200
    )


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    database = folder / "results" / "studies.db"
    if not database.is_file():
        return []
    # Optuna's reader would make the tables too, at the same time as the command: wait for its last one.
    with contextlib.closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall():
            return []
    storage = f"sqlite:///{database}"
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage).get_trials() if names else []


def test_killed_and_resumed_by_two_workers_nothing_is_lost_or_left_running(tmp_path):
    path = write_tiny(tmp_path, SLOW_METHOD)
    arguments = ("tune", "--protocol", path, "--method", "slow", "--trials", 4, "--no-plots")
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=environment(), **silent)
    begun = time.monotonic()
    running: list[optuna.trial.FrozenTrial] = []
    while not running and time.monotonic() - begun < 60:
        time.sleep(0.1)
        # In the second trial, so that there is something to keep and something to lose.
        running = [
            item
            for item in trials(tmp_path)
            if item.number >= 1 and item.state == TrialState.RUNNING and "worker" in item.user_attrs
        ]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert running
    (lost,) = [item for item in trials(tmp_path) if item.state == TrialState.RUNNING]
    done = bench(tmp_path, *arguments, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path)
    assert {item.state for item in found} == {TrialState.COMPLETE, TrialState.FAIL}
    assert [item.number for item in found if item.state == TrialState.FAIL] == [lost.number]
    (again,) = [item for item in found if item.user_attrs.get("retry_of") == lost.number]
    assert again.state == TrialState.COMPLETE
    assert {name: again.params[name] for name in lost.params} == lost.params
    assert len(found) == 5, "four that count, one that was lost"
    assert len({item.user_attrs["worker"] for item in found}) == 3, "the killed one and both later ones"
    folder = tmp_path / "results" / "tiny" / "studies" / "slow"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["budget"]["counted"] == 4
    assert summary["budget"]["lost_and_queued_again"] == 1
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [row["state"] for row in rows].count("LOST") == 1
    assert not list(folder.glob("*/workers/*.lock")), "nobody is at work"


def test_a_tuned_method_goes_through_the_protocol(tmp_path, here):
    path = write_tiny(tmp_path, '[[methods]]\nname = "constant"\n[tune]\nconditions = ["complete"]\n')
    code, out, err = here("tune", "--protocol", path, "--all", "--trials", 3, "--rerun")
    assert code == 0, err
    assert "not tuned: constant" in err
    assert "late_fusion (tuned)" in out
    assert "default, tuned in 3 trials" in out
    folder = tmp_path / "results" / "tiny" / "studies"
    best = tomllib.loads((folder / "late_fusion" / "best.toml").read_text())
    summary = json.loads((folder / "late_fusion" / "summary.json").read_text())
    assert best["parameters"] == summary["best"]["parameters"]
    assert best["tuned"]["trials"] == 3
    assert summary["gain"]["low"] <= summary["gain"]["value"] <= summary["gain"]["high"]
    overview = json.loads((folder / "summary.json").read_text())
    assert overview["methods"]["late_fusion"]["budget"]["counted"] == 3
    runs = {}
    for file in (tmp_path / "results" / "tiny" / "runs").glob("*/run.json"):
        record = json.loads(file.read_text())
        runs[record["identity"]["label"]] = record
    assert set(runs) == {"constant", "late_fusion", "late_fusion (tuned)"}
    tuned = runs["late_fusion (tuned)"]
    expected = {**runs["late_fusion"]["identity"]["hyper_parameters"], **best["parameters"]}
    assert tuned["identity"]["hyper_parameters"] == expected
    assert tuned["marks"]["tuned"]["trials"] == 3
    assert any("tuned in 3 trials" in note for note in tuned["marks"]["notes"])
    assert runs["late_fusion"]["marks"]["tuned"] is None
    assert tuned["comparison_hash"] == runs["late_fusion"]["comparison_hash"]
    _, again, _ = here("--protocol", folder / "tuned.toml")
    assert "0 runs computed, 3 reused" in again
    _, remade, _ = here("leaderboard", "tiny")
    assert "default, tuned in 3 trials" in remade
    pytest.importorskip("matplotlib")
    for name in ("history", "slice", "expected"):
        assert (folder / "late_fusion" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_without_a_value_ends_in_code_one(tmp_path, here):
    entry = '[[methods]]\nname = "tunable:INFO"\nlabel = "wrong"\nparameters = { fault = "error" }\n'
    path = write_tiny(tmp_path, entry)
    code, _, err = here("tune", "--protocol", path, "--method", "wrong", "--trials", 2)
    assert code == 1
    assert "the method broke" in err
    assert "no trial has a value" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--method NAME"),
        (("--method", "late_fusoin"), "did you mean 'late_fusion'"),
        (("--method", "constant"), "no search range"),
        (("--method", "late_fusion", "--storage", "nosuch://x"), "--storage"),
        (("--method", "late_fusion", "--set", "tune.sampler=tpee"), "did you mean 'tpe'"),
    ],
)
def test_what_goes_wrong_is_named(tmp_path, here, arguments, words):
    code, _, err = here("tune", "--protocol", write_tiny(tmp_path), *arguments)
    assert code == 1
    assert words in err
    assert "Traceback" not in err


def test_help_loads_nothing_heavy(tmp_path):
    arguments = [sys.executable, "-X", "importtime", *command("tune", "--help")[1:]]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & {"torch", "pandas", "mlflow", "optuna", "numpy", "pydantic"}


@pytest.mark.slow
def test_mlflow_gets_a_parent_and_a_child_per_trial_once(tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    path = write_tiny(tmp_path, '[tune]\nconditions = ["complete"]\npruner = "none"\n')
    for count in (1, 2):
        arguments = ("tune", "--protocol", path, "--method", "late_fusion", "--trials", count)
        done = bench(tmp_path, *arguments, IMER_NO_MLFLOW="", MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 0, done.stderr
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny studies (SYNTHETIC)")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "execution"]
    children = [run for run in runs if run.data.tags["kind"] == "run"]
    assert len(children) == 2
    assert "late_fusion" in parent.info.run_name
    assert "best.toml" in {item.path for item in client.list_artifacts(parent.info.run_id)}
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert "hp.lr" in child.data.params
        curve = client.get_metric_history(child.info.run_id, "validation/best so far")
        assert [point.step for point in curve] == [0, 1, 2]
        assert curve[-1].value == pytest.approx(child.data.metrics["validation/wf1"])


@pytest.mark.slow
def test_an_mlflow_server_that_is_away_stops_nothing(tmp_path):
    path = write_tiny(tmp_path, '[tune]\nconditions = ["complete"]\n')
    arguments = ("tune", "--protocol", path, "--method", "late_fusion", "--trials", 1)
    done = bench(tmp_path, *arguments, IMER_NO_MLFLOW="", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "wait for the next call" in done.stderr
    assert (tmp_path / "results" / "tiny" / "studies" / "late_fusion" / "best.toml").is_file()
