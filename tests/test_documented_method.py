"""The method of docs/add-a-method.md works as it is printed, in under 80 lines."""

import re
import sys
from pathlib import Path

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.execute import execute
from imer_bench.harness.registry import method_info
from imer_bench.harness.store import Store

from tiny import tiny_plan

PAGE = Path(__file__).resolve().parent.parent / "docs" / "add-a-method.md"


def test_the_documented_method_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"`methods/gated_mean/(\w+\.py)`\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    files = dict(blocks)
    assert set(files) == {"info.py", "model.py"}
    assert sum(len(text.splitlines()) for text in files.values()) < 80
    package = tmp_path / "gated_mean"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert method_info("gated_mean.info:INFO").title == "gated mean"
        plan = tiny_plan(tmp_path, "methods.0={name='gated_mean.info:INFO'}", "compute.epochs=8")
        (stored,) = execute(plan, Store(tmp_path / "results"), Quiet()).computed
    finally:
        for name in [name for name in sys.modules if name.startswith("gated_mean")]:
            del sys.modules[name]
    assert stored.status == "finished", stored.record["error"]
    scores = {name: values["wf1"] for name, values in stored.record["metrics"]["test"].items()}
    assert scores["complete"] > 0.5
