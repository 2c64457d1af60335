"""Several runs at a time in processes: the same numbers, and nothing lost when a process is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from commands import contents

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.errors import UserError
from imer_bench.harness.execute import execute
from imer_bench.harness.executors import memory, processes
from imer_bench.harness.executors.events import Remark
from imer_bench.harness.executors.memory import available_memory
from imer_bench.harness.executors.processes import ProcessWorkers
from imer_bench.harness.executors.request import PlanRequest
from imer_bench.harness.protocol.plan import make_plan
from imer_bench.harness.store import Store

from tiny import SEVERAL, tiny_plan, write_tiny

ROOT = Path(__file__).resolve().parents[3]
SUPPORT = ROOT / "tests" / "support"
WRONG = '[[methods]]\nname = "toys:GOES_WRONG"\nlabel = "wrong"\nparameters = { how = "{how}" }\n'
MATCHED = ["comparison.regime=matched", "train={seeds=[1,2]}", 'validation={conditions=["complete"]}']


def bench(folder: Path, *arguments: object, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "IMER_NO_MLFLOW": "1", "IMER_NO_REPORT": "1", "PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def workers(plan, store, jobs=2):
    return lambda: ProcessWorkers(PlanRequest.of(plan, store.folder), jobs)


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def worker_at_work(process: subprocess.Popen[str], folder: Path) -> psutil.Process:
    """The worker of a command that holds the first run with a checkpoint."""
    checkpoint = wait_for(lambda: list(folder.glob("work/*/checkpoint.safetensors")))[0]
    held = folder / "locks" / f"{checkpoint.parent.name}.lock"
    (victim,) = wait_for(
        lambda: [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if any(Path(file.path) == held for file in child.open_files())
        ]
    )
    return victim


def test_two_at_a_time_give_the_results_of_one_at_a_time_byte_for_byte(tmp_path):
    plan = tiny_plan(tmp_path, *MATCHED, extra=SEVERAL)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    execute(plan, one, Quiet())
    seen = []
    outcome = execute(plan, two, Quiet(), on_run=seen.append, workers=workers(plan, two))
    assert len(outcome.computed) == len(seen) == len(plan.runs) == 18
    assert contents(one.folder) == contents(two.folder)
    # Nothing is repeated, and nobody is started for nothing.
    again = execute(plan, two, Quiet(), workers=lambda: pytest.fail("workers for finished runs"))
    assert (again.reused, again.computed) == (18, [])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_whose_process_is_killed_continues_in_another_one(tmp_path):
    settings = [
        *("--set", "compute.epochs=40", "--set", "compute.patience=40"),
        *("--set", "compute.checkpoint_seconds=0", "--seeds", "1,2"),
    ]
    path = write_tiny(tmp_path)
    process = bench(tmp_path, "--protocol", path, "--jobs", "2", *settings)
    folder = tmp_path / "results" / "tiny"
    victim = worker_at_work(process, folder)
    victim.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "continues from its checkpoint" in err
    assert "2 runs computed" in out
    unbroken = bench(tmp_path, "--protocol", path, "--results", tmp_path / "whole", *settings)
    assert unbroken.wait() == 0
    assert contents(folder) == contents(tmp_path / "whole" / "tiny")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stack_whose_process_is_killed_continues_in_another_one(tmp_path):
    settings = [
        *("--set", "compute.epochs=40", "--set", "compute.patience=40", "--set", "compute.stack=2"),
        *("--set", "compute.checkpoint_seconds=0", "--seeds", "1,2,3,4"),
    ]
    path = write_tiny(tmp_path)
    process = bench(tmp_path, "--protocol", path, "--jobs", "2", *settings)
    folder = tmp_path / "results" / "tiny"
    victim = worker_at_work(process, folder)
    assert sum("locks" in file.path for file in victim.open_files()) == 2
    victim.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("continues from its checkpoint") == 2
    assert "4 runs computed" in out
    unbroken = bench(tmp_path, "--protocol", path, "--results", tmp_path / "whole", *settings)
    assert unbroken.wait() == 0
    # To rounding, as who is in a stack decides how its products are summed.
    whole = {run.folder.name: run for run in Store(tmp_path / "whole" / "tiny").runs()}
    found = {run.folder.name: run for run in Store(folder).runs()}
    assert whole.keys() == found.keys()
    assert len(found) == 4
    for name, run in found.items():
        tables = [pd.read_parquet(one.predictions) for one in (run, whole[name])]
        np.testing.assert_allclose(*(table["score"].to_numpy() for table in tables), atol=1e-4)


def test_a_method_that_kills_its_process_is_a_hole_and_the_rest_goes_on(tmp_path):
    plan = tiny_plan(tmp_path, extra=WRONG.replace("{how}", "killed") + '[[methods]]\nname = "constant"\n')
    store = Store(tmp_path / "results")
    outcome = execute(plan, store, Quiet(), workers=workers(plan, store))
    assert sorted(run.status for run in outcome.computed) == ["failed", "finished", "finished"]
    (failed,) = outcome.failed
    assert failed.record["error"]["type"] == "WorkerLost"
    assert "SIGKILL" in failed.record["error"]["message"]
    assert not (store.folder / "work" / failed.address).exists()


def test_a_run_that_hangs_is_stopped_by_force_once_it_is_silent_for_its_whole_limit(tmp_path):
    plan = tiny_plan(
        tmp_path,
        "compute.max_minutes=0.1",
        extra=WRONG.replace("{how}", "hang") + '[[methods]]\nname = "constant"\n',
    )
    store = Store(tmp_path / "results")
    outcome = execute(plan, store, Quiet(), workers=workers(plan, store))
    (failed,) = outcome.failed
    assert failed.record["error"]["type"] == "TimeLimit"
    assert len(outcome.computed) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_command(tmp_path, how):
    path = write_tiny(tmp_path)
    settings = [
        *("--set", "compute.epochs=100000", "--set", "compute.patience=100000"),
        *("--set", "compute.checkpoint_seconds=0", "--seeds", "1,2"),
    ]
    # A runner may start us with SIGINT ignored, which children inherit.
    process = bench(
        tmp_path,
        *("--protocol", path, "--jobs", "2", *settings),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    folder = tmp_path / "results" / "tiny"
    begun = 2 if available_memory() > 4 * 2**30 else 1  # as many as memory lasts for
    wait_for(
        lambda: len(list(folder.glob("work/*/checkpoint.safetensors"))) == begun or process.poll() is not None
    )
    assert process.poll() is None, process.communicate()
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "continues where it stopped" in err
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert not list(folder.glob("runs/*"))
    assert len(list(folder.glob("work/*/checkpoint.safetensors"))) >= begun


def test_workers_that_cannot_load_the_data_end_the_command_with_their_reason(tmp_path):
    (tmp_path / "toml").mkdir()
    plan = tiny_plan(tmp_path / "toml")
    store = Store(tmp_path / "results")
    gone = plan.protocol.model_copy(
        update={"data": (plan.protocol.data[0].model_copy(update={"set": "gone", "synthetic": None}),)}
    )
    request = PlanRequest.of(plan, store.folder)
    broken = PlanRequest(gone, request.source, request.execution, request.results, request.directory)
    with pytest.raises(UserError, match="gone"):
        execute(plan, store, Quiet(), workers=lambda: ProcessWorkers(broken, 2))
    assert not list(store.runs())


def test_data_made_in_memory_have_no_workers(tmp_path):
    plan = tiny_plan(tmp_path)
    with pytest.raises(UserError, match="in memory"):
        PlanRequest.of(make_plan(plan.protocol, plan.data, plan.execution), tmp_path)


def test_no_second_run_is_given_out_where_memory_would_not_last(tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path)
    some = ProcessWorkers(PlanRequest.of(plan, tmp_path / "results"), 4)
    monkeypatch.setattr(processes, "available_memory", lambda: 2**29)
    assert some.room(0)  # one run can always be tried
    assert not some.room(1)
    assert not some.room(1)
    assert [event.message.split(":")[0] for event in some.events(0) if isinstance(event, Remark)] == [
        "memory lasts for 1 of 4 runs at a time"
    ]
    monkeypatch.setattr(processes, "available_memory", lambda: 2**31)
    assert some.room(1)
    assert not some.room(4)


def test_file_caches_do_not_count_as_used_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_memory()
    assert free > 0  # no control group
    for name, text in [
        ("memory.max", f"{2**20}"),
        ("memory.current", f"{2**20 - 2**12}"),
        ("memory.stat", f"anon 5\ninactive_file {2**13}\nactive_file {2**14}\n"),
    ]:
        (tmp_path / name).write_text(text)
    assert available_memory() == 2**12 + 2**13 + 2**14
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 2**20


def test_jobs_and_executors_that_make_no_sense_are_refused(tmp_path):
    path = write_tiny(tmp_path)
    for arguments, code, words in [
        (("--jobs", "none"), 2, "auto"),
        (("--ray-address", "auto"), 1, "--executor ray"),
    ]:
        process = bench(tmp_path, "--protocol", path, *arguments)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert words in err


def test_costs_are_remembered_and_shown_by_the_plan(tmp_path):
    path = write_tiny(tmp_path, '[[methods]]\nname = "constant"\n')
    assert bench(tmp_path, "--protocol", path, "--methods", "constant").wait() == 0
    process = bench(tmp_path, "plan", "--protocol", path, "--seeds", "1,2", "--json", "--workers", "1,2")
    summary = json.loads(process.communicate(timeout=60)[0])
    assert summary["methods"]["constant"]["measured"] is True
    assert summary["methods"]["constant"]["seconds"] > 0
    assert summary["methods"]["late_fusion"]["seconds"] is None
    assert summary["estimate"]["runs"] == 3
    assert summary["estimate"]["known"] == 1
    assert [item["at_a_time"] for item in summary["estimate"]["workers"]] == [1, 2]
