"""MoMKE beyond its golden cases: stages, routers, restored experts, authors' weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from imer_bench.harness.method import StagePlan
from imer_bench.harness.parity.contract import ParityError
from imer_bench.methods._blocks import DialogueKeys, TransformerLayer
from imer_bench.methods.momke.info import MoMKEParameters
from imer_bench.methods.momke.model import MoMKE
from imer_bench.methods.momke.parity import load_reference_weights

from batches import PlainServices, make_batch, make_spec

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "momke" / "mosi_conditions_eval"
SMALL = {"hidden": 8, "depth": 2, "heads": 2, "dropout": 0.3, "epochs": 4, "lr": 1e-2}


def batch_of(spec, rate=0.3) -> Any:
    return make_batch(spec, rate=rate)


def build(spec=None, **settings) -> Any:
    torch.manual_seed(0)
    return MoMKE(spec or make_spec(), MoMKEParameters(**{**SMALL, **settings}), PlainServices())


def enter(method, index):
    stage = method.stages()[index]
    method.start_stage(StagePlan(stage, index, 1))
    return stage


def leave(method, index):
    method.end_stage(StagePlan(method.stages()[index], index, 1))


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


# Stages.


def test_one_optimiser_keeps_its_moments_over_the_boundary():
    method, batch = build(), batch_of(make_spec())
    enter(method, 0)
    for _ in range(3):
        method.training_step(batch)
    (optimizer,) = method.optimizers
    assert isinstance(optimizer, torch.optim.Adam)
    expert = next(method.experts["text"].parameters())
    router = next(method.routers["text"].parameters())
    assert optimizer.state[expert]["step"] == 3
    assert router not in optimizer.state
    leave(method, 0)
    enter(method, 1)
    assert method.optimizers == [optimizer]
    method.training_step(batch)
    assert optimizer.state[expert]["step"] == 4
    assert optimizer.state[router]["step"] == 1


def test_reset_optimizer_starts_with_fresh_moments():
    method, batch = build(reset_optimizer=True), batch_of(make_spec())
    enter(method, 0)
    method.training_step(batch)
    leave(method, 0)
    enter(method, 1)
    assert not method.optimizers[0].state


def test_weights_without_a_gradient_do_not_move():
    method, batch = build(weight_decay=0.1), batch_of(make_spec())
    enter(method, 0)
    before = weights(method)
    method.training_step(batch)
    moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"projections", "experts", "unimodal_heads"}
    leave(method, 0)
    enter(method, 1)
    before = weights(method)
    method.training_step(batch)
    moved = {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"projections", "experts", "routers", "joint_head"}


def test_frozen_experts_stand_still_in_the_second_stage_only():
    method, batch = build(freeze_experts=True), batch_of(make_spec())
    enter(method, 0)
    before = weights(method.experts)
    method.training_step(batch)
    trained = weights(method.experts)
    assert any(not torch.equal(trained[name], before[name]) for name in trained)
    leave(method, 0)
    enter(method, 1)
    joint = weights(method.joint_head)
    method.training_step(batch)
    assert all(torch.equal(value, trained[name]) for name, value in weights(method.experts).items())
    assert not torch.equal(weights(method.joint_head)["classifier.weight"], joint["classifier.weight"])


def test_stages_follow_the_settings():
    def shape(**settings):
        stages = MoMKE(make_spec(), MoMKEParameters(**{**SMALL, **settings}), PlainServices()).stages()
        return [(stage.name, stage.epochs, stage.data, stage.select) for stage in stages]

    assert shape(epochs=10) == [("experts", 5, "schedule", False), ("mixing", 5, "schedule", True)]
    assert shape(epochs=10, stage1_epochs=2, stage1_data="complete") == [
        ("experts", 2, "complete", False),
        ("mixing", 8, "schedule", True),
    ]
    assert shape(epochs=10, stage1_epochs=0) == [("mixing", 10, "schedule", True)]
    assert shape(epochs=10, select_from_epoch=0) == [
        ("experts", 5, "schedule", True),
        ("mixing", 5, "schedule", True),
    ]
    assert shape(epochs=10, select_from_epoch=8) == [
        ("experts", 5, "schedule", False),
        ("mixing", 3, "schedule", False),
        ("mixing", 2, "schedule", True),
    ]


def test_a_second_stage_cut_in_two_keeps_its_optimiser():
    method, batch = build(epochs=10, select_from_epoch=8, reset_optimizer=True), batch_of(make_spec())
    enter(method, 0)
    leave(method, 0)
    enter(method, 1)
    method.training_step(batch)
    (optimizer,) = method.optimizers
    leave(method, 1)
    enter(method, 2)
    assert method.optimizers == [optimizer]


def test_complete_experts_are_privileged_unless_there_are_none():
    assert MoMKEParameters().privileged() == ()
    assert MoMKEParameters(stage1_data="complete").privileged() == ("complete_stage",)
    assert MoMKEParameters(stage1_data="complete", stage1_epochs=0).privileged() == ()


@pytest.mark.parametrize("wrong", [{"hidden": 9}, {"stage1_epochs": 4}, {"select_from_epoch": 4}])
def test_settings_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MoMKEParameters(**{**SMALL, **wrong})


def test_experts_go_back_to_their_own_best_epoch_with_fresh_moments():
    spec = make_spec()
    method, batch = build(spec, expert_restore="best"), batch_of(spec)
    enter(method, 0)
    losses = {"text": [0.5, 0.4, 0.9], "audio": [0.2, 0.3, 0.4], "vision": [0.9, 0.8, 0.7]}
    history = []
    for epoch in range(3):
        method.training_step(batch)
        method.end_epoch(epoch, {f"loss/unimodal_{name}": values[epoch] for name, values in losses.items()})
        history.append(weights(method))
    (optimizer,) = method.optimizers
    leave(method, 0)
    now = weights(method)
    for name, best in {"text": 1, "audio": 0, "vision": 2}.items():
        for part in ("projections", "experts", "unimodal_heads"):
            for key in now:
                if key.startswith(f"{part}.{name}."):
                    assert torch.equal(now[key], history[best][key])
    assert not optimizer.state
    enter(method, 1)
    assert method.optimizers == [optimizer]


def test_a_killed_run_remembers_the_best_experts():
    spec = make_spec()
    method, batch = build(spec, expert_restore="best"), batch_of(spec)
    enter(method, 0)
    method.training_step(batch)
    method.end_epoch(0, {f"loss/unimodal_{name}": 1.0 for name in spec.names})
    best = weights(method.experts)
    method.training_step(batch)
    method.end_epoch(1, {f"loss/unimodal_{name}": 2.0 for name in spec.names})
    other = build(spec, expert_restore="best")
    enter(other, 0)
    other.load_state_dict(method.state_dict())
    other.load_training_state(method.training_state())
    leave(other, 0)
    assert all(torch.equal(value, best[name]) for name, value in weights(other.experts).items())


def test_the_stage_of_a_chosen_model_travels_with_its_weights():
    method, batch = build(), batch_of(make_spec())
    method.eval()
    enter(method, 0)
    early, state = method.predict(batch), method.state_dict()
    enter(method, 1)
    late = method.predict(batch)
    assert not torch.equal(early.score, late.score)
    method.load_state_dict(state)
    assert torch.equal(method.predict(batch).score, early.score)


# Losses.


def test_an_expert_learns_from_utterances_that_have_its_modality_only():
    spec = make_spec("multiclass")
    method, batch = build(spec).eval(), batch_of(spec)
    method.first_stage = True
    here = batch.available[..., spec.names.index("audio")]
    other = torch.where(here, batch.labels, (batch.labels + 1) % 4) * batch.real
    assert not torch.equal(other, batch.labels)
    one, two = method.losses(batch), method.losses(replace(batch, labels=other))
    torch.testing.assert_close(one["audio"], two["audio"])
    assert not torch.isclose(one["text"], two["text"])
    logits = method.expert_states(batch).unimodal[method.names.index("audio")]
    expected = torch.nn.functional.cross_entropy(logits[here], batch.labels[here])
    torch.testing.assert_close(one["audio"], expected)


def test_a_modality_nobody_has_gives_no_loss():
    spec = make_spec()
    method, batch = build(spec), batch_of(spec)
    method.first_stage = True
    index = spec.names.index("vision")
    gone = batch.available.clone()
    gone[..., index] = False
    losses = method.losses(replace(batch, available=gone))
    assert losses["vision"] == 0
    assert torch.isfinite(losses["total"])


def test_unimodal_scores_of_the_first_stage_are_logged():
    spec = make_spec("multiclass")
    method, batch = build(spec).eval(), batch_of(spec)
    method.first_stage = True
    found = method.validation_losses(batch)
    logits = method.expert_states(batch).unimodal[method.names.index("text")]
    here = batch.available[..., spec.names.index("text")]
    accuracy = (logits.argmax(-1) == batch.labels)[here].float().mean()
    torch.testing.assert_close(found["unimodal_text_accuracy"], accuracy)
    method.first_stage = False
    assert not method.validation_losses(batch)


# Routers.


def states(rate=0.3, **settings) -> Any:
    spec = make_spec()
    method, batch = build(spec, **settings).eval(), batch_of(spec, rate)
    return method, batch, method.mixed_states(batch)


def test_own_router_is_the_first_stage():
    method, batch, mixed = states(router="own")
    own = method.expert_states(batch)
    expected = torch.where(own.valid[..., None], own.experts, 0.0)
    torch.testing.assert_close(mixed.mixed, expected)
    assert not method.routers


def test_uniform_and_others_are_means_of_experts():
    _, _, soft = states()
    for router in ("uniform", "others"):
        _, _, mixed = states(router=router)
        for m in range(3):
            taken = [e for e in range(3) if router == "uniform" or e != m]
            mean = torch.stack([soft.experts[m, e] for e in taken]).mean(dim=0)
            expected = torch.where(soft.valid[m][..., None], mean, 0.0)
            torch.testing.assert_close(mixed.mixed[m], expected)


def test_hard_router_takes_the_best_expert_and_learns_like_the_soft_one():
    direction = torch.randn(3, 5, 7, 3, generator=torch.Generator().manual_seed(1))
    gradients, chosen = [], []
    for router in ("soft", "hard"):
        method, _, mixed = states(router=router)
        (mixed.weights * direction).sum().backward()
        gradients.append(method.routers["text"].fc2.weight.grad)
        chosen.append(mixed.weights.argmax(dim=-1))
        if router == "hard":
            torch.testing.assert_close(mixed.weights.amax(dim=-1), torch.ones(3, 5, 7))
    assert torch.equal(chosen[0], chosen[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_shared_router_is_one_network():
    method, batch, _ = states(router_scope="shared")
    assert list(method.routers) == ["all"]
    method.train()
    method.first_stage = False
    method.losses(batch)["total"].backward()
    assert all(parameter.grad is not None for parameter in method.routers.parameters())


def test_router_weights_are_logged_as_the_mean_over_available_utterances():
    method, batch, mixed = states(rate=0.7)
    method.first_stage = False
    method.start_epoch(0)
    method.predict(batch)
    logged = method.log()
    for m in range(3):
        expected = mixed.weights[m][mixed.valid[m]].mean(dim=0)
        torch.testing.assert_close(logged["router_weights"][m], expected)
    alone = mixed.valid.sum(dim=0) == 1
    for m in range(3):
        only = alone & mixed.valid[m]
        assert only.any()
        expected = mixed.weights[m][only].mean(dim=0)
        torch.testing.assert_close(logged["router_weights_by_pattern"][2**m, m], expected)
    total = sum(mixed.weights[m][mixed.valid[m]][:, m].sum() for m in range(3))
    torch.testing.assert_close(logged["own_expert_share"], total / mixed.valid.sum())


# The network.


def test_order_of_utterances_does_not_matter():
    spec = make_spec()
    method, batch = build(spec).eval(), batch_of(spec)
    method.first_stage = False
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    moved = replace(
        batch,
        features={name: value[:, order] for name, value in batch.features.items()},
        available=batch.available[:, order],
        real=batch.real[:, order],
    )
    one, two = method.predict(batch).score[:, order], method.predict(moved).score
    torch.testing.assert_close(one[moved.real], two[moved.real], rtol=1e-5, atol=1e-5)


def test_a_dialogue_without_the_modality_has_attention_output_zero():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 8, dropout=0.0, attention_dropout=0.0)
    x: Any = torch.randn(2, 5, 8, requires_grad=True)
    valid = torch.tensor([[True, True, False, True, False], [False] * 5])
    out = layer(x, DialogueKeys(valid))
    torch.testing.assert_close(out[1], x[1] + layer.mlp(torch.zeros(5, 8)))
    out.sum().backward()
    assert torch.isfinite(x.grad).all()
    # The first dialogue: an independent formula with the keys that are there only.
    query, key, value = layer.qkv(x[0]).view(5, 3, 2, 4).permute(1, 2, 0, 3)
    kept = valid[0].nonzero().squeeze(1)
    scores = (query @ key[:, kept].transpose(1, 2)) / 2
    y = (scores.softmax(dim=-1) @ value[:, kept]).transpose(0, 1).reshape(5, 8)
    torch.testing.assert_close(out[0], x[0] + y + layer.mlp(y))


def test_an_utterance_without_anything_is_finite():
    spec = make_spec()
    method, batch = build(spec).eval(), batch_of(spec)
    empty = batch.available.clone()
    empty[0] = False
    for first in (True, False):
        method.first_stage = first
        assert torch.isfinite(method.predict(replace(batch, available=empty)).score).all()


def test_one_utterance_dialogues_are_warned_of():
    with pytest.warns(UserWarning, match="no dialogues"):
        build(make_spec(length=1))


# The authors' weights.


def test_size_is_the_published_one():
    spec = make_spec(dims={"audio": 512, "text": 1024, "vision": 1024})
    method = MoMKE(spec, MoMKEParameters(), PlainServices())

    def millions(module):
        return round(sum(value.numel() for value in module.parameters()) / 1e6, 2)

    assert millions(method) == 5.40
    assert millions(method.experts) == 3.95
    assert millions(method.projections) == 0.66
    assert millions(method.joint_head.projection) == 0.59
    assert millions(method.routers) == 0.20


def golden_method(order) -> Any:
    dims = {"audio": 6, "text": 9, "vision": 7}
    spec = make_spec(dims={name: dims[name] for name in order})
    method = build(spec, hidden=12, depth=3, heads=3)
    load_reference_weights(method, load_file(GOLDEN / "weights.safetensors"))
    method.first_stage = False
    return method.eval(), spec


def test_authors_weights_do_not_depend_on_the_order_of_the_data_set():
    one, first = golden_method(("audio", "text", "vision"))
    two, second = golden_method(("vision", "text", "audio"))
    batch = batch_of(first)
    columns = [first.names.index(name) for name in second.names]
    moved = replace(batch, available=batch.available[..., columns])
    assert torch.equal(one.predict(batch).score, two.predict(moved).score)


def test_unknown_or_missing_weights_are_named():
    state = load_file(GOLDEN / "weights.safetensors")
    method, _ = golden_method(("text", "audio", "vision"))
    with pytest.raises(ParityError, match="novel"):
        load_reference_weights(method, {**state, "novel.weight": torch.zeros(1)})
    state.pop("router_t.fc2.bias")
    with pytest.raises(ParityError, match=r"router_t\.fc2\.bias"):
        load_reference_weights(method, state)


def test_authors_weights_need_their_modalities():
    method = build(make_spec(dims={"text": 4, "gaze": 3}))
    with pytest.raises(ValueError, match="gaze"):
        load_reference_weights(method, {})
