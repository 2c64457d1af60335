"""A protocol that runs in a second, as a file and as a plan."""

from __future__ import annotations

import tomllib
from pathlib import Path

from imer_bench.harness.protocol.data import DataSource, load_data
from imer_bench.harness.protocol.load import Overrides, load_protocol
from imer_bench.harness.protocol.plan import Execution, Plan, make_plan

TINY = """
schema = 1
name = "tiny"

[data]
set = "synthetic"

[data.synthetic]
dialogues = [12, 5, 6]
mean_length = 6

[comparison]
regime = "single"

[train]
schedule = "random-0.3"
seeds = [1]

[validation]
conditions = ["complete"]

[test]
conditions = ["complete", "random-0.5", "fixed-t"]
mask_seeds = [201, 202]

[compute]
epochs = 3

[[methods]]
name = "late_fusion"
parameters = { hidden = 8 }
"""

# More of its methods, one with a stage that seeds share.
SEVERAL = """
[[methods]]
name = "constant"

[[methods]]
name = "toys:TWO_STAGES"
label = "stages"
parameters = { epochs = 4, stage1_epochs = 2 }
"""


def write_tiny(folder: Path, extra: str = "") -> Path:
    """Writes the tiny protocol, with more lines at its end, and returns the file."""
    path = folder / "tiny.toml"
    path.write_text(TINY + extra, encoding="utf-8")
    tomllib.loads(path.read_text(encoding="utf-8"))
    return path


def tiny_plan(folder: Path, *settings: str, extra: str = "", source: DataSource | None = None) -> Plan:
    """The plan of the tiny protocol under some ``key=value`` settings."""
    protocol = load_protocol(write_tiny(folder, extra), Overrides(settings))
    execution = Execution.of(protocol, "cpu")
    source = source or DataSource()
    return make_plan(protocol, load_data(protocol, source), execution, source)
