"""Results folders that are full, read-only, elsewhere, or oddly named: real file systems in memory."""

import errno
import fcntl
import json
import os
import resource
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import bench, contents
from places import mounted, remount

from tiny import write_tiny

WRONG = (
    '[[methods]]\nname = "constant"\n[[methods]]\nname = "failing:INFO"\nparameters = { where = "losses" }\n'
)
SETTINGS = ("compute.checkpoint_seconds=0", "test={conditions=['complete']}", "leaderboard.resamples=100")
QUICK = tuple(part for setting in SETTINGS for part in ("--set", setting))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results of the same command where nothing is in its way."""
    folder = tmp_path_factory.mktemp("whole")
    assert bench(folder, "--protocol", write_tiny(folder, WRONG), *QUICK).code == 1
    return contents(folder / "results" / "tiny")


@pytest.fixture
def run(tmp_path):
    """The command with one method that finishes, one that has no training, and one that fails."""
    path = write_tiny(tmp_path, WRONG)
    return lambda *arguments, **more: bench(tmp_path, "--protocol", path, *QUICK, *arguments, **more)


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(path.read_text())["status"] for path in folder.glob("runs/*/run.json"))


@pytest.mark.parametrize(
    ("limit", "first", "step"),
    [
        ("size", 8, 24),
        pytest.param("size", 4, 4, marks=pytest.mark.slow),
        pytest.param("nr_inodes", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_is_full_wherever_it_stops_the_command(run, tmp_path, whole, limit, first, step):
    """The disk grows a little whenever it is full, so that it is full at every file in turn."""
    unit = "k" if limit == "size" else ""
    with mounted(tmp_path / "disk", f"{limit}={first}{unit}") as disk:
        folder = disk / "results" / "tiny"
        answer, room, full_at = run("--results", disk / "results"), first, set()
        while "No space left on device" in answer.err:
            assert answer.code == 1
            assert str(folder) in answer.err, "the message names the file"
            assert "Traceback" not in answer.err
            full_at.add(Path(answer.err.split("can't write ")[-1].split(":")[0]).name)
            assert set(statuses(folder)) <= {"finished", "failed"}
            assert bench(tmp_path, "verify", folder).code == 0 or not statuses(folder), (
                "all that is there is whole"
            )
            room += step
            remount(disk, f"{limit}={room}{unit}")
            answer = run("--results", disk / "results")
        assert (room - first) / step >= 3
        assert len(full_at) >= 3
        assert "3 runs, 3 in the store already" in answer.err or "without a result" in answer.out
        assert statuses(folder) == ["failed", "finished", "finished"]
        assert "the method broke" in (next(folder.glob("runs/failing*/run.json"))).read_text()
        assert contents(folder) == whole


def test_a_limit_on_the_size_of_files(run, tmp_path, whole):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        answer = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.code == 1
    assert "can't write results/tiny" in answer.err
    assert "File too large; the same command continues once it can be written" in answer.err
    assert not statuses(tmp_path / "results" / "tiny")
    run()
    assert contents(tmp_path / "results" / "tiny") == whole


def test_a_read_only_folder(run, tmp_path, whole):
    with mounted(tmp_path / "disk") as disk:
        remount(disk, "ro")
        answer = run("--results", disk / "results")
        assert answer.code == 1
        assert str(disk / "results") in answer.err
        assert "Read-only file system" in answer.err
        assert "Traceback" not in answer.err
        remount(disk, "rw")
        run("--results", disk / "results")
        assert contents(disk / "results" / "tiny") == whole


def test_a_folder_that_turns_read_only_in_the_middle_of_a_run(run, tmp_path, whole, monkeypatch):
    folder = tmp_path / "results"
    with ExitStack() as stack:
        calls = iter(range(100))

        def lose(self, epoch, validation):
            if next(calls) == 1:
                stack.enter_context(mounted(folder, "ro"))

        monkeypatch.setattr("imer_bench.methods.late_fusion.model.LateFusion.end_epoch", lose)
        answer = run()
    assert answer.code == 1
    assert "Read-only file system; the same command continues once it can be written" in answer.err
    assert not statuses(folder / "tiny")
    assert list(folder.glob("tiny/work/*/checkpoint.safetensors"))
    run()
    assert contents(folder / "tiny") == whole


def test_results_behind_a_symbolic_link_on_another_file_system_than_temporary_files(run, tmp_path, whole):
    with mounted(tmp_path / "disk") as disk:
        (tmp_path / "linked").symlink_to(disk, target_is_directory=True)
        (tmp_path / "temporary").mkdir()
        answer = run("--results", "linked/results", TMPDIR=str(tmp_path / "temporary"))
        assert "2 reused" not in answer.out
        assert contents(disk / "results" / "tiny") == whole
        again = run("--results", disk / "results")
        assert "0 runs computed, 3 reused" in again.out
        assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_runs_moved_to_another_file_system_behind_a_link_are_refused_by_name(run, tmp_path, whole):
    with mounted(tmp_path / "disk") as disk:
        (tmp_path / "results" / "tiny").mkdir(parents=True)
        runs = tmp_path / "results" / "tiny" / "runs"
        runs.symlink_to(disk, target_is_directory=True)
        answer = run()
        assert answer.code == 1
        assert "can't write results/tiny/runs/" in answer.err
        assert "cross-device link" in answer.err
        runs.unlink()
        run()
        assert contents(tmp_path / "results" / "tiny") == whole


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_share_that_has_no_locks_is_said_and_nothing_is_computed(run, tmp_path, monkeypatch, number):
    """As NFS without its lock service answers; there is none here, so that the call is replaced."""

    def no_locks(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    answer = run()
    assert answer.code == 1
    assert "can't write results/tiny/locks/" in answer.err
    assert os.strerror(number) in answer.err
    assert not statuses(tmp_path / "results" / "tiny")


ODD = [
    "Ünïcode–名前 🙂",
    "x\u202e\u0007 right to left",
    "../../up",
    'quotes " and \\ and $(rm)',
    "<b>&amp;</b>",
    "=1+1",
]


def test_names_of_any_kind_are_only_names(tmp_path):
    rows = "".join(
        f'[[methods]]\nname = "failing:INFO"\nparameters = {{ call = {index} }}\n'
        f"label = {json.dumps(label, ensure_ascii=False)}\n"
        for index, label in enumerate(ODD)
    )
    results = tmp_path / "Ergebnisse 🙂 名前" / ("a" * 200)
    path = write_tiny(tmp_path, rows)
    answer = bench(tmp_path, "--protocol", path, *QUICK, "--results", results)
    assert answer.code == 0, answer.err
    folder = results / "tiny"
    assert statuses(folder) == ["finished"] * (len(ODD) + 1)
    assert "\u202e" not in answer.out
    assert "\x07" not in answer.out
    labels = {json.loads(item.read_text())["identity"]["label"] for item in folder.glob("runs/*/run.json")}
    assert labels == {*ODD, "late_fusion"}
    assert not (tmp_path / "up").exists()
    assert bench(tmp_path, "verify", folder).code == 0
    again = bench(tmp_path, "--protocol", path, *QUICK, "--results", results)
    assert f"0 runs computed, {len(ODD) + 1} reused" in again.out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set", f"name={'n' * 300}"], "at most 80 characters"),
        (["--set", "name=../up"], "name"),
        (["--set", "name=名前"], "name"),
        (["--set", f"methods=[{{name='constant', label='{'l' * 300}'}}]"], "at most 60 characters"),
        (["--set", f"data={{set='{'d' * 300}'}}"], "d" * 60),
        (["--set", "data={set='名前'}"], "名前"),
        (["--results", "r" * 300], "File name too long"),
        (["--data-root", "r" * 300, "--set", "data={set='cmu_mosi'}"], "cmu_mosi"),
    ],
)
def test_names_that_cannot_be_used_are_refused_before_anything_is_made(tmp_path, settings, words):
    answer = bench(tmp_path, "--protocol", write_tiny(tmp_path), *settings)
    assert answer.code == 1
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert [item.name for item in tmp_path.iterdir()] == ["tiny.toml"]
