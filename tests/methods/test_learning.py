"""Every method learns, and text carries most: the quickstart with one seed."""

from pathlib import Path

import pytest

from imer_bench.harness.api import plan_protocol, run_plan
from imer_bench.harness.registry import method_names

QUICKSTART = Path(__file__).resolve().parent.parent.parent / "protocols" / "quickstart.toml"


@pytest.mark.slow
def test_every_method_beats_no_information_and_misses_text_most(tmp_path):
    results = run_plan(plan_protocol(QUICKSTART, seeds=[1]), tmp_path / "results")
    assert results.outcome.failed == []
    (board,) = results.boards
    scores = {
        row.label: {name: cell.mean for name, cell in row.cells["wf1"].items() if cell.mean is not None}
        for row in board.rows
    }
    nothing = scores.pop("no information")["complete"]
    scores.pop("constant")
    assert set(scores) == set(method_names()) - {"constant"}
    for label, own in scores.items():
        assert own["complete"] > nothing + 0.10, label
        assert own["fixed-av"] < min(own["fixed-ta"], own["fixed-tv"]), label
