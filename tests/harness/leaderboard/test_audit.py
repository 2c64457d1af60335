"""Audit of selection: points that choosing the epoch on the test set would have added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imer_bench.harness.leaderboard.audit import AuditedRun, audit_cells, audit_tables, read_audited
from imer_bench.harness.leaderboard.table import TableError


def run(label: str = "m", seed: int = 1, chosen: int = 1, primary: str = "wf1", **scores) -> AuditedRun:
    found = scores or {"complete": (0.70, 0.72, 0.75), "fixed-t": (0.66, 0.60, 0.62)}
    return AuditedRun(label, "mosi", "single", "c0ffee", seed, primary, chosen, found)


def test_inflation_of_a_hand_made_example():
    # Seed 1 chose epoch 1: complete 0.75 - 0.72, fixed-t 0.66 - 0.60; means of the epochs are 0.68, 0.66
    # and 0.685, so one epoch for both conditions gives 0.685 - 0.66. Seed 2 chose the best epoch.
    second = run(seed=2, chosen=0, complete=(0.8, 0.7), **{"fixed-t": (0.6, 0.5)})
    (table,) = audit_tables([run(), second])
    (row,) = table.rows
    assert row.by_condition["complete"].mean == pytest.approx(0.015)
    assert row.by_condition["fixed-t"].mean == pytest.approx(0.03)
    assert row.per_condition.mean == pytest.approx((0.045 + 0) / 2)
    assert row.one_epoch.mean == pytest.approx(0.025 / 2)
    assert row.one_epoch.sd == pytest.approx(0.025 / 2**0.5)
    header, cells = audit_cells(table)
    assert header[:3] == ["label", "complete", "fixed-t"]
    assert cells[0][:2] == ["m", "+1.5 ± 2.1"]


def test_errors_count_the_other_way():
    (table,) = audit_tables([run(primary="mae", chosen=0, complete=(1.00, 0.90, 1.20))])
    assert table.rows[0].by_condition["complete"].mean == pytest.approx(0.10)
    assert table.rows[0].by_condition["complete"].sd is None


def test_folds_are_averaged_before_seeds():
    runs = [
        run(seed=1, chosen=0, complete=(0.5, 0.6)),
        run(seed=1, chosen=0, complete=(0.5, 0.7)),
        run(seed=2, chosen=0, complete=(0.5, 0.5)),
    ]
    (table,) = audit_tables(runs)
    assert table.rows[0].by_condition["complete"].mean == pytest.approx((0.15 + 0.0) / 2)
    assert table.rows[0].runs == 3


def test_most_flattered_first_and_undefined_values_stay_out():
    nan = float("nan")
    (table,) = audit_tables(
        [
            run("honest", chosen=1, complete=(0.5, 0.6)),
            run("lucky", chosen=0, complete=(0.5, 0.6), **{"fixed-t": (nan, 0.5)}),
        ]
    )
    assert [row.label for row in table.rows] == ["lucky", "honest"]
    assert "fixed-t" not in table.rows[0].by_condition


def folder(tmp_path: Path, rows: list[dict], history: list[dict], best: int) -> tuple[Path, dict]:
    for name, lines in (("audit.jsonl", rows), ("history.jsonl", history)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    identity = {"label": "m", "data_set": "mosi", "regime": "single", "seed": 3}
    record = {
        "status": "finished",
        "identity": identity,
        "table": {"primary": "wf1"},
        "comparison_hash": "c0ffee",
        "best_epoch": best,
    }
    return tmp_path, record


def test_only_epochs_of_the_chosen_stage_are_candidates(tmp_path):
    history = [
        {"step": step, "stage": stage, "epoch": 0} for step, stage in enumerate(["warm up", "main", "main"])
    ]
    rows = [{"step": step, "complete": {"wf1": value}} for step, value in enumerate([0.9, 0.5, 0.6])]
    found = read_audited(*folder(tmp_path, rows, history, best=1))
    assert found is not None
    assert found.scores == {"complete": (0.5, 0.6)}
    assert (found.chosen, found.seed) == (0, 3)


def test_a_run_without_an_audit_has_none(tmp_path):
    assert read_audited(tmp_path, {"status": "finished"}) is None


def test_an_audit_that_does_not_fit_its_run_is_named(tmp_path):
    where, record = folder(tmp_path, [{"step": 0, "complete": {"wf1": 0.5}}], [], best=0)
    with pytest.raises(TableError, match=r"audit\.jsonl"):
        read_audited(where, record)
