"""Training: stages, selection, shared stages, banks, and checkpoints that continue exactly."""

import math
from dataclasses import replace

import pytest
import torch

from imer_bench.harness.engine.training import Diverged, Training, _alternating
from imer_bench.harness.metrics import NonFinitePrediction

from jobs import make_training


class Killed(Exception):
    """Stands for a kill between two epochs."""


def kill_after(epochs: int):
    def report(stage, progress):
        if progress.step == epochs:
            raise Killed

    return report


def weights(method) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in method.state_dict().values()])


def history(progress) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in progress.history]


@pytest.mark.parametrize("method", ["toys:TWO_STAGES", "toys:ANCHORS", "late_fusion"])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_training_cut_off_after_any_epoch_ends_as_the_unbroken_one(tmp_path, method, epochs):
    settings = ["methods.0.parameters={epochs=4}"]
    whole, _, unbroken = make_training(tmp_path, method, *settings)
    expected = whole.run()
    file = tmp_path / "checkpoint"
    first, job, _ = make_training(tmp_path, method, *settings, checkpoint=file)
    cut = Training(job, first.method, kill_after(epochs), file)
    with pytest.raises(Killed):
        cut.run()
    second, _, continued = make_training(tmp_path, method, *settings, checkpoint=file)
    progress = second.run()
    assert history(progress) == history(expected)
    assert progress.best_step == expected.best_step
    assert torch.equal(weights(continued), weights(unbroken))


def test_the_optimiser_of_the_first_stage_lives_on_in_the_second(tmp_path):
    training, _, method = make_training(tmp_path, "toys:TWO_STAGES")
    training.run()
    (optimizer,) = method.optimizers
    steps = {
        name: optimizer.state[p]["step"].item()
        for name, p in method.named_parameters()
        if p in optimizer.state
    }
    experts = {value for name, value in steps.items() if name.startswith("experts")}
    joint = {value for name, value in steps.items() if name.startswith("joint")}
    assert experts == {2 * joint.pop()}


def test_only_stages_that_may_be_selected_give_the_model(tmp_path):
    training, _, _ = make_training(tmp_path, "toys:TWO_STAGES")
    progress = training.run()
    assert [row["stage"] for row in progress.history] == ["experts"] * 2 + ["mixing"] * 2
    assert progress.best_step >= 2


def test_a_shared_stage_is_the_same_under_every_condition_and_changes_nothing(tmp_path):
    """MoMKE's complete first stage: trained once, branched from, bit for bit as if trained anew."""
    shared = tmp_path / "shared"
    first, _, _ = make_training(tmp_path, "toys:TWO_STAGES", "train.schedule=random-0.3")
    assert first.shared_stages == 1
    first.run(shared)
    other = ("toys:TWO_STAGES", "train.schedule=fixed-t")
    alone, _, trained = make_training(tmp_path, *other)
    alone.run()
    branched, _, branch = make_training(tmp_path, *other)
    epochs = []
    branched._report = lambda stage, progress: epochs.append(stage.name)
    progress = branched.run(shared)
    assert epochs == ["mixing"] * 2
    assert torch.equal(weights(branch), weights(trained))
    assert [row["stage"] for row in progress.history] == ["experts"] * 2 + ["mixing"] * 2


def test_a_stage_on_the_schedule_is_not_shared(tmp_path):
    setting = 'methods.0.parameters={stage1_data="schedule"}'
    training, _, _ = make_training(tmp_path, "toys:TWO_STAGES", setting)
    assert training.shared_stages == 0


def test_the_best_epoch_on_validation_is_restored(tmp_path):
    training, job, method = make_training(tmp_path, "late_fusion", "methods.0.parameters={epochs=6, lr=0.05}")
    seen = []

    def report(stage, progress):
        seen.append(weights(method).clone())

    training._report = report
    progress = training.run()
    scores = [row["validation/wf1"] for row in progress.history]
    assert progress.best_step == scores.index(max(scores))
    assert torch.equal(weights(method), seen[progress.best_step])


def test_the_last_epoch_is_kept_when_the_protocol_says_so(tmp_path):
    training, job, method = make_training(
        tmp_path, "late_fusion", "comparison.selection=last", "methods.0.parameters={epochs=6, lr=0.05}"
    )
    seen = []
    training._report = lambda stage, progress: seen.append(weights(method).clone())
    training.run()
    assert torch.equal(weights(method), seen[-1])


def test_a_lower_error_is_better_where_the_metric_says_so(tmp_path):
    training, _, _ = make_training(
        tmp_path, "late_fusion", "metrics.primary=mae", "methods.0.parameters={epochs=5, lr=0.05}"
    )
    progress = training.run()
    scores = [row["validation/mae"] for row in progress.history]
    assert progress.best_step == scores.index(min(scores))


def test_patience_ends_a_stage(tmp_path):
    setting = "methods.0.parameters={epochs=200, lr=0.5, patience=3}"
    training, _, _ = make_training(tmp_path, "late_fusion", setting)
    progress = training.run()
    assert progress.step == progress.best_step + 1 + 3
    assert progress.step < 200


def test_a_broken_loss_or_prediction_ends_the_training(tmp_path):
    training, _, _ = make_training(tmp_path, "toys:GOES_WRONG", 'methods.0.parameters={how="nan"}')
    with pytest.raises(Diverged, match="train/total is not finite in epoch 1"):
        training.run()
    training, _, _ = make_training(tmp_path, "toys:GOES_WRONG", 'methods.0.parameters={how="nan prediction"}')
    with pytest.raises(NonFinitePrediction):
        training.run()


def test_honest_selection_is_not_even_given_the_test_split(tmp_path):
    _, job, _ = make_training(tmp_path, "late_fusion")
    assert job.test is None
    assert job.test_conditions == ()
    _, job, _ = make_training(tmp_path, "late_fusion", "comparison.selection=test")
    assert job.test is not None


def test_an_audit_changes_no_number_and_is_kept_apart(tmp_path):
    plain, _, method = make_training(tmp_path, "toys:ANCHORS", "methods.0.parameters={epochs=3}")
    expected = plain.run()
    audited, _, other = make_training(
        tmp_path, "toys:ANCHORS", "compute={audit=true}", "methods.0.parameters={epochs=3}"
    )
    progress = audited.run()
    assert history(progress) == history(expected)
    assert torch.equal(weights(method), weights(other))
    assert [row["step"] for row in progress.audit] == [0, 1, 2]
    assert set(progress.audit[0]) == {"step", "complete", "random-0.5", "fixed-t"}
    assert not any("test" in key for row in progress.history for key in row)


def test_training_masks_are_the_same_for_all_methods_and_follow_seed_and_epoch(tmp_path):
    one, _, _ = make_training(tmp_path, "late_fusion")
    other, _, _ = make_training(tmp_path, "early_fusion")
    seeded, _, _ = make_training(tmp_path, "late_fusion", "train.seeds=[2]")
    masks = one._masks(0).available
    assert torch.equal(masks, other._masks(0).available)
    assert not torch.equal(masks, one._masks(1).available)
    assert not torch.equal(masks, seeded._masks(0).available)
    frozen, _, _ = make_training(tmp_path, "late_fusion", "comparison.draw=frozen")
    assert torch.equal(frozen._masks(0).available, frozen._masks(1).available)


def test_a_support_bank_is_balanced_drawn_once_and_labelled(tmp_path):
    training, job, method = make_training(tmp_path, "toys:ANCHORS")
    view = training._view
    sample = view.sample(12, method.services.generator("bank"), balanced=True)
    again = view.sample(12, method.services.generator("bank"), balanced=True)
    assert torch.equal(sample.rows, again.rows)
    assert sample.targets is None
    counts = torch.bincount((sample.labels.sign() + 1).long(), minlength=3)
    present = torch.bincount((job.train.labels.sign() + 1).long(), minlength=3)
    assert counts.sum() == 12
    for count, limit in zip(counts.tolist(), present.tolist(), strict=True):
        assert count >= min(limit, int(counts.max()) - 1)


def test_alternating_keeps_every_prefix_balanced():
    order = _alternating(torch.tensor([0, 0, 0, 1, 0, 2, 1]))
    assert [int(torch.tensor([0, 0, 0, 1, 0, 2, 1])[i]) for i in order[:3]] in ([0, 1, 2], [0, 2, 1])
    assert sorted(order.tolist()) == list(range(7))


def test_privileged_targets_reach_only_methods_that_declare_them(tmp_path):
    _, job, _ = make_training(tmp_path, "late_fusion")
    assert not job.targets
    seen = []
    training, job, method = make_training(tmp_path, "late_fusion")
    step = method.training_step
    method.training_step = lambda batch: seen.append(batch.targets is not None) or step(batch)
    Training(replace(job, targets=True), method).run()
    assert all(seen)


def test_an_undefined_score_never_wins(tmp_path):
    training, job, method = make_training(tmp_path, "constant")
    from imer_bench.harness.engine.training import Training as Again

    progress = Again(replace(job, primary="corr"), method).run()
    assert progress.best_step == 0
    assert progress.best_score == -math.inf
