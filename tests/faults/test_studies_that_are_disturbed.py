"""Studies on a full disk, a held database, with a trial that hangs: no trial is lost or counted for it."""

import csv
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import bench
from locks import held
from places import mounted, remount
from small_studies import quick_databases

from imer_bench.harness.studies import study as studies

from tiny import write_tiny

END_EPOCH = "tunable.Tunable.end_epoch"
ENTRY = '[[methods]]\nname = "tunable:INFO"\nlabel = "small"\n'
TUNE = ("--method", "small", "--trials", "3", "--no-plots", "--set", "tune.space.tunable={fault=false}")


def tune(folder: Path, *arguments: object):
    quick_databases()
    path = write_tiny(folder, ENTRY + '[tune]\nconditions = ["complete"]\npruner = "none"\n')
    return bench(folder, "tune", "--protocol", path, *TUNE, *arguments)


def counted(results: Path) -> list[dict[str, str]]:
    """What the study found: every trial that counts, without what differs from time to time."""
    with (results / "tiny" / "studies" / "small" / "trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["state"] != "LOST"]
    return [
        {k: v for k, v in row.items() if k not in ("number", "seconds", "retry_of", "worker")} for row in rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The trials of a study that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert tune(folder).code == 0
    trials = counted(folder / "results")
    assert [row["state"] for row in trials] == ["COMPLETE"] * 3
    return trials


@pytest.mark.slow
@pytest.mark.parametrize("step", [24, 8])
def test_a_disk_that_is_full_wherever_it_stops_the_study(tmp_path, whole, step):
    with mounted(tmp_path / "disk", "size=104k") as disk:
        room, answer = 104, tune(tmp_path, "--results", disk / "results")
        while answer.code:
            assert "disk is full; the same command continues" in answer.err or "No space left" in answer.err
            assert "Traceback" not in answer.err
            room += step
            remount(disk, f"size={room}k")
            answer = tune(tmp_path, "--results", disk / "results")
        assert room >= 104 + 2 * step
        assert counted(disk / "results") == whole


def test_predictions_that_cannot_be_written_are_no_fault_of_the_trial(tmp_path, whole):
    with mounted(tmp_path / "disk", "size=24k") as disk:
        storage = ("--storage", f"sqlite:///{tmp_path / 'studies.db'}", "--results", disk / "results")
        answer = tune(tmp_path, *storage)
        assert answer.code == 1
        assert "No space left on device; the same command continues once it can be written" in answer.err
        remount(disk, "size=1m")
        assert tune(tmp_path, *storage).code == 0
        assert counted(disk / "results") == whole


def disturb(monkeypatch, epoch, action):
    """Does something once, when so many epochs of the study are over."""
    calls = iter(range(1000))

    def end_epoch(self, _epoch, validation):
        if next(calls) == epoch:
            action()

    monkeypatch.setattr(END_EPOCH, end_epoch)


@pytest.mark.slow
def test_a_database_that_another_process_holds_from_the_start_or_the_middle(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(studies, "_TURN_SECONDS", 0.1)
    database = tmp_path / "results" / "studies.db"
    with ExitStack() as stack:
        disturb(monkeypatch, 4, lambda: stack.enter_context(held(database)))
        answer = tune(tmp_path)
        assert answer.code == 1
        assert "database is locked; another process holds it" in answer.err
        assert "Traceback" not in answer.err
        again = tune(tmp_path)
        assert again.code == 1
        assert "database is locked; another process holds it" in again.err
    assert tune(tmp_path).code == 0
    assert counted(tmp_path / "results") == whole


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_study_that_is_asked_to_end_goes_on_as_the_unbroken_one(tmp_path, whole, monkeypatch, number, code):
    with monkeypatch.context() as patch:
        disturb(patch, 4, lambda: os.kill(os.getpid(), number))
        answer = tune(tmp_path)
    assert answer.code == code
    assert "the same command continues where it stopped" in answer.err
    assert tune(tmp_path).code == 0
    assert counted(tmp_path / "results") == whole


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_and_has_failed(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        disturb(patch, 4, lambda: time.sleep(600))
        answer = tune(tmp_path, "--set", "compute.max_minutes=0.05")
    assert answer.code == 0, answer.err
    assert "TimeLimit: time limit of 0.05 minutes reached" in answer.err
    states = [row["state"] for row in counted(tmp_path / "results")]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]
