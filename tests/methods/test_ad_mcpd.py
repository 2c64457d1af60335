"""AD-MCPD: components against loops and closed forms, and the acceptance checks of its specification."""

import hashlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrained import pretrained_encoder
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from imer_bench.harness.batch import Batch
from imer_bench.harness.language_models import LanguageModels
from imer_bench.harness.method import Stage, StagePlan
from imer_bench.harness.spec import DataSpec
from imer_bench.methods.ad_mcpd import anchors, channels, completion, encoder, graph
from imer_bench.methods.ad_mcpd.info import INFO, Parameters
from imer_bench.methods.ad_mcpd.model import AdMcpd, sentiment_classes
from imer_bench.methods.ad_mcpd.prototypes import GivenPrototypes, class_texts
from imer_bench.methods.ad_mcpd.reference import load_reference_weights

from batches import PlainServices, make_batch, make_spec

MODELS = LanguageModels()
TINY = "random-t5-tiny"
GOLDEN = Path(__file__).parent.parent / "parity" / "golden" / "ad_mcpd"
DIMS = {"text": 12, "audio": 6, "vision": 8}


def build(spec: DataSpec, profile: str = "default", seed: int = 0, **settings) -> AdMcpd:
    values = {"language_model": TINY, "shared_dim": 32, "batch_size": 32, **settings}
    parameters = Parameters(**{**INFO.profiles[profile], **values})
    torch.manual_seed(seed)
    return AdMcpd(spec, parameters, PlainServices(seed, {TINY: MODELS.resolve(TINY)}))


class Training:
    """A training split of one batch, as the method sees it before an evaluation."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def batches(self, batch_size=None):
        return [self.batch]

    def sample(self, size, generator, balanced=False):
        order = torch.randperm(self.batch.size, generator=generator)
        return rows_of(self.batch, order[:size])


def rows_of(batch: Batch, rows) -> Batch:
    rows = torch.as_tensor(rows)
    return replace(
        batch,
        features={name: values[rows] for name, values in batch.features.items()},
        available=batch.available[rows],
        real=batch.real[rows],
        speakers=batch.speakers[rows],
        lengths=tuple([1] * len(rows)),
        rows=batch.rows[rows],
        labels=None if batch.labels is None else batch.labels[rows],
        targets=None,
    )


def plan() -> StagePlan:
    return StagePlan(Stage(), 0, 1)


def trained(spec: DataSpec, batch: Batch, steps: int = 2, **settings) -> AdMcpd:
    method = build(spec, **settings)
    method.start_stage(plan())
    method.train()
    for _ in range(steps):
        method.training_step(batch)
    prepare(method, batch)
    return method


def prepare(method: AdMcpd, batch: Batch) -> None:
    method.eval()
    with torch.no_grad():
        method.before_evaluation(Training(batch))


def predict(method: AdMcpd, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        answer = method.predict(batch.without_labels()).probabilities
    assert answer is not None
    return answer


def encoded_batch(available: torch.Tensor, classes: int = 3, width: int = 5, empty: int | None = None):
    """Random encoded samples [M, B, ...] for the components."""
    generator = torch.Generator().manual_seed(0)
    shape = available.shape
    z = 0.6 * torch.randn(*shape, width, generator=generator) * available[..., None]
    logits = 1.2 * torch.randn(*shape, classes, generator=generator)
    if empty is not None:
        logits[..., empty] = -5.0
    log_p = torch.log_softmax(logits, dim=-1)
    return encoder.Encoded(
        features=z,
        log_p=log_p,
        available=available,
        fused=encoder.fuse(z, available, 0.1),
        fused_p=encoder.fused_pseudo_labels(log_p, available, "mean"),
    )


def random_availability(modalities: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    available = torch.rand(modalities, size, generator=generator) < 0.5
    available[torch.randint(0, modalities, (size,), generator=generator), torch.arange(size)] = True
    return available


# Components.


def test_fusion_weights_are_those_of_the_specification():
    available = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    weights = encoder.fusion_weights(available, 0.1)
    for column, expected in enumerate([1 / 3, 0.4783, 0.8462]):
        assert weights[available[:, column], column].tolist() == pytest.approx(
            [expected] * int(available[:, column].sum()), abs=5e-5
        )
    assert not weights[~available].any()


def naive_graph(data: encoder.Encoded, module: graph.SemanticGraph):
    """Section 2.3 and the defaults of S8 to S10, sample by sample and pair by pair."""

    def space(vector):
        return vector / vector.norm() if module.metric == "cosine" else vector

    modalities, size, classes = data.log_p.shape
    z, p, a = data.features, data.log_p.exp(), data.available
    predicted = p.argmax(dim=-1)
    near, plain = {}, {}
    for m, k in itertools.product(range(modalities), range(classes)):
        members = [i for i in range(size) if a[m, i] and predicted[m, i] == k]
        if members:
            near[m, k] = torch.stack([space(z[m, i]) for i in members]).mean(dim=0)
            plain[m, k] = torch.stack([z[m, i] for i in members]).mean(dim=0)
    average, near_average = [], []
    for k in range(classes):
        there = [m for m in range(modalities) if (m, k) in plain]
        own = module.learnable_centres[k].detach()
        average.append(torch.stack([plain[m, k] for m in there]).mean(dim=0) if there else own)
        near_average.append(torch.stack([near[m, k] for m in there]).mean(dim=0) if there else space(own))

    adjacency = torch.zeros(size + classes, size + classes)
    for i, j in itertools.product(range(size), range(size)):
        shared = [m for m in range(modalities) if a[m, i] and a[m, j]]
        if i == j or not shared:
            continue
        total = 0.0
        for m in shared:
            s = 0.5 * sum((p[m, i, c] - p[m, j, c]) * (p[m, i, c] / p[m, j, c]).log() for c in range(classes))
            if s < module.delta:
                to_j = (space(z[m, i]) - near[m, int(predicted[m, j])]).square().sum()
                to_i = (space(z[m, j]) - near[m, int(predicted[m, i])]).square().sum()
                total += (1 - s / module.delta) * torch.exp(-0.5 * to_j) * torch.exp(-0.5 * to_i)
        adjacency[i, j] = total / len(shared)
    for i in range(size):
        k = int(torch.stack([p[m, i] for m in range(modalities) if a[m, i]]).mean(dim=0).argmax())
        weight = torch.exp(-0.5 * (space(data.fused[i]) - near_average[k]).square().sum())
        adjacency[i, size + k] = adjacency[size + k, i] = weight
    adjacency[range(size, size + classes), range(size, size + classes)] = 1.0
    return adjacency, torch.cat([data.fused, torch.stack(average)])


@pytest.mark.parametrize("metric", ["cosine", "raw"])
@pytest.mark.parametrize("empty", [None, 2])
def test_the_graph_agrees_with_a_loop_over_samples_and_pairs(metric, empty):
    classes = 4
    data = encoded_batch(random_availability(3, 9), classes, empty=empty)
    torch.manual_seed(1)
    module = graph.SemanticGraph(classes, 5, 1.5, metric=metric)
    built = module(data)
    with torch.no_grad():
        adjacency, nodes = naive_graph(data, module)
    assert empty is None or not built.centres.filled[:, empty].any()
    torch.testing.assert_close(built.adjacency, adjacency, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(built.nodes, nodes, atol=1e-6, rtol=1e-6)


def test_samples_without_a_shared_modality_are_linked_through_centres_only():
    available = torch.tensor([[True, False], [False, True]])
    built = graph.SemanticGraph(3, 5, 1.5)(encoded_batch(available))
    assert not built.adjacency[:2, :2].any()
    assert ((built.adjacency[:2, 2:] > 0).sum(dim=1) == 1).all()


def test_attaching_a_bank_sample_gives_the_edges_it_has_in_the_bank():
    size = 8
    data = encoded_batch(random_availability(3, size))
    module = graph.SemanticGraph(3, 5, 1.5)
    built = module(data)
    bank = graph.SupportBank(3, size, 3, 5)
    bank.fill(built)
    rows = module.attach(data, bank)
    others = ~torch.eye(size, dtype=torch.bool)
    torch.testing.assert_close(rows[:, :size][others], built.adjacency[:size, :size][others])
    torch.testing.assert_close(rows[:, size:], built.adjacency[:size, size:])
    assert (rows[:, :size].diagonal() > 0).all()  # a copy is a neighbour of its original


def test_a_sample_outside_training_is_convolved_against_the_bank_as_specified():
    spec = make_spec("multiclass", "vectors", classes=3)
    method = trained(spec, make_batch(spec, 20), batch_size=20)
    batch, bank = make_batch(spec, 4, seed=8), method.bank
    with torch.no_grad():
        data = method.encode(batch.features, batch.available)
        rows, enhanced = method.graph.attach(data, bank), method.enhance_alone(data)
        for q in range(4):
            gathered, degree = torch.zeros(32), rows[q].sum()
            for j in range(23):
                weight = rows[q, j] / ((degree + 1e-8) * (bank.degree[j] + 1e-8)).sqrt()
                gathered += weight * bank.nodes[j]
            hidden = method.convolution.neighbours.weight @ gathered
            hidden = torch.relu(hidden + method.convolution.own.weight @ data.fused[q])
            torch.testing.assert_close(enhanced[q], data.fused[q] + 0.5 * hidden, atol=1e-5, rtol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, forward and backward."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        for value in answer if isinstance(answer, tuple | list) else [answer]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return answer


def test_no_tensor_of_samples_by_samples_by_width_arises():
    size, width = 64, 96
    available = random_availability(3, size)
    data = encoded_batch(available, width=width)
    data.features.requires_grad_()
    module, convolution = graph.SemanticGraph(3, width, 1.5), graph.ResidualGraphConvolution(width)
    with LargestTensor() as seen:
        fused = encoder.fuse(data.features, available, 0.1)
        built = module(replace(data, fused=fused))
        hidden = convolution(built.adjacency[:size], built.degree[:size], built.degree, built.nodes, fused)
        hidden.sum().backward()
    assert 0 < seen.largest < size * size * width / 4


def test_anchors_are_means_of_the_best_candidates_of_each_class():
    torch.manual_seed(0)
    features, similarities = torch.randn(1, 7, 4), torch.randn(1, 7, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 1])
    candidates = (labels[:, None] == torch.arange(3))[None]
    selection = anchors.select(similarities, candidates, top_k=2)
    values = anchors.anchors(features, selection)
    assert selection.found.tolist() == [[True, True, False]]
    for c in (0, 1):
        ranked = sorted((i for i in range(7) if labels[i] == c), key=lambda i: -similarities[0, i, c].item())
        torch.testing.assert_close(values[0, c], features[0, ranked[:2]].mean(dim=0))
    assert not values[0, 2].any()


def test_stored_anchors_copy_the_first_observation_and_then_move():
    memory = anchors.AnchorMemory(1, 2, 3, momentum=0.9)
    first, second = torch.ones(1, 2, 3), torch.full((1, 2, 3), 11.0)
    memory.update(first, torch.tensor([[True, False]]))
    assert memory.values[0].tolist() == [[1.0] * 3, [0.0] * 3]
    memory.update(second, torch.tensor([[True, True]]))
    assert memory.values[0].tolist() == [[2.0] * 3, [11.0] * 3]
    completed = memory.complete(torch.zeros(1, 2, 3), torch.tensor([[True, False]]))
    assert completed[0].tolist() == [[0.0] * 3, [11.0] * 3]


def test_dot_products_of_unit_vectors_are_cosines():
    torch.manual_seed(0)
    x, gamma = torch.randn(6, 5), torch.randn(3, 5)
    unit = torch.nn.functional.normalize
    dot = channels.log_distribution(unit(x, dim=-1), unit(gamma, dim=-1), 0.7, "dot")
    torch.testing.assert_close(dot, channels.log_distribution(x, gamma, 0.7, "cosine"), atol=1e-6, rtol=1e-6)


def test_divergences_agree_with_torch_in_both_directions():
    torch.manual_seed(0)
    teacher, student = (torch.log_softmax(torch.randn(6, 3), dim=-1) for _ in range(2))
    reference = torch.nn.functional.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=-1)
    forward = channels.divergence(teacher, student, "teacher_student", "cosine")
    torch.testing.assert_close(forward, reference)
    backward = channels.divergence(student, teacher, "student_teacher", "cosine")
    torch.testing.assert_close(backward, reference)


def test_cross_entropy_of_probabilities_has_the_published_range():
    one_hot = torch.tensor([[1.0, 0.0, 0.0]]).clamp(min=1e-12).log()
    right, wrong = (
        channels.classification_losses(one_hot, torch.tensor([label]), "probabilities").item()
        for label in (0, 1)
    )
    assert right == pytest.approx(0.5514, abs=1e-4)
    assert wrong == pytest.approx(1.5514, abs=1e-4)


def test_channel_losses_agree_with_a_loop_over_samples_and_modalities():
    spec = make_spec("multiclass", "vectors", classes=3)
    batch = make_batch(spec, 14)
    method = build(spec, top_k=3, adapter_dropout=0.0).eval()
    assert batch.labels is not None
    with torch.no_grad():
        forward = method.analyse(batch.features, batch.available, batch.labels)
        losses = method.channel_losses(forward, batch.labels)

    def distribution(vector, level):
        cosines = torch.nn.functional.cosine_similarity(vector[None], forward.anchors[level], dim=-1)
        return torch.softmax(cosines / 0.7, dim=-1)

    def divergence(t, q):
        return float((t * (t.log() - q.log())).sum())

    local, unimodal = [], []
    for m in range(3):
        rows = [i for i in range(14) if batch.available[i, m]]
        anchored = {i: forward.anchors[m][batch.labels[i]] for i in rows}
        z = forward.encoded.features[m]
        local.append([divergence(distribution(anchored[i], m), distribution(z[i], m)) for i in rows])
        unimodal.append([-float(forward.encoded.log_p[m, i, batch.labels[i]]) for i in rows])

    def mean_of_means(rows):
        return sum(sum(row) / len(row) for row in rows) / len(rows)

    every = range(14)
    fusion = [
        divergence(distribution(forward.anchors[3][batch.labels[i]], 3), distribution(forward.enhanced[i], 3))
        for i in every
    ]
    prompt = [
        divergence(distribution(forward.enhanced[i], 3), distribution(forward.completion[i], 3))
        for i in every
    ]
    logits = []
    for i in every:
        missing = float(not batch.available[i].all())
        logits.append(distribution(forward.enhanced[i] + 0.3 * missing * forward.completion[i], 3))
    cls = [-math.log(float(logits[i][batch.labels[i]])) for i in every]
    expected = {
        "local": mean_of_means(local),
        "fusion": mean_of_means([fusion]),
        "prompt": mean_of_means([prompt]),
        "uni": mean_of_means(unimodal),
        "cls": mean_of_means([cls]),
    }
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name
    weighted = {"cls": 1.0, "local": 1.0, "fusion": 1.0, "prompt": 0.5, "uni": 1.0}
    total = sum(weight * expected[name] for name, weight in weighted.items())
    assert losses["total"].item() == pytest.approx(total, rel=1e-4)


def test_a_level_without_samples_is_left_out_of_a_channel():
    divergences = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    mask = torch.tensor([[True, True], [False, False]])
    assert channels.channel_loss(divergences, mask, "cosine").item() == 2.0
    assert channels.channel_loss(200 * divergences, mask, "dot").item() == 100.0


@pytest.mark.parametrize("absent", ["masked", "dropped"])
def test_a_completion_does_not_see_the_slot_of_an_absent_modality(absent):
    torch.manual_seed(0)
    module = completion.PromptCompletion(MODELS.resolve(TINY), 16, absent=absent)
    features, prototypes = torch.randn(3, 5, 16), torch.randn(4, 16)
    available = random_availability(3, 5)
    assert not available.all()
    with torch.no_grad():
        clean = module(features, available, prototypes)
        noisy = module(torch.where(available[..., None], features, 9.0), available, prototypes)
        other = module(features + 1.0, available, prototypes)
    torch.testing.assert_close(noisy, clean, atol=1e-6, rtol=1e-6)
    assert (other - clean).abs().max() > 1e-3
    if absent == "dropped":  # the same as a sequence that never had the slot
        with torch.no_grad():
            for i in range(5):
                kept = features[available[:, i], i : i + 1]
                alone = module(kept, torch.ones(kept.shape[:2], dtype=torch.bool), prototypes)
                torch.testing.assert_close(alone[0], clean[i], atol=1e-5, rtol=1e-5)


def test_class_texts_follow_the_documentation():
    assert class_texts("audio", ["happy"]) == ["This is an audio. The emotion is happy emotion."]
    assert class_texts("text", ["negative"]) == ["This is a text. The emotion is negative emotion."]


def test_scores_become_classes_by_sign_and_by_band():
    scores = torch.tensor([-3.0, -0.2, 0.0, 0.2, 2.4])
    assert sentiment_classes(scores, 0.0).tolist() == [0, 0, 1, 2, 2]
    # CH-SIMS: multiples of 0.2, neutral within 0.1 of zero.
    assert INFO.data_set_parameters["ch_sims"] == {"neutral_band": 0.1}
    assert sentiment_classes(torch.tensor([-0.2, -0.1, 0.1, 0.2]), 0.1).tolist() == [0, 1, 1, 2]


# The method.


def test_predictions_do_not_depend_on_the_batch():
    spec = make_spec("multiclass", "vectors")
    method = trained(spec, make_batch(spec, 40))
    batch = make_batch(spec, 21, seed=3)
    everybody = predict(method, batch)
    alone = torch.cat([predict(method, rows_of(batch, [i])) for i in range(21)])
    sevens = torch.cat([predict(method, rows_of(batch, list(range(s, s + 7)))) for s in (0, 7, 14)])
    for other in (alone, sevens):
        torch.testing.assert_close(other.log(), everybody.log(), atol=1e-5, rtol=0)


def test_published_predictions_depend_on_the_batch_as_the_record_says():
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 21, seed=3)
    method = trained(spec, make_batch(spec, 40), profile="published", prototypes="learned")
    assert "published" in INFO.batch_dependent
    uniform = predict(method, rows_of(batch, [0]))  # one sample: all anchors coincide
    torch.testing.assert_close(uniform, torch.full((1, 4), 0.25), atol=1e-6, rtol=0)
    assert (predict(method, batch)[0] - 0.25).abs().max() > 1e-3


@pytest.mark.parametrize("profile", sorted(INFO.profiles))
def test_whatever_stands_at_absent_entries_changes_nothing(profile):
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 24)
    poisoned = replace(
        batch,
        targets=None,
        features={
            name: torch.where(batch.available[:, index, None], values, math.nan)
            for index, (name, values) in enumerate(batch.features.items())
        },
    )
    results = []
    for data in (batch, poisoned):
        method = build(spec, profile, adapter_dropout=0.0).train()
        losses = method.losses(data)
        losses["total"].backward()
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        prepare(method, data)
        results.append([*losses.values(), *gradients, predict(method, data)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_every_trainable_parameter_learns_from_one_mixed_batch():
    spec = make_spec("multiclass", "vectors", classes=3)
    method = build(spec).train()
    losses = method.losses(make_batch(spec, 40, rate=0.4))
    losses["total"].backward()
    for name in ("local", "fusion", "prompt"):
        assert losses[name] > 0
    still = {"graph.learnable_centres"}  # used only where a class is empty in every modality
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name in still or parameter.grad.abs().sum() > 0, name


def test_the_encoder_stays_frozen_and_out_of_the_checkpoint_while_prompts_move():
    spec = make_spec("multiclass", "vectors")
    method = build(spec)
    encoder_ = MODELS.resolve(TINY).encoder
    before = {name: value.clone() for name, value in encoder_.state_dict().items()}
    method.train()
    assert not encoder_.training
    size = sum(value.numel() for value in encoder_.state_dict().values())
    own = {id(value) for value in method.parameters()} | {id(value) for value in method.buffers()}
    assert not own & {id(value) for value in encoder_.parameters()}
    assert not any(
        value.numel() == size or "encoder.block" in name for name, value in method.state_dict().items()
    )
    prompts = dict(method.named_parameters())["prototypes.prompts"]
    start = prompts.detach().clone()
    method.start_stage(plan())
    method.training_step(make_batch(spec, 32))
    assert (prompts - start).abs().max() > 1e-4
    assert all(p.grad is None for p in encoder_.parameters())
    for name, value in encoder_.state_dict().items():
        assert torch.equal(value, before[name])


def test_complete_utterances_are_not_sent_through_the_language_model_outside_training():
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 12, rate=0.5)
    method = trained(spec, make_batch(spec, 40))
    sizes = []
    hook = MODELS.resolve(TINY).encoder.register_forward_hook(lambda *call: sizes.append(len(call[2][0])))
    try:
        predict(method, batch)
        incomplete = int((~batch.available.all(dim=1)).sum())
        assert 0 < incomplete < 12
        assert sizes == [incomplete]
        complete = make_batch(spec, 5, rate=0.0)
        predict(method, complete)
        assert sizes == [incomplete]
    finally:
        hook.remove()


def test_a_saved_model_predicts_alone():
    spec = make_spec("multiclass", "vectors")
    method = trained(spec, make_batch(spec, 40))
    fresh = build(spec, seed=9).eval()
    batch = make_batch(spec, 10, seed=5)
    with pytest.raises(RuntimeError, match="support bank"):
        predict(fresh, batch)
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(predict(fresh, batch), predict(method, batch))


def test_the_bank_keeps_its_samples_and_follows_the_weights():
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 40)
    method = trained(spec, batch, batch_size=16)
    bank = method.bank
    assert bank.available.shape == (3, 16)
    torch.testing.assert_close(method.fused_prototypes, method.prototypes()[-1].detach())
    first, nodes = bank.available.clone(), bank.nodes.clone()
    method.train()
    method.training_step(batch)
    prepare(method, batch)
    assert torch.equal(bank.available, first)
    assert not torch.equal(bank.nodes, nodes)


def test_a_training_set_smaller_than_the_bank_is_enough():
    spec = make_spec("multiclass", "vectors")
    small = make_batch(spec, 6)
    method = trained(spec, small)
    assert predict(method, make_batch(spec, 4, seed=2)).isfinite().all()


@pytest.mark.parametrize("classes", [2, 4, 6])
@pytest.mark.parametrize("profile", sorted(INFO.profiles))
def test_any_number_of_classes(classes, profile):
    spec = make_spec("multiclass", "vectors", classes=classes)
    batch = make_batch(spec, 20)
    probabilities = predict(trained(spec, batch, profile=profile), batch)
    assert probabilities.shape == (20, classes)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("dims", [{"text": 5, "eeg": 4}, {"a": 3, "b": 4, "c": 5, "d": 6}])
def test_other_tasks_and_modalities(task, dims):
    spec = make_spec(task, "vectors", dims=dims)
    batch = make_batch(spec, 20)
    assert INFO.applies(spec, Parameters()) is None
    assert predict(trained(spec, batch), batch).shape == (20, len(spec.classes))


@pytest.mark.parametrize(
    "rows",
    [[0], [0, 1], list(range(5))],
    ids=["a batch of one", "no shared modality", "fewer than K"],
)
def test_small_batches_train(rows):
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 5)
    batch = replace(batch, available=torch.eye(3, dtype=torch.bool)[[0, 1, 2, 0, 1]], targets=None)
    method = build(spec)
    method.start_stage(plan())
    method.train()
    method.training_step(rows_of(batch, rows))
    assert all(p.isfinite().all() for p in method.parameters())


def test_all_but_one_modality_missing_everywhere_and_an_absent_class_train():
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 16)
    only_audio = torch.zeros_like(batch.available)
    only_audio[:, 1] = True
    batch = replace(batch, available=only_audio, labels=torch.ones(16, dtype=torch.int64), targets=None)
    method = trained(spec, batch)
    assert all(p.isfinite().all() for p in method.parameters())
    assert predict(method, batch).isfinite().all()


def test_an_utterance_without_any_modality_is_refused_but_never_trained_on():
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 16)
    method = trained(spec, batch)
    nothing = batch.available.clone()
    nothing[3] = False
    with pytest.raises(ValueError, match=r"rows \[3\]"):
        predict(method, replace(batch, available=nothing))
    kept = [row for row in range(16) if row != 3]
    with_it, without = (
        build(spec, adapter_dropout=0.0).train().losses(data)["total"]
        for data in (replace(batch, available=nothing), rows_of(batch, kept))
    )
    torch.testing.assert_close(with_it, without)


ABLATIONS = [
    {"graph": "none"},
    {"graph": "no_sample_edges"},
    {"graph": "no_centre_edges"},
    {"prototypes": "learned"},
    {"prototypes": "text"},
    {"prompt_levels": "shared"},
    {"class_tokens": "fixed"},
    {"completion": "pattern"},
    {"completion": "none"},
    {"completion_weight": 0.0},
    {"lambda_local": 0.0, "lambda_fusion": 0.0, "lambda_prompt": 0.0, "lambda_uni": 0.0},
    {"lambda_proto": 0.5},
    {"classifier": "linear"},
    {"outside_training": "batch"},
    {"anchor_candidates": "all"},
    {"teacher": "prototype"},
    {"entropy_of": "fusion_weights", "lambda_entropy": -0.1},
    {"local_feature": "enhanced"},
    {"prompt_loss_on": "incomplete"},
]


@pytest.mark.parametrize("settings", ABLATIONS, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()))
def test_every_ablation_trains_and_changes_the_predictions(settings):
    spec = make_spec("multiclass", "vectors", classes=3)
    batch = make_batch(spec, 32, rate=0.4)
    plain, changed = (predict(trained(spec, batch, top_k=3, **kept), batch) for kept in ({}, settings))
    assert changed.isfinite().all()
    assert not torch.allclose(plain, changed, atol=1e-6)


def test_no_language_model_is_asked_for_where_none_is_needed():
    spec = make_spec("multiclass", "vectors")
    parameters = Parameters(shared_dim=16, prototypes="learned", completion="pattern")
    AdMcpd(spec, parameters, PlainServices())
    with pytest.raises(LookupError, match=r"google-t5/t5-base.*learned.*pattern"):
        AdMcpd(spec, Parameters(shared_dim=16), PlainServices())


def test_given_prototypes_are_read_by_their_hash(tmp_path):
    file = tmp_path / "prototypes.safetensors"
    values = torch.arange(4 * 24, dtype=torch.float32).reshape(4, 24)
    save_file({"prototypes": values}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = make_spec("multiclass", "vectors")
    method = build(
        spec, prototypes="given", prototypes_file=str(file), prototypes_sha256=digest, shared_dim=24
    )
    assert torch.equal(method.prototypes(), values.expand(4, 4, 24))
    mapped = build(spec, prototypes="given", prototypes_file=str(file), prototypes_sha256=digest)
    assert mapped.prototypes().shape == (4, 4, 32)
    with pytest.raises(ValueError, match=digest):
        build(spec, prototypes="given", prototypes_file=str(file), prototypes_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"expected \[3, d\]"):
        build(
            make_spec("regression", "vectors"),
            prototypes="given",
            prototypes_file=str(file),
            prototypes_sha256=digest,
        )
    with pytest.raises(ValueError, match="prototypes_sha256"):
        build(spec, prototypes="given", prototypes_file=str(file))


def test_one_modality_is_skipped_with_a_reason():
    spec = make_spec("multiclass", "vectors")
    one = replace(spec, modalities=spec.modalities[:1])
    assert "two modalities" in str(INFO.applies(one, Parameters()))


def test_the_learning_rate_halves_every_ten_epochs():
    spec = make_spec("multiclass", "vectors")
    method = build(spec)
    method.start_stage(plan())
    method.training_step(make_batch(spec, 8))
    rates = []
    for epoch in range(20):
        rates.append(method.optimizers[0].param_groups[0]["lr"])
        method.end_epoch(epoch, {})
    assert rates == pytest.approx([1e-3] * 10 + [5e-4] * 10)


def test_released_weights_load_by_their_names_and_compute_the_released_features():
    case = GOLDEN / "complete_train"
    weights = load_file(case / "weights.safetensors")
    inputs, outputs = load_file(case / "inputs.safetensors"), load_file(case / "outputs.safetensors")
    dims = {name: inputs[f"complete/{name}"].shape[1] for name in ("text", "audio", "vision")}
    # Our modality order differs from the released one on purpose: names decide.
    spec = make_spec(
        "multiclass", "vectors", dims={name: dims[name] for name in ("audio", "vision", "text")}, classes=3
    )
    settings = {"shared_dim": 16, "adapter_dropout": 0.0, "prototypes": "learned", "completion": "pattern"}
    method = build(spec, "published", **settings).eval()
    load_reference_weights(method, weights)
    forward = method.encode(
        {name: inputs[f"complete/{name}"] for name in dims}, torch.ones(18, 3, dtype=torch.bool)
    )
    torch.testing.assert_close(forward.fused, outputs["complete/u"], atol=1e-5, rtol=1e-4)
    for index, name in enumerate(spec.names):
        golden = outputs[f"complete/p_{name}"]
        torch.testing.assert_close(forward.log_p[index].exp(), golden, atol=1e-5, rtol=1e-4)
    with pytest.raises(KeyError, match="unheard_of"):
        load_reference_weights(method, {**weights, "structure_aware.unheard_of": torch.zeros(1)})
    del weights["structure_aware.modality_encoder.classifiers.1.bias"]
    with pytest.raises(KeyError, match=r"classifiers\.1\.bias"):
        load_reference_weights(method, weights)


# Learning.


def separable(classes: int, size: int, seed: int) -> tuple[DataSpec, Batch]:
    """Complete data whose text vectors are class means plus noise; audio and vision are noise."""
    spec = make_spec("multiclass", "vectors", dims=DIMS, classes=classes)
    spec = replace(spec, train_utterances=size)
    generator = torch.Generator().manual_seed(seed)
    means = 2.5 * torch.nn.functional.normalize(
        torch.randn(classes, DIMS["text"], generator=torch.Generator().manual_seed(77)), dim=-1
    )
    labels = torch.randint(0, classes, (size,), generator=generator)
    batch = make_batch(spec, size, seed=seed, rate=0.0)
    text = means[labels] + 0.3 * torch.randn(size, DIMS["text"], generator=generator)
    return spec, replace(batch, features={**batch.features, "text": text}, labels=labels, targets=None)


def accuracy_after(method: AdMcpd, train: Batch, test: Batch, epochs: int = 20) -> tuple[float, float]:
    """Test accuracy, and mean classification loss of the last epoch."""
    method.start_stage(plan())
    generator = torch.Generator().manual_seed(5)
    mean = 0.0
    for epoch in range(epochs):
        method.train()
        order = torch.randperm(train.size, generator=generator).split(32)
        mean = sum(method.training_step(rows_of(train, rows))["cls"].item() for rows in order) / len(order)
        method.end_epoch(epoch, {})
    prepare(method, train)
    return (predict(method, test).argmax(dim=1) == test.labels).float().mean().item(), mean


def test_it_learns_data_that_the_text_separates():
    spec, train = separable(3, 160, seed=0)
    _, test = separable(3, 200, seed=1)
    accuracy, _ = accuracy_after(build(spec), train, test, epochs=10)
    assert accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 6])
@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize("prototypes", ["prompt", "collinear"])
def test_it_learns_with_many_classes_wide_and_with_collinear_prototypes(classes, width, prototypes):
    spec, train = separable(classes, 320, seed=0)
    _, test = separable(classes, 300, seed=1)
    method = build(spec, shared_dim=width)
    if prototypes == "collinear":
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(1, width, generator=generator)
        values = values + 0.14 * torch.randn(classes, width, generator=generator)
        cosines = anchors.cosine(values, values)
        assert cosines.min() > 0.95
        method.prototypes = GivenPrototypes(values, 4, width)
    accuracy, _ = accuracy_after(method, train, test)
    assert accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("prototypes", ["text", "learned"])
def test_the_published_profile_stays_at_chance_at_its_published_width(prototypes):
    spec, train = separable(3, 320, seed=0)
    _, test = separable(3, 300, seed=1)
    # Dot products of 512 unnormalised features are all clamped (S5).
    method = build(spec, "published", shared_dim=512, prototypes=prototypes)
    accuracy, loss = accuracy_after(method, train, test)
    assert loss == pytest.approx(math.log(3), abs=2e-3)
    assert accuracy < 0.5


@pytest.mark.slow
def test_the_published_profile_learns_when_it_is_narrow():
    spec, train = separable(3, 320, seed=0)
    _, test = separable(3, 300, seed=1)
    method = build(spec, "published", shared_dim=64, prototypes="learned")
    accuracy, _ = accuracy_after(method, train, test)
    assert accuracy > 0.95


@pytest.mark.slow
def test_a_real_language_model_carries_the_whole_path():
    name = pretrained_encoder()
    spec, train = separable(3, 96, seed=0)
    _, test = separable(3, 100, seed=1)
    # Half of the utterances lack audio, which tells nothing: their class goes through the completion.
    incomplete = [replace(batch, available=batch.available.clone()) for batch in (train, test)]
    for batch in incomplete:
        batch.available[::2, spec.names.index("audio")] = False
    accuracies = []
    for model in (name, f"random:0:{name}"):
        parameters = Parameters(language_model=model, shared_dim=64)
        torch.manual_seed(0)
        method = AdMcpd(spec, parameters, PlainServices(0, {model: MODELS.resolve(model)}))
        tokens = ("prototypes.prompts", "prototypes.class_tokens")
        start = {token: method.get_parameter(token).detach().clone() for token in tokens}
        accuracies.append(accuracy_after(method, *incomplete, epochs=8)[0])
        for token in tokens:
            assert (method.get_parameter(token) - start[token]).abs().max() > 1e-3
    assert accuracies[0] > 0.95
    assert accuracies[0] > accuracies[1] - 0.03


# Devices.


@pytest.mark.gpu
def test_cpu_and_cuda_agree_and_a_step_reads_nothing_back():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec = make_spec("multiclass", "vectors")
    batch = make_batch(spec, 32)
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        services = PlainServices(0, {TINY: MODELS.resolve(TINY, device)})
        method = AdMcpd(spec, Parameters(language_model=TINY, shared_dim=32, adapter_dropout=0.0), services)
        method.to(device).train()
        moved = replace(
            batch,
            features={name: values.to(device) for name, values in batch.features.items()},
            available=batch.available.to(device),
            labels=batch.labels.to(device) if batch.labels is not None else None,
            targets=None,
        )
        method.losses(moved)
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            losses = method.losses(moved)
            losses["total"].backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results.append({name: value.item() for name, value in losses.items()})
    assert results[0] == pytest.approx(results[1], rel=1e-4, abs=1e-5)
