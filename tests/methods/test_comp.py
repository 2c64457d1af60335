"""ComP beyond its golden cases: modulator, prototypes, losses, ablations, authors' weights."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from imer_bench.harness.method import StagePlan
from imer_bench.harness.parity.contract import ParityError
from imer_bench.methods.comp.info import INFO, ComPParameters
from imer_bench.methods.comp.losses import (
    disentangling,
    divergence,
    modulation,
    noise_target,
    private_loss,
    reconstruction,
)
from imer_bench.methods.comp.model import ComP
from imer_bench.methods.comp.parity import load_reference_weights
from imer_bench.methods.comp.prompting import PromptBlock, PromptRule, readout

from batches import PlainServices, make_batch, make_spec

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "comp" / "mosi_eval_dropout"
SMALL = {
    "hidden": 8,
    "depth": 2,
    "heads": 2,
    "dropout": 0.3,
    "prompt_dim": 4,
    "n_proto": 3,
    "epochs": 4,
    "lr": 1e-2,
}
DIALOGUE = PromptRule(pooled=False, zero_readout=False, mask_quirk=False)


def batch_of(spec) -> Any:
    return make_batch(spec)


def build(spec=None, profile="default", **changes) -> Any:
    torch.manual_seed(0)
    parameters = ComPParameters(**{**INFO.profiles[profile], **SMALL, **changes})
    return ComP(spec or make_spec(), parameters, PlainServices())


def alone(batch, index):
    """One dialogue of a batch, in a batch of its own."""
    keep = slice(index, index + 1)
    return replace(
        batch,
        features={name: value[keep] for name, value in batch.features.items()},
        available=batch.available[keep],
        real=batch.real[keep],
        speakers=batch.speakers[keep],
        lengths=batch.lengths[keep],
        rows=batch.rows[keep],
        labels=batch.labels[keep],
    )


# Gradient modulator.


@st.composite
def errors(draw):
    count = draw(st.integers(2, 4))
    size = draw(st.integers(2, 6))
    values = st.floats(0.01, 3, allow_nan=False).map(lambda value: round(value, 2))
    return [[draw(values) for _ in range(size)] for _ in range(count)]


def modulated(rows, released):
    """The modulator on given absolute errors: predictions above labels of 1."""
    outputs = torch.tensor(rows, dtype=torch.float64)[:, None, :, None] + 1
    real = torch.ones(outputs.shape[1:3], dtype=torch.bool)
    return modulation(outputs, torch.ones(outputs.shape[1:3]), real, "regression", released)


@given(errors())
@settings(max_examples=60, deadline=None)
def test_modulator_is_bounded_and_follows_the_formula_where_it_is_well_conditioned(rows):
    found = modulated(rows, released=False).weights[:, 0]
    assert ((found >= 0) & (found <= 2)).all()
    count, size = len(rows), len(rows[0])
    for u in range(count):
        for i in range(size):
            terms = []
            for v in range(count):
                if v != u:
                    gaps = [rows[u][j] - rows[v][j] for j in range(size)]
                    if abs(sum(gaps)) < 1e-2:
                        break
                    terms.append(sum(gaps[j] for j in range(size) if j != i) / sum(gaps))
            else:
                expected = min(max(sum(terms) / (count - 1), 0), 2)
                assert float(found[u, i]) == pytest.approx(expected, abs=2e-3)


@given(errors())
@settings(max_examples=60, deadline=None)
def test_released_weights_have_mean_one_minus_one_over_n(rows):
    count, size = len(rows), len(rows[0])
    sums = [sum(row) for row in rows]
    if min(abs(sums[u] - sums[v]) for u in range(count) for v in range(u)) < 0.05:
        return
    found = modulated(rows, released=True).weights[:, 0]
    for u in range(count):
        assert float(found[u].mean()) == pytest.approx(1 - 1 / size, abs=5e-3)


def test_equal_modalities_are_left_alone():
    found = modulated([[0.5, 0.7], [0.5, 0.7], [0.5, 0.7]], released=False)
    assert (found.weights == 1).all()
    assert found.clipped == 0


def test_modulator_clips_and_says_how_often():
    # δ = (3, -2), sum 1: W = 1 - δ = (-2, 3) for the first, the same for the second modality.
    found = modulated([[3.5, 0.5], [0.5, 2.5]], released=False)
    torch.testing.assert_close(found.weights[:, 0], torch.tensor([[0.0, 2.0], [0.0, 2.0]]))
    assert found.clipped == 1


def test_neutral_labels_and_padding_are_not_counted_and_scale_to_one():
    outputs = torch.randn(3, 2, 4, 1)
    labels = torch.tensor([[1.0, 0.0, -2.0, 0.0], [2.0, 0.0, 1.0, 0.0]])
    real = torch.tensor([[True, True, True, False], [True, True, False, False]])
    found = modulation(outputs, labels, real, "regression", released=False)
    assert torch.equal(found.counted, torch.tensor([[True, False, True, False], [True, False, False, False]]))
    scale = found.scale()
    assert (scale[:, [1, 3]] == 1).all()
    torch.testing.assert_close(scale[:, 0], found.weights[:, :, 0].mean(dim=1))
    torch.testing.assert_close(scale[:, 2], found.weights[:, 0, 2])


def test_errors_of_classes_are_probabilities():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])[:, :, None, :].expand(2, 1, 3, 2)
    labels = torch.tensor([[0, 0, 1]])
    found = modulation(logits, labels, torch.ones(1, 3, dtype=torch.bool), "multiclass", released=False)
    right = 1 / (1 + math.exp(2.0))
    gaps = [right - 0.5, right - 0.5, (1 - right) - 0.5]
    expected = [min(max(1 - gap / sum(gaps), 0), 2) for gap in gaps]
    torch.testing.assert_close(found.weights[0, 0], torch.tensor(expected))


def test_modulator_touches_the_first_layer_of_the_generators_only():
    spec = make_spec()
    batch = batch_of(spec)
    gradients = {}
    for gm in ("off", "paper"):
        method = build(spec, gm=gm, dropout=0.0, lr=1e-6)
        method.start_stage(StagePlan(method.stages()[1], 0, 1))
        logged = method.training_step(batch)
        gradients[gm] = {name: value.grad for name, value in method.named_parameters()}
        assert ("gm_clipped" in logged) == (gm == "paper")
    changed = {
        name
        for name, value in gradients["off"].items()
        if value is not None and not torch.equal(value, gradients["paper"][name])
    }
    assert changed == {f"generators.{name}.fc1.weight" for name in spec.names}
    encoded = method.encode(batch)
    scale = method.modulation(batch, encoded, method.prompted_states(encoded)).scale()
    for name, factor in zip(method.names, scale, strict=True):
        key = f"generators.{name}.fc1.weight"
        torch.testing.assert_close(
            gradients["paper"][key], gradients["off"][key] * factor, rtol=1e-3, atol=1e-7
        )


# Prototypes and prompts.


@pytest.mark.parametrize(
    ("profile", "independent"), [("default", True), ("paper", True), ("published", False)]
)
def test_neighbours_in_the_batch_matter_only_where_the_profile_says(profile, independent):
    spec = make_spec()
    method, batch = build(spec, profile).eval(), batch_of(spec)
    method.first_stage = False
    assert (profile in INFO.batch_dependent) == (not independent)
    whole, one = method.predict(batch).score, method.predict(alone(batch, 1)).score
    difference = (whole[1] - one[0])[batch.real[1]].abs().max()
    assert (difference < 1e-6) == independent


def test_training_pools_prototypes_by_default():
    spec = make_spec()
    method, batch = build(spec, dropout=0.0).train(), batch_of(spec)
    whole = method.prompted_states(method.encode(batch)).outputs
    one = method.prompted_states(method.encode(alone(batch, 1))).outputs
    assert not torch.allclose(whole[1], one[0])
    method = build(spec, dropout=0.0, prototype_scope="conversation").train()
    whole = method.prompted_states(method.encode(batch)).outputs
    one = method.prompted_states(method.encode(alone(batch, 1))).outputs
    torch.testing.assert_close(whole[1], one[0])


def test_readout_is_a_softmax_of_cosines():
    torch.manual_seed(0)
    x, prototypes, valid = torch.randn(2, 4, 6), torch.randn(2, 3, 6), torch.ones(2, 4, dtype=torch.bool)
    own = readout(x, prototypes, valid, DIALOGUE)
    pooled = readout(x, prototypes, valid, replace(DIALOGUE, pooled=True))
    for b in range(2):
        for s in range(4):
            for found, known in ((own, prototypes[b]), (pooled, prototypes.flatten(0, 1))):
                cosines = torch.stack([torch.dot(x[b, s], a) / (x[b, s].norm() * a.norm()) for a in known])
                torch.testing.assert_close(found[b, s], cosines.softmax(dim=0) @ known)


def test_released_rounding_changes_next_to_nothing():
    torch.manual_seed(0)
    x, prototypes, valid = torch.randn(3, 4, 6), torch.randn(3, 3, 6), torch.rand(3, 4) > 0.5
    plain = readout(x, prototypes, valid, replace(DIALOGUE, pooled=True))
    quirk = readout(x, prototypes, valid, replace(DIALOGUE, pooled=True, mask_quirk=True))
    assert 0 < (plain - quirk).abs().max() < 2e-3


def test_an_absent_utterance_reads_nothing_with_zero_readout():
    torch.manual_seed(0)
    block: Any = PromptBlock(6, 4, 0.0, reads=True)
    x, prototypes = torch.randn(1, 4, 6), torch.randn(1, 3, 6)
    valid = torch.tensor([[True, False, True, False]])
    prompt = block(x, prototypes, valid, replace(DIALOGUE, zero_readout=True))
    nothing = block.describe(torch.zeros(6)) + block.direct(x)
    torch.testing.assert_close(prompt[~valid], nothing[~valid])
    assert not torch.allclose(prompt[valid], nothing[valid])


def test_a_vanishing_feature_has_a_finite_prompt_and_gradient():
    x: Any = torch.zeros(1, 2, 6, requires_grad=True)
    readout(x, torch.zeros(1, 3, 6), torch.ones(1, 2, dtype=torch.bool), DIALOGUE).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_absent_utterances_leave_the_prototypes_if_asked():
    spec = make_spec()
    batch = batch_of(spec)
    for masked in (False, True):
        method = build(spec, prototype_input_mask=masked).eval()
        encoded = method.encode(batch)
        before = method.prompted_states(encoded).propagation.prototypes
        shared = encoded.shared + torch.where(encoded.valid[..., None], 0.0, 5.0)
        after = method.prompted_states(replace(encoded, shared=shared)).propagation.prototypes
        assert torch.equal(before, after) == masked


# Ablations.


def test_ablations_leave_out_what_they_say():
    spec = make_spec()
    batch = batch_of(spec)
    method = build(spec, kp=False).eval()
    encoded = method.encode(batch)
    assert torch.equal(method.prompted_states(encoded).modalities, encoded.shared)
    method = build(spec, kp="no_prompt").eval()
    encoded = method.encode(batch)
    states = method.prompted_states(encoded)
    torch.testing.assert_close(states.modalities, method.modality_states(encoded, private=False).second)
    method = build(spec, coordinator=False).eval()
    assert (method.prompted_states(method.encode(batch)).weights == 1).all()
    method = build(spec, pg=False).eval()
    states = method.prompted_states(method.encode(batch))
    assert states.propagation.prototypes is None
    for index, name in enumerate(method.names):
        direct = method.first_prompts[name].direct(method.encode(batch).shared[index])
        torch.testing.assert_close(states.propagation.fresh[index], direct)


@pytest.mark.parametrize(
    "changes", [{"kp": False}, {"kp": "no_prompt"}, {"pg": False}, {"coordinator": False}]
)
def test_ablations_train_every_parameter(changes):
    spec = make_spec("multiclass")
    method, batch = build(spec, **changes), batch_of(spec)
    touched = set()
    for index, stage in enumerate(method.stages()):
        method.start_stage(StagePlan(stage, index, 1))
        method.training_step(batch)
        touched |= {name for name, value in method.named_parameters() if value.grad is not None}
    assert touched == {name for name, _ in method.named_parameters()}


def test_momentum_mixes_carried_and_fresh_prompts():
    spec = make_spec()
    batch = batch_of(spec)
    outputs = {}
    for lbd in (0.0, 0.5, 1.0):
        method = build(spec, lbd=lbd).eval()
        outputs[lbd] = method.prompted_states(method.encode(batch)).propagation.fused[1]
    # The fusion is linear in the prompt, so that half the momentum lies half way.
    torch.testing.assert_close(outputs[0.5], (outputs[0.0] + outputs[1.0]) / 2)
    assert not torch.allclose(outputs[0.0], outputs[1.0])


# Losses.


def test_divergence_is_the_printed_formula_and_survives_saturation():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    p, q = first.sigmoid(), second.sigmoid()
    m = (p + q) / 2
    expected = 0.5 * (p * (p / m).log() + q * (q / m).log()).sum() / 6
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(divergence(first, second, everywhere), expected)
    assert divergence(first, first, everywhere).abs() < 1e-12
    extreme: Any = torch.tensor([[[-500.0, 500.0, -500.0]]], requires_grad=True)
    value = divergence(extreme, torch.tensor([[[-500.0, -500.0, 500.0]]]), torch.ones(1, 1, dtype=torch.bool))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(extreme.grad).all()


def test_own_cosines_count_once_for_every_pair():
    torch.manual_seed(0)
    shared, private = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    real = torch.rand(2, 4) > 0.3
    pairs = disentangling(shared, private, real, real)

    def cosine(x, y):
        return torch.stack(
            [torch.dot(x[b, s], y[b, s]).abs() / (x[b, s].norm() * y[b, s].norm()) for b, s in real.nonzero()]
        ).mean()

    expected = sum(cosine(private[i], private[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected += 2 * sum(cosine(private[u], shared[u]) for u in range(3))
    expected += sum(divergence(shared[i], shared[j], real) for i, j in ((0, 1), (0, 2), (1, 2)))
    torch.testing.assert_close(torch.stack([pair.total for pair in pairs.values()]).sum(), expected)


def test_loss_mask_leaves_padding_out():
    decoded, projected = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    expected = torch.nn.functional.mse_loss(decoded, projected)
    torch.testing.assert_close(reconstruction(decoded, projected, everywhere), expected)
    real = torch.tensor([[True, True, False, False], [True, False, False, False]])
    spoiled = torch.where(real[..., None], decoded, 100.0)
    torch.testing.assert_close(
        reconstruction(spoiled, projected, real), reconstruction(decoded, projected, real)
    )


def test_real_losses_do_not_depend_on_the_fixed_length():
    spec = make_spec("multiclass")
    batch = batch_of(spec)

    def total(mask, length):
        method = build(spec, loss_mask=mask, rec_in_stage1=True, sequence_length=length, kp=False).eval()
        method.first_stage = True
        return method.losses(batch)["total"]

    torch.testing.assert_close(total("real", 7), total("real", 12))
    assert not torch.isclose(total("published", 7), total("published", 12))


def test_weights_of_the_loss_scale_their_terms():
    spec = make_spec("multiclass")
    batch = batch_of(spec)

    def losses(first, **changes):
        method = build(spec, rec_in_stage1=True, **changes).eval()
        method.first_stage = first
        return method.losses(batch)

    one = losses(True)
    private = sum(value for name, value in one.items() if name.startswith("private_"))
    for changes, term in (
        ({"w_priv": 0.0}, private),
        ({"w_dis": 0.0}, one["disentangle"]),
        ({"w_rec": 0.0}, one["rec"]),
    ):
        torch.testing.assert_close(one["total"] - losses(True, **changes)["total"], term)
    two = losses(False)
    tasks = sum(two[f"task_{name}"] for name in spec.names)
    torch.testing.assert_close(two["total"] - losses(False, unimodal_weight=0.0)["total"], 2 * tasks)


def test_private_targets():
    real = torch.ones(1, 4, dtype=torch.bool)
    labels = torch.tensor([[0, 1, 2, 1]])
    flat = torch.zeros(1, 4, 3)
    assert float(private_loss(flat, labels, real, "multiclass", uniform=True)) == pytest.approx(math.log(3))
    sure = torch.nn.functional.one_hot(labels, 3).float() * 5
    assert private_loss(sure, labels, real, "multiclass", uniform=True) > math.log(3)
    # As released: the more certain of the true class, the worse.
    released = private_loss(sure, labels, real, "multiclass", uniform=False)
    assert released > private_loss(-sure, labels, real, "multiclass", uniform=False)


def test_noise_is_a_clamped_normal_on_the_scale_of_the_labels():
    torch.manual_seed(0)
    noise = noise_target((200_000,), torch.device("cpu"), 3.0)
    assert noise.abs().max() == 3.0
    inside = noise[noise.abs() < 3]
    assert float(inside.mean()) == pytest.approx(0, abs=0.02)
    # P(|1.5 N| > 3) = P(|N| > 2)
    assert float((noise.abs() == 3).float().mean()) == pytest.approx(math.erfc(2 / math.sqrt(2)), abs=0.003)


def test_private_source_is_audio_or_own():
    spec = make_spec()
    batch = batch_of(spec)
    for source, same in (("audio", True), ("own", False)):
        method = build(spec, private_source=source).eval()
        encoded = method.encode(batch)
        before = method.modality_states(encoded, private=True).private
        private = encoded.private.clone()
        private[1:] += 3
        after = method.modality_states(replace(encoded, private=private), private=True).private
        assert torch.equal(before, after) == same


# Lengths.


def test_batches_narrower_and_wider_than_the_fixed_length_agree():
    spec = make_spec()
    batch = batch_of(spec)
    method = build(spec, sequence_length=9).eval()
    method.first_stage = False
    wide = replace(
        batch,
        features={n: torch.nn.functional.pad(x, (0, 0, 0, 5)) for n, x in batch.features.items()},
        available=torch.nn.functional.pad(batch.available, (0, 0, 0, 5)),
        real=torch.nn.functional.pad(batch.real, (0, 5)),
    )
    narrow, score = method.predict(batch).score, method.predict(wide).score
    assert score.shape == wide.real.shape
    torch.testing.assert_close(narrow[batch.real], score[wide.real])


def test_a_dialogue_beyond_the_fixed_length_is_an_error_or_a_reason_to_skip():
    spec = make_spec(length=7)
    with pytest.raises(ValueError, match="longest dialogue"):
        build(spec, sequence_length=6)
    assert "longest dialogue" in (INFO.applies(spec, ComPParameters(sequence_length=6)) or "")
    assert INFO.applies(spec, ComPParameters(sequence_length=7)) is None
    method = build(spec)
    with pytest.raises(ValueError, match="longer than S"):
        method.predict(batch_of(make_spec(length=9)))


# Stages and the authors' weights.


def test_stacks_go_back_to_their_best_epoch_if_asked():
    spec = make_spec()
    batch = batch_of(spec)
    method = build(spec, stage1_reload=True)
    method.start_stage(StagePlan(method.stages()[0], 0, 1))
    history = []
    for epoch in range(2):
        method.training_step(batch)
        method.end_epoch(epoch, {f"loss/unimodal_{name}": float(epoch) for name in spec.names})
        history.append({name: value.detach().clone() for name, value in method.named_parameters()})
    method.end_stage(StagePlan(method.stages()[0], 0, 1))
    for name, value in method.named_parameters():
        expected = history[0 if "_stacks." in name else 1][name]
        assert torch.equal(value, expected), name


def test_coordinator_weights_are_logged_as_means_over_real_utterances():
    spec = make_spec()
    batch = batch_of(spec)
    method = build(spec).eval()
    method.first_stage = False
    method.start_epoch(0)
    method.predict(batch)
    weights = method.prompted_states(method.encode(batch)).weights[:, : batch.real.shape[1]]
    torch.testing.assert_close(method.log()["coordinator_weights"], weights[batch.real].mean(dim=0))


def test_size_is_the_published_one_without_dead_weights():
    spec = make_spec(dims={"audio": 512, "text": 1024, "vision": 1024}, length=63)
    full = ComPParameters(**INFO.data_set_parameters["cmu_mosi"])
    count = sum(value.numel() for value in ComP(spec, full, PlainServices()).parameters())
    generator = 10 * 65 + 10 + 10 * 10 + 10
    back = 256 * 256 + 256 + (256 + 32) * 256 + (256 + 32)
    assert count + 3 * (generator + back) == 8_112_627


def test_authors_weights_load_in_any_order_without_their_dead_ones():
    state = load_file(GOLDEN / "weights.safetensors")
    dims = {"audio": 6, "text": 9, "vision": 7}
    scores = []
    base = make_spec(dims=dims, length=20)
    batch = batch_of(base)
    for order in (("audio", "text", "vision"), ("text", "vision", "audio")):
        spec = make_spec(dims={name: dims[name] for name in order}, length=20)
        method = build(spec, hidden=16, depth=4, heads=2, prompt_dim=16, n_proto=10).eval()
        load_reference_weights(method, state)
        method.first_stage = False
        columns = [base.names.index(name) for name in order]
        scores.append(method.predict(replace(batch, available=batch.available[..., columns])).score)
    assert torch.equal(scores[0], scores[1])
    alive = {name: value for name, value in state.items() if "_2.proj_n" not in name}
    load_reference_weights(method, alive)
    with pytest.raises(ParityError, match="novel"):
        load_reference_weights(method, {**state, "novel": torch.zeros(1)})
