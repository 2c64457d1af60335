"""MAGTKD: missing modalities, speakers, distillation, stages, schedule, authors' weights."""

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
from imer_bench.harness.method import StagePlan
from imer_bench.harness.spec import DataSpec
from imer_bench.methods.magtkd.attention import Block
from imer_bench.methods.magtkd.checkpoints import load_reference_weights
from imer_bench.methods.magtkd.info import INFO, MAGTKDParameters
from imer_bench.methods.magtkd.losses import feature_distillation, logit_distillation
from imer_bench.methods.magtkd.model import MAGTKD, warmup_decay

from batches import PlainServices, make_batch, make_spec

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "magtkd"
SMALL: dict[str, Any] = {"hidden_dim": 16, "num_heads": 4, "dropout": 0.0}


def build(spec: DataSpec, **values: Any) -> MAGTKD:
    torch.manual_seed(0)
    return MAGTKD(spec, MAGTKDParameters(**{**SMALL, **values}), PlainServices())


def enter(method: MAGTKD, index: int = 0, steps: int = 3) -> None:
    method.start_stage(StagePlan(method.stages()[index], index, steps))
    method.train()
    method.start_epoch(0)


def probabilities(method: MAGTKD, batch: Batch) -> Tensor:
    method.eval()
    result = method.predict(batch).probabilities
    assert result is not None
    return result[batch.real]


def complete(batch: Batch) -> Batch:
    assert batch.targets is not None
    available = batch.real[..., None].expand_as(batch.available)
    return replace(batch, features=batch.targets, available=available)


def without(batch: Batch, dialogue: int, columns: list[int], names: tuple[str, ...]) -> Batch:
    """The batch with some modalities gone from a whole dialogue, the others complete there."""
    full = complete(batch)
    available = batch.available.clone()
    available[dialogue] = full.available[dialogue]
    available[dialogue, :, columns] = False
    features = {
        name: torch.where(available[..., i, None], full.features[name], 0.0) for i, name in enumerate(names)
    }
    return replace(batch, features=features, available=available)


# Missing modalities (properties of the specification).


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_nothing_missing_is_the_reference(task: Any) -> None:
    spec = make_spec(task, dims={"text": 16, "audio": 16, "vision": 16})
    ours = build(spec)
    zero = build(spec, missing="zero", branch_loss_on="all", kd_requires_text=False)
    zero.load_state_dict(
        {name: value for name, value in ours.state_dict().items() if "absent" not in name}, strict=True
    )
    batch = complete(make_batch(spec))
    ours.eval()
    zero.eval()
    first, second = ours.losses(batch), zero.losses(batch)
    assert set(first) == set(second)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_content_of_absent_slots_changes_nothing() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.5)
    poisoned = {
        name: torch.where(batch.available[..., i, None], batch.features[name], torch.nan)
        for i, name in enumerate(spec.names)
    }
    other = replace(batch, features=poisoned)
    method = build(spec)
    assert torch.equal(probabilities(method, batch), probabilities(method, other))
    for name, value in method.losses(batch).items():
        assert torch.equal(value, method.losses(other)[name])


@pytest.mark.parametrize("columns", [[0], [1], [2], [0, 1], [0, 2], [1, 2]])
def test_a_dialogue_may_lack_modalities_altogether(columns: list[int]) -> None:
    spec = make_spec("multiclass")
    batch = without(make_batch(spec, rate=0.3), 0, columns, spec.names)
    method = build(spec)
    losses = method.losses(batch)
    losses["total"].backward()
    assert all(bool(value.isfinite()) for value in losses.values())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())
    assert bool(probabilities(method, batch).isfinite().all())


def test_order_of_dialogues_and_padding_change_nothing() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.3)
    method = build(spec)
    expected = method.eval().predict(batch).probabilities
    assert expected is not None

    def changed(names: dict[str, Tensor]) -> Batch:
        features = {name: names[f"features.{name}"] for name in spec.names}
        others = {name: value for name, value in names.items() if not name.startswith("features.")}
        return replace(batch, features=features, **others)  # type: ignore[arg-type]

    assert batch.labels is not None
    parts = {
        "available": batch.available,
        "real": batch.real,
        "speakers": batch.speakers,
        "rows": batch.rows,
        "labels": batch.labels,
        **{f"features.{name}": value for name, value in batch.features.items()},
    }
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = changed({name: value[order] for name, value in parts.items()})
    moved = replace(moved, lengths=tuple(batch.lengths[i] for i in order))
    again = method.predict(moved).probabilities
    assert again is not None
    torch.testing.assert_close(again[moved.real], expected[order][moved.real])

    # One dialogue less than the longest: pads the rest less; the batch alone: not at all.
    short = int(min(batch.lengths))
    index = batch.lengths.index(short)
    one = changed({name: value[index : index + 1, :short] for name, value in parts.items()})
    one = replace(one, lengths=(short,))
    alone = method.predict(one).probabilities
    assert alone is not None
    torch.testing.assert_close(alone[0], expected[index, :short])
    for name, value in method.losses(batch).items():
        torch.testing.assert_close(value, method.losses(moved)[name])


def test_a_source_without_any_key_leaves_the_anchor_and_the_feed_forward_part() -> None:
    torch.manual_seed(1)
    block = Block(8, 2, 8, dropout=0.0, form="masked")
    anchor, source = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    keys = torch.tensor([[False] * 3, [True, False, True]])
    result = block(anchor, source, keys, same=False)
    hidden = torch.nn.functional.gelu(block.inner(block.norm(anchor[0])))
    torch.testing.assert_close(result[0], anchor[0] + block.outer(hidden))
    assert not torch.allclose(result[1], anchor[1] + block.outer(block.inner(block.norm(anchor[1]))))
    moved = source.clone()
    moved[1, 1] = 100.0
    torch.testing.assert_close(block(anchor, moved, keys, same=False), result)


def test_an_absent_utterance_asks_but_is_no_key() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.4)
    method = build(spec).eval()
    before = method._forward(batch)
    with torch.no_grad():
        method.fusion.absent["audio"].add_(torch.randn(16))
    after = method._forward(batch)
    assert torch.equal(before.encoded["audio_to_vision"], after.encoded["audio_to_vision"])
    same = (before.encoded["text_to_audio"] == after.encoded["text_to_audio"]).all(-1)
    observed = batch.available[..., spec.names.index("audio")]
    assert torch.equal(same[batch.real], observed[batch.real])


def test_only_text_teaches_and_only_on_what_both_have() -> None:
    """With text on no utterance nothing is distilled; without a modality its stream has no loss."""
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.0)
    gone = batch
    for dialogue in range(batch.size):
        gone = without(gone, dialogue, [0], spec.names)
    losses = build(spec).losses(gone)
    assert losses["logit_kd_audio"].item() == 0
    assert losses["feature_kd_vision"].item() == 0
    assert losses["ce_audio"].item() > 0
    everywhere = build(spec, kd_requires_text=False).losses(gone)
    assert everywhere["logit_kd_audio"].item() > 0
    for dialogue in range(batch.size):
        gone = without(gone, dialogue, [1], spec.names)
    losses = build(spec).losses(gone)
    assert losses["branch_audio"].item() == 0
    assert build(spec, branch_loss_on="all").losses(gone)["ce_audio"].item() > 0


# Speakers and positions.


def test_speakers_matter_up_to_the_cap() -> None:
    spec = make_spec("multiclass", speakers=3)
    batch = complete(make_batch(spec))
    method = build(spec, max_speakers=3)
    expected = probabilities(method, batch)
    swapped = replace(batch, speakers=(batch.speakers + 1) % 3 * batch.real)
    assert not torch.allclose(probabilities(method, swapped), expected)
    late = replace(batch, speakers=torch.where(batch.speakers == 2, 7, batch.speakers))
    torch.testing.assert_close(probabilities(method, late), expected)
    blind = build(spec, use_speaker=False)
    assert torch.equal(probabilities(blind, swapped), probabilities(blind, batch))


def test_reference_padding_row_may_be_a_speakers_and_never_learns() -> None:
    spec = make_spec("multiclass", speakers=3)
    batch = complete(make_batch(spec))
    own, shared = build(spec), build(spec, speaker_padding="reference")
    for method in (own, shared):
        method.losses(batch)["total"].backward()
    rows = []
    for method in (own, shared):
        gradient = method.fusion.speakers.weight.grad
        assert gradient is not None
        rows.append(gradient[2].abs().sum().item())
    assert rows[0] > 0
    assert rows[1] == 0


def test_position_tells_utterances_apart() -> None:
    spec = make_spec("multiclass", speakers=1)
    batch = complete(make_batch(spec, 1))
    same = {name: value[:, :1].expand_as(value) for name, value in batch.features.items()}
    batch = replace(batch, features=same)
    with_position = probabilities(build(spec), batch)
    without_position = probabilities(build(spec, use_position=False), batch)
    assert not torch.allclose(with_position[0], with_position[1])
    torch.testing.assert_close(without_position[0], without_position[1])


# Losses.


def softened(logits: np.ndarray, tau: float) -> np.ndarray:
    powers = np.exp(logits / tau)
    return powers / powers.sum(1, keepdims=True)


def test_logit_distillation_is_one_minus_correlation() -> None:
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    counted = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1], dtype=bool)
    p, q = softened(student, 2.0)[counted], softened(teacher, 2.0)[counted]
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    ours = logit_distillation(torch.tensor(student), torch.tensor(teacher), torch.tensor(counted), 2.0)
    assert ours.inter.item() == pytest.approx(4 * inter, rel=1e-5)
    assert ours.intra.item() == pytest.approx(4 * intra, rel=1e-5)


def test_feature_distillation_is_the_divergence_of_similarities() -> None:
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    counted = np.array([1, 0, 1, 1, 0, 1], dtype=bool)
    s, t = (x[counted] / np.linalg.norm(x[counted], axis=1, keepdims=True) for x in (student, teacher))
    p, q = softened(t @ t.T, 0.5), softened(t @ s.T, 0.5)
    expected = (p * np.log(p / q)).sum(1).mean()
    ours = feature_distillation(torch.tensor(student), torch.tensor(teacher), torch.tensor(counted), 0.5)
    assert ours.item() == pytest.approx(expected)


def test_distillation_of_nothing_is_zero_with_finite_gradients() -> None:
    student = torch.randn(4, 3, requires_grad=True)
    nobody = torch.zeros(4, dtype=torch.bool)
    kd = logit_distillation(student, torch.randn(4, 3), nobody, 2.0)
    total = kd.total + feature_distillation(student, torch.randn(4, 3), nobody, 1.0)
    total.backward()
    assert total.item() == 0
    assert student.grad is not None
    assert bool((student.grad == 0).all())


def test_total_weighs_the_branches() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec)
    for values in (INFO.data_set_parameters["iemocap6"], INFO.data_set_parameters["meld"]):
        losses = build(spec, **values).losses(batch)
        audio = losses["ce_audio"] + losses["logit_kd_audio"]
        if values["feature_kd"]:
            audio = audio + losses["feature_kd_audio"]
        torch.testing.assert_close(losses["branch_audio"], audio)
        total = (
            losses["ce"] + values["weight_audio"] * audio + values["weight_video"] * losses["branch_vision"]
        )
        torch.testing.assert_close(losses["total"], total)


def test_a_detached_teacher_gets_no_gradient_from_its_students() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec)
    for detached in (False, True):
        method = build(spec, detach_teacher=detached, branch_ce=False)
        method.losses(batch)["branch_audio"].backward()
        gradient = method.fusion.reduce["text"].weight.grad
        assert (gradient is None) is detached


def test_scores_have_no_logit_distillation() -> None:
    spec = make_spec("regression")
    batch = make_batch(spec)
    losses = build(spec).losses(batch)
    assert "logit_kd_audio" not in losses
    assert "feature_kd_audio" in losses
    method = build(spec).eval()
    predicted = method.predict(batch).score
    assert predicted is not None
    assert batch.labels is not None
    errors = (predicted - batch.labels)[batch.real]
    assert losses["ce"].item() == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    squared = build(spec, regression_loss="l2").losses(batch)["ce"]
    assert squared.item() == pytest.approx(errors.square().mean().item(), rel=1e-5)


# Variants.


@pytest.mark.parametrize(
    "values",
    [
        {"anchor": "audio"},
        {"anchor": "none"},
        {"share_text_blocks": False, "gate": "sigmoid"},
        {"gate": "none", "project": "always"},
        {"branch_ce": False, "logit_kd": False, "feature_kd": False},
        {"modalities": ("audio",)},
        {"modalities": ("vision", "text"), "missing": "zero"},
        {"attention": "published", "missing": "zero", "speaker_padding": "reference"},
    ],
)
def test_variants_are_finite_and_build_nothing_that_is_not_trained(values: dict[str, Any]) -> None:
    spec = make_spec("multiclass")
    method = build(spec, **values)
    enter(method)
    losses = method.losses(make_batch(spec))
    losses["total"].backward()
    # Streams that have no loss of their own are trained through the anchor's.
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
    assert all(bool(value.isfinite()) for value in losses.values())


def test_the_anchor_classifies() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec)
    for anchor in ("text", "audio", "vision"):
        output = build(spec, anchor=anchor).eval()._forward(batch)
        assert output.teacher == anchor
        assert torch.equal(output.prediction, output.logits[anchor])
    output = build(spec, anchor="none").eval()._forward(batch)
    mean = (output.logits["text"] + output.logits["audio"] + output.logits["vision"]) / 3
    torch.testing.assert_close(output.prediction, mean)
    # Where text is not at hand, the first modality stands in.
    pair = make_spec("multiclass", dims={"vision": 5, "audio": 4})
    assert build(pair).fusion.teacher == "audio"


def test_gates_are_logged_between_a_half_and_one() -> None:
    spec = make_spec("multiclass")
    method = build(spec)
    enter(method)
    for seed in range(2):
        method.training_step(make_batch(spec, seed=seed))
    gates = {name: float(value) for name, value in method.log().items()}
    names = ("text", "audio", "vision")
    assert set(gates) == {f"gate/{source}_to_{anchor}" for source in names for anchor in names}
    assert all(0.5 <= value < 1 for value in gates.values())


# Stages and schedule.


def moved(method: MAGTKD, before: dict[str, Tensor]) -> set[str]:
    """Top-level parts whose parameters differ."""
    changed = {n for n, p in method.named_parameters() if not torch.equal(before[n], p)}
    return {".".join(name.split(".")[:2]) if name.startswith("heads") else "fusion" for name in changed}


def snapshot(method: MAGTKD) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in method.named_parameters()}


@pytest.mark.parametrize(
    ("run", "stages"),
    [
        ("sequential", [{"heads.text"}, {"heads.audio"}, {"heads.vision"}, {"fusion"}]),
        ("joint", [{"heads.text"}, {"heads.audio", "heads.vision"}, {"fusion"}]),
    ],
)
def test_each_stage_trains_its_part_alone(run: str, stages: list[set[str]]) -> None:
    spec = make_spec("multiclass")
    method = build(spec, stage1="heads", distill_run=run, head_epochs=4, epochs=30, lr=1e-2, patience=7)
    plan = method.stages()
    assert [stage.select for stage in plan] == [False] * (len(stages) - 1) + [True]
    assert sum(stage.epochs for stage in plan) == 30
    assert plan[-1].patience == 7
    for index, parts in enumerate(stages):
        enter(method, index)
        before = snapshot(method)
        for seed in range(6):  # warm-up starts with rate 0
            terms = method.training_step(make_batch(spec, seed=seed))
            assert bool(terms["total"].isfinite())
        assert moved(method, before) == parts


def test_students_at_once_have_the_losses_of_one_after_the_other() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.4)
    values: dict[str, Any] = {"stage1": "heads", "logit_weight": 0.1, "feature_weight": 1.0}
    one, all_ = build(spec, **values), build(spec, **values, distill_run="joint")
    enter(all_, 1)
    joint = all_.losses(batch)
    total = torch.zeros(())
    for index, name in ((1, "audio"), (2, "vision")):
        enter(one, index)
        losses = one.losses(batch)
        torch.testing.assert_close(joint[f"feature_kd_{name}"], losses[f"feature_kd_{name}"])
        total = total + losses["total"]
    torch.testing.assert_close(joint["total"], total)


def test_stage_one_sees_only_what_is_available() -> None:
    spec = make_spec("multiclass")
    batch = make_batch(spec, rate=0.5)
    poisoned = {
        name: torch.where(batch.available[..., i, None], batch.features[name], torch.nan)
        for i, name in enumerate(spec.names)
    }
    method = build(spec, stage1="heads", feature_weight=1.0)
    for index in range(4):
        enter(method, index)
        first, second = method.losses(batch), method.losses(replace(batch, features=poisoned))
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(("schedule", "warmup", "total"), [("reference", 12, 12 * 20), ("steps", 3, 3 * 20)])
def test_learning_rate_warms_up_and_decays(schedule: str, warmup: int, total: int) -> None:
    spec = make_spec("multiclass")  # 12 training dialogues
    method = build(spec, schedule=schedule, epochs=20, lr=1e-3)
    enter(method, steps=3)
    rates = []
    for _ in range(5):
        rates.append(method.optimizers[0].param_groups[0]["lr"])
        method.training_step(make_batch(spec))
    expected = [1e-3 * (k / warmup if k < warmup else (total - k) / (total - warmup)) for k in range(5)]
    assert rates == pytest.approx(expected)
    assert warmup_decay(total, warmup, total) == 0


def test_an_interrupted_training_continues(tmp_path: Path) -> None:
    spec = make_spec("multiclass")
    batches = [make_batch(spec, seed=seed) for seed in range(4)]
    whole, broken = build(spec, lr=1e-2), build(spec, lr=1e-2)
    enter(whole)
    enter(broken)
    for batch in batches[:2]:
        whole.training_step(batch)
        broken.training_step(batch)
    save_state(tmp_path / "state", [broken.state_dict(), broken.training_state()])
    weights, state = load_state(tmp_path / "state")
    again = build(spec, lr=1e-2)
    enter(again)
    again.load_state_dict(weights)
    again.load_training_state(state)
    for batch in batches[2:]:
        whole.training_step(batch)
        again.training_step(batch)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), again.parameters(), strict=True))


def test_stage_one_must_leave_epochs_for_the_fusion() -> None:
    spec = make_spec("multiclass")
    enough = MAGTKDParameters(stage1="heads", head_epochs=5, epochs=16)
    assert INFO.applies(spec, enough) is None
    reason = INFO.applies(spec, MAGTKDParameters(stage1="heads", head_epochs=5, epochs=15))
    assert "3 stages" in str(reason)
    assert "chosen" in str(INFO.applies(spec, MAGTKDParameters(modalities=("smell",))))


# The authors' weights.


def reference_case(case: str, profile: str) -> tuple[MAGTKD, dict[str, Tensor], Batch, Tensor]:
    inputs = load_file(GOLDEN / case / "inputs.safetensors")
    outputs = load_file(GOLDEN / case / "outputs.safetensors")
    weights = load_file(GOLDEN / case / "weights.safetensors")
    width, classes = inputs["text"].shape[2], outputs["logits_t"].shape[2]
    speakers = len(weights["speaker_embeddings.weight"]) - 1
    heads = {"iemocap_train_dropout0": 4, "meld_eval": 2}[case]
    spec = make_spec("multiclass", dims=dict.fromkeys(("text", "audio", "vision"), width), classes=classes)
    values = {**INFO.profiles[profile], "hidden_dim": width, "num_heads": heads, "max_speakers": speakers}
    real = inputs["umask"].bool()
    spec = replace(spec, longest_dialogue=real.shape[1])
    names = {"text": "text", "audio": "audio", "vision": "video"}
    batch = Batch(
        features={ours: inputs[theirs].transpose(0, 1) for ours, theirs in names.items()},
        available=inputs["availability"].bool() & real[..., None],
        real=real,
        speakers=inputs["speaker"].long() * real,
        lengths=tuple(real.sum(1).tolist()),
        rows=torch.where(real, 0, -1),
        labels=inputs["labels"].long() * real,
    )
    method = MAGTKD(spec, MAGTKDParameters(**values), PlainServices()).eval()
    return method, weights, batch, outputs["logits_t"][real]


@pytest.mark.parametrize(("case", "profile"), [("iemocap_train_dropout0", "iemocap"), ("meld_eval", "meld")])
def test_authors_weights_give_the_authors_predictions(case: str, profile: str) -> None:
    method, weights, batch, logits = reference_case(case, profile)
    report = load_reference_weights(method, weights)
    torch.testing.assert_close(probabilities(method, batch), logits.softmax(-1), rtol=1e-4, atol=1e-5)
    assert report.missing == ()
    assert "fc.weight" in report.unused
    assert "a_t_gate.fc.weight" in report.unused
    assert not any(name.startswith("t_t.transformer_inter.0.self_attn") for name in report.unused)
    loss = load_file(GOLDEN / case / "outputs.safetensors")["loss.total"]
    torch.testing.assert_close(method.losses(batch)["total"], loss, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_another_width_is_refused() -> None:
    method, weights, _, _ = reference_case("meld_eval", "meld")
    with pytest.raises(ValueError, match=r"w_t\.weight"):
        load_reference_weights(method, {**weights, "w_t.weight": torch.zeros(2, 2)})
    with pytest.raises(KeyError, match=r"w_t\.weight"):
        load_reference_weights(method, {k: v for k, v in weights.items() if k != "w_t.weight"})
