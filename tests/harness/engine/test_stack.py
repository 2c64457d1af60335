"""Runs trained as one network: the numbers of runs alone, whoever else is in the stack."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from imer_bench.harness.engine.draws import Draw, DrawsChanged, OwnDraws
from imer_bench.harness.execute import Silent, execute
from imer_bench.harness.method import Method
from imer_bench.harness.protocol.plan import stacks_of
from imer_bench.harness.registry import method_class, method_info
from imer_bench.harness.store import Store, StoredRun

from small import SMALL
from tiny import tiny_plan

SEEDS = (1, 2, 3)
# Without a language model, which can't be stacked.
PLAIN = {"prototypes": "learned", "completion": "pattern", "shared_dim": 16, "top_k": 4}
STACKED: dict[str, dict[str, Any]] = {
    "late_fusion": SMALL["late_fusion"],
    "early_fusion": SMALL["early_fusion"],
    # Alone, dialogues are padded to the longest of their batch, and dropout draws for the padding too.
    "momke": {**SMALL["momke"], "dropout": 0.0, "attention_dropout": 0.0, "batch_size": 4},
    "comp": SMALL["comp"],
    "dmd": {**SMALL["dmd"], "update_epochs": 2, "epochs": 2},
    "ad_mcpd": PLAIN,
    "toys:STAGES_TOGETHER": {"epochs": 4, "stage1_epochs": 2},
}


def entry(name: str, parameters: dict[str, Any]) -> str:
    values = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
    return f"methods.0={{name='{name}', parameters={{{values}}}}}"


def computed(folder, name: str, parameters, stack: int, seeds=SEEDS, *settings: str) -> dict[int, StoredRun]:
    """Runs of some seeds, by seed."""
    plan = tiny_plan(
        folder, entry(name, parameters), "compute.epochs=4", f"train.seeds={list(seeds)}",
        f"compute.stack={stack}", *settings,
    )  # fmt: skip
    store = Store(folder / f"results{stack}-{len(seeds)}")
    execute(plan, store, Silent())
    return {run.seed: stored for run in plan.runs if (stored := store.find(run.address)) is not None}


def numbers(stored: StoredRun) -> np.ndarray:
    table = pd.read_parquet(stored.predictions)
    columns = [c for c in table.columns if c == "score" or c.startswith("class_")]
    return table[columns].dropna(axis="columns", how="all").to_numpy(float)


def history(stored: StoredRun) -> list[dict[str, Any]]:
    lines = (stored.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def assert_same(one: StoredRun, other: StoredRun, tolerance: float = 2e-5) -> None:
    """Same predictions and history up to rounding."""
    assert one.status == other.status == "finished", other.record["error"]
    np.testing.assert_allclose(numbers(one), numbers(other), atol=tolerance)
    for before, now in zip(history(one), history(other), strict=True):
        assert before.keys() == now.keys()
        for key, value in before.items():
            if isinstance(value, str | int):
                assert value == now[key]
            else:
                np.testing.assert_allclose(now[key], value, atol=20 * tolerance, err_msg=key)
    assert one.record["best_epoch"] == other.record["best_epoch"]


def stacked_steps(monkeypatch) -> list[int]:
    """Sizes of the stacks of all calls to come."""
    from imer_bench.harness.engine.stack import Stack

    sizes: list[int] = []
    carry_out = Stack.carry_out
    monkeypatch.setattr(
        Stack, "carry_out", lambda self, calls: sizes.append(len(calls)) or carry_out(self, calls)
    )
    return sizes


@pytest.mark.parametrize("name", STACKED)
def test_a_stack_trains_and_predicts_as_the_runs_alone(name, tmp_path, monkeypatch):
    alone = computed(tmp_path, name, STACKED[name], 1)
    sizes = stacked_steps(monkeypatch)
    together = computed(tmp_path, name, STACKED[name], 3)
    assert set(sizes) == {3}
    assert len({numbers(stored).tobytes() for stored in alone.values()}) == 3, "seeds differ"
    for seed in SEEDS:
        assert_same(alone[seed], together[seed])
        assert alone[seed].address != together[seed].address
        assert together[seed].record["environment"]["stacked"]
        assert together[seed].record["hashed"]["method"]["stacked"]


def test_a_stack_is_trained_in_the_precision_that_is_asked_for(tmp_path):
    name = "late_fusion"
    settings = ["compute.precision=bf16"]
    alone = computed(tmp_path, name, STACKED[name], 1, SEEDS, *settings)
    together = computed(tmp_path, name, STACKED[name], 3, SEEDS, *settings)
    single = computed(tmp_path, name, STACKED[name], 4)
    for seed in SEEDS:
        assert_same(alone[seed], together[seed], tolerance=2e-2)
        assert np.abs(numbers(together[seed]) - numbers(single[seed])).max() > 1e-4, "not float32"


def test_every_method_that_says_so_is_tested_here():
    from imer_bench.harness.registry import method_names

    def stacks(name: str, parameters: dict[str, Any]) -> bool:
        info = method_info(name)
        return bool(info.stacks(info.parameters.model_validate(parameters)))

    assert {name for name in method_names() if stacks(name, {})} <= set(STACKED)
    assert all(stacks(name, parameters) for name, parameters in STACKED.items())
    # What a language model's code does can't be traced.
    assert not stacks("ad_mcpd", SMALL["ad_mcpd"])
    assert not stacks("dmd", {"use_bert": True, "bert": "random-bert-tiny"})


@pytest.mark.parametrize("name", ["momke", "late_fusion", "toys:STAGES_TOGETHER"])
def test_a_run_does_not_depend_on_who_is_in_its_stack(name, tmp_path):
    parameters = {**SMALL.get(name, {}), "epochs": 4, "batch_size": 4}
    whole = computed(tmp_path, name, parameters, 3)
    parts = computed(tmp_path, name, parameters, 2, SEEDS[1:])
    lonely = computed(tmp_path, name, parameters, 2, SEEDS[:1])
    for seed, stored in {**parts, **lonely}.items():
        assert stored.address == whole[seed].address
        assert_same(whole[seed], stored)


def test_runs_that_stop_early_leave_the_others_as_they_were(tmp_path):
    settings = ["compute.patience=1", "compute.epochs=12"]
    parameters = {"hidden": 8, "lr": 0.01}
    alone = computed(tmp_path, "late_fusion", parameters, 1, range(1, 6), *settings)
    together = computed(tmp_path, "late_fusion", parameters, 5, range(1, 6), *settings)
    assert len({stored.record["epochs"] for stored in alone.values()}) > 1, "some stop earlier"
    for seed, stored in alone.items():
        assert_same(stored, together[seed])


@pytest.mark.parametrize("how", ["diverges", "raises"])
def test_a_run_that_fails_leaves_the_others_as_they_were(how, tmp_path, monkeypatch):
    alone = computed(tmp_path, "late_fusion", SMALL["late_fusion"], 1)
    network = method_class(method_info("late_fusion"))
    built: list[Method] = []
    start = network.start_epoch

    def start_epoch(self, epoch: int) -> None:
        built.append(self) if self not in built else None
        if epoch == 1 and built.index(self) == 1:
            if how == "raises":
                raise RuntimeError("no luck")
            with torch.no_grad():
                next(self.parameters()).fill_(torch.nan)
        start(self, epoch)

    monkeypatch.setattr(network, "start_epoch", start_epoch)
    together = computed(tmp_path, "late_fusion", SMALL["late_fusion"], 3)
    assert together[2].status == ("failed" if how == "raises" else "diverged")
    for seed in (1, 3):
        assert_same(alone[seed], together[seed])


def test_a_training_step_of_its_own_is_not_passed_over(tmp_path, monkeypatch):
    network = method_class(method_info("late_fusion"))
    monkeypatch.setattr(network, "training_step", lambda self, batch: {}, raising=False)
    failed = computed(tmp_path, "late_fusion", SMALL["late_fusion"], 3)
    assert {stored.record["error"]["type"] for stored in failed.values()} == {"TypeError"}


def test_what_goes_wrong_in_the_stack_is_the_failure_of_all_its_runs(tmp_path, monkeypatch):
    network = method_class(method_info("late_fusion"))
    losses = network.losses

    def drawing(self, batch):
        found = losses(self, batch)
        return {**found, "total": found["total"] + torch.poisson(found["total"].detach())}

    monkeypatch.setattr(network, "losses", drawing)
    failed = computed(tmp_path, "late_fusion", SMALL["late_fusion"], 3)
    assert {stored.status for stored in failed.values()} == {"failed"}
    assert "random" in failed[1].record["error"]["message"]  # torch says that nothing may be drawn


def test_after_an_interruption_a_stack_goes_on_from_the_checkpoints_of_its_runs(tmp_path, monkeypatch):
    settings = ["compute.checkpoint_seconds=0", "compute.epochs=6"]
    whole = computed(tmp_path, "late_fusion", SMALL["late_fusion"], 3, SEEDS, *settings)
    folder = tmp_path / "cut"
    folder.mkdir()
    network = method_class(method_info("late_fusion"))
    seen: list[int] = []
    end = network.end_epoch

    def end_epoch(self, epoch, validation):
        seen.append(epoch)
        if seen.count(3) == 2:  # one run is an epoch ahead of the two others
            raise KeyboardInterrupt
        end(self, epoch, validation)

    with monkeypatch.context() as patch:
        patch.setattr(network, "end_epoch", end_epoch)
        with pytest.raises(KeyboardInterrupt):
            computed(folder, "late_fusion", SMALL["late_fusion"], 3, SEEDS, *settings)
    sizes = stacked_steps(monkeypatch)
    again = computed(folder, "late_fusion", SMALL["late_fusion"], 3, SEEDS, *settings)
    assert 2 in sizes, "one run has fewer epochs to go"
    assert sizes[-1] == 3, "and waits with its test"
    for seed in SEEDS:
        assert_same(whole[seed], again[seed])
        assert len(history(again[seed])) == 6


@pytest.mark.parametrize("name", ["comp", "ad_mcpd"])
def test_the_time_of_a_stack_is_shared_by_its_runs(name, tmp_path):
    begun = time.perf_counter()
    together = computed(tmp_path, name, STACKED[name], 3)
    elapsed = time.perf_counter() - begun
    seconds = [stored.record["timings"]["wall_s"] for stored in together.values()]
    assert sum(seconds) <= elapsed
    assert min(seconds) > 0


def test_a_call_that_never_comes_back_is_stopped(tmp_path, monkeypatch):
    network = method_class(method_info("late_fusion"))

    def endless(self, batch):
        while True:
            signal.getsignal(signal.SIGALRM)

    monkeypatch.setattr(network, "losses", endless)
    failed = computed(tmp_path, "late_fusion", {}, 3, SEEDS, "compute.max_minutes=0.02")
    assert {stored.record["error"]["type"] for stored in failed.values()} == {"TimeLimit"}


def test_runs_are_stacked_by_row_fold_and_training_condition(tmp_path):
    plan = tiny_plan(
        tmp_path,
        "comparison.regime=matched",
        "train={seeds=[1,2,3,4,5]}",
        "validation={conditions=['complete']}",
        "compute.stack=2",
        extra='[[methods]]\nname = "gcnet"\n',
    )
    groups = stacks_of(plan.execution, plan.runs)
    assert sorted(run.name for group in groups for run in group) == sorted(run.name for run in plan.runs)
    for group in groups:
        assert len({(run.variant.label, run.train.name) for run in group}) == 1
    fusion = [len(group) for group in groups if group[0].variant.info.name == "late_fusion"]
    assert sorted(fusion) == [1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert {len(group) for group in groups if group[0].variant.info.name == "gcnet"} == {1}
    single = replace(plan.execution, stack=1)
    assert [run for (run,) in stacks_of(single, plan.runs)] == list(plan.runs)


def test_a_method_that_is_not_stacked_keeps_its_address(tmp_path):
    plain, stacked = (
        tiny_plan(tmp_path, "methods.0={name='gcnet'}", f"compute.stack={size}").runs[0].address
        for size in (1, 4)
    )
    assert plain == stacked


# Random numbers.


def drawn(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Everything that may be drawn."""
    y = functional.dropout(x.T, 0.3)
    y = nn.Dropout(0.5)(y).T
    yield y
    yield torch.randn(2, 3)
    yield torch.randn((4,))
    yield torch.rand_like(x)
    yield torch.rand(5, dtype=torch.float64)
    yield torch.randn_like(y.contiguous())
    heads = torch.stack([x, x + 1])[None]
    mask = torch.tensor([True, True, False, True])
    yield functional.scaled_dot_product_attention(heads, heads, heads, mask.expand(4, 4), dropout_p=0.4)
    yield functional.scaled_dot_product_attention(heads, heads, heads, (~mask).float().log(), 0.4)
    yield (functional.dropout(x, 0.2) * y).sum()


def test_every_run_of_a_stack_draws_what_it_would_draw_alone():
    seeds = [11, 12, 13]
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    noted: list[Draw] = []
    for times in (1, 2, 3):
        together = x.clone().requires_grad_()
        beforehand = None if times == 1 else [draw.of(sources) for draw in noted]

        def one(own: torch.Tensor, run: torch.Tensor, given: list[torch.Tensor] | None):
            with OwnDraws(sources, run, noted, given):
                return list(drawn(own))

        axes = (0, 0, None if beforehand is None else 0)
        found = torch.vmap(one, in_dims=axes)(together, torch.arange(3), beforehand)
        found[-1].sum().backward()
        assert together.grad is not None
        for run, seed in enumerate(seeds):
            torch.manual_seed(seed)
            for _ in range(times - 1):
                list(drawn(x[run]))
            own = x[run].clone().requires_grad_()
            expected = list(drawn(own))
            expected[-1].backward()
            assert own.grad is not None
            for values, theirs in zip(expected, found, strict=True):
                torch.testing.assert_close(theirs[run], values, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(together.grad[run], own.grad)


@pytest.mark.parametrize("shape", [(4, 5), (5,)])
def test_other_draws_than_before_are_refused(shape):
    noted: list[Draw] = []
    sources = [torch.Generator(), torch.Generator()]

    def drop(given: list[torch.Tensor] | None, *shapes: tuple[int, ...]):
        def one(run: torch.Tensor, given: list[torch.Tensor] | None):
            with OwnDraws(sources, run, noted, given):
                return [torch.randn(shape) for shape in shapes]

        return torch.vmap(one, in_dims=(0, None if given is None else 0))(torch.arange(2), given)

    drop(None, (4,))
    given = [draw.of(sources) for draw in noted]
    drop(given, (4,))
    for shapes in ([shape], [(4,), shape]):
        with pytest.raises(DrawsChanged, match="is drawn"):
            drop(given, *shapes)


@pytest.mark.parametrize("draw", [torch.bernoulli, torch.poisson, lambda x: x.clone().normal_()])
def test_what_is_drawn_in_any_other_way_is_refused(draw):
    def one(own: torch.Tensor, run: torch.Tensor) -> torch.Tensor:
        with OwnDraws([torch.Generator()] * 2, run, []):
            return draw(own)

    with pytest.raises(RuntimeError, match="random"):
        torch.vmap(one)(torch.rand(2, 3), torch.arange(2))
