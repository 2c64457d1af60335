"""DMD: distillation graphs, decoupling losses, accumulation, text encoder, authors' weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from imer_bench.harness.batch import Batch
from imer_bench.harness.engine.checkpoint import load_state, save_state
from imer_bench.harness.language_models import resolve
from imer_bench.harness.method import Stage, StagePlan
from imer_bench.harness.spec import DataSpec, ModalitySpec
from imer_bench.methods.dmd.checkpoints import load_reference_weights
from imer_bench.methods.dmd.distillation import GraphDistillation, UnitSettings, cosine, prior
from imer_bench.methods.dmd.info import INFO, DMDParameters
from imer_bench.methods.dmd.losses import margin_loss, orthogonality
from imer_bench.methods.dmd.model import DMD, distil, loss_terms
from imer_bench.methods.dmd.transformer import Encoder

from batches import PlainServices, make_batch, make_spec

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "dmd"
SMALL: dict[str, Any] = {"hidden": 8, "heads": 2, "nlevels": 1, "output_dropout": 0.0, "text_dropout": 0.0}
STILL: dict[str, Any] = {**SMALL, "attn_dropout": 0.0, "attn_dropout_audio": 0.0, "embed_dropout": 0.0}


def build(spec: DataSpec, models: dict[str, Any] | None = None, **values: Any) -> DMD:
    torch.manual_seed(0)
    return DMD(spec, DMDParameters(**{**STILL, **values}), PlainServices(models=models))


def started(method: DMD, steps: int = 3) -> DMD:
    method.start_stage(StagePlan(Stage(), 0, steps))
    method.train()
    method.start_epoch(0)
    return method


def score(method: DMD, batch: Batch) -> Tensor:
    result = method.predict(batch).score
    assert result is not None
    return result


def pick(batch: Batch, keep: Tensor) -> Batch:
    """The samples of a sequence batch where ``keep`` is true."""
    assert batch.labels is not None
    assert batch.frames_available is not None
    return replace(
        batch,
        features={name: value[keep] for name, value in batch.features.items()},
        frames_available={name: value[keep] for name, value in batch.frames_available.items()},
        available=batch.available[keep],
        real=batch.real[keep],
        labels=batch.labels[keep],
        rows=batch.rows[keep],
        lengths=tuple(1 for _ in range(int(keep.sum()))),
    )


# Margin and orthogonality.


def naive_margin(
    vectors: np.ndarray, labels: np.ndarray, classes: bool, present: np.ndarray | None = None
) -> float:
    """Three nested loops, as the formula reads."""
    count, modalities, _ = vectors.shape
    items = [
        (vectors[b, m], labels[b])
        for b in range(count)
        for m in range(modalities)
        if present is None or present[b, m]
    ]
    units = [vector / np.sqrt((vector**2).sum() + 1e-8) for vector, _ in items]
    values = [float(label) for _, label in items]
    losses = []
    for i, anchor in enumerate(units):
        positives = [j for j in range(len(units)) if j != i and values[j] == values[i]]
        negatives = [j for j in range(len(units)) if values[j] != values[i]]
        pairs = []
        for p in positives:
            for n in negatives:
                margin = 0.15 * (1.0 if classes else abs(values[i] - values[n]))
                pairs.append(max(0.0, margin - anchor @ units[p] + anchor @ units[n]))
        if pairs:
            losses.append(np.mean(pairs))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_margin_loss_is_the_mean_over_all_triplets(classes: bool, masked: bool) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(7, 3, 5))
    labels = rng.integers(0, 3, 7) if classes else rng.integers(-3, 4, 7) / 5
    present = rng.random((7, 3)) < 0.6 if masked else None
    ours = margin_loss(
        torch.tensor(vectors),
        torch.tensor(labels),
        classes,
        None if present is None else torch.tensor(present),
    )
    assert float(ours) == pytest.approx(naive_margin(vectors, labels, classes, present), abs=1e-12)


def test_margin_loss_has_the_gradient_of_the_triplets() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0.0, 0.4, 0.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: margin_loss(v, labels, False), vectors)


@pytest.mark.parametrize("labels", [[1.0], [0.5, 0.5, 0.5]])
def test_margin_loss_without_negatives_is_zero(labels: list[float]) -> None:
    vectors = torch.randn(len(labels), 3, 4, requires_grad=True)
    loss = margin_loss(vectors, torch.tensor(labels), False)
    loss.backward()
    assert loss.item() == 0
    assert vectors.grad is not None
    assert bool(vectors.grad.isfinite().all())


def test_orthogonality_is_the_positive_cosine_of_each_step() -> None:
    a = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    b = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]]])
    assert float(orthogonality(a, b, "feature")) == pytest.approx((1 + 0 + 0 + 0.5**0.5) / 4)
    # Along a batch of one every channel is a vector of length one: its cosine is a sign.
    assert float(orthogonality(a, b, "batch")) == pytest.approx(2 / 8)


# Graphs.


def unit(nodes: int = 3, outputs: int = 1, **values: Any) -> GraphDistillation:
    torch.manual_seed(3)
    edges = nodes * (nodes - 1)
    settings = UnitSettings(size=4, prior=prior([1.0] + [0.0] * (edges - 1)), alpha=5.0, **values)
    return GraphDistillation(nodes, outputs, 6, settings)


def test_edges_of_a_sample_sum_to_one_and_follow_the_order_of_pairs() -> None:
    graph = unit()
    logits, reprs = torch.randn(3, 5, 1), torch.randn(3, 5, 6)
    result = graph(logits, reprs)
    assert result.edges.shape == (6, 5)
    torch.testing.assert_close(result.edges.sum(0), torch.ones(5))
    # Written out: the score of student j and teacher i is W [zeta_j, zeta_i].
    zeta = torch.cat([graph.logit(logits), graph.representation(reprs)], -1)
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for edge, (student, teacher) in enumerate(pairs):
        expected = graph.edge(torch.cat([zeta[student], zeta[teacher]], -1))[:, 0]
        torch.testing.assert_close(result.scores[edge], expected)


def test_only_students_learn_from_an_edge() -> None:
    graph = unit(reg=0.0)
    graph.settings = replace(graph.settings, alpha=0.0)  # edges of 1/6, whatever the logits
    logits = torch.randn(3, 4, 1, requires_grad=True)
    result = graph(logits, torch.zeros(3, 4, 6))
    (gradient,) = torch.autograd.grad(result.logit, logits)
    expected = torch.zeros_like(logits)
    for edge, (student, teacher) in enumerate([(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]):
        sign = (logits[student] - logits[teacher]).detach().sign()
        expected[student] += (1 / 6 + result.prior[edge]) * sign / 4
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("form", ["distance", "repel"])
def test_absent_modalities_have_no_edges(form: Any) -> None:
    graph = unit(representation=form)
    logits, reprs = torch.randn(3, 4, 1), torch.randn(3, 4, 6)
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1]]).bool()
    result = graph(logits, reprs, present)
    assert bool((result.edges[:, 2] == 0).all())  # one modality: nobody to learn from
    torch.testing.assert_close(result.edges[:, 1].nonzero().flatten(), torch.tensor([0, 2]))
    torch.testing.assert_close(result.edges[:, [0, 1, 3]].sum(0), torch.ones(3))
    keep = torch.tensor([0, 1, 3])
    alone = graph(logits[:, keep], reprs[:, keep], present[keep])
    for name in ("reg", "logit", "representation"):
        torch.testing.assert_close(getattr(result, name), getattr(alone, name))


def test_present_everywhere_is_the_unmasked_graph() -> None:
    graph = unit()
    logits, reprs = torch.randn(3, 4, 1), torch.randn(3, 4, 6)
    masked, plain = graph(logits, reprs, torch.ones(4, 3).bool()), graph(logits, reprs)
    for name in ("edges", "reg", "logit", "representation"):
        torch.testing.assert_close(getattr(masked, name), getattr(plain, name))


def test_cosine_of_zero_vectors_is_zero_with_finite_gradient() -> None:
    a = torch.zeros(2, 3, requires_grad=True)
    cosine(a, torch.zeros(2, 3)).sum().backward()
    assert a.grad is not None
    assert bool(a.grad.isfinite().all())


def test_published_prior_favours_text_as_a_teacher() -> None:
    method = build(make_spec(level="vectors"))
    network = method.network
    assert network.names == ("text", "vision", "audio")
    high = 1 / (2 + 4 * np.exp(-4))
    expected = torch.full((6,), (1 - 2 * high) / 4)
    expected[[2, 4]] = high  # text teaches vision, text teaches audio
    torch.testing.assert_close(network.homo.prior, expected.float(), rtol=1e-5, atol=1e-6)
    assert float(network.hetero.prior[5]) == pytest.approx(float(network.hetero.prior[2]))


# Transformer.


def test_causal_steps_do_not_see_later_ones() -> None:
    torch.manual_seed(4)
    encoder = Encoder(8, 2, 2, longest=6).eval()
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 4:] = torch.randn(2, 8)
    torch.testing.assert_close(encoder(x)[:, :4], encoder(changed)[:, :4])
    assert not torch.allclose(encoder(x)[:, 4:], encoder(changed)[:, 4:])


def test_a_longer_source_is_seen_up_to_the_offset() -> None:
    torch.manual_seed(5)
    encoder = Encoder(8, 2, 1, longest=6).eval()
    query, source = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    changed = source.clone()
    changed[:, 3] = torch.randn(8)
    same, moved = encoder(query, source), encoder(query, changed)
    torch.testing.assert_close(same[:, 0], moved[:, 0])  # step 0 sees 0..2
    assert not torch.allclose(same[:, 1], moved[:, 1])  # step 1 sees 3


# The method.


@pytest.mark.parametrize("padding", ["mask", "features"])
@pytest.mark.parametrize("pool", ["last", "last_valid"])
def test_predictions_do_not_depend_on_how_far_a_batch_is_padded(padding: str, pool: str) -> None:
    spec = make_spec(level="sequences")
    method = build(spec, padding=padding, pool=pool, kernel_text=2, kernel_audio=1).eval()
    batch = make_batch(spec, 6)
    assert batch.frames_available is not None
    short = {name: int(mask.sum(1).max()) for name, mask in batch.frames_available.items()}
    keep = torch.arange(6) > 0
    cut = replace(
        batch,
        features={name: value[:, : short[name]] for name, value in batch.features.items()},
        frames_available={name: value[:, : short[name]] for name, value in batch.frames_available.items()},
    )
    torch.testing.assert_close(score(method, cut), score(method, batch))
    torch.testing.assert_close(score(method, pick(batch, keep)), score(method, batch)[keep])


def test_last_valid_reads_the_last_real_step() -> None:
    spec = make_spec(level="sequences")
    batch = make_batch(spec, 6, rate=0.0)
    last = build(spec, kernel_text=1, kernel_audio=1, kernel_vision=1).eval()
    valid = build(spec, kernel_text=1, kernel_audio=1, kernel_vision=1, pool="last_valid").eval()
    assert batch.frames is not None
    full = torch.stack([batch.frames[m.name].all(1) for m in spec.modalities]).all(0)
    torch.testing.assert_close(score(last, batch)[full], score(valid, batch)[full])
    assert not torch.isclose(score(last, batch), score(valid, batch))[~full].any()


def test_vectors_are_sequences_of_length_one() -> None:
    spec = make_spec(level="vectors")
    batch = make_batch(spec, 5)
    sequences = replace(
        batch,
        features={name: value[:, None] for name, value in batch.features.items()},
        frames_available={name: batch.available[:, i, None] for i, name in enumerate(spec.names)},
    )
    method = build(spec).eval()
    assert {shape.kernel for shape in method.network.shapes.values()} == {1}
    torch.testing.assert_close(score(method, batch), score(method, sequences))
    assert method.log()["kernel/text"] == 1


def test_masked_losses_are_those_of_the_samples_that_have_the_modality() -> None:
    spec = make_spec(level="sequences")
    batch = make_batch(spec, 8, rate=0.4)
    method = build(spec, mask_losses=True).eval()

    def terms(one: Batch) -> dict[str, Tensor]:
        assert one.labels is not None
        output = method._forward(one, heads=True)
        present = one.available[:, method._columns]
        graphs = distil(method.network, output, present)
        return loss_terms(method.network, output, graphs, one.labels, spec.task, present)

    everything = terms(batch)
    for index, name in enumerate(spec.names):
        some = batch.available[:, index]
        assert 0 < int(some.sum()) < 8
        alone = terms(pick(batch, some))
        for kind in ("recon", "cycle", "orthogonality", "task_homo", "task_hetero"):
            torch.testing.assert_close(everything[f"{kind}_{name}"], alone[f"{kind}_{name}"])


@pytest.mark.parametrize("task", ["regression", "multiclass"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"decoupling": False},
        {"homo_gd": False, "unimodal_tasks": False},
        {"hetero_gd": False, "unimodal_tasks": False},
        {"crossmodal": False, "fusion_gate": "multiply", "hetero_repr": "distance"},
        {"homo_repr_weight": 1.0, "gd_prior": "uniform", "mask_losses": True},
    ],
)
def test_every_switch_trains_every_parameter_it_builds(task: Any, values: dict[str, Any]) -> None:
    spec = make_spec(task, level="sequences")
    method = started(build(spec, **values))
    losses = method.losses(make_batch(spec, 6))
    losses["total"].backward()
    dead = [name for name, parameter in method.named_parameters() if parameter.grad is None]
    assert dead == []
    assert all(bool(value.isfinite()) for value in losses.values())


def test_two_modalities_have_two_edges() -> None:
    spec = make_spec(level="vectors", dims={"audio": 5, "text": 7})
    method = started(build(spec))
    method.training_step(make_batch(spec, 4))
    logged = {name: float(value) for name, value in method.log().items() if name.startswith("edges_homo")}
    assert set(logged) == {"edges_homo/text_to_audio", "edges_homo/audio_to_text"}
    assert sum(logged.values()) == pytest.approx(1)


# Training.


def test_gradients_are_summed_over_a_group_of_batches() -> None:
    spec = make_spec(level="vectors")
    batches = [make_batch(spec, 4, seed=seed) for seed in range(3)]
    method = started(build(spec, update_epochs=3, gradient_clip=None))
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    summed = torch.stack([method.losses(batch)["total"] for batch in batches]).sum()
    gradients = torch.autograd.grad(summed, list(method.parameters()))
    seen: list[dict[str, Tensor]] = []
    take = method.optimizers[0].step

    def step(*args: Any) -> Any:
        seen.append({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})
        return take(*args)

    method.optimizers[0].step = step  # type: ignore[method-assign]
    for index, batch in enumerate(batches):
        method.training_step(batch)
        assert len(seen) == (index == 2)
    for (name, _), gradient in zip(method.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(seen[0][name], gradient, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(before[name], value) for name, value in method.named_parameters())
    assert all(parameter.grad is None for parameter in method.parameters())  # the next group starts at zero


@pytest.mark.parametrize(("accumulate", "moves"), [("all", True), ("published", False)])
def test_the_incomplete_last_group_of_an_epoch(accumulate: str, moves: bool) -> None:
    spec = make_spec(level="vectors")
    method = started(build(spec, update_epochs=5, accumulate=accumulate), steps=2)
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    for seed in range(2):
        method.training_step(make_batch(spec, 4, seed=seed))
    moved = any(not torch.equal(before[name], value) for name, value in method.named_parameters())
    assert moved is moves
    method.start_epoch(1)
    assert all(parameter.grad is None for parameter in method.parameters())


def test_every_element_of_the_running_sum_is_clipped() -> None:
    spec = make_spec(level="vectors")
    method = started(build(spec, update_epochs=9, gradient_clip=1e-3), steps=9)
    for seed in range(3):
        method.training_step(make_batch(spec, 4, seed=seed))
    largest = max(float(p.grad.abs().max()) for p in method.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-3)


def test_learning_rate_halves_when_the_validation_loss_stalls(tmp_path: Path) -> None:
    method = started(build(make_spec(level="vectors"), plateau_patience=2, lr=1e-3))
    for epoch in range(4):
        method.end_epoch(epoch, {"loss/task": 1.0})
    assert method.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-4)
    save_state(tmp_path / "state", method.training_state())
    again = started(build(make_spec(level="vectors"), plateau_patience=2, lr=1e-3))
    again.load_training_state(load_state(tmp_path / "state"))
    for epoch in range(4, 7):
        again.end_epoch(epoch, {"loss/task": 1.0})
    assert again.optimizers[0].param_groups[0]["lr"] == pytest.approx(2.5e-4)


def test_published_needs_a_whole_group_of_batches() -> None:
    spec = make_spec(level="vectors")  # 64 training utterances
    published = DMDParameters(**INFO.profiles["published"])
    reason = INFO.applies(spec, published)
    assert reason is not None
    assert "4 batches" in reason
    assert INFO.applies(replace(spec, train_utterances=160), published) is None
    assert INFO.applies(spec, DMDParameters()) is None
    assert "token ids" in str(INFO.applies(spec, DMDParameters(use_bert=True)))


# Text encoder.


@pytest.fixture(scope="module")
def language() -> Any:
    pytest.importorskip("transformers")
    return resolve("random-bert-tiny")


def token_case(size: int = 4) -> tuple[DataSpec, Batch]:
    spec = make_spec(level="sequences")
    text = ModalitySpec("text", 12, spec.modalities[0].max_length, vocabulary=259)
    spec = replace(spec, modalities=(text, *spec.modalities[1:]))
    batch = make_batch(spec, size)
    available = batch.available.clone()
    available[:, 0] = torch.tensor([True, False, True, True])
    available[1, 1] = True
    generator = torch.Generator().manual_seed(6)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 4, 2, 3])[:, None]
    tokens = torch.randint(3, 200, (size, 6), generator=generator) * mask
    return spec, replace(batch, available=available, tokens=tokens, token_mask=mask)


@pytest.mark.parametrize("finetune", [False, True])
def test_absent_text_is_absent_after_the_encoder(language: Any, finetune: bool) -> None:
    spec, batch = token_case()
    bert = {"use_bert": True, "use_finetune": finetune, "token_length": 8, "bert": "tiny"}
    method = build(spec, {"tiny": language}, **bert)
    method.eval()
    assert batch.tokens is not None
    poisoned = batch.tokens.clone()
    poisoned[1] = 10**9
    other = replace(batch, tokens=poisoned)
    assert torch.equal(score(method, batch), score(method, other))
    inputs, _ = method._inputs(other)
    assert bool((inputs["text"][1] == 0).all())
    assert bool((inputs["text"][2, 2:] == 0).all())  # padding stays padding
    assert bool((inputs["text"][2, :2] != 0).any())


def test_a_frozen_encoder_runs_once_per_utterance_and_is_not_saved(language: Any) -> None:
    spec, batch = token_case()
    method = build(spec, {"tiny": language}, use_bert=True, token_length=6, bert="tiny")
    assert not any("embeddings" in name for name in method.state_dict())
    seen: list[int] = []
    hook = language.encoder.register_forward_hook(lambda *call: seen.append(1))
    first, second = method._inputs(batch)[0]["text"], method._inputs(batch)[0]["text"]
    hook.remove()
    assert len(seen) == 1
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_a_fine_tuned_encoder_learns_and_leaves_the_shared_one_alone(language: Any) -> None:
    spec, batch = token_case()
    before = {name: value.clone() for name, value in language.encoder.state_dict().items()}
    bert = {"use_bert": True, "use_finetune": True, "token_length": 6, "bert": "tiny", "bert_lr": 1e-2}
    method = started(build(spec, {"tiny": language}, update_epochs=1, **bert))
    assert [group["lr"] for group in method.optimizers[0].param_groups] == [5e-4, 1e-2]
    losses = method.losses(batch)
    losses["total"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
    method.start_epoch(0)
    method.training_step(batch)
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(method.text_encoder.state_dict()[name], before[name])
    assert torch.equal(language.encoder.state_dict()[name], before[name])


# The authors' weights.


def reference_case() -> tuple[DMD, dict[str, Tensor], Batch, Tensor]:
    folder = GOLDEN / "eval_aligned_mosi"
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    names = ("text", "audio", "vision")
    spec = replace(
        make_spec(level="sequences"),
        modalities=tuple(ModalitySpec(name, inputs[name].shape[2], 50) for name in names),
    )
    hp = {**INFO.profiles["published"], "hidden": 8, "heads": 2, "nlevels": 2}
    method = DMD(spec, DMDParameters(**hp), PlainServices()).eval()
    size = len(inputs["labels"])
    batch = replace(
        make_batch(spec, size),
        features={name: inputs[name] for name in names},
        available=inputs["available"].bool(),
        frames_available={name: torch.ones(size, 50, dtype=torch.bool) for name in names},
        labels=inputs["labels"][:, 0],
    )
    return method, load_file(folder / "weights.safetensors"), batch, outputs["output_logit"][:, 0]


def test_authors_weights_give_the_authors_predictions() -> None:
    method, weights, batch, expected = reference_case()
    released = {name: value for name, value in weights.items() if not name.startswith("distill_")}
    load_reference_weights(method, released)
    torch.testing.assert_close(score(method, batch), expected, rtol=1e-4, atol=1e-5)


def test_a_foreign_or_incomplete_checkpoint_is_refused() -> None:
    method, weights, _, _ = reference_case()
    with pytest.raises(KeyError, match="surprise"):
        load_reference_weights(method, {**weights, "surprise.weight": torch.zeros(1)})
    with pytest.raises(KeyError, match=r"proj_l\.weight"):
        load_reference_weights(method, {k: v for k, v in weights.items() if k != "proj_l.weight"})
    with pytest.raises(ValueError, match=r"proj_l\.weight"):
        load_reference_weights(method, {**weights, "proj_l.weight": torch.zeros(2, 2)})
