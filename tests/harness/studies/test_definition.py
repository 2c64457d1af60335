"""What a study trains on, and what it never sees."""

import pytest
from small_studies import CALM, METHOD, small_plan

from imer_bench.harness.errors import UserError
from imer_bench.harness.protocol.data import DataSource
from imer_bench.harness.protocol.plan import Execution
from imer_bench.harness.studies.definition import NotTunable, plan_study, without_test

from tiny import tiny_plan

MATCHED = ("comparison={regime='matched'}", "train={seeds=[1]}", "validation={}")


def test_nothing_of_a_study_holds_a_test_row(tmp_path):
    whole = tiny_plan(tmp_path).data[0]
    split = whole.splits[None]
    ids = whole.samples.corpus.utterances["id"]
    test = set(ids.iloc[split.test])
    study = small_plan(tmp_path)
    for run in study.runs:
        corpus = run.data.samples.corpus
        held = set(corpus.utterances["id"])
        assert not held & test
        assert held | test == set(ids)
        assert {len(item.values) for item in corpus.features.values()} == {len(held)}
        assert len(run.data.samples.targets) == len(held)
        part = run.data.splits[run.fold]
        assert len(part.test) == 0
        for rows, before in ((part.train, split.train), (part.valid, split.valid)):
            assert corpus.utterances["id"].iloc[rows].tolist() == ids.iloc[before].tolist()
            for name, item in corpus.features.items():
                assert (item.values[rows] == whole.samples.corpus.features[name].values[before]).all()
            assert (run.data.samples.targets[rows] == whole.samples.targets[before]).all()


def test_a_tune_table_changes_no_run(tmp_path):
    plain = tiny_plan(tmp_path)
    tuned = tiny_plan(tmp_path, "tune={trials=7, conditions=['complete'], space={late_fusion={lr=false}}}")
    assert [run.address for run in plain.runs] == [run.address for run in tuned.runs]
    assert [run.comparison_hash for run in plain.runs] == [run.comparison_hash for run in tuned.runs]


def test_conditions_by_regime(tmp_path):
    single = small_plan(tmp_path, "test.conditions=['complete','random-0.2','random-0.4','random-0.6']")
    assert [item.name for item in single.conditions] == ["complete", "random-0.4"]
    assert [[schedule.name for schedule in run.validation] for run in single.runs] == [
        ["complete", "random-0.4"]
    ]
    assert single.runs[0].train.name == "random-0.3"
    matched = small_plan(tmp_path, *MATCHED, "tune.seeds=[5,6]")
    found = [(run.seed, run.train.name, [item.name for item in run.validation]) for run in matched.runs]
    assert found == [(seed, name, [name]) for seed in (5, 6) for name in ("complete", "random-0.5")], (
        "a model per condition, validated on its own"
    )
    no_prior = ("comparison={regime='no_prior'}", "train={seeds=[1]}", "validation={}")
    assert [item.name for item in small_plan(tmp_path, *no_prior).conditions] == ["complete"]
    with pytest.raises(UserError, match="no_prior"):
        small_plan(tmp_path, *no_prior, "tune.conditions=['random-0.5']")
    with pytest.raises(UserError, match="two or more rates"):
        small_plan(tmp_path, "tune={aggregate='area', conditions=['random-0.5']}")


def test_trials_of_other_objectives_have_another_study(tmp_path):
    name = small_plan(tmp_path).name
    assert small_plan(tmp_path, "tune.trials=9").name == name, "more trials continue a study"
    others = ["tune.conditions=['complete']", "tune.seeds=[4]", "tune.space.tunable.lr={low=0.01}"]
    others += ["tune.aggregate='worst'", "compute.epochs=2", "tune.seed=1", "metrics.primary='mae'"]
    assert len({name, *(small_plan(tmp_path, other).name for other in others)}) == 1 + len(others)


def test_what_the_protocol_sets_is_not_searched(tmp_path):
    found = small_plan(tmp_path, "methods=[{name='tunable:INFO', label='small', parameters={lr=0.02}}]")
    assert "lr" not in found.space.names
    assert found.base.model_dump()["lr"] == 0.02


def test_a_fold_is_marked(tmp_path):
    settings = ("data={set='iemocap4'}", "metrics.primary='accuracy'")
    source = DataSource(synthetic=True, scale=0.05)
    plan = tiny_plan(tmp_path, METHOD, CALM, *settings, source=source)
    execution = Execution("cpu", 1, "float32")
    study = plan_study(plan.protocol, plan.data, execution, "small")
    assert {run.fold for run in study.runs} == {next(iter(plan.data[0].splits))}
    assert "test data of other folds" in study.note
    fold = study.runs[0].fold
    held = set(study.runs[0].data.samples.corpus.utterances["id"])
    test = plan.data[0].samples.corpus.utterances["id"].iloc[plan.data[0].splits[fold].test]
    assert held
    assert not held & set(test)
    assert len(without_test(plan.data[0], fold).splits) == 1


def test_a_method_without_a_search_range_says_so(tmp_path):
    plan = tiny_plan(tmp_path, "methods=[{name='constant'}]")
    with pytest.raises(NotTunable, match="no search range"):
        plan_study(plan.protocol, plan.data, Execution("cpu", 1, "float32"), "constant")
