"""Every shipped protocol runs: on generated data of its data set's shape, and on real data where at hand."""

from pathlib import Path

import pytest

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.corpus.importers import import_data
from imer_bench.harness.execute import execute
from imer_bench.harness.protocol.data import DataSource, load_data
from imer_bench.harness.protocol.load import Overrides, load_protocol
from imer_bench.harness.protocol.plan import Execution, Plan, make_plan
from imer_bench.harness.report import boards_of_plan
from imer_bench.harness.store import Store

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted((ROOT / "protocols").rglob("*.toml"))
MOSI = ROOT.parent / "shared" / "data" / "cmu_mosi"
CPU = Execution("cpu", 1, "float32")
QUICK = ("compute.epochs=1", "leaderboard.resamples=100")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "protocols").with_suffix(""))


def plan_of(path: Path, source: DataSource, *settings: str, methods: tuple[str, ...] | None = None) -> Plan:
    protocol = load_protocol(path, Overrides(settings, methods, (1,)))
    return make_plan(protocol, load_data(protocol, source), CPU)


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_it_expands_to_runs_of_every_method(path):
    plan = plan_of(path, DataSource(synthetic=True, scale=0.05))
    rows = {run.variant.label for run in plan.runs}
    assert len(rows) == len(plan.protocol.methods)
    # A method applies to all of a protocol or to none of it, and then says why.
    assert len({(run.variant.label, bool(run.skip)) for run in plan.runs}) == len(rows)
    assert any(not run.skip for run in plan.runs)
    hashes = {run.comparison_hash for run in plan.runs}
    assert len(hashes) == 1


# What presets have of their own are conditions, which only take time to test here.
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * ("presets" in path.parts)) for path in SHIPPED],
    ids=name,
)
def test_it_runs_and_is_marked_synthetic(tmp_path, path):
    source = DataSource(synthetic=True, scale=0.04)
    # The conditions of the corpora's protocols are the same everywhere; presets run with all of theirs.
    few = [] if "presets" in path.parts else ['test.conditions=["complete", "random-0.3", "fixed-t"]']
    plan = plan_of(path, source, *QUICK, *few, methods=("late_fusion", "constant"))
    store = Store(tmp_path / "results")
    assert execute(plan, store, Quiet()).failed == []
    for board in boards_of_plan(plan, store):
        assert board.synthetic
        assert board.test_selected == (plan.protocol.comparison.selection == "test")
        cells = [cell for row in board.rows for cell in row.cells["wf1"].values()]
        assert all(cell.state == "value" for cell in cells)


@pytest.mark.skipif(not MOSI.is_dir(), reason="the real CMU-MOSI features are not at hand")
@pytest.mark.parametrize("protocol", ["mosi_small", "mosi_clean"])
def test_it_runs_on_real_cmu_mosi(tmp_path, protocol):
    import_data("auto", [MOSI], "cmu_mosi", tmp_path)
    path = ROOT / "protocols" / f"{protocol}.toml"
    plan = plan_of(
        path, DataSource(tmp_path), *QUICK, "compute.epochs=8", methods=("late_fusion", "constant")
    )
    store = Store(tmp_path / "results")
    assert execute(plan, store, Quiet()).failed == []
    (board,) = boards_of_plan(plan, store)
    assert not board.synthetic
    scores = {row.label: row.cells["wf1"]["complete"].mean for row in board.rows}
    # The data's README: logistic regression has 77.1 and 75.1 per cent, no information 42.3 and 45.6.
    assert scores["late_fusion"] > 0.68
    assert scores["late_fusion"] > scores["no information"] + 0.2
    text = {row.label: row.cells["wf1"]["fixed-t"].mean for row in board.rows}
    audio = {row.label: row.cells["wf1"]["fixed-a"].mean for row in board.rows}
    assert text["late_fusion"] > audio["late_fusion"] + 0.1
