"""A method that goes wrong, in any of its hooks and in any way: a hole, a reason, and the rest goes on."""

import gc
import json
import re
import time
from pathlib import Path

import pytest
from commands import bench, contents
from failing import FAULTS, HOOKS, WELL

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.execute import execute
from imer_bench.harness.store import Store

from tiny import tiny_plan, write_tiny

# Hooks are called many times; these go wrong in the second stage or in the test.
LATER = [("start_stage", 2), ("losses", 3), ("predict", 4), ("end_stage", 2), ("training_state", 3)]
CASES = [
    *((hook, 1, "error") for hook in HOOKS if hook != "load_training_state"),
    *((hook, call, "error") for hook, call in LATER),
    *(("training_step", 2, how) for how in FAULTS if how != "error"),
    *((hook, 1, "device memory") for hook in ("__init__", "predict")),
]
WORDS = {
    "error": ("RuntimeError", "the method broke"),
    "wordless": ("Wordless", "can't say what it is about"),
    "exit": ("SystemExit", "the method asked the process to exit with 3"),
    "stop": ("StopIteration", "StopIteration"),
    "recursion": ("RecursionError", "recursion depth"),
    "host memory": ("MemoryError", "out of memory; a smaller batch_size needs less"),
    "torch memory": ("RuntimeError", "out of memory; a smaller batch_size needs less"),
    "device memory": ("OutOfMemoryError", "out of memory; a smaller batch_size needs less"),
}
# One condition and few resamples: these tests are about failures, not about tables.
SETTINGS = ("compute.checkpoint_seconds=0", "test={conditions=['complete']}", "leaderboard.resamples=100")
QUICK = tuple(part for setting in SETTINGS for part in ("--set", setting))


def label(where: str, call: int, how: str) -> str:
    return f"{where} {call} {how}"


def entry(where: str, call: int, how: str) -> str:
    parameters = f'{{ where = "{where}", call = {call}, how = "{how}" }}'
    name = label(where, call, how)
    return f'[[methods]]\nname = "failing:INFO"\nlabel = "{name}"\nparameters = {parameters}\n'


def records(folder: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in folder.glob("results/tiny/runs/*/run.json")]
    return {record["identity"]["label"]: record for record in found}


EXTRA = "".join(entry(*case) for case in CASES) + '[[methods]]\nname = "constant"\n'


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """The folder, protocol and answer of a command whose methods fail, and the records it left."""
    folder = tmp_path_factory.mktemp("disturbed")
    path = write_tiny(folder, EXTRA)
    gc.freeze()  # every failure collects garbage, among all that other tests have loaded
    answer = bench(folder, "--protocol", path, *QUICK)
    gc.unfreeze()
    return folder, answer, records(folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: label(*case))
def test_a_fault_in_any_hook_is_recorded_and_said(disturbed, case):
    _, answer, before = disturbed
    kind, words = WORDS[case[2]]
    record = before[label(*case)]
    assert record["status"] == "failed"
    assert record["error"]["type"] == kind
    assert words in record["error"]["message"]
    assert "failing.py" in record["error"]["traceback"]
    said = " ".join(answer.err.split())  # lines are wrapped
    assert re.search(rf"failed [^:]*{re.escape(label(*case))}[^:]*: {kind}: [^:]*{re.escape(words)}", said)


def test_the_rest_is_finished_and_the_command_says_what_is_not(disturbed):
    folder, answer, before = disturbed
    assert answer.code == 1
    assert {name for name, record in before.items() if record["status"] == "finished"} == {
        "late_fusion",
        "constant",
    }
    assert f"{len(CASES) + 2} runs computed, 0 reused, {len(CASES)} without a result" in answer.out
    assert "--retry" in answer.out
    assert "0/1" in answer.out
    assert "Traceback" not in answer.err
    assert not list((folder / "results" / "tiny" / "work").iterdir()), "no checkpoint of a failed run is left"


@pytest.mark.parametrize(
    "cases", [pytest.param(CASES, marks=pytest.mark.slow, id="all"), pytest.param(CASES[5:23:6], id="some")]
)
def test_once_the_fault_is_gone_retry_gives_the_numbers_of_an_undisturbed_run(tmp_path, monkeypatch, cases):
    plan = tiny_plan(tmp_path, *SETTINGS, extra="".join(entry(*case) for case in cases))
    repaired, whole = Store(tmp_path / "repaired"), Store(tmp_path / "whole")
    assert len(execute(plan, repaired, Quiet()).failed) == len(cases)
    monkeypatch.setenv(WELL, "1")
    again = execute(plan, repaired, Quiet(), retry=True)
    assert (len(again.computed), again.failed) == (len(cases), [])
    assert len(execute(plan, whole, Quiet()).computed) == len(cases) + 1
    assert contents(repaired.folder) == contents(whole.folder)


def test_a_fault_while_a_run_is_continued_is_recorded_and_retry_starts_it_anew(tmp_path, monkeypatch):
    case = ("load_training_state", 1, "error")
    path = write_tiny(tmp_path, entry(*case))

    def interrupt(self, epoch, validation):
        if self.calls["training_state"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("failing.Failing.end_epoch", interrupt)
        assert bench(tmp_path, "--protocol", path, *QUICK).code == 130
    assert list(tmp_path.glob("results/tiny/work/*/checkpoint.safetensors"))
    assert bench(tmp_path, "--protocol", path, *QUICK).code == 1
    found = records(tmp_path)
    assert (found[label(*case)]["status"], found["late_fusion"]["status"]) == ("failed", "finished")
    assert bench(tmp_path, "--protocol", path, *QUICK, "--retry").code == 0
    assert bench(tmp_path, "--protocol", path, *QUICK, "--results", "whole", **{WELL: "1"}).code == 0
    assert contents(tmp_path / "results" / "tiny") == contents(tmp_path / "whole" / "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["loops", "swallows", "sleeps"])
def test_a_method_that_never_comes_back_is_stopped_at_its_time_limit(disturbed, tmp_path, monkeypatch, how):
    def hang(self, batch):
        while True:
            try:
                time.sleep(0 if how == "loops" else 60)
            except Exception:
                if how != "swallows" or self.calls["swallowed"]:
                    raise
                self.calls["swallowed"] += 1

    path = write_tiny(tmp_path, entry("", 1, "error") + '[[methods]]\nname = "constant"\n')
    limit = ("--set", "compute.max_minutes=0.05")
    with monkeypatch.context() as patch:
        patch.setattr("failing.Failing.predict", hang)
        answer = bench(tmp_path, "--protocol", path, *QUICK, *limit)
    assert answer.code == 1
    found = records(tmp_path)
    assert found[label("", 1, "error")]["error"]["type"] == "TimeLimit"
    assert "time limit of 0.05 minutes reached" in answer.err
    assert [found[name]["status"] for name in ("late_fusion", "constant")] == ["finished"] * 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nonsense_of_mine", "nonsense_of_mine"),
        ("raise RuntimeError('no licence found')", "RuntimeError: no licence found"),
        ("def broken(:", "SyntaxError"),
        ("INFO = 3", "not a MethodInfo"),
        ("raise SystemExit(4)", "SystemExit: 4"),
    ],
)
def test_foreign_code_that_cannot_be_imported_is_named_before_anything_runs(
    tmp_path, monkeypatch, code, words
):
    name = f"foreign_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    path = write_tiny(tmp_path, f'[[methods]]\nname = "{name}:INFO"\n')
    answer = bench(tmp_path, "--protocol", path)
    assert answer.code == 1
    assert name in answer.err
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "results").exists()
