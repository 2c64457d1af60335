"""Tables are made again whenever anything they depend on has changed, and only then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imer_bench.harness.cli import main

from tiny import write_tiny

ROOT = Path(__file__).resolve().parents[3]
STORE = Path("results") / "tiny"
TABLE = STORE / "leaderboard.md"
RUN = ["--protocol", "tiny.toml", "--no-mlflow", "--no-report"]
MAKE = ["leaderboard", "tiny", "--no-report"]

Shown = Callable[..., str]


EXTRA = """
[[methods]]
name = "constant"

[leaderboard]
resamples = 100
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a protocol and its finished runs."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["--protocol", str(write_tiny(folder, EXTRA)), "--results", str(folder / "results")]
    assert main([*arguments, "--no-mlflow", "--no-report", "--quiet"]) == 0
    return folder


@pytest.fixture
def shown(finished, tmp_path, monkeypatch, capsys) -> Shown:
    """Calls a command in a folder with finished runs, and answers what it prints."""

    def call(*arguments: str) -> str:
        assert main(arguments) == 0
        return capsys.readouterr().out

    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return call


def made_anew(shown: Shown, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command prints of the same runs where nothing was ever shown."""
    here, other = Path.cwd(), Path.cwd().parent / "other"
    shutil.copytree(here, other)
    for path in (*(other / STORE).glob("leaderboard.*"), other / STORE / "tables.json"):
        path.unlink(missing_ok=True)
    monkeypatch.chdir(other)
    text = shown(*arguments)
    monkeypatch.chdir(here)
    return text


def state(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.parametrize("arguments", [RUN, MAKE])
def test_nothing_is_made_again_while_nothing_changes(shown, arguments):
    first, before = shown(*arguments), state(TABLE)
    again = shown(*arguments)
    assert again == first
    assert "late_fusion" in again
    assert state(TABLE) == before
    assert shown(*arguments, "--json") == (STORE / "leaderboard.json").read_text()
    assert state(TABLE) == before


def scores_change() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = next(STORE.glob("runs/late_fusion*/predictions.parquet"))
    table = pq.read_table(path)
    frame = table.to_pandas()
    for name in [name for name in frame if name == "score" or name.startswith("class_")]:
        frame[name] = frame[name].to_numpy()[::-1]
    pq.write_table(pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False), path)
    (path.parent / "manifest.json").unlink()


def run_is_damaged() -> None:
    next(STORE.glob("runs/late_fusion*/predictions.parquet")).write_bytes(b"no table")


def note_changes() -> None:
    path = next(STORE.glob("runs/constant*/run.json"))
    path.write_text(path.read_text().replace('"profile": "default"', '"profile": "other"'))


def row_is_removed() -> None:
    shutil.rmtree(next(STORE.glob("runs/constant*")))


@pytest.mark.parametrize("change", [scores_change, run_is_damaged, note_changes, row_is_removed])
def test_changed_runs_are_seen(shown, monkeypatch, change):
    before = shown(*MAKE)
    change()
    expected = made_anew(shown, monkeypatch, *MAKE)
    assert shown(*MAKE) == expected != before


def test_runs_of_other_commands_are_seen(shown, monkeypatch):
    before = shown(*RUN)
    shown(*RUN, "--seeds", "2")
    now = shown(*RUN)
    assert now == made_anew(shown, monkeypatch, *RUN)
    assert "2/2" in now
    assert "2/2" not in before


@pytest.mark.parametrize("setting", ["leaderboard.confidence=0.9", "leaderboard.relevant_difference=0.05"])
def test_changed_settings_are_seen(shown, monkeypatch, setting):
    shown(*RUN)
    changed = [*RUN, "--set", setting]
    expected = made_anew(shown, monkeypatch, *changed)
    assert shown(*changed) == expected
    assert (Path("../other") / TABLE).read_text() == TABLE.read_text()


def test_changed_quotations_and_options_are_seen(shown):
    quoted = Path("published.csv")
    lines = "source,data_set,metric,method,condition,value\nA paper,synthetic,wf1,late_fusion,complete,{}\n"
    quoted.write_text(lines.format(77.7))
    assert "77.7" in shown(*RUN, "--published", str(quoted))
    quoted.write_text(lines.format(66.6))
    assert "66.6" in shown(*RUN, "--published", str(quoted))
    assert "Published numbers" not in shown(*RUN)


@pytest.mark.parametrize("name", ["leaderboard.md", "leaderboard.csv", "leaderboard.json"])
def test_touched_and_removed_files_are_made_again(shown, name):
    path, first = STORE / name, shown(*RUN)
    content = path.read_bytes()
    for spoil in (lambda: path.write_bytes(content[:-2] + b"?\n"), path.unlink):
        spoil()
        assert shown(*RUN) == first
        assert path.read_bytes() == content


@pytest.mark.parametrize("spoilt", ["edited", "cut", "empty", "no object"])
def test_what_was_kept_is_not_believed_if_it_was_touched(shown, spoilt):
    first, kept = shown(*RUN), STORE / "tables.json"
    text = kept.read_text()
    changed = {"edited": text.replace("late_fusion", "best_fusion"), "cut": text[:100], "empty": ""}
    kept.write_text(changed.get(spoilt, "[]"))
    assert shown(*RUN) == first
    assert kept.read_text() == text


def test_new_code_makes_new_tables(shown, tmp_path):
    """A copy of the project with another legend, on the same results."""
    assert "the order of rows is no claim" in shown(*RUN)
    for part in ("harness", "methods", "datasets"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "imer_bench", tmp_path / "imer_bench", symlinks=True)
    shutil.copy(ROOT / "bench.py", tmp_path)
    source = tmp_path / "harness" / "leaderboard" / "render.py"
    source.write_text(source.read_text().replace("the order of rows is no claim", "rows stand anyhow"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bench.py"), *RUN],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "rows stand anyhow" in done.stdout
    assert "0 runs computed" in done.stdout
    assert "rows stand anyhow" in TABLE.read_text()


def test_the_report_is_drawn_again_only_when_something_is_missing(shown):
    arguments = [item for item in RUN if item != "--no-report"]
    shown(*arguments)
    page, figure = STORE / "report.html", min((STORE / "figures").iterdir())
    before = state(page)
    shown(*arguments)
    assert state(page) == before
    content = figure.read_bytes()
    figure.write_bytes(content[:-1])
    shown(*arguments)
    assert state(page) != before
    assert figure.read_bytes() == content
