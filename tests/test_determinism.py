"""The same protocol gives the same numbers, whatever is different about how it is called."""

import os
import subprocess
import sys
from pathlib import Path

from commands import contents

from tiny import write_tiny

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests" / "support"
METHODS = [
    '[[methods]]\nname = "constant"\n',
    '[[methods]]\nname = "toys:TWO_STAGES"\nlabel = "stages"\n',
    '[[methods]]\nname = "toys:ANCHORS"\nlabel = "anchors"\n',
    '[[methods]]\nname = "gcnet"\nparameters = { hidden = 4, epochs = 2 }\n',
]
# Time runs 400 days ahead, and backwards by a little at every look at it.
OTHER_CLOCK = """
import time
_time, _looks = time.time, 0
def shifted():
    global _looks
    _looks += 1
    return _time() + 400 * 86400 - 0.001 * _looks
time.time = shifted
"""


def bench(folder: Path, *arguments: object, **environment: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "bench.py"),
            *map(str, arguments),
            "--no-report",
            "--no-mlflow",
            "--quiet",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_another_order_day_place_and_number_of_jobs_change_no_bit(tmp_path):
    here, there, site = (tmp_path / name for name in ("here", "there at another place", "site"))
    for folder in (here, there, site):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(OTHER_CLOCK)
    bench(here, "--protocol", write_tiny(here, "".join(METHODS)), "--seeds", "1,2")
    other = write_tiny(there, "".join(reversed(METHODS)))
    changed = {
        "PYTHONPATH": os.pathsep.join([str(site), str(SUPPORT)]),
        "PYTHONHASHSEED": "12345",
        "TZ": "Pacific/Chatham",
        "LC_ALL": "C",
        "HOME": str(there),
    }
    before = os.umask(0o077)
    try:
        arguments = ("--protocol", other, "--seeds", "2,1")
        bench(there, *arguments, "--jobs", "2", **changed)
    finally:
        os.umask(before)
    ours, theirs = contents(here / "results" / "tiny"), contents(there / "results" / "tiny")
    assert len(ours) == 2 * 2 * 5
    assert ours == theirs
