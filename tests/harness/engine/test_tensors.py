"""Batches: what a method sees, and above all what it does not see."""

import numpy as np
import pytest
import torch
from toy_split import make_corpus, split_of

from imer_bench.harness.engine.masking import draw
from imer_bench.harness.engine.tensors import SplitTensors, fit_scaling, local_speakers
from imer_bench.harness.schedules import Fixed, Frames, Random


def test_dialogues_are_padded_and_padding_is_told_apart():
    split = split_of(make_corpus(), "dialogues")
    batch = split.batch(torch.tensor([0, 2]), split.everything(), labels=True, targets=False)
    assert batch.lengths == (2, 3)
    assert batch.real.tolist() == [[True, True, False], [True, True, True]]
    assert batch.rows.tolist() == [[0, 1, -1], [6, 7, 8]]
    assert batch.labels.tolist() == [[0, 1, 0], [6, 7, 8]]
    assert batch.speakers.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert not batch.available[0, 2].any()
    assert (batch.features["text"][0, 2] == 0).all()


def test_speakers_are_numbered_by_first_appearance_in_their_dialogue():
    assert local_speakers(list("aaabb"), list("yxyxy")).tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("level", ["vectors", "dialogues", "sequences"])
@pytest.mark.parametrize("sequences", [False, True])
def test_absent_content_never_reaches_a_batch(level, sequences):
    """Poison: what is absent is not a number, and no batch notices."""
    corpus = make_corpus(sequences)
    schedule = Random(kind="random", rate=0.4)

    def batch_of(split: SplitTensors):
        masks = draw(split, schedule, "c", seed=3)
        return split.batch(torch.arange(split.units), masks, labels=True, targets=False), masks

    clean, masks = batch_of(split_of(corpus, level))
    assert not masks.available.all()
    poisoned = split_of(corpus, level)
    for column, name in enumerate(poisoned.modalities):
        poisoned._values[name][: len(poisoned)][~masks.available[:, column]] = torch.nan
    dirty, _ = batch_of(poisoned)
    for name in clean.features:
        assert torch.equal(clean.features[name], dirty.features[name])
        assert not dirty.features[name].isnan().any()
    assert clean.targets is None


@pytest.mark.parametrize("level", ["vectors", "dialogues", "sequences"])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("at_once", [1, 48, 10_000])
def test_batches_that_are_gathered_together_are_those_gathered_alone(level, frames, at_once):
    """Equal in every field, and as aligned in memory: kernels may round by where a tensor starts."""
    split = split_of(make_corpus(frames), level, tokens=True)
    schedule = Frames(kind="frames", rate=0.4) if frames else Random(kind="random", rate=0.4)
    masks = draw(split, schedule, "c", seed=3)
    units = torch.randperm(split.units, generator=torch.Generator().manual_seed(0)).split(2)
    split._rows_at_once = at_once
    together = list(split.batches(units, masks, labels=True, targets=True))
    assert len(together) == len(units)
    for chosen, batch in zip(units, together, strict=True):
        alone = split.batch(chosen, masks, labels=True, targets=True)
        assert batch.lengths == alone.lengths
        for name, value in vars(alone).items():
            pairs = value.items() if isinstance(value, dict) else [(name, value)]
            for key, tensor in pairs:
                if not isinstance(tensor, torch.Tensor):
                    continue
                own = getattr(batch, name)
                own = own[key] if isinstance(value, dict) else own
                assert torch.equal(own, tensor)
                assert own.is_contiguous()
                if own.dtype == torch.float32:
                    assert own.data_ptr() % 64 == 0


def test_unobserved_rows_are_absent_whatever_the_schedule_says():
    observed = np.ones((9, 2), bool)
    observed[4, 0] = observed[5, 1] = False
    split = split_of(make_corpus(observed=observed), "vectors")
    everything = split.everything()
    assert everything.available.numpy().tolist() == observed.tolist()
    masks = draw(split, Fixed(kind="fixed", available=("text",)), "c", seed=0)
    # Utterance 4 has no text: nothing would be left, so it keeps its audio, and that is counted.
    assert masks.available[4].tolist() == [False, True]
    assert masks.available[3].tolist() == [True, False]
    assert masks.repaired == 1


def test_targets_hold_the_truth_only_when_asked():
    split = split_of(make_corpus(), "vectors")
    masks = draw(split, Fixed(kind="fixed", available=("text",)), "c", seed=0)
    batch = split.batch(torch.arange(9), masks, labels=True, targets=True)
    assert (batch.features["audio"] == 0).all()
    assert (batch.targets["audio"] != 0).all()
    assert batch.without_labels().targets is None


def test_sequences_become_vectors_by_the_mean_over_valid_frames():
    corpus = make_corpus(sequences=True)
    split = split_of(corpus, "vectors")
    batch = split.batch(torch.arange(9), split.everything(), labels=False, targets=False)
    features = corpus.features["audio"]
    for row in range(9):
        expected = features.values[row, : features.lengths[row]].mean(axis=0)
        np.testing.assert_allclose(batch.features["audio"][row], expected, rtol=1e-6)


def test_vectors_become_sequences_of_length_one():
    split = split_of(make_corpus(), "sequences")
    batch = split.batch(torch.arange(2), split.everything(), labels=False, targets=False)
    assert batch.features["text"].shape == (2, 1, 3)
    assert batch.frames["text"].tolist() == [[True], [True]]


def test_lost_frames_are_zero_in_sequences_and_left_out_of_the_mean():
    corpus = make_corpus(sequences=True)
    schedule = Frames(kind="frames", rate=0.5)
    split = split_of(corpus, "sequences")
    batch = split.batch(torch.arange(9), draw(split, schedule, "c", 1), labels=False, targets=False)
    lost = batch.frames["text"] & ~batch.frames_available["text"]
    assert lost.any()
    assert (batch.features["text"][lost] == 0).all()
    pooled = split_of(corpus, "vectors")
    vectors = pooled.batch(torch.arange(9), draw(pooled, schedule, "c", 1), labels=False, targets=False)
    for row in range(9):
        kept = batch.frames_available["text"][row]
        if kept.any():
            expected = corpus.features["text"].values[row][kept.numpy()].mean(axis=0)
            np.testing.assert_allclose(vectors.features["text"][row], expected, rtol=1e-5)
        else:
            assert not vectors.available[row, 0]


def test_tokens_of_absent_text_are_unknown_but_special_tokens_stay():
    corpus = make_corpus()
    split = split_of(corpus, "vectors", tokens=True)
    masks = draw(split, Fixed(kind="fixed", available=("audio",)), "c", seed=0)
    batch = split.batch(torch.arange(2), masks, labels=False, targets=False)
    assert batch.tokens[0].tolist() == [10, 1, 1, 13]  # [CLS] and padding keep their ids
    assert batch.token_mask[0].tolist() == [True, True, True, False]
    full = split.batch(torch.arange(2), split.everything(), labels=False, targets=False)
    assert full.tokens[0].tolist() == [10, 11, 12, 13]


def test_scaling_is_fitted_on_observed_training_rows_only():
    observed = np.ones((9, 2), bool)
    observed[0, 0] = False
    corpus = make_corpus(observed=observed)
    corpus.features["text"].values[0] = 1e6
    corpus.features["text"].values[8] = 1e6
    scaling = fit_scaling(corpus, np.arange(8), "standard")
    expected = corpus.features["text"].values[1:8].astype(np.float64)
    np.testing.assert_allclose(scaling.mean["text"], expected.mean(axis=0))
    np.testing.assert_allclose(scaling.deviation["text"], expected.std(axis=0))
    assert fit_scaling(corpus, np.arange(8), "none") is None


def test_a_constant_column_is_centred_not_blown_up():
    corpus = make_corpus()
    corpus.features["audio"].values[:, 0] = 0.1
    split = split_of(corpus, "vectors", scaling=fit_scaling(corpus, np.arange(9), "standard"))
    batch = split.batch(torch.arange(9), split.everything(), labels=False, targets=False)
    assert batch.features["audio"][:, 0].abs().max() < 1e-6
