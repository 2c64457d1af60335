"""Results that were touched by hand, damaged, or written by another version of this project."""

import json
import shutil
from pathlib import Path

import pytest

from imer_bench.harness.cli import main
from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.errors import UserError
from imer_bench.harness.execute import execute
from imer_bench.harness.report import boards_of_plan, boards_of_store
from imer_bench.harness.run_file import RUN_SCHEMA, NewerRun
from imer_bench.harness.store import Store

from tiny import tiny_plan

STORES = Path(__file__).resolve().parents[1] / "stores"
CONSTANT = '[[methods]]\nname = "constant"\n'


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """A store with two finished runs, and their plan."""
    folder = tmp_path_factory.mktemp("computed")
    plan = tiny_plan(folder, extra=CONSTANT)
    execute(plan, Store(folder / "tiny"), Quiet())
    return plan, folder / "tiny"


@pytest.fixture
def store(computed, tmp_path):
    return Store(shutil.copytree(computed[1], tmp_path / "tiny"))


def folder_of(store: Store, label: str) -> Path:
    (folder,) = store.folder.glob(f"runs/{label}-*")
    return folder


def alter(folder: Path, **changes) -> None:
    file = folder / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGE = {
    "no run.json": lambda folder: (folder / "run.json").unlink(),
    "cut off": lambda folder: (folder / "run.json").write_bytes((folder / "run.json").read_bytes()[:999]),
    "bytes": lambda folder: (folder / "run.json").write_bytes(bytes(range(256))),
    "deep": lambda folder: (folder / "run.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "run.json").write_text("[]"),
    "huge number": lambda folder: (folder / "run.json").write_text('{"schema": ' + "9" * 5000 + "}"),
    "no schema": lambda folder: alter(folder, schema=None),
    "wrong type": lambda folder: alter(folder, identity={"label": 3}),
    "other address": lambda folder: alter(folder, address="0" * 16),
    "no metrics": lambda folder: alter(folder, metrics=None),
    "no predictions": lambda folder: (folder / "predictions.parquet").unlink(),
    "short predictions": lambda folder: (folder / "predictions.parquet").write_bytes(b"PAR1"),
    "no manifest": lambda folder: (folder / "manifest.json").write_text("{}"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_is_a_named_hole_until_it_is_repeated(computed, store, kind):
    plan = computed[0]
    folder = folder_of(store, "late_fusion")
    DAMAGE[kind](folder)
    outcome = execute(plan, store, Quiet())
    assert (outcome.computed, outcome.reused) == ([], 2)
    (failed,) = outcome.failed
    assert failed.status == "damaged"
    assert str(folder) in failed.record["error"]["message"]
    (board,) = boards_of_plan(plan, store)
    row = next(row for row in board.rows if row.label == "late_fusion")
    assert {cell.state for cell in row.cells["wf1"].values()} == {"hole"}
    assert any("late_fusion" in note and str(folder) in note for note in board.notes)
    # Without the plan it is either a hole, or a warning that says what the table lacks.
    (board,) = boards_of_store(store)
    assert any(str(folder) in text for text in (*board.notes, *board.warnings))


def test_retry_repeats_a_damaged_run_and_gives_the_same_numbers(computed, store):
    plan, original = computed
    folder = folder_of(store, "late_fusion")
    (folder / "run.json").write_text("{")
    (again,) = execute(plan, store, Quiet(), retry=True).computed
    assert again.folder == folder
    for name in ("predictions.parquet", "model.safetensors"):
        assert (folder / name).read_bytes() == (original / "runs" / folder.name / name).read_bytes()
    assert not execute(plan, store, Quiet()).failed


def test_predictions_of_another_run_are_a_hole(computed, store):
    folder = folder_of(store, "late_fusion")
    (folder / "manifest.json").unlink()  # as of a store of schema 1
    other = tiny_plan(store.folder, "train.seeds=[2]")
    execute(other, store, Quiet())
    shutil.copy(next(store.folder.glob("runs/*-seed2-*/predictions.parquet")), folder)
    boards = boards_of_plan(computed[0], store)
    assert any("seed is 2, in run.json it is 1" in note for note in boards[0].notes)


def test_predictions_that_only_look_whole_are_a_hole(computed, store):
    file = folder_of(store, "late_fusion") / "predictions.parquet"
    content = bytearray(file.read_bytes())
    content[100:-100] = bytes(len(content) - 200)
    file.write_bytes(content)
    (board,) = boards_of_plan(computed[0], store)
    assert any("predictions.parquet" in note for note in board.notes)


@pytest.mark.parametrize("command", ["leaderboard", "compare", "plan", "run"])
def test_no_command_shows_a_traceback_on_a_damaged_store(computed, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMER_NO_MLFLOW", "1")
    monkeypatch.setenv("IMER_NO_REPORT", "1")
    tiny_plan(tmp_path, extra=CONSTANT)
    store = Store(shutil.copytree(computed[1], tmp_path / "results" / "tiny"))
    (folder_of(store, "late_fusion") / "run.json").write_text("{")
    arguments = {
        "leaderboard": ["leaderboard", "tiny"],
        "compare": ["compare", "results/tiny", "results/tiny"],
        "plan": ["plan", "--protocol", "tiny.toml"],
        "run": ["--protocol", "tiny.toml"],
    }[command]
    code = main(arguments)
    output = capsys.readouterr()
    assert code == (0 if command in ("leaderboard", "plan") else 1)
    if command != "plan":
        assert "run.json" in output.out + output.err


def test_nothing_readable_is_an_error_that_names_a_file(store):
    for folder in store.folder.glob("runs/*"):
        (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        boards_of_store(store)


def test_runs_of_an_older_schema_are_read(tmp_path):
    """``stores/schema-1`` was made by commit 833b1ed, before runs had a manifest."""
    store = Store(STORES / "schema-1" / "tiny")
    runs = {run.record["identity"]["label"]: run for run in store.runs()}
    assert {run.schema for run in runs.values()} == {1}
    assert {label: run.status for label, run in runs.items()} == {
        "constant": "finished",
        "late_fusion": "finished",
        "wrong": "failed",
    }
    (board,) = boards_of_store(store)
    cell = next(row for row in board.rows if row.label == "late_fusion").cells["wf1"]["complete"]
    assert cell.mean == runs["late_fusion"].record["metrics"]["test"]["complete"]["wf1"]


def test_a_run_of_a_newer_schema_stops_every_command_and_is_not_repeated(computed, store):
    folder = folder_of(store, "late_fusion")
    alter(folder, schema=RUN_SCHEMA + 1)
    for read in (
        lambda: boards_of_store(store),
        lambda: boards_of_plan(computed[0], store),
        lambda: execute(computed[0], store, Quiet(), retry=True),
    ):
        with pytest.raises(NewerRun, match=f"schema {RUN_SCHEMA + 1}"):
            read()
    assert folder.is_dir()
