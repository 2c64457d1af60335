"""Studies on a real database: same trials, same budget, nothing left running."""

import optuna
import pytest
import torch
from optuna.trial import TrialState
from small_studies import poisoned, run_study, small_plan

from imer_bench.harness.engine import tensors
from imer_bench.harness.errors import UserError
from imer_bench.harness.studies import study as studies
from imer_bench.harness.studies.objective import Objective
from imer_bench.harness.studies.output import best_trial, write_outputs
from imer_bench.harness.studies.study import Budget, counted, open_study, reap, work, worker_lock

FAST = ("compute.epochs=2",)


def story(study: optuna.Study) -> list[tuple]:
    return [(item.params, item.values, item.state) for item in counted(study.get_trials())]


def opened(plan, folder) -> optuna.Study:
    return open_study(plan, f"sqlite:///{folder / 'studies.db'}", folder / "shared")


def test_a_study_twice_and_with_poisoned_test_rows_is_the_same(tmp_path):
    """Sampler, training and pruner are seeded; test features and labels decide nothing."""
    settings = (
        *FAST,
        "tune.sampler_options={n_startup_trials=3}",
        "tune.pruner_options={n_startup_trials=2}",
    )
    first = run_study(small_plan(tmp_path, *settings), tmp_path / "one", 4)
    second = run_study(small_plan(tmp_path, *settings, data=poisoned), tmp_path / "two", 4)
    assert story(first) == story(second)
    assert len(story(first)) == 4
    assert len({tuple(sorted(params.items())) for params, _, _ in story(first)}) == 4, (
        "no trial repeats another"
    )
    assert first.trials[0].params == {"lr": 1e-2, "deep": False}, "the record's setting comes first"


def test_no_test_split_is_ever_built(tmp_path, monkeypatch):
    plan = small_plan(tmp_path, *FAST)
    whole = {"train": 0, "valid": 0}
    for run in plan.runs:
        split = run.data.splits[run.fold]
        whole = {"train": len(split.train), "valid": len(split.valid)}
    sizes = []
    build = tensors.SplitTensors.__init__

    def spy(self, corpus, rows, *arguments, **options):
        sizes.append(len(rows))
        build(self, corpus, rows, *arguments, **options)

    monkeypatch.setattr(tensors.SplitTensors, "__init__", spy)
    run_study(plan, tmp_path, 3)
    assert sorted(sizes) == sorted(whole.values()), "training and validation, once for all trials"


def test_an_interrupted_study_goes_on_as_the_unbroken_one(tmp_path):
    plan = small_plan(tmp_path, *FAST)
    unbroken = run_study(plan, tmp_path / "whole", 4)
    study = opened(plan, tmp_path / "broken")
    shared = tmp_path / "broken" / "shared"
    epochs = iter(range(100))
    stops = Objective(plan, shared, lambda: next(epochs) == 5)  # in the third trial
    with pytest.raises(KeyboardInterrupt):
        work(study, stops, Budget(4), shared)
    states = [item.state for item in study.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    run_study(plan, tmp_path / "broken", 4)
    assert story(study) == story(unbroken)
    assert all(item.state.is_finished() for item in study.get_trials())


def test_failed_trials_say_why_and_the_study_goes_on(tmp_path):
    space = "tune.space.tunable={lr=false, deep=false}"
    plan = small_plan(tmp_path, *FAST, "tune.sampler='random'", space=space)
    study = opened(plan, tmp_path)
    for fault in ("nan", "error", "memory"):
        study.enqueue_trial({"fault": fault})
    run_study(plan, tmp_path, 5)
    reasons = [item.user_attrs.get("reason", "") for item in study.get_trials()]
    states = [item.state for item in study.get_trials()]
    assert states[:4] == [TrialState.COMPLETE] + [TrialState.FAIL] * 3
    assert "not finite" in reasons[1]
    assert "the method broke" in reasons[2]
    assert "MemoryError" in reasons[3]
    summary = write_outputs(study, plan, tmp_path / "out", "here")
    assert summary["budget"]["failed"] >= 3
    assert summary["budget"]["counted"] == 5
    assert len(summary["expected_best"]) == 5


class Steps:
    """An objective without training: what matters is who runs which trial."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def __call__(self, trial: optuna.Trial) -> float:
        self.ran.append(trial.number)
        return trial.suggest_float("lr", 1e-3, 1e-1, log=True)


def test_trials_of_dead_workers_are_queued_again_at_once(tmp_path):
    plan, shared = small_plan(tmp_path), tmp_path / "shared"
    study = opened(plan, tmp_path)
    with worker_lock(shared) as alive:
        with worker_lock(shared) as doomed:
            running = {name: study.ask() for name in (alive, doomed)}
            values = {
                name: trial.suggest_float("lr", 1e-3, 1e-1, log=True) for name, trial in running.items()
            }
            for name, trial in running.items():
                trial.set_user_attr(studies.WORKER, name)
            assert reap(study, shared) == 0, "both live"
        # A killed worker leaves its lock file behind, free.
        (shared / "workers" / f"{doomed}.lock").touch()
        assert reap(study, shared) == 1
        assert reap(study, shared) == 0, "once"
        (waiting,) = study.get_trials(states=(TrialState.WAITING,))
        assert waiting.params == {"lr": values[doomed]}
        assert waiting.user_attrs["retry_of"] == running[doomed].number
        assert studies.WORKER not in waiting.user_attrs
    steps = Steps()
    study.tell(running[alive], 0.5)
    work(study, steps, Budget(3), shared)
    assert len(counted(study.get_trials())) == 3
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    assert waiting.number in steps.ran


def test_what_kills_its_worker_again_and_again_has_failed(tmp_path):
    plan, shared = small_plan(tmp_path), tmp_path / "shared"
    study = opened(plan, tmp_path)
    for _ in range(4):
        with worker_lock(shared) as doomed:
            trial = study.ask()
            trial.suggest_float("lr", 1e-3, 1e-1, log=True)
            trial.set_user_attr(studies.WORKER, doomed)
        (shared / "workers" / f"{doomed}.lock").touch()
        reap(study, shared)
    (failed,) = counted(study.get_trials())
    assert "died 4 times" in failed.user_attrs["reason"]
    assert failed.user_attrs[studies.SETTING] == studies.BASE
    assert not study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))


def test_the_budget_is_kept_and_can_be_raised(tmp_path):
    plan, shared = small_plan(tmp_path), tmp_path / "shared"
    study = opened(plan, tmp_path)
    steps = Steps()
    work(study, steps, Budget(3), shared)
    work(study, steps, Budget(3), shared)
    assert len(steps.ran) == 3
    work(study, steps, Budget(5), shared)
    assert len(counted(study.get_trials())) == 5
    work(study, steps, Budget(None, seconds=1e-9), shared)
    assert len(steps.ran) == 5, "the compute is spent"


def test_a_pruned_trial_was_worse_and_reports_rise_by_epoch(tmp_path):
    settings = (
        "compute.epochs=4",
        "tune.seeds=[1,2]",
        "tune.pruner_options={n_startup_trials=2}",
        "metrics.primary='mae'",
    )
    plan = small_plan(tmp_path, *settings, space="tune.space.tunable={fault=false, deep=false}")
    study = opened(plan, tmp_path)
    for lr in (0.05, 0.001):  # the last one learns too slowly for four epochs
        study.enqueue_trial({"lr": lr})
    run_study(plan, tmp_path, 3)
    done = [item for item in study.get_trials() if item.state == TrialState.COMPLETE]
    pruned = [item for item in study.get_trials() if item.state == TrialState.PRUNED]
    assert [item.number for item in pruned] == [2]
    for trial in done:
        steps = sorted(trial.intermediate_values)
        assert steps == list(range(8)), "four epochs of two seeds"
        within = [trial.intermediate_values[step] for step in range(4)]
        assert within == sorted(within, reverse=True), "the best error so far never rises within a training"
        assert trial.intermediate_values[7] == pytest.approx(trial.value, rel=1e-5)
    for trial in pruned:
        step = max(trial.intermediate_values)
        best = min(trial.intermediate_values.values())
        others = [item.intermediate_values[step] for item in done if item.number < trial.number]
        assert best > min(others)
    best = best_trial(plan, study.get_trials())
    assert best is not None
    assert best.value == min(item.value for item in done)


def test_worst_area_and_several_objectives(tmp_path):
    values = {}
    for kind in ("mean", "worst", "area", "multi"):
        plan = small_plan(tmp_path, *FAST, f"tune.aggregate='{kind}'")
        study = run_study(plan, tmp_path / kind, 2)
        first = study.get_trials()[0]
        values[kind] = (first.values, first.user_attrs["conditions"])
        assert best_trial(plan, study.get_trials()) is not None
    complete, random = values["mean"][1].values()
    assert values["mean"][0] == [pytest.approx((complete + random) / 2)]
    assert values["worst"][0] == [min(complete, random)]
    assert values["area"][0] == [pytest.approx((complete + random) / 2)], "two points: their mean"
    assert values["multi"][0] == [complete, random]
    summary = write_outputs(study, plan, tmp_path / "out", "here")
    assert summary["front"]


@pytest.mark.parametrize("sampler", ["random", "gp", "qmc", "nsgaii", "brute_force"])
def test_samplers_by_name_never_repeat_each_other(tmp_path, sampler):
    values = ", lr={values=[0.001, 0.002, 0.003, 0.01]}" if sampler == "brute_force" else ""
    space = "tune.space.tunable={fault=false, deep=false" + values + "}"
    plan = small_plan(tmp_path, f"tune.sampler='{sampler}'", space=space)
    study = opened(plan, tmp_path)

    def objective(trial: optuna.Trial) -> float:
        return sum(float(value) for value in plan.space.suggest(trial, plan.base).values())

    work(study, objective, Budget(4), tmp_path / "shared")
    found = [tuple(sorted(item.params.items())) for item in study.get_trials()]
    assert len(set(found)) == 4


def test_a_sampler_or_pruner_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(UserError, match="sampler 'tpe'"):
        opened(small_plan(tmp_path, "tune.sampler_options={startup=3}"), tmp_path)
    with pytest.raises(UserError, match="pruner 'median'"):
        opened(small_plan(tmp_path, "tune.pruner_options={warmup=3}"), tmp_path)
    with pytest.raises(UserError, match="--storage"):
        open_study(small_plan(tmp_path), "nosuch://x", tmp_path)


def test_training_leaves_the_callers_random_state_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run_study(small_plan(tmp_path, *FAST), tmp_path, 1)
    assert torch.equal(torch.rand(2), expected)
