"""MLflow that is out of reach in any way: the runs are unharmed, it is said, and a sync brings them later."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import pytest
from commands import Answer, bench, contents
from locks import held
from places import mounted, remount
from servers import break_off, forwarding, ramble, refuse, serving, stall

from tiny import write_tiny

SETTINGS = ("test={conditions=['complete']}", "leaderboard.resamples=100", "compute.epochs=1")
QUICK = tuple(part for setting in SETTINGS for part in ("--set", setting))
WAITS = "run waits for `bench.py mlflow sync`"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results without MLflow."""
    folder = tmp_path_factory.mktemp("whole")
    assert bench(folder, "--protocol", write_tiny(folder), *QUICK).code == 0
    return contents(folder / "results" / "tiny")


def run(folder: Path, uri: str, *arguments: object) -> Answer:
    path = write_tiny(folder)
    return bench(
        folder,
        *("--protocol", path, *QUICK, *arguments),
        IMER_NO_MLFLOW="",
        MLFLOW_TRACKING_URI=uri,
        MLFLOW_HTTP_REQUEST_TIMEOUT="1",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )


def sync(folder: Path, uri: str) -> Answer:
    return bench(
        folder,
        "mlflow",
        "sync",
        "--tracking-uri",
        uri,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        IMER_NO_MLFLOW="",
    )


def mirrored(uri: str) -> Counter[str | None]:
    """How often each run is in a store; runs that are not complete are not counted."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    ids = [item.experiment_id for item in client.search_experiments()]
    runs = client.search_runs(ids, "tags.kind = 'run'")
    assert {item.info.status for item in runs} <= {"FINISHED"}
    return Counter(item.info.run_name for item in runs)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refuse, "ResponseError"),
        (stall, "ReadTimeoutError"),
        (break_off, "Connection broken"),
        (ramble, "JSON"),
    ],
)
def test_a_server_that_answers_wrongly_late_or_in_part(tmp_path, whole, answer, words):
    with serving(answer) as uri:
        done = run(tmp_path, uri)
    assert done.code == 0, "MLflow is a copy: its faults are no fault of the runs"
    assert WAITS in done.err
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 2, "a line about the runs, one about MLflow"
    assert "1 runs computed" in done.out
    assert contents(tmp_path / "results" / "tiny") == whole


def test_sync_says_that_a_server_fails_and_leaves_everything_for_the_next_time(tmp_path):
    with serving(refuse) as uri:
        run(tmp_path, uri)
        done = sync(tmp_path, uri)
    assert done.code == 1
    assert "MLflow is out of reach" in done.err
    assert "1 runs wait for the next `bench.py mlflow sync`" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_database_that_another_process_holds(tmp_path, whole):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert run(tmp_path, uri).code == 0
    with held(tmp_path / "mlflow.db"):
        done = run(tmp_path, uri, "--seeds", "1,2")
        assert done.code == 0
        assert WAITS in done.err
        locked = sync(tmp_path, uri)
        assert locked.code == 1
        assert "locked" in locked.err
    assert whole.items() <= contents(tmp_path / "results" / "tiny").items()
    assert sync(tmp_path, uri).code == 0
    assert mirrored(uri) == {"late_fusion/random-0.3/s1": 1, "late_fusion/random-0.3/s2": 1}


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_database(tmp_path, whole):
    with mounted(tmp_path / "disk", "size=100k") as disk:
        uri = f"sqlite:///{disk / 'mlflow.db'}"
        done = run(tmp_path, uri)
        assert done.code == 0
        assert WAITS in done.err
        assert "mlflow.db: No space left on device" in done.err
        assert contents(tmp_path / "results" / "tiny") == whole
        assert sync(tmp_path, uri).code == 1
        remount(disk, "size=64m")
        assert sync(tmp_path, uri).code == 0
        run(tmp_path, "http://127.0.0.1:9", "--seeds", "2,3,4,5,6,7,8,9")
        used = shutil.disk_usage(disk).used
        # From here it is full in the middle of the eight runs.
        for more in (12, 40, 80):
            remount(disk, f"size={used // 1024 + more}k")
            assert sync(tmp_path, uri).code == 1
        remount(disk, "size=64m")
        assert sync(tmp_path, uri).code == 0
        assert mirrored(uri) == {f"late_fusion/random-0.3/s{seed}": 1 for seed in range(1, 10)}


@pytest.fixture
def server(tmp_path):
    """MLflow's own server: its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("mlflow"), "ui", "--port", str(port), "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 90
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end, "MLflow's server does not start"
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_server_that_fails_after_any_number_of_requests(tmp_path, server):
    path = tmp_path / "work"
    path.mkdir()
    cut = 0
    with serving(forwarding(server, 9)) as uri:  # in the middle of the first run
        assert run(path, uri, "--seeds", "1,2,3").code == 0
    for requests in (0, 1, 2, 3, 5, 7, 9, 11, 13, 17, 23, 30):
        with serving(forwarding(server, requests)) as uri:
            done = sync(path, uri)
        if done.code:
            cut += 1
            assert "MLflow is out of reach" in done.err
            assert "Traceback" not in done.err
    assert cut >= 8
    uri = f"http://127.0.0.1:{server}"
    assert sync(path, uri).code == 0
    assert mirrored(uri) == {f"late_fusion/random-0.3/s{seed}": 1 for seed in (1, 2, 3)}
