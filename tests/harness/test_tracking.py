"""MLflow as a mirror of the results: what is logged, once, whatever happens on the way."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_folders import make_protocol_folder, make_run

from imer_bench.harness.errors import UserError
from imer_bench.harness.tracking import Execution, Mirror, add_arguments, run, sync, waiting
from imer_bench.harness.tracking.entry import UnreadableRun, read_entry
from imer_bench.harness.tracking.mlflow_store import MlflowStore

MIRROR = """
import multiprocessing, os, signal, sys
from pathlib import Path
from imer_bench.harness.tracking import Mirror
mirror = Mirror(sys.argv[2] if len(sys.argv) > 2 else None)
mirror.start(Path(sys.argv[1]))
(logger,) = multiprocessing.active_children()
for folder in (Path(sys.argv[1]) / "runs").iterdir():
    mirror.submit(folder)
"""
SYNC = """
import sys
from pathlib import Path
from imer_bench.harness.tracking import sync
print(len(sync(Path(sys.argv[1])).failed))
"""


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A store made once: MLflow takes seconds to create its tables."""
    folder = tmp_path_factory.mktemp("a store")
    (folder / ".mlflow.db.new").write_bytes(b"the beginning of a database, cut off by a kill")
    MlflowStore(folder, f"sqlite:///{folder / 'mlflow.db'}")
    assert not (folder / ".mlflow.db.new").exists()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, empty_database):
    """A project root with an empty default store, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def protocol_folder(project):
    return make_protocol_folder(project / "results")


def client():
    """A client of MLflow's default store, as ``mlflow ui`` in this folder would use."""
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def experiment():
    found = client().get_experiment_by_name("mosi_test")
    assert found is not None
    return found


def logged(kind="run"):
    """The active runs of the experiment, by name."""
    runs = client().search_runs([experiment().experiment_id], f"tags.kind = '{kind}'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def artifacts(run):
    return {item.path for item in client().list_artifacts(run.info.run_id)}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What a run folder becomes.


def test_only_finite_numbers_become_metrics(tmp_path):
    folder = make_run(make_protocol_folder(tmp_path), epochs=1)
    with (folder / "history.jsonl").open("a") as history:
        history.write('{"stage": "b", "epoch": 0, "train/total": NaN, "validation/wf1": 0.5, "seconds": 1}\n')
    points = {(point.key, point.step) for point in read_entry(folder).points}
    assert ("validation/wf1", 1) in points
    assert ("train/total", 0) in points
    assert ("train/total", 1) not in points
    assert not {key for key, _ in points if key.endswith("mae")} - {"validation/chosen/mae"}


def test_metric_names_have_only_characters_that_mlflow_takes(tmp_path):
    from mlflow.utils.validation import _validate_metric_name

    folder = make_run(make_protocol_folder(tmp_path), condition="fixed-{text,audio}")
    keys = {point.key for point in read_entry(folder).points}
    assert "test/fixed-_text_audio_/wf1" in keys
    for key in keys:
        _validate_metric_name(key)


def test_runs_on_generated_data_have_an_experiment_of_their_own(tmp_path):
    marks = {"synthetic": True, "privileged": ["targets"], "selection": "test"}
    entry = read_entry(make_run(make_protocol_folder(tmp_path), marks=marks))
    assert entry.experiment == "mosi_test (SYNTHETIC)"
    assert entry.tags["synthetic"] == "true"
    assert entry.tags["privileged"] == "targets"
    assert entry.tags["selection"] == "test"


def test_a_broken_run_folder_is_named(tmp_path):
    folder = make_run(make_protocol_folder(tmp_path))
    (folder / "run.json").write_text('{"identity": ')
    with pytest.raises(UnreadableRun, match=r"run\.json"):
        read_entry(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(UnreadableRun, match="no key"):
        read_entry(folder)


def test_nothing_imports_mlflow_before_something_is_logged():
    code = (
        "import sys, imer_bench.harness.tracking; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# What MLflow shows.


def test_a_mirrored_execution_reads_back(protocol_folder):
    mirror = Mirror()
    mirror.start(protocol_folder, Execution("bench.py --protocol mosi_test.toml"))
    mirror.submit(make_run(protocol_folder, seed=0, epochs=400))
    mirror.submit(make_run(protocol_folder, seed=1, status="diverged"))
    report = mirror.close()
    assert (report.logged, report.waiting) == (2, ())
    assert "2 runs logged to sqlite" in str(report)
    assert waiting(protocol_folder) == []

    runs = logged()
    good, bad = runs["early_fusion/random-0.3/s0"], runs["early_fusion/random-0.3/s1"]
    assert good.info.status == "FINISHED"
    assert (good.info.start_time, good.info.end_time) == (1767322800_000, 1767322830_000)
    assert good.data.metrics["test/random-0.3/wf1"] == 0.66
    assert good.data.metrics["validation/chosen/wf1"] == 0.68
    assert good.data.metrics["usage/peak_memory_mib"] == 812.5
    assert good.data.params["hp.lr"] == "0.001"
    assert good.data.params["hp.hidden"] == "[64, 32]"
    assert good.data.params["train_condition"] == "random-0.3"
    expected = {
        "method": "early_fusion",
        "data_set": "cmu_mosi",
        "condition": "random-0.3",
        "seed": "0",
        "regime": "matched",
        "selection": "validation",
        "synthetic": "false",
        "privileged": "none",
        "status": "finished",
        "git_commit": "0123456789abcdef",
        "comparison_hash": "c0ffee00c0ffee00",
    }
    assert expected.items() <= good.data.tags.items()
    assert good.inputs is not None
    (data_set,) = good.inputs.dataset_inputs
    assert data_set.dataset.name == "cmu_mosi"
    curve = client().get_metric_history(good.info.run_id, "train/total")
    assert [point.step for point in curve] == list(range(400))
    assert curve[0].value == 1.0
    assert curve[10].timestamp - curve[0].timestamp == 20_000
    assert artifacts(good) == {"run.json", "masks.csv"}

    assert bad.info.status == "FAILED"
    assert bad.data.tags["status"] == "diverged"
    assert bad.data.tags["error"] == "ValueError: NaN in the loss"

    (parent,) = logged("execution").values()
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["command"] == "bench.py --protocol mosi_test.toml"
    assert "early_fusion | 0.66" in parent.data.tags["mlflow.note.content"]
    assert artifacts(parent) == {"leaderboard.md", "leaderboard.csv", "leaderboard.json", "protocol.json"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}


def test_the_saved_view_shows_the_primary_metric_of_every_condition(protocol_folder):
    make_run(protocol_folder)
    sync(protocol_folder)
    make_run(protocol_folder, condition="fixed-text")
    sync(protocol_folder)
    tags = experiment().tags
    state = json.loads(json.loads(tags["mlflow.sharedViewState.results"])["state"])
    metrics = [column for column in state["selectedColumns"] if column.startswith("metrics.")]
    assert metrics == [
        "metrics.`test/fixed-text/wf1`",
        "metrics.`test/random-0.3/wf1`",
        "metrics.`validation/chosen/wf1`",
    ]
    # The filter and the order of the view are valid for the store.
    order = f"{state['orderByKey']} ASC"
    shown = client().search_runs([experiment().experiment_id], state["searchFilter"], order_by=[order])
    assert [run.info.run_name for run in shown] == [
        "early_fusion/fixed-text/s0",
        "early_fusion/random-0.3/s0",
    ]


# Once, whatever happens.


def test_a_run_is_logged_once_and_replaced_when_it_changes(protocol_folder):
    folder = make_run(protocol_folder, status="failed")
    assert len(sync(protocol_folder).logged) == 1
    again = sync(protocol_folder)
    assert (len(again.logged), len(again.already)) == (0, 1)
    # The failed run is repeated and finishes: same address, other content.
    assert make_run(protocol_folder) == folder
    assert len(sync(protocol_folder).logged) == 1
    (only,) = logged().values()
    assert only.info.status == "FINISHED"
    assert len(logged("execution")) == 1


def test_rebuild_leaves_the_runs_of_others(protocol_folder):
    make_run(protocol_folder)
    sync(protocol_folder)
    foreign = client().create_run(experiment().experiment_id, run_name="mine").info.run_id
    before = logged()["early_fusion/random-0.3/s0"].info.run_id
    assert len(sync(protocol_folder, rebuild=True).logged) == 1
    assert logged()["early_fusion/random-0.3/s0"].info.run_id != before
    assert client().get_run(foreign).info.lifecycle_stage == "active"


def test_a_broken_run_does_not_keep_the_others_back(protocol_folder):
    broken = make_run(protocol_folder, seed=0)
    (broken / "run.json").write_text("{}")
    mirror = Mirror()
    mirror.start(protocol_folder)
    mirror.submit(broken)
    mirror.submit(make_run(protocol_folder, seed=1))
    report = mirror.close()
    assert (report.logged, report.waiting) == (1, (broken.name,))
    assert waiting(protocol_folder) == [broken.name]
    (failure,) = sync(protocol_folder).failed
    assert broken.name in failure.run


def test_kill_in_the_middle_then_two_at_once_leave_one_complete_run_per_address(protocol_folder):
    seeds = range(5)
    for seed in seeds:
        make_run(protocol_folder, seed=seed, epochs=250)
    command = [
        sys.executable,
        "-c",
        SYNC,
        str(protocol_folder),
    ]
    process = subprocess.Popen(command)
    database = sqlite3.connect("mlflow.db", timeout=10)
    count = "select count(*) from runs where name like 'early%'"
    deadline = time.monotonic() + 60
    while database.execute(count).fetchone()[0] < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= database.execute(count).fetchone()[0] < len(seeds)
    database.close()

    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=60) for process in both] == [("0\n", "")] * 2
    runs = logged()
    assert set(runs) == {f"early_fusion/random-0.3/s{seed}" for seed in seeds}
    for run_ in runs.values():
        assert run_.info.status == "FINISHED"
        assert len(client().get_metric_history(run_.info.run_id, "train/total")) == 250
        assert artifacts(run_) == {"run.json", "masks.csv"}
    assert [parent.info.status for parent in logged("execution").values()] == ["FINISHED"]


def test_an_unreachable_server_delays_logging_and_nothing_else(protocol_folder):
    mirror = Mirror(f"http://127.0.0.1:{closed_port()}")
    mirror.start(protocol_folder, Execution("bench.py --protocol mosi_test.toml"))
    began = time.monotonic()
    folders = [make_run(protocol_folder, seed=seed) for seed in range(3)]
    for folder in folders:
        mirror.submit(folder)
    assert time.monotonic() - began < 1
    began = time.monotonic()
    report = mirror.close(timeout=5)
    assert time.monotonic() - began < 8
    assert (report.logged, len(report.waiting)) == (0, 3)
    assert "3 runs wait for `bench.py mlflow sync`" in str(report)
    assert waiting(protocol_folder) == sorted(folder.name for folder in folders)

    assert len(sync(protocol_folder).logged) == 3
    assert waiting(protocol_folder) == []
    (parent,) = logged("execution").values()
    assert parent.data.tags["command"] == "bench.py --protocol mosi_test.toml"


def test_training_does_not_wait_for_mlflow_which_has_a_process_of_its_own(protocol_folder):
    make_run(protocol_folder)
    code = MIRROR + "assert mirror.close().logged == 1\n" + "sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(protocol_folder)]).returncode == 0


def test_without_a_run_there_is_nothing_to_wait_for(protocol_folder):
    """Ctrl-C in the first second does not wait until MLflow is imported."""
    code = MIRROR + "mirror.prepare()\nreport = mirror.close()\n"
    code += "print(report, logger.exitcode)\nassert report.logged == 0 and not report.waiting"
    done = subprocess.run(
        [sys.executable, "-c", code, str(protocol_folder)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, " -9\n", "")
    assert waiting(protocol_folder) == []
    assert sync(protocol_folder).failed == ()


def test_a_logger_that_dies_leaves_its_runs_waiting(protocol_folder):
    folder = make_run(protocol_folder)
    code = MIRROR.replace("for folder", "os.kill(logger.pid, signal.SIGKILL)\nfor folder")
    code += "print(mirror.close())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(protocol_folder)], capture_output=True, text=True, timeout=60
    )
    assert "1 run waits for `bench.py mlflow sync` (the process that logs to MLflow has ended)" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert waiting(protocol_folder) == [folder.name]


def test_the_logger_goes_when_its_command_is_killed(protocol_folder):
    """Also while it waits for a server that takes the request and never answers."""
    make_run(protocol_folder)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = MIRROR + "print(logger.pid, flush=True)\nsignal.pause()"
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", code, str(protocol_folder), uri]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        logger = int(process.stdout.readline())
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            process.kill()
            process.communicate()
            deadline = time.monotonic() + 10
            while Path(f"/proc/{logger}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not Path(f"/proc/{logger}").exists()


# The command.


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["sync", *arguments])


def test_the_command_says_what_it_did(protocol_folder, capsys):
    make_run(protocol_folder)
    (protocol_folder.parent.parent / "other.toml").write_text('name = "mosi_test"\n')
    assert run(parse("--protocol", "other.toml", "--json")) == 0
    assert len(json.loads(capsys.readouterr().out)["logged"]) == 1
    assert run(parse()) == 0
    assert "0 runs logged, 1 already there" in capsys.readouterr().out


def test_the_command_fails_when_the_server_does_not_answer(protocol_folder, capsys):
    make_run(protocol_folder)
    began = time.monotonic()
    assert run(parse("--tracking-uri", f"http://127.0.0.1:{closed_port()}")) == 1
    assert time.monotonic() - began < 15
    assert "1 runs wait" in capsys.readouterr().err


def test_the_command_names_missing_results(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        run(parse("--results", str(tmp_path / "nowhere")))


@pytest.mark.slow
def test_a_server_that_comes_late_gets_all_runs(protocol_folder, capfd):
    port = closed_port()
    mirror = Mirror(f"http://127.0.0.1:{port}")
    mirror.start(protocol_folder)
    mirror.submit(make_run(protocol_folder, seed=0))
    time.sleep(3)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [Path(sys.executable).with_name("mlflow"), "ui", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        mirror.submit(make_run(protocol_folder, seed=1))
        deadline = time.monotonic() + 90
        while waiting(protocol_folder) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert mirror.close().logged == 2
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert len(logged()) == 2
    assert capfd.readouterr() == ("", "")
