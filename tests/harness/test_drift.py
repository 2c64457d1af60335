"""Anchor drift: closed forms on hand-made representations, and real runs of a protocol."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.drift import anchor_drift, drift_table
from imer_bench.harness.errors import UserError
from imer_bench.harness.execute import execute
from imer_bench.harness.store import Store

from tiny import tiny_plan

# Two utterances a class around corners of a triangle with sides 3, 4 and 5: the scale is 4.
TRIANGLE = np.array([[0.0, 1], [0, -1], [3, 1], [3, -1], [0, 5], [0, 3]])
CLASSES = np.array([0, 0, 1, 1, 2, 2])


def test_nothing_moved_is_no_drift():
    drift = anchor_drift(TRIANGLE, TRIANGLE, CLASSES, 3)
    assert drift.by_class.tolist() == [0, 0, 0]
    assert (drift.common, drift.separation, drift.counts.tolist()) == (0, 1, [2, 2, 2])


def test_a_class_that_moves_by_the_scale_drifts_by_one():
    moved = TRIANGLE.copy()
    moved[2:4] += [4, 0]  # class 1 from (3, 0) to (7, 0): sides 7, 4 and sqrt(65)
    drift = anchor_drift(TRIANGLE, moved, CLASSES, 3)
    assert drift.by_class == pytest.approx([0, 1, 0])
    assert drift.mean == pytest.approx(1 / 3)
    assert drift.common == pytest.approx(1 / 3)
    assert drift.separation == pytest.approx((7 + 4 + 65**0.5) / 12)


def test_a_shift_of_everything_is_all_common_and_keeps_the_separation():
    drift = anchor_drift(TRIANGLE, TRIANGLE + np.array([0, 2]), CLASSES, 3)
    assert drift.by_class == pytest.approx([0.5, 0.5, 0.5])
    assert (drift.common, drift.separation) == pytest.approx((0.5, 1))


def test_collapse_to_one_point_has_no_separation():
    drift = anchor_drift(TRIANGLE, np.zeros_like(TRIANGLE), CLASSES, 3)
    assert drift.separation == 0
    assert drift.by_class == pytest.approx([0, 3 / 4, 1])


def test_unit_origin_and_rotation_do_not_matter_but_shrinking_only_in_the_raw_space():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 40, 5))
    classes = rng.integers(0, 4, 40)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    first = anchor_drift(before, after, classes, 4)
    second = anchor_drift(7 * before @ rotation + 3, 7 * after @ rotation + 3, classes, 4)
    assert second.by_class == pytest.approx(first.by_class)
    assert (second.common, second.separation) == pytest.approx((first.common, first.separation))
    assert anchor_drift(before, 0.5 * before, classes, 4).separation == pytest.approx(0.5)
    assert anchor_drift(before, 0.5 * before, classes, 4, "unit").by_class == pytest.approx(
        np.zeros(4), abs=1e-12
    )


def test_a_class_without_utterances_is_left_out():
    drift = anchor_drift(TRIANGLE, TRIANGLE + 1, CLASSES, 4)
    assert np.isnan(drift.by_class[3])
    assert drift.mean == pytest.approx(drift.by_class[:3].mean())


@pytest.mark.parametrize(
    ("complete", "incomplete", "classes", "message"),
    [
        (TRIANGLE, TRIANGLE[:4], CLASSES, "same utterances"),
        (TRIANGLE, TRIANGLE, np.zeros(6, int), "at least two classes"),
        (np.ones((6, 2)), TRIANGLE, CLASSES, "no scale"),
    ],
)
def test_what_has_no_drift_is_refused(complete, incomplete, classes, message):
    with pytest.raises(ValueError, match=message):
        anchor_drift(complete, incomplete, classes, 3)


METHODS = """
[[methods]]
name = "early_fusion"
parameters = { hidden = 8 }

[[methods]]
name = "momke"
parameters = { hidden = 8, depth = 1 }

[[methods]]
name = "ad_mcpd"
parameters = { shared_dim = 8, language_model = "random-t5-tiny" }

[[methods]]
name = "constant"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    plan = tiny_plan(folder, "compute.epochs=2", extra=METHODS)
    store = Store(folder / "results")
    assert execute(plan, store, Quiet()).failed == []
    return plan, store


def test_restored_models_are_measured_on_every_incomplete_condition(finished):
    table = drift_table(*finished)
    # late_fusion and three more have a representation; the constant has none.
    assert set(table["label"]) == {"late_fusion", "early_fusion", "momke", "ad_mcpd"}
    assert set(table["condition"]) == {"random-0.5", "fixed-t"}
    assert set(table["class"]) == {"negative", "neutral", "positive"}
    plan, _ = finished
    test = plan.data[0].samples.targets[plan.data[0].splits[None].test]
    one = table[(table["label"] == "ad_mcpd") & (table["condition"] == "fixed-t") & (table["space"] == "raw")]
    assert one["utterances"].tolist() == [(test < 0).sum(), (test == 0).sum(), (test > 0).sum()]
    drift, utterances = table["drift"].to_numpy(float), table["utterances"].to_numpy(int)
    assert np.array_equal(np.isnan(drift), utterances == 0)
    assert np.nanmin(drift) > 0


def test_rows_can_be_chosen(finished):
    assert set(drift_table(*finished, labels=["early_fusion"])["label"]) == {"early_fusion"}


def test_a_model_that_is_not_the_run_s_is_refused(finished):
    plan, store = finished
    stored = next(run for run in store.runs() if run.record["identity"]["label"] == "early_fusion")
    file = stored.folder / "model.safetensors"
    original = file.read_bytes()
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    try:
        with pytest.raises(UserError, match="early_fusion"):
            drift_table(plan, store, labels=["early_fusion"])
    finally:
        file.write_bytes(original)
