"""Evaluation under many conditions: joined, kept from pass to pass, and always the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from toy_split import make_corpus, split_of

from imer_bench.harness.batch import Batch, Prediction
from imer_bench.harness.engine.calls import alone
from imer_bench.harness.engine.evaluation import Condition, Evaluation, FixedBatches
from imer_bench.harness.engine.masking import draw
from imer_bench.harness.method import Method
from imer_bench.harness.schedules import Frames, Random

ROOM = 2**20


class Sums:
    """Predicts from everything that an utterance's batch says of it, and of nothing else."""

    def __init__(self, careless: str = "") -> None:
        self.careless = careless
        self.batches: list[Batch] = []

    def predict(self, batch: Batch) -> Prediction:
        self.batches.append(batch)
        assert batch.labels is None
        score = batch.available.double().sum(-1) + 100 * batch.speakers
        for values in batch.features.values():
            score = score + values.double().flatten(batch.real.dim()).sum(-1)
        for kept in (batch.frames_available or {}).values():
            score = score + 10 * kept.sum(-1)
        if batch.tokens is not None:
            score = score + 1000 * batch.tokens.sum(-1)
        if self.careless == "writes":
            batch.features["text"].zero_()
        elif self.careless == "replaces":
            batch.features["text"] = batch.features["text"] * 0  # pyright: ignore[reportIndexIssue]
        return Prediction(score=score, probabilities=torch.stack([score, -score], -1))


def some_conditions(split, frames: bool, count: int = 5) -> list[Condition]:
    schedule = Frames(kind="frames", rate=0.5) if frames else Random(kind="random", rate=0.4)
    masks = [draw(split, schedule, "c", seed) for seed in range(count)]
    return [Condition(f"draw {seed}", "f", seed, one) for seed, one in enumerate(masks)]


def predicted(split, conditions, method: Any = None, **options) -> list[np.ndarray]:
    evaluation = Evaluation(split, conditions, precision="float32", **options)
    scores = []
    for one in alone(evaluation.predict(method or Sums())):
        assert one.score is not None
        assert one.probabilities is not None
        np.testing.assert_array_equal(one.probabilities[:, 0], one.score)
        scores.append(one.score)
    return scores


@pytest.mark.parametrize("level", ["vectors", "dialogues", "sequences"])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("size", [2, 7, 100])
def test_conditions_in_one_batch_are_predicted_as_alone(level, frames, size):
    split = split_of(make_corpus(frames), level, tokens=True)
    conditions = some_conditions(split, frames)
    alone = [predicted(split, [one], batch_size=2, joined=False)[0] for one in conditions]
    assert len({one.tobytes() for one in alone}) == len(alone), "the conditions differ"
    together = predicted(split, conditions, batch_size=size, joined=True, room=ROOM)
    np.testing.assert_array_equal(together, alone)


def test_small_conditions_share_a_batch_only_where_they_may():
    split = split_of(make_corpus(), "vectors")
    conditions = some_conditions(split, False)
    for joined, batches in ((True, 3), (False, 5)):
        method = Sums()
        predicted(split, conditions, method, batch_size=20, joined=joined)
        assert len(method.batches) == batches
        assert all((batch.rows < len(split)).all() for batch in method.batches)


@pytest.mark.parametrize("level", ["vectors", "dialogues"])
@pytest.mark.parametrize("room", [0, 500, ROOM])
def test_every_pass_sees_the_same_batches_whatever_is_kept(level, room):
    split = split_of(make_corpus(), level)
    masks = [one.masks for one in some_conditions(split, False)]
    batches = FixedBatches(split, masks, 2, room)
    fresh = [batch.features["text"].clone() for batch in FixedBatches(split, masks, 2)]
    kept = 0
    first = list(batches)
    for _ in range(2):
        again = list(batches)
        for one, values in zip(again, fresh, strict=True):
            assert torch.equal(one.features["text"], values)
        kept = sum(one is other for one, other in zip(first, again, strict=True))
    assert kept == {0: 0, ROOM: len(fresh)}.get(room, kept)
    if room == 500:
        assert 0 < kept < len(fresh)


@pytest.mark.parametrize("careless", ["writes", "replaces"])
def test_a_method_that_changes_its_batches_is_given_fresh_ones(careless):
    split = split_of(make_corpus(), "vectors")
    conditions = some_conditions(split, False)
    careful = predicted(split, conditions, batch_size=4, joined=False)
    evaluation = Evaluation(split, conditions, 4, "float32", joined=False, room=ROOM)
    method: Any = Sums(careless)
    for _ in range(3):
        now = [one.score for one in alone(evaluation.predict(method))]
        np.testing.assert_array_equal(now, careful)


def test_losses_are_means_over_utterances_then_over_conditions():
    split = split_of(make_corpus(), "dialogues")
    conditions = some_conditions(split, False, 3)

    class Losses(Sums):
        def validation_losses(self, batch):
            assert batch.labels is not None
            seen = (batch.available.sum(-1) * batch.labels)[batch.real]
            return {"seen": seen.mean()}

    evaluation = Evaluation(split, conditions, 2, "float32", joined=False, room=ROOM)
    expected = np.mean([(one.masks.available.sum(-1) * split.labels).double().mean() for one in conditions])
    for _ in range(2):
        found = alone(evaluation.losses(Losses.__new__(Losses)))  # pyright: ignore[reportArgumentType]
        assert found == {"loss/seen": pytest.approx(float(expected), rel=1e-6)}


def test_no_batch_is_made_for_a_method_without_losses():
    class Without(Method):
        def __init__(self) -> None: ...
        def losses(self, batch):
            raise AssertionError

        def predict(self, batch):
            raise AssertionError

    split = split_of(make_corpus(), "vectors")
    evaluation = Evaluation(split, some_conditions(split, False), 4, "float32", joined=False)
    assert alone(evaluation.losses(Without())) == {}
