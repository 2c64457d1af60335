"""The command as its user calls it: real processes, real kills."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tiny import write_tiny
from warm import bench

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests" / "support"


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "bench.py"), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "IMER_NO_MLFLOW": "1",
        "IMER_NO_REPORT": "1",
        "PYTHONPATH": str(SUPPORT),
        "COLUMNS": "120",
        **more,
    }


def cold(folder: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """A call that also starts Python; ``bench`` starts from one that has imported everything."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=120
    )


def results(folder: Path) -> dict[str, pd.DataFrame]:
    return {
        path.parent.name: pd.read_parquet(path) for path in sorted(folder.glob("runs/*/predictions.parquet"))
    }


def assert_same_results(one: Path, other: Path) -> None:
    left, right = results(one), results(other)
    assert left.keys() == right.keys()
    assert left
    for name, frame in left.items():
        pd.testing.assert_frame_equal(frame, right[name], check_exact=True)
        weights = [(folder / "runs" / name / "model.safetensors").read_bytes() for folder in (one, other)]
        assert weights[0] == weights[1]


def test_a_protocol_runs_and_prints_its_leaderboard(tmp_path):
    path = write_tiny(tmp_path, '[[methods]]\nname = "constant"\n')
    done = cold(tmp_path, "--protocol", path)
    assert done.returncode == 0, done.stderr
    for words in ("late_fusion", "constant", "no information", "SYNTHETIC", "1/1", "random-0.5"):
        assert words in done.stdout
    folder = tmp_path / "results" / "tiny"
    assert {item.name for item in folder.glob("leaderboard.*")} == {
        "leaderboard.md",
        "leaderboard.csv",
        "leaderboard.json",
    }
    again = bench(tmp_path, "run", "--protocol", path, "--json")
    assert json.loads(again.stdout)
    remade = bench(tmp_path, "leaderboard", "tiny")
    assert remade.returncode == 0, remade.stderr
    assert "late_fusion" in remade.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["plan", "--help"],
        ["data", "--help"],
        ["mlflow", "--help"],
        ["parity", "--help"],
        ["--version"],
    ],
)
def test_help_is_there_and_loads_nothing_heavy(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command(*arguments)[1:]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.strip()
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & {"torch", "pandas", "mlflow", "transformers", "numpy", "pydantic"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--protocol", "absent.toml"], 1, "no such protocol file"),
        (["rnu"], 2, "did you mean 'run'"),
        (["--protocol", "tiny.toml", "--set", "compute.epoch=3"], 1, "did you mean 'epochs'"),
        (["--protocol", "tiny.toml", "--set", "data={set='cmu_mosi'}"], 1, "data import"),
        (["--protocol", "tiny.toml", "--shard", "3/2"], 2, "I/N"),
        (["leaderboard", "tini"], 1, "no results"),
        (["methods", "late_fusoin"], 1, "did you mean 'late_fusion'"),
    ],
)
def test_what_goes_wrong_ends_in_a_message_and_a_code(tmp_path, arguments, code, words):
    write_tiny(tmp_path)
    done = cold(tmp_path, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_results_can_be_compared_and_looked_at_per_class(tmp_path):
    path = write_tiny(tmp_path, '[[methods]]\nname = "early_fusion"\n')
    assert bench(tmp_path, "--protocol", path, "--seeds", "1,2,3").returncode == 0
    folder = tmp_path / "results" / "tiny"
    compared = bench(tmp_path, "compare", "late_fusion", "early_fusion", "--in", folder)
    assert compared.returncode == 0, compared.stderr
    assert "late_fusion" in compared.stdout
    assert "early_fusion" in compared.stdout
    same = bench(tmp_path, "compare", folder, folder)
    assert same.returncode == 0, same.stderr
    unknown = bench(tmp_path, "compare", "late_fusoin", "early_fusion", "--in", folder)
    assert unknown.returncode == 1
    assert "late_fusoin" in unknown.stderr
    per_class = bench(tmp_path, "leaderboard", "tiny", "--per-class", "fixed-t")
    assert "recall negative" in per_class.stdout
    wrong = bench(tmp_path, "leaderboard", "tiny", "--per-class", "fixed-q")
    assert wrong.returncode == 1
    assert "fixed-t" in wrong.stderr


def test_a_failed_run_gives_exit_code_one_and_a_table_with_a_hole(tmp_path):
    path = write_tiny(tmp_path, '[[methods]]\nname = "toys:GOES_WRONG"\nlabel = "wrong"\n')
    done = bench(tmp_path, "--protocol", path)
    assert done.returncode == 1
    assert "the method broke" in done.stderr
    assert "0/1" in done.stdout


def test_shards_fill_one_folder_and_merge_by_themselves(tmp_path):
    path = write_tiny(tmp_path, '[[methods]]\nname = "constant"\n')
    first = bench(tmp_path, "--protocol", path, "--shard", "1/2")
    assert "0/1" in first.stdout
    second = bench(tmp_path, "--protocol", path, "--shard", "2/2")
    assert "0/1" not in second.stdout
    assert len(results(tmp_path / "results" / "tiny")) == 2


def test_synthetic_stand_ins_have_a_folder_and_a_mark_of_their_own(tmp_path):
    path = write_tiny(tmp_path)
    settings = ["--set", "data={set='cmu_mosi'}", "--synthetic", "--synthetic-scale", "0.1"]
    done = bench(tmp_path, "--protocol", path, *settings)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    assert (tmp_path / "results" / "tiny-SYNTHETIC" / "leaderboard.md").is_file()


def test_ctrl_c_ends_cleanly_and_leaves_a_checkpoint(tmp_path):
    path = write_tiny(tmp_path)
    settings = ["compute.epochs=100000", "compute.patience=100000", "compute.checkpoint_seconds=0"]
    process = subprocess.Popen(
        command("--protocol", path, *(part for setting in settings for part in ("--set", setting))),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background of a shell ignores the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = tmp_path / "results" / "tiny"
    begun = time.monotonic()
    while not list(folder.glob("work/*/checkpoint.safetensors")) and time.monotonic() - begun < 60:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "continues where it stopped" in errors
    assert "Traceback" not in errors
    assert list(folder.glob("work/*/checkpoint.safetensors"))
    assert not list(folder.glob("runs/*"))


def test_two_commands_at_once_do_nothing_twice(tmp_path):
    path = write_tiny(tmp_path)
    arguments = ["--protocol", path, "--seeds", "1,2,3,4"]
    processes = [
        subprocess.Popen(
            command(*arguments), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    computed = [
        int(line.split()[0]) for text in outputs for line in text.splitlines() if "runs computed" in line
    ]
    assert sum(computed) == 4
    assert len(results(tmp_path / "results" / "tiny")) == 4


def test_hugging_face_datasets_and_ours_live_in_one_environment(tmp_path):
    """A user's method imports the library `datasets`, although our folder has the same name."""
    site = tmp_path / "site"
    (site / "datasets").mkdir(parents=True)
    (site / "datasets" / "__init__.py").write_text("def load_dataset():\n    return 'from the library'\n")
    (site / "theirs.py").write_text(
        "import datasets\n"
        "import toys\n"
        "from dataclasses import replace\n"
        "assert datasets.load_dataset() == 'from the library'\n"
        "INFO = replace(toys.ANCHORS, name='theirs')\n"
    )
    path = write_tiny(tmp_path, '[[methods]]\nname = "theirs:INFO"\n')
    done = cold(tmp_path, "--protocol", path, PYTHONPATH=f"{SUPPORT}{os.pathsep}{site}")
    assert done.returncode == 0, done.stderr
    assert "theirs" in done.stdout
    run = next((tmp_path / "results" / "tiny" / "runs").glob("theirs*/run.json"))
    notes = json.loads(run.read_text())["marks"]["notes"]
    digest = hashlib.sha256((site / "theirs.py").read_bytes()).hexdigest()
    said = f"foreign code: theirs:INFO (module theirs, {site / 'theirs.py'}, SHA-256 {digest})"
    assert said in notes
    table = (tmp_path / "results" / "tiny" / "leaderboard.md").read_text().replace("\\_", "_")
    assert said in " ".join(table.split())


def test_nothing_of_ours_takes_a_bare_name(tmp_path):
    """Installed, the packages are imer_bench.*; `datasets`, `methods`, `harness` stay free."""
    code = (
        "import importlib.util as u, imer_bench.harness, imer_bench.datasets.synthetic\n"
        "found = [n for n in ('methods', 'harness') if u.find_spec(n)]\n"
        "assert not found, found\n"
        "spec = u.find_spec('datasets')\n"
        f"assert spec is None or not any({str(ROOT)!r} in p for p in spec.submodule_search_locations), spec\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
