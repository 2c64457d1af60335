"""Faults that need processes of their own; all of it is slow."""

import json
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from commands import bench, contents, finish, start
from failing import WELL
from places import mounted, remount

from tiny import write_tiny

pytestmark = pytest.mark.slow

SETTINGS = ("test={conditions=['complete']}", "leaderboard.resamples=100", "compute.checkpoint_seconds=0")
QUICK = tuple(part for setting in SETTINGS for part in ("--set", setting))
SEEDS = ("--seeds", "1,2,3,4,5,6,7,8,9,10")


def unbroken(folder: Path, *arguments: object, extra: str = "") -> dict[str, bytes]:
    (folder / "whole").mkdir()
    bench(
        folder / "whole", "--protocol", write_tiny(folder / "whole", extra), *QUICK, *arguments, **{WELL: "1"}
    )
    return contents(folder / "whole" / "results" / "tiny")


def computed(out: str) -> int:
    (line,) = [line for line in out.splitlines() if "runs computed" in line]
    return int(line.split()[0])


@pytest.mark.parametrize("count", [2, 8])
def test_commands_on_one_folder_compute_every_run_once(tmp_path, count):
    path = write_tiny(tmp_path)
    answers = [
        finish(process)
        for process in [start(tmp_path, "--protocol", path, *QUICK, *SEEDS) for _ in range(count)]
    ]
    assert [answer.code for answer in answers] == [0] * count, answers
    assert sum(computed(answer.out) for answer in answers) == 10
    assert contents(tmp_path / "results" / "tiny") == unbroken(tmp_path, *SEEDS)


def test_a_clock_that_jumps_by_weeks_changes_nothing(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, for a clock that jumps")
    source = Path(__file__).parents[1] / "support" / "jumping_clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "clock.so", source, "-ldl"], check=True)
    jumping = {"LD_PRELOAD": str(tmp_path / "clock.so")}
    path = write_tiny(tmp_path, '[tune]\nconditions = ["complete"]\npruner = "none"\n')
    limit = ("--set", "compute.max_minutes=2")
    both = [
        start(tmp_path, "--protocol", path, *QUICK, *SEEDS, *limit, environment=jumping) for _ in range(2)
    ]
    answers = [finish(process) for process in both]
    assert [answer.code for answer in answers] == [0, 0], answers
    assert sum(computed(answer.out) for answer in answers) == 10
    assert contents(tmp_path / "results" / "tiny") == unbroken(tmp_path, *SEEDS, *limit)
    assert bench(tmp_path, "verify", tmp_path / "results" / "tiny").code == 0
    study = ("tune", "--protocol", path, "--method", "late_fusion", "--trials", "3", "--no-plots")
    tuned = [start(tmp_path, *study, environment=jumping) for _ in range(2)]
    assert [finish(process).code for process in tuned] == [0, 0]
    states = Counter(
        line.split(",")[1] for line in next(tmp_path.glob("results/*/studies/*/trials.csv")).open()
    )
    assert states["COMPLETE"] == 3
    assert states["FAIL"] == 0


@pytest.mark.parametrize("what", ["numpy.ones(2**33)", "torch.ones(2**34)", "bytearray(2**36)"])
def test_more_memory_than_the_process_may_have_is_one_hole(tmp_path, what):
    code = f"import numpy, torch\nfrom failing import FAULTS, INFO\nFAULTS['greedy'] = lambda: {what}\n"
    (tmp_path / "greedy.py").write_text(code)
    entry = '[[methods]]\nname = "greedy:INFO"\nparameters = { where = "losses", call = 2, how = "greedy" }\n'
    path = write_tiny(tmp_path, entry + '[[methods]]\nname = "constant"\n')
    support = Path(__file__).parents[1] / "support"
    answer = finish(
        start(
            tmp_path,
            *("--protocol", path, *QUICK),
            environment={"PYTHONPATH": f"{support}:{tmp_path}"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (48 * 2**30,) * 2),
        )
    )
    assert answer.code == 1
    assert "out of memory; a smaller batch_size needs less" in " ".join(answer.err.split())
    assert "3 runs computed, 0 reused, 1 without a result" in answer.out
    found = [json.loads(item.read_text()) for item in tmp_path.glob("results/tiny/runs/*/run.json")]
    assert Counter(record["status"] for record in found) == {"finished": 2, "failed": 1}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_command_that_is_asked_to_end_leaves_no_process_and_continues(tmp_path, jobs):
    path = write_tiny(tmp_path)
    command = ("--protocol", path, *QUICK, "--seeds", "1,2", "--jobs", jobs, "--set", "compute.epochs=300")
    command = (*command, "--set", "compute.patience=300")
    process = start(tmp_path, *command)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("results/tiny/work/*/checkpoint.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    answer = finish(process)
    assert answer.code == 143
    assert "terminated; the same command continues where it stopped" in answer.err
    assert "Traceback" not in answer.err
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert finish(start(tmp_path, *command)).code == 0
    assert contents(tmp_path / "results" / "tiny") == unbroken(tmp_path, *command[2 + len(QUICK) :])


@pytest.mark.slow
def test_workers_on_a_full_disk_end_the_command_and_no_run_has_failed_for_it(tmp_path):
    path = write_tiny(tmp_path)
    with mounted(tmp_path / "disk", "size=120k") as disk:
        command = (
            "--protocol",
            path,
            *QUICK,
            "--seeds",
            "1,2,3",
            "--jobs",
            "2",
            "--results",
            disk / "results",
        )
        answer = finish(start(tmp_path, *command))
        assert answer.code == 1
        assert "No space left on device; the same command continues" in answer.err
        assert "Traceback" not in answer.err
        found = [json.loads(item.read_text()) for item in disk.glob("results/tiny/runs/*/run.json")]
        assert {record["status"] for record in found} <= {"finished"}
        remount(disk, "size=8m")
        assert finish(start(tmp_path, *command)).code == 0
        assert contents(disk / "results" / "tiny") == unbroken(tmp_path, "--seeds", "1,2,3")
