"""A protocol's runs and the hashes that decide what is repeated and what may be compared."""

import pytest

from imer_bench.harness.errors import UserError
from imer_bench.harness.protocol.plan import Execution, make_plan

from tiny import tiny_plan

TWO = '[[methods]]\nname = "constant"\n'
MATCHED = ("train={seeds=[1, 2]}", "comparison.regime=matched", "validation={mask_seeds=[101]}")


def addresses(plan) -> set[str]:
    return {run.address for run in plan.runs}


def test_matched_is_one_run_per_condition_tested_on_it(tmp_path):
    plan = tiny_plan(tmp_path, *MATCHED, extra=TWO)
    assert len(plan.runs) == 2 * 3 * 2  # methods x conditions x seeds
    for run in plan.runs:
        assert [schedule.name for schedule in run.test] == [run.train.name]
        assert run.validation == (run.train,)


def test_single_and_no_prior_are_one_run_tested_on_everything(tmp_path):
    single = tiny_plan(tmp_path, extra=TWO)
    assert len(single.runs) == 2
    assert {run.train.name for run in single.runs} == {"random-0.3"}
    no_prior = tiny_plan(
        tmp_path, "comparison.regime=no_prior", "train={seeds=[1]}", "validation={mask_seeds=[101]}"
    )
    (run,) = no_prior.runs
    assert run.train.name == "complete"
    assert [schedule.name for schedule in run.validation] == ["complete"]
    assert [schedule.name for schedule in run.test] == ["complete", "random-0.5", "fixed-t"]


def test_the_complete_condition_runs_once_under_all_its_names(tmp_path):
    plan = tiny_plan(tmp_path, 'test.conditions=["complete", "random-0.0", "fixed-tav"]', *MATCHED)
    assert [run.train.name for run in plan.runs] == ["complete", "complete"]
    assert [run.seed for run in plan.runs] == [1, 2]


def test_the_address_changes_with_whatever_changes_numbers(tmp_path):
    base = addresses(tiny_plan(tmp_path))
    for setting in (
        "train.seeds=[2]",
        "train.schedule=random-0.4",
        "validation.mask_seeds=[102]",
        "test.mask_seeds=[201]",
        'test.conditions=["complete"]',
        "compute.epochs=4",
        "compute.threads=2",
        "methods.0.parameters.hidden=9",
        "data.scale=none",
        "data.synthetic.seed=1",
        "comparison.selection=last",
        "metrics.primary=mae",
    ):
        assert not base & addresses(tiny_plan(tmp_path, setting)), setting


def test_the_address_ignores_what_changes_no_number(tmp_path):
    base = addresses(tiny_plan(tmp_path))
    for setting in (
        "name=other",
        "description=words",
        "methods.0.label=row",
        "leaderboard.resamples=500",
        "compute.checkpoint_seconds=0",
        'metrics.report=["mae"]',
    ):
        assert base == addresses(tiny_plan(tmp_path, setting)), setting


def test_more_seeds_and_methods_join_an_old_table(tmp_path):
    base = tiny_plan(tmp_path)
    grown = tiny_plan(tmp_path, "train.seeds=[1, 2]", extra=TWO)
    assert addresses(base) < addresses(grown)
    assert {run.comparison_hash for run in base.runs} == {run.comparison_hash for run in grown.runs}


@pytest.mark.parametrize(
    "setting",
    [
        "test.mask_seeds=[205]",
        'test.conditions=["complete"]',
        "train.schedule=random-0.4",
        "data.scale=none",
        "data.synthetic.seed=1",
        "comparison.selection=test",
        "metrics.primary=mae",
    ],
)
def test_the_comparison_hash_keeps_different_comparisons_apart(tmp_path, setting):
    base, other = tiny_plan(tmp_path), tiny_plan(tmp_path, setting)
    assert base.runs[0].comparison_hash != other.runs[0].comparison_hash


def test_a_finished_protocol_is_recognised_on_another_device_class_only_as_another_run(tmp_path):
    plan = tiny_plan(tmp_path)
    cuda = make_plan(plan.protocol, plan.data, Execution("cuda", 1, "float32"))
    assert not addresses(plan) & addresses(cuda)
    assert plan.runs[0].comparison_hash == cuda.runs[0].comparison_hash


def test_shards_are_a_partition(tmp_path):
    plan = tiny_plan(tmp_path, *MATCHED, extra=TWO)
    shards = [plan.shard(index, 3) for index in (1, 2, 3)]
    together = [run.address for shard in shards for run in shard.runs]
    assert sorted(together) == sorted(addresses(plan))


def test_a_method_that_does_not_apply_is_skipped_with_a_reason(tmp_path):
    (run,) = tiny_plan(tmp_path, "methods.0={name='toys:NEEDS_FOUR'}").runs
    assert run.skip == "needs four modalities"
    assert run.address == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["methods.0.name=late_fusoin"], "did you mean 'late_fusion'"),
        (["methods.0.profile=publishd"], "profile of late_fusion"),
        (["methods.0.parameters.hiden=3"], "did you mean 'hidden'"),
        (["methods.0.parameters.hidden=0"], "'hidden'"),
        (["methods.0.parameters.lr=fast"], "'lr'"),
        (['test.conditions=["randm-0.3"]'], "did you mean"),
        (['test.conditions=["random-0.7"]'], "2/3"),
        (['test.conditions=["frames-0.3"]'], "comparison.unit"),
        (['test.conditions=["preset:fixed_sx"]'], "did you mean 'fixed_six'"),
        (["data.set=synthetc"], "did you mean 'synthetic'"),
        (["data.label=sentimnt"], "did you mean 'sentiment'"),
        (["data.mapping=class"], "needs classes"),
        (["data.task=multiclass"], "doesn't fit"),
        (["data.split=splt"], "did you mean 'split'"),
        (['data.features={text="vectors"}'], "two or more modalities"),
        (["data.synthetic.dialogs=[1,1,1]"], "did you mean 'dialogues'"),
    ],
)
def test_what_can_not_be_used_is_named(tmp_path, settings, words):
    with pytest.raises(UserError) as caught:
        tiny_plan(tmp_path, *settings)
    assert words in str(caught.value)


def test_two_entries_need_two_labels_and_two_contents(tmp_path):
    with pytest.raises(UserError, match="labelled 'late_fusion'"):
        tiny_plan(tmp_path, extra='[[methods]]\nname = "late_fusion"\nparameters = { hidden = 9 }\n')
    with pytest.raises(UserError, match="same run under two labels"):
        tiny_plan(
            tmp_path, extra='[[methods]]\nname = "late_fusion"\nlabel = "twin"\nparameters = { hidden = 8 }\n'
        )


def test_presets_stand_for_their_conditions(tmp_path):
    plan = tiny_plan(tmp_path, 'test.conditions=["preset:fixed_six"]')
    names = {schedule.name for schedule in plan.runs[0].test}
    assert names == {"complete", "fixed-t", "fixed-a", "fixed-v", "fixed-ta", "fixed-tv", "fixed-av"}


def test_score_mappings(tmp_path):
    def counts(mapping: str):
        data = tiny_plan(tmp_path, f"data.mapping={mapping}").data[0]
        score = data.samples.corpus.utterances["sentiment"].to_numpy()
        rows = next(iter(data.splits.values()))
        used = [*rows.train, *rows.valid, *rows.test]
        return data.samples, score, used

    samples, score, used = counts("negative_nonnegative")
    assert (samples.targets == (score >= 0)).all()
    assert len(used) == len(score)
    samples, score, used = counts("negative_positive")
    assert (score == 0).any()
    assert sorted(used) == [row for row in range(len(score)) if score[row] != 0]
    assert (samples.targets[used] == (score[used] > 0)).all()
    samples, score, used = counts("negative_neutral_positive")
    assert samples.classes == ("negative", "neutral", "positive")
    assert ((samples.targets == 1) == (score == 0)).all()
