"""Runs in the store: computed once, complete, recorded when they fail."""

import json
import re
import threading

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tiny_encoders import text_checkpoint

from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.errors import UserError
from imer_bench.harness.execute import execute
from imer_bench.harness.metrics import Outcome, evaluate
from imer_bench.harness.report import boards_of_plan, boards_of_store
from imer_bench.harness.store import Store

from tiny import tiny_plan

WRONG = '[[methods]]\nname = "toys:GOES_WRONG"\nlabel = "wrong"\n[methods.parameters]\nhow = "{how}"\n'


def predictions(stored) -> pd.DataFrame:
    return pd.read_parquet(stored.predictions)


def test_a_run_leaves_everything_needed_to_repeat_and_recompute_it(tmp_path):
    plan = tiny_plan(tmp_path)
    store = Store(tmp_path / "results")
    outcome = execute(plan, store, Quiet())
    (stored,) = outcome.computed
    record = json.loads((stored.folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["address"] == plan.runs[0].address
    assert record["identity"]["hyper_parameters"]["hidden"] == 8
    assert record["protocol"]["compute"]["epochs"] == 3
    assert record["data"]["fingerprint"] == plan.data[0].samples.corpus.fingerprint
    assert record["environment"]["threads"] == 1
    draws = record["masks"]["test"]["random-0.5"]
    assert [draw["seed"] for draw in draws] == [201, 202]
    assert draws[0]["hash"] != draws[1]["hash"]
    history = [json.loads(line) for line in (stored.folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert load_file(stored.folder / "model.safetensors")
    assert sorted(item.name for item in stored.folder.iterdir()) == [
        "history.jsonl",
        "manifest.json",
        "model.safetensors",
        "predictions.parquet",
        "run.json",
    ]


def test_metrics_can_be_recomputed_from_the_stored_predictions(tmp_path):
    plan = tiny_plan(tmp_path)
    outcome = execute(plan, Store(tmp_path / "results"), Quiet())
    (stored,) = outcome.computed
    frame = predictions(stored)
    test = plan.data[0].splits[None].test
    assert len(frame) == len(test) * (1 + 2 + 1)  # complete, two draws of random-0.5, fixed-t
    for condition, recorded in stored.record["metrics"]["test"].items():
        part = frame[frame["test_condition"] == condition]
        seeds = part["mask_seed"].unique()
        rows = (
            [part[part["mask_seed"].isna()]]
            if pd.isna(seeds).all()
            else [part[part["mask_seed"] == seed] for seed in seeds]
        )
        scores = [
            evaluate(
                Outcome(row["y_true"].to_numpy(), row["score"].to_numpy(), score_range=(-3, 3)),
                ["wf1", "mae"],
            )
            for row in rows
        ]
        for name in ("wf1", "mae"):
            assert np.isclose(recorded[name], np.mean([score[name] for score in scores]))
    truth = plan.data[0].samples.corpus.utterances.iloc[test]
    complete = frame[frame["test_condition"] == "complete"]
    assert complete["utterance"].tolist() == truth["id"].tolist()
    assert np.allclose(complete["y_true"], truth["sentiment"])
    assert set(complete["available"]) == {"tav"}


def test_a_finished_run_is_never_repeated(tmp_path):
    plan, store = tiny_plan(tmp_path), Store(tmp_path / "results")
    (first,) = execute(plan, store, Quiet()).computed
    before = (first.folder / "run.json").stat().st_mtime_ns
    again = execute(plan, store, Quiet())
    assert (again.reused, again.computed) == (1, [])
    assert (first.folder / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("raise", "failed", "the method broke"),
        ("nan", "diverged", "not finite"),
        ("nan prediction", "diverged", "not finite"),
    ],
)
def test_a_failure_is_recorded_shown_as_a_hole_and_the_rest_goes_on(tmp_path, capsys, how, status, message):
    plan = tiny_plan(
        tmp_path,
        "methods.0.name=toys:ANCHORS",
        "methods.0.parameters={}",
        extra=WRONG.replace("{how}", how) + '[[methods]]\nname = "constant"\n',
    )
    store = Store(tmp_path / "results")
    outcome = execute(plan, store, Quiet())
    assert [run.status for run in outcome.computed] == ["finished", status, "finished"]
    (failed,) = outcome.failed
    assert message in failed.record["error"]["message"]
    assert "wrong" in capsys.readouterr().err
    (board,) = boards_of_plan(plan, store)
    row = next(row for row in board.rows if row.label == "wrong")
    assert {cell.done for cell in row.cells["wf1"].values()} == {0}
    # It is not tried again by itself, and is when asked.
    assert execute(plan, store, Quiet()).computed == []
    assert [run.status for run in execute(plan, store, Quiet(), retry=True).computed] == [status]


def test_other_weights_under_one_name_never_share_results(tmp_path, monkeypatch):
    monkeypatch.setenv("IMER_PRETRAINED", str(tmp_path / "models"))
    folder = text_checkpoint(tmp_path / "models" / "lab" / "bert")
    small = "methods.0={name='ad_mcpd', parameters={shared_dim=8, language_model='%s'}}"
    store = Store(tmp_path / "results")

    def plan_with(name):
        return tiny_plan(tmp_path, "compute.epochs=1", small % name)

    (first,) = execute(plan_with("lab/bert"), store, Quiet()).computed
    assert first.status == "finished"
    assert execute(plan_with("lab/bert"), store, Quiet()).reused == 1
    text_checkpoint(folder, seed=1)
    with pytest.raises(UserError, match=r"other weights of language model 'lab/bert'.*lab/bert@") as caught:
        execute(plan_with("lab/bert"), store, Quiet())
    # Another process that has not looked beforehand is stopped too; the way out that is named works.
    with pytest.raises(UserError, match="other weights"):
        store.hold_to_language_models({"lab/bert": "0" * 64})
    named = re.search(r"lab/bert@[0-9a-f]+", str(caught.value))
    assert named is not None
    (second,) = execute(plan_with(named[0]), store, Quiet()).computed
    assert second.status == "finished"
    assert second.record["language_models"] != first.record["language_models"]


def test_an_interrupted_run_leaves_its_checkpoint_and_continues(tmp_path):
    plan = tiny_plan(tmp_path, "compute.checkpoint_seconds=0")
    store = Store(tmp_path / "whole")
    (whole,) = execute(plan, store, Quiet()).computed

    class Interrupts(Quiet):
        def epoch_done(self, run, stage, step, loss):
            if step == 2:
                raise KeyboardInterrupt

    broken = Store(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        execute(plan, broken, Interrupts())
    assert list(broken.runs()) == []
    assert (broken.folder / "work" / plan.runs[0].address / "checkpoint.safetensors").is_file()
    (continued,) = execute(plan, broken, Quiet()).computed
    pd.testing.assert_frame_equal(predictions(continued), predictions(whole))
    assert len((continued.folder / "history.jsonl").read_text().splitlines()) == 3


def test_a_run_that_another_process_holds_is_left_to_it_and_taken_over_when_it_dies(tmp_path):
    plan, store = tiny_plan(tmp_path), Store(tmp_path / "results")
    held, release = threading.Event(), threading.Event()

    def other():
        with Store(tmp_path / "results").claim(plan.runs[0].address) as mine:
            assert mine
            held.set()
            release.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(20)

    class Waits(Quiet):
        waited = 0

        def waiting(self, count):
            self.waited += 1
            release.set()

    display = Waits()
    outcome = execute(plan, store, display)
    thread.join()
    assert display.waited >= 1
    assert len(outcome.computed) == 1


def test_more_seeds_and_left_out_methods_join_the_table_and_other_settings_do_not(tmp_path):
    extra = '[[methods]]\nname = "constant"\n'
    store = Store(tmp_path / "results")
    execute(tiny_plan(tmp_path, "train.seeds=[1, 2]", extra=extra), store, Quiet())
    execute(tiny_plan(tmp_path, "methods.0.parameters.hidden=9"), store, Quiet())
    plan = tiny_plan(tmp_path, "train.seeds=[3]")
    execute(plan, store, Quiet())
    (board,) = boards_of_plan(plan, store)
    done = {
        row.label: row.cells["wf1"]["complete"].done for row in board.rows if row.label != "no information"
    }
    assert done == {"late_fusion": 3, "constant": 2}
    (board,) = boards_of_store(store)
    assert {row.label for row in board.rows} >= {"late_fusion", "constant"}


def test_two_threads_of_work_on_one_store_do_nothing_twice(tmp_path):
    plan, store = tiny_plan(tmp_path, "train.seeds=[1, 2, 3]"), Store(tmp_path / "results")
    computed = []

    def work():
        outcome = execute(plan, Store(tmp_path / "results"), Quiet())
        computed.extend(run.address for run in outcome.computed)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(computed) == sorted(run.address for run in plan.runs)
    assert len(list(store.runs())) == 3
