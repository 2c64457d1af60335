"""Search spaces from records, narrowed by protocols."""

from typing import Annotated

import optuna
import pytest

from imer_bench.harness.errors import UserError
from imer_bench.harness.protocol.schema import NarrowEntry
from imer_bench.harness.record import Choice, FloatRange, HyperParameters, IntRange, When
from imer_bench.harness.registry import method_info, method_names
from imer_bench.harness.studies.space import SearchSpace, search_space


class Settings(HyperParameters):
    width: Annotated[int, IntRange(4, 16, step=4), When("deep", (True,))] = 8
    lr: Annotated[float, FloatRange(1e-4, 1e-1, log=True)] = 1e-3
    deep: Annotated[bool, Choice((False, True))] = False
    decay: Annotated[float, FloatRange(1e-6, 1e-1, log=True)] = 0.0


def space(fixed=(), parameters: type[HyperParameters] = Settings, **narrowing) -> SearchSpace:
    entries = {
        name: entry if entry is False else NarrowEntry.model_validate(entry)
        for name, entry in narrowing.items()
    }
    return search_space(parameters, entries, fixed, "m")


def sampled(found: SearchSpace, base: HyperParameters, count: int = 60) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [found.suggest(study.ask(), base) for _ in range(count)]


def test_a_conditional_setting_is_sampled_only_where_it_matters():
    found = sampled(space(), Settings())
    assert {one["deep"] for one in found} == {False, True}
    for one in found:
        assert ("width" in one) == one["deep"]
        assert one.get("width", 4) in (4, 8, 12, 16)
        assert 1e-4 <= one["lr"] <= 1e-1
    deep = sampled(space(fixed=["deep"]), Settings(deep=True), 5)
    assert all("width" in one and "deep" not in one for one in deep), "a fixed parent decides too"
    assert not any("width" in one for one in sampled(space(deep=False), Settings(), 5))


def test_the_base_setting_in_terms_of_the_space():
    assert space().values_of(Settings()) == {"deep": False, "lr": 1e-3}, "0 is on no logarithmic range"
    assert space().values_of(Settings(deep=True, width=12)) == {"deep": True, "lr": 1e-3, "width": 12}
    assert "width" not in space().values_of(Settings(deep=True, width=9)), "9 is between the steps"


def test_narrowing():
    found = sampled(space(lr={"low": 1e-3, "high": 2e-3}, width={"values": [4]}, decay=False), Settings())
    assert all(1e-3 <= one["lr"] <= 2e-3 and "decay" not in one for one in found)
    assert {one["width"] for one in found if "width" in one} == {4}


@pytest.mark.parametrize(
    ("narrowing", "words"),
    [
        ({"lr": {"high": 1.0}}, "not within the record's"),
        ({"lr": {"low": 0.05, "high": 0.01}}, "not within"),
        ({"lrr": {"high": 0.1}}, "did you mean 'lr'"),
        ({"epochs": {"high": 9}}, "unknown searchable hyper-parameter of m 'epochs'"),
        ({"deep": {"low": 0}}, "'values'"),
        ({"deep": {"values": [1]}}, "1 is outside"),
        ({"width": {"low": 4.5}}, "not integers"),
    ],
)
def test_what_is_not_narrower_is_refused(narrowing, words):
    with pytest.raises(UserError, match=words):
        space(**narrowing)


def test_settings_that_depend_on_each_other_are_refused():
    class Round(HyperParameters):
        one: Annotated[int, IntRange(1, 2), When("two", (1,))] = 1
        two: Annotated[int, IntRange(1, 2), When("one", (1,))] = 1

    with pytest.raises(UserError, match="depend on each other"):
        space(parameters=Round)


@pytest.mark.parametrize("name", method_names())
def test_the_record_of_every_method_can_be_searched(name):
    """Every sample is a valid setting, and the record's own setting lies in its space."""
    parameters = method_info(name).parameters
    found, base = search_space(parameters, {}, (), name), parameters()
    outside = set(found.names) - set(found.values_of(base)) - set(parameters.search_conditions())
    assert not outside, f"defaults of {outside} are not in their ranges"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(20):
        parameters.model_validate({**base.model_dump(), **found.suggest(study.ask(), base)})
