"""Runs as tasks of Ray: a real local Ray, and a real cluster of which a machine is killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import contents

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.errors import UserError
from imer_bench.harness.execute import execute
from imer_bench.harness.executors.cluster import RayWorkers, connect
from imer_bench.harness.executors.request import PlanRequest
from imer_bench.harness.store import Store

from tiny import SEVERAL, tiny_plan, write_tiny

ray = pytest.importorskip("ray", reason="Ray is not installed")
ROOT = Path(__file__).resolve().parents[3]
SUPPORT = ROOT / "tests" / "support"
KILLED = """
[[methods]]
name = "toys:GOES_WRONG"
label = "killed"
parameters = { how = "killed" }
"""


@pytest.fixture(autouse=True)
def _paths(monkeypatch, tmp_path):
    """Workers find this checkout and the toys, and nothing of ours under the bare name `datasets`."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "imer_bench").symlink_to(ROOT / "imer_bench")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "path"), str(SUPPORT)]))
    yield
    ray.shutdown()


class Notes(Quiet):
    def __init__(self):
        self.started, self.epochs, self.notes = [], 0, []

    def run_started(self, run):
        self.started.append(run.address)

    def epoch_done(self, run, stage, step, loss):
        self.epochs += 1

    def note(self, text):
        self.notes.append(text)


@pytest.mark.slow
def test_ray_gives_the_results_of_this_process_and_a_dead_worker_is_a_hole(tmp_path):
    plan = tiny_plan(tmp_path, extra=SEVERAL + KILLED)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    display = Notes()
    request = PlanRequest.of(plan, two.folder)
    outcome = execute(plan, two, display, workers=lambda: RayWorkers(request, 2))
    (failed,) = outcome.failed
    assert failed.record["identity"]["label"] == "killed"
    assert failed.record["error"]["type"] == "WorkerLost"
    assert len(outcome.computed) == 4
    assert display.epochs > 0
    assert not ray.is_initialized()  # what was started here has ended here
    execute(tiny_plan(tmp_path, extra=SEVERAL), one, Quiet())
    assert contents(one.folder) == contents(two.folder)


def test_an_address_without_a_cluster_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1"):
        connect("127.0.0.1:1", 1)


@pytest.mark.slow
def test_nobody_else_may_join_the_ray_that_is_started_here():
    """Its servers listen on all interfaces, and who joins runs code."""
    code = "import ray; ray.init(address=sys.argv[1], log_to_driver=False); print('joined')"
    host = (
        "import os, subprocess, sys\n"
        "from imer_bench.harness.executors.cluster import connect\n"
        "assert connect(None, 1)\n"
        "import ray\n"
        "address = ray.get_runtime_context().gcs_address\n"
        "command = [sys.executable, '-c', 'import sys; ' + sys.argv[1], address]\n"
        "plain = {k: v for k, v in os.environ.items() if not k.startswith('RAY_AUTH')}\n"
        "guess = {**plain, 'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': '0' * 64}\n"
        "for env in (plain, guess, os.environ):\n"
        "    print(subprocess.run(command, env=env, capture_output=True).stdout.count(b'joined'))\n"
    )
    done = subprocess.run([sys.executable, "-c", host, code], capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "1"], done.stderr


@pytest.mark.slow
def test_a_killed_machine_loses_nothing_and_doubles_nothing(tmp_path):
    from ray.cluster_utils import Cluster

    plan = tiny_plan(
        tmp_path,
        "compute.epochs=150",
        "compute.patience=100000",  # no run ends before the machine does
        "compute.checkpoint_seconds=0",
        "train.seeds=[1, 2, 3]",
        extra=SEVERAL,
    )
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    execute(plan, one, Quiet())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        killed = []

        class Kills(Notes):
            """Kills a machine when each has one run that has left a checkpoint."""

            def __init__(self):
                super().__init__()
                self.steps = {}

            def epoch_done(self, run, stage, step, loss):
                self.steps[run.address] = step
                if not killed and sum(step > 2 for step in self.steps.values()) == len(nodes):
                    killed.append(time.monotonic())
                    cluster.remove_node(nodes[0], allow_graceful=False)

            def run_ended(self, run, stored):
                super().run_ended(run, stored)
                self.steps.pop(run.address, None)

        display = Kills()
        request = PlanRequest.of(plan, two.folder)
        outcome = execute(plan, two, display, workers=lambda: RayWorkers(request, 1, cluster.address))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed
    assert any("continues from its checkpoint" in note for note in display.notes)
    addresses = [run.address for run in outcome.computed]
    assert sorted(addresses) == sorted(run.address for run in plan.runs)
    assert {run.status for run in outcome.computed} == {"finished"}
    assert contents(one.folder) == contents(two.folder)
    assert not list((two.folder / "work").glob("*"))


@pytest.mark.slow
def test_a_study_is_shared_by_workers_of_ray(tmp_path):
    path = write_tiny(tmp_path)
    arguments = ("--method", "late_fusion", "--trials", "4", "--executor", "ray", "--jobs", "2", "--no-plots")
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench.py"), "tune", "--protocol", str(path), *arguments, "--json"],
        cwd=tmp_path,
        env={**os.environ, "IMER_NO_MLFLOW": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "results/tiny/studies/late_fusion/summary.json").read_text())
    assert summary["budget"]["counted"] == 4
    assert summary["budget"]["failed"] == 0
