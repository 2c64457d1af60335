"""The benchmarks are one command."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_figures_are_printed_and_written(tmp_path):
    done = benchmarks("masks", "--quick", "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(figure["value"] > 0 and figure["what"] in done.stdout for figure in figures)


def test_an_unknown_section_is_refused_by_name():
    done = benchmarks("mask")
    assert done.returncode == 2
    assert "'mask'" in done.stderr
    assert "masks" in done.stderr
