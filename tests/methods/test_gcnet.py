"""GCNet: graphs, packing, completion loss, switches, and the authors' weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from imer_bench.harness.batch import Batch
from imer_bench.harness.method import Stage, StagePlan
from imer_bench.harness.spec import DataSpec
from imer_bench.methods.gcnet.graph import (
    Graph,
    RelationalConvolution,
    speaker_relations,
    temporal_relations,
    window_band,
)
from imer_bench.methods.gcnet.info import INFO, GCNetParameters
from imer_bench.methods.gcnet.losses import counted_by_release
from imer_bench.methods.gcnet.model import GCNet
from imer_bench.methods.gcnet.packing import Packing
from imer_bench.methods.gcnet.weights import load_reference_weights

from batches import PlainServices, make_batch, make_spec

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "gcnet"
PLAN = StagePlan(Stage(), 0, 1)


def make(spec: DataSpec | None = None, profile: str = "default", seed: int = 0, **switches: Any) -> GCNet:
    settings = {**INFO.profiles[profile], "hidden": 6, "dropout": 0.0, **switches}
    torch.manual_seed(seed)
    return GCNet(spec or make_spec(), GCNetParameters(**settings), PlainServices())


def alone(batch: Batch, index: int) -> Batch:
    """One dialogue of a batch without its padding."""
    length = batch.lengths[index]

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[index : index + 1, :length]

    assert batch.targets is not None
    assert batch.labels is not None
    return replace(
        batch,
        features={name: cut(value) for name, value in batch.features.items()},
        targets={name: cut(value) for name, value in batch.targets.items()},
        available=cut(batch.available),
        real=cut(batch.real),
        speakers=cut(batch.speakers),
        rows=cut(batch.rows),
        labels=cut(batch.labels),
        lengths=(length,),
    )


def complete(batch: Batch) -> Batch:
    assert batch.targets is not None
    return replace(
        batch, features=batch.targets, available=batch.real[..., None].expand_as(batch.available).clone()
    )


def predicted(method: GCNet, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        prediction = method.eval().predict(batch.without_labels())
    values = prediction.score if prediction.score is not None else prediction.probabilities
    assert values is not None
    return values


# Graphs.


def naive_edges(length: int, past: int, future: int) -> set[tuple[int, int]]:
    """(source, target): target between source - past and source + future."""
    return {
        (source, target)
        for source in range(length)
        for target in range(length)
        if (past < 0 or target >= source - past) and (future < 0 or target <= source + future)
    }


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    past=st.integers(-1, 3),
    future=st.integers(-1, 3),
    speakers=st.integers(1, 3),
    cap=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_graphs_and_relational_means_match_loops_over_edges(
    lengths: list[int], past: int, future: int, speakers: int, cap: int, seed: int
) -> None:
    steps = max(lengths)
    spec = make_spec(length=steps + 1, speakers=speakers)
    network = make(spec, window_past=past, window_future=future, max_speakers=cap)
    generator = torch.Generator().manual_seed(seed)
    real = torch.arange(steps) < torch.tensor(lengths)[:, None]
    speaker = torch.randint(0, speakers, real.shape, generator=generator) * real
    batch = replace(
        make_batch(spec), real=real, speakers=speaker, lengths=tuple(lengths), available=real[..., None]
    )
    known = min(cap, speakers)
    nodes = torch.randn(*real.shape, 4, generator=generator)
    packing = network.packing(batch)
    for name, count in (("temporal", 3), ("speaker", known**2)):
        graph = network.graph(name, batch, torch.float32)
        relations = graph.relations.expand_as(graph.edges)
        convolution = RelationalConvolution(4, 2, count)
        ours = packing.pad(convolution(packing.pack(nodes), packing, graph))
        for index, length in enumerate(lengths):
            expected = naive_edges(length, past, future)
            found = {(j, i) for i, j in graph.edges[index].nonzero().tolist()}
            assert found == expected
            for target in range(length):
                value = nodes[index, target] @ convolution.root + convolution.bias
                for relation in range(count):
                    sources = []
                    for source, reached in expected:
                        if reached != target:
                            continue
                        if name == "temporal":
                            kind = 0 if source < target else 1 if source == target else 2
                        else:
                            of = [min(int(speaker[index, k]), known - 1) for k in (target, source)]
                            kind = known * of[0] + of[1]
                        assert int(relations[index, target, source]) == kind
                        if kind == relation:
                            sources.append(nodes[index, source])
                    if sources:
                        value = value + torch.stack(sources).mean(dim=0) @ convolution.weight[relation]
                torch.testing.assert_close(ours[index, target], value, rtol=1e-4, atol=1e-5)


def test_a_receiver_looks_back_by_the_future_window() -> None:
    band = window_band(6, past=1, future=3)
    assert band[4].nonzero().flatten().tolist() == [1, 2, 3, 4, 5]


def test_speakers_beyond_the_limit_share_the_last_number() -> None:
    spec = make_spec(speakers=5)
    batch = make_batch(spec)
    method = make(spec, max_speakers=2)
    merged = replace(batch, speakers=batch.speakers.clamp(max=1))
    assert batch.speakers.max() > 1
    torch.testing.assert_close(predicted(method, batch), predicted(method, merged), rtol=0, atol=0)
    assert make(spec).graphs["speaker"].relational.weight.shape[0] == 25  # type: ignore[union-attr]


def test_who_speaks_changes_the_prediction_of_the_speaker_graph_only() -> None:
    spec = make_spec(speakers=2)
    batch = make_batch(spec)
    swapped = replace(batch, speakers=(1 - batch.speakers) * batch.real)
    both, temporal = make(spec), make(spec, use_speaker_graph=False)
    assert not torch.allclose(predicted(both, batch), predicted(both, swapped))
    assert torch.equal(predicted(temporal, batch), predicted(temporal, swapped))


def test_windows_limit_what_the_graph_sees() -> None:
    """With convolutions only (no recurrence over time) an utterance sees two windows far."""
    graph = Graph.of(window_band(7, 1, 1)[None], temporal_relations(7), 3, torch.float32)
    packing = Packing.of((7,), 7, torch.device("cpu"))
    convolution = RelationalConvolution(3, 2, 3)
    nodes = torch.randn(7, 3, requires_grad=True)
    convolution(nodes, packing, graph)[3].sum().backward()
    assert nodes.grad is not None
    assert nodes.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [2, 3, 4]


def test_relations_of_many_speakers_are_all_different() -> None:
    relations = speaker_relations(torch.tensor([[0, 1, 2]]), 3)
    assert sorted(relations.flatten().tolist()) == list(range(9))


# Packing.


@pytest.mark.parametrize(
    "switches",
    [{}, {"base_model": "gru", "time_attn": True}, {"reccls": True, "window_past": -1, "window_future": -1}],
    ids=["plain", "gru and attention", "two passes, all connected"],
)
@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_predictions_do_not_depend_on_padding_or_batch_mates(task: Any, switches: dict[str, Any]) -> None:
    spec = make_spec(task)
    batch = make_batch(spec, size=6)
    method = make(spec, **switches)
    together = predicted(method, batch)
    assert min(batch.lengths) < max(batch.lengths)
    for index, length in enumerate(batch.lengths):
        torch.testing.assert_close(
            predicted(method, alone(batch, index))[0], together[index, :length], rtol=1e-5, atol=1e-6
        )


def test_the_published_profile_depends_on_the_padding() -> None:
    batch = make_batch(make_spec())
    method = make(profile="published")
    shortest = batch.lengths.index(min(batch.lengths))
    lonely = predicted(method, alone(batch, shortest))[0]
    together = predicted(method, batch)[shortest, : batch.lengths[shortest]]
    assert not torch.allclose(lonely, together, atol=1e-5)
    assert "published" in INFO.batch_dependent


def test_packing_returns_every_row_to_its_place() -> None:
    packing = Packing.of((2, 4, 1, 4), 5, torch.device("cpu"))
    values = torch.arange(20.0).view(4, 5, 1)
    real = torch.arange(5) < torch.tensor([2, 4, 1, 4])[:, None]
    assert packing.batch_sizes.tolist() == [4, 3, 2, 2]
    assert torch.equal(packing.pad(packing.pack(values)), torch.where(real[..., None], values, 0.0))


# Losses.


def test_the_reconstruction_counts_absent_modalities_of_real_utterances() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    assert batch.targets is not None
    method = make(spec)
    states = method(batch)
    rebuilt = states.packing.pad(states.reconstruction)
    expected = 0.0
    for dialogue, length in enumerate(batch.lengths):
        for position in range(length):
            start = 0
            for index, modality in enumerate(spec.modalities):
                guess = rebuilt[dialogue, position, start : start + modality.dim]
                start += modality.dim
                if not batch.available[dialogue, position, index]:
                    truth = batch.targets[modality.name][dialogue, position]
                    expected += float((guess - truth).square().mean().detach())
    losses = method.losses(batch)
    assert losses["reconstruction"].item() == pytest.approx(expected / sum(batch.lengths), rel=1e-5)
    assert float(losses["total"]) == pytest.approx(float(losses["task"] + losses["reconstruction"]), rel=1e-6)
    assert float(make(spec).losses(complete(batch))["reconstruction"]) == 0.0


def test_the_released_mask_is_the_flattened_one_read_in_the_other_order() -> None:
    real = torch.arange(4) < torch.tensor([4, 1, 2])[:, None]
    flat = [bool(value) for row in real for value in row]
    counted = counted_by_release(real)
    for time in range(4):
        for dialogue in range(3):
            assert bool(counted[dialogue, time]) == flat[time * 3 + dialogue]


def test_targets_are_read_by_the_loss_alone_and_only_where_absent() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    assert batch.targets is not None
    poisoned = {
        name: torch.where((batch.real & ~batch.available[..., k])[..., None], value, math.nan)
        for k, (name, value) in enumerate(batch.targets.items())
    }
    method = make(spec)
    wanted, found = method.losses(batch), method.losses(replace(batch, targets=poisoned))
    for name in wanted:
        assert torch.equal(wanted[name], found[name])
    found["total"].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())
    everywhere = {name: torch.full_like(value, math.nan) for name, value in batch.targets.items()}
    without = make(spec, loss_recon=False)
    assert torch.equal(
        without.losses(batch)["total"], without.losses(replace(batch, targets=everywhere))["total"]
    )


@pytest.mark.parametrize("profile", ["default", "published"])
def test_what_lies_in_absent_slots_and_padding_does_not_matter(profile: str) -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec)
    poisoned = {
        name: torch.where(batch.available[..., k, None], value, math.nan)
        for k, (name, value) in enumerate(batch.features.items())
    }
    dirty = replace(batch, features=poisoned)
    method, other = make(spec, profile), make(spec, profile)
    assert torch.equal(predicted(method, batch), predicted(method, dirty))
    method.train().losses(batch)["total"].backward()
    other.train().losses(dirty)["total"].backward()
    for clean, unclean in zip(method.parameters(), other.parameters(), strict=True):
        assert clean.grad is not None
        assert unclean.grad is not None
        assert torch.equal(clean.grad, unclean.grad)


def test_the_lower_bound_uses_complete_utterances_only() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    everything = batch.available.all(dim=-1)
    assert everything.any()
    assert not everything[batch.real].all()
    gone = replace(
        batch,
        available=batch.available & everything[..., None],
        features={name: value * everything[..., None] for name, value in batch.features.items()},
    )
    bound, plain = make(spec, lower_bound=True), make(spec)
    assert torch.equal(predicted(bound, batch), predicted(plain, gone))
    torch.testing.assert_close(bound.losses(batch)["total"], plain.losses(gone)["total"])
    assert not torch.equal(predicted(plain, batch), predicted(plain, gone))


def test_missing_labels_and_targets_are_named() -> None:
    batch = make_batch(make_spec())
    with pytest.raises(ValueError, match="labels"):
        make().losses(batch.without_labels())
    with pytest.raises(ValueError, match="targets"):
        make().losses(replace(batch, targets=None))
    assert GCNetParameters().privileged() == ("targets",)
    assert GCNetParameters(loss_recon=False).privileged() == ()


# Training.


SWITCHES = {
    "default": {},
    "attention": {"time_attn": True},
    "gru": {"base_model": "gru"},
    "two passes": {"reccls": True},
    "two passes without completion": {"reccls": True, "loss_recon": False},
    "no completion": {"loss_recon": False},
    "no convolution": {"graph_conv": False},
    "temporal graph": {"use_speaker_graph": False},
    "speaker graph": {"use_temporal_graph": False},
    "published": INFO.profiles["published"],
}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_parameter_gets_a_gradient(switches: dict[str, Any]) -> None:
    spec = make_spec("multiclass", speakers=3)
    method = make(spec, **switches)
    method.train().losses(make_batch(spec))["total"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_no_graph_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="use_temporal_graph"):
        GCNetParameters(use_temporal_graph=False, use_speaker_graph=False)


def test_complete_data_leave_the_reconstruction_alone_but_in_the_published_profile() -> None:
    spec = make_spec()
    batch = complete(make_batch(spec))
    moved = {}
    for profile in ("default", "published"):
        method = make(spec, profile)
        method.start_stage(PLAN)
        assert method.reconstruction is not None
        before = method.reconstruction.weight.detach().clone()
        method.training_step(batch)
        moved[profile] = float((method.reconstruction.weight - before).abs().max().detach())
    assert moved["default"] == 0.0
    assert moved["published"] == pytest.approx(1e-3, rel=0.05)


def test_incomplete_data_are_trained_with_plain_adam_and_l2() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    ours, plain = make(spec, weight_decay=0.1), make(spec, weight_decay=0.1)
    ours.start_stage(PLAN)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(2):
        ours.training_step(batch)
        optimizer.zero_grad()
        plain.losses(batch)["total"].backward()
        optimizer.step()
    for left, right in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)


def test_training_lowers_both_losses() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec)
    method = make(spec, hidden=16, lr=1e-2).train()
    method.start_stage(PLAN)
    first = last = method.training_step(batch)
    for _ in range(60):
        last = method.training_step(batch)
    assert last["task"] < 0.3 * first["task"]
    assert last["reconstruction"] < first["reconstruction"]


@pytest.mark.parametrize(
    "dims", [{"text": 5, "audio": 3}, {"text": 5, "audio": 3, "vision": 4, "gaze": 2}], ids=["two", "four"]
)
def test_any_number_of_modalities(dims: dict[str, int]) -> None:
    spec = make_spec(dims=dims)
    batch = make_batch(spec, size=1)
    method = make(spec)
    assert predicted(method, batch).shape == batch.real.shape
    assert bool(method.losses(batch)["total"].isfinite())


def test_dialogues_of_one_utterance_run_and_are_warned_of() -> None:
    spec = make_spec(length=1)
    with pytest.warns(UserWarning, match="self-loops"):
        method = make(spec, time_attn=True)
    batch = make_batch(spec, size=4)
    assert bool(predicted(method, batch).isfinite().all())
    assert bool(method.losses(batch)["total"].isfinite())


def test_only_one_modality_left_everywhere_is_finite() -> None:
    spec = make_spec()
    batch = make_batch(spec)
    kept = torch.tensor([name == "audio" for name in spec.names])
    batch = replace(batch, available=batch.real[..., None] & kept)
    assert bool(make(spec).losses(batch)["total"].isfinite())
    assert bool(predicted(make(spec), batch).isfinite().all())


def test_longer_dialogues_than_foreseen_are_read() -> None:
    long, short = make_spec(length=9), make_spec(length=4)
    batch = make_batch(long)
    assert torch.equal(predicted(make(long), batch), predicted(make(short), batch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("profile", ["default", "published"])
def test_cpu_and_gpu_agree(profile: str) -> None:
    spec = make_spec("multiclass", speakers=3)
    batch = make_batch(spec)
    method = make(spec, profile, time_attn=True)
    here = predicted(method, batch)

    def there(value: Any) -> Any:
        return value.cuda() if isinstance(value, torch.Tensor) else value

    moved = replace(
        batch,
        **{name: there(getattr(batch, name)) for name in ("available", "real", "speakers", "rows", "labels")},
        features={name: value.cuda() for name, value in batch.features.items()},
    )
    torch.testing.assert_close(predicted(method.cuda(), moved).cpu(), here, rtol=1e-3, atol=1e-4)


# The authors' weights.


def golden_network(order: tuple[str, ...], **switches: Any) -> tuple[GCNet, dict[str, torch.Tensor]]:
    dims = {"audio": 6, "text": 10, "vision": 8}
    spec = make_spec("multiclass", dims={name: dims[name] for name in order}, classes=6)
    return make(spec, hidden=8, **switches), load_file(GOLDEN / "iemocap6_lstm" / "weights.safetensors")


def test_reference_weights_follow_the_names_of_the_modalities() -> None:
    theirs, weights = golden_network(("audio", "text", "vision"))
    ours, _ = golden_network(("text", "vision", "audio"))
    load_reference_weights(theirs, weights)
    load_reference_weights(ours, weights)
    batch = make_batch(theirs.spec)
    turned = replace(batch, available=batch.available[..., [1, 2, 0]])
    torch.testing.assert_close(predicted(ours, turned), predicted(theirs, batch))
    torch.testing.assert_close(ours.losses(turned)["total"], theirs.losses(batch)["total"])


def test_reference_weights_follow_the_stated_order_of_relations() -> None:
    method, weights = golden_network(("audio", "text", "vision"))
    load_reference_weights(method, weights)
    batch = make_batch(method.spec)
    expected = predicted(method, batch)
    shuffled = dict(weights)
    shuffled["graph_net_temporal.conv1.weight"] = weights["graph_net_temporal.conv1.weight"][[2, 0, 1]]
    shuffled["graph_net_speaker.conv1.weight"] = weights["graph_net_speaker.conv1.weight"][[3, 0, 2, 1]]
    order = {"temporal": ("future", "past", "now"), "speaker": ("11", "00", "10", "01")}
    load_reference_weights(method, shuffled, relation_order=order)
    assert torch.equal(predicted(method, batch), expected)
    load_reference_weights(method, shuffled)
    assert not torch.allclose(predicted(method, batch), expected)


def test_reference_weights_that_do_not_fit_are_named() -> None:
    method, weights = golden_network(("audio", "text", "vision"))
    with pytest.raises(KeyError, match=r"smax_fc\.bias"):
        load_reference_weights(method, {k: v for k, v in weights.items() if k != "smax_fc.bias"})
    with pytest.raises(KeyError, match="surprise"):
        load_reference_weights(method, {**weights, "surprise.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"smax_fc\.bias"):
        load_reference_weights(method, {**weights, "smax_fc.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="temporal"):
        load_reference_weights(method, weights, relation_order={"temporal": ("past", "past", "now")})
    with pytest.raises(ValueError, match="modalities"):
        load_reference_weights(make(make_spec(dims={"text": 2, "audio": 2})), weights)
