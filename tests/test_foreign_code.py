"""Code from elsewhere runs when a protocol names it, and at no other time; runs say which it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imer_bench.harness.registry import foreign_code, method_info

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "tests" / "stores" / "schema-1" / "tiny"
# Every command that looks at methods or results without a protocol.
COMMANDS = """
import sys
from imer_bench.harness.cli import main
own = ["--no-report"]
for command in (["methods"], ["leaderboard", sys.argv[1], *own], ["verify", sys.argv[1], "--no-data"]):
    main(command)
"""


@pytest.fixture
def site(tmp_path):
    """An installed plug-in that leaves a file when it is imported."""
    site, trap = tmp_path / "site", tmp_path / "imported"
    package = site / "plugged_in"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    (package / "info.py").write_text(
        "from dataclasses import replace\nimport toys\nINFO = replace(toys.ANCHORS, name='plugged')\n"
    )
    meta = site / "plugged_in-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[imer_bench.methods]\nplugged = plugged_in.info:INFO\n")
    return site


def python(site: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (site, ROOT, ROOT / "tests" / "support")))
    environment = {**os.environ, "PYTHONPATH": path, "IMER_NO_MLFLOW": "1", "IMER_NO_REPORT": ""}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_results_and_lists_import_no_plug_in(site, tmp_path):
    store = Path(shutil.copytree(STORE, tmp_path / "tiny"))
    names = ("plugged", "plugged_in.info:INFO", "plugged_in:INFO")
    for run, name in zip(sorted(store.glob("runs/*/run.json")), names, strict=False):
        record = json.loads(run.read_text())
        record["identity"]["method"] = name
        run.write_text(json.dumps(record))
    done = python(site, COMMANDS, store)
    assert done.returncode == 0, done.stderr
    assert "plug-ins, not imported: plugged" in done.stdout
    assert (store / "leaderboard.md").is_file()
    assert not (tmp_path / "imported").exists()
    asked = python(site, "from imer_bench.harness.cli import main; main(['methods', 'plugged'])")
    assert "plugged" in asked.stdout
    assert (tmp_path / "imported").exists()


def test_the_code_of_a_package_is_hashed_whole(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    found, network = foreign_code(method_info("plugged_in.info:INFO"))
    assert network.module == "toys"  # its record names a network that lies elsewhere
    assert (found.module, found.place) == ("plugged_in", str(site / "plugged_in"))
    for name in ("info.py", "deeper/network.py"):
        before = foreign_code(method_info("plugged_in.info:INFO"))[0].sha256
        file = site / "plugged_in" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + "# changed\n")
        assert foreign_code(method_info("plugged_in.info:INFO"))[0].sha256 != before


def test_the_code_of_a_module_is_its_file():
    (found,) = foreign_code(method_info("toys:ANCHORS"))
    content = (ROOT / "tests" / "support" / "toys.py").read_bytes()
    assert (found.module, found.sha256) == ("toys", hashlib.sha256(content).hexdigest())
    assert foreign_code(method_info("late_fusion")) == ()
