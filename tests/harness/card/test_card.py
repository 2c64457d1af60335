"""Data-set cards: the probe against scikit-learn and published numbers, planted leaks, the real leak."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from imer_bench.harness.card.card import make_card
from imer_bench.harness.card.leaks import contamination, label_leak, near_duplicates, two_kinds
from imer_bench.harness.card.probe import (
    Reading,
    auc,
    balanced_folds,
    held_out,
    out_of_fold,
    target_of,
    vectors_of,
)
from imer_bench.harness.card.text import card_text
from imer_bench.harness.cli import main
from imer_bench.harness.corpus.native import Contents, write_corpus
from imer_bench.harness.corpus.records import FeatureSet, LabelInfo

MOSI = Path(__file__).parents[3].parent / "shared" / "data" / "cmu_mosi"
SCORE = LabelInfo("sentiment", "score", low=-3.0, high=3.0)


def features(values: np.ndarray, modality: str = "text", name: str = "a") -> FeatureSet:
    return FeatureSet(modality, name, values.astype(np.float32), None, np.ones(len(values), dtype=bool))


def made(leaked: bool, seed: int = 0, dialogues: int = 60, each: int = 20) -> Contents:
    """Dialogues with honest text of moderate signal; vision knows the labels of 40 of them, or is noise."""
    generator = np.random.default_rng(seed)
    count = dialogues * each
    names = np.repeat([f"d{number:02}" for number in range(dialogues)], each)
    score = generator.normal(size=count)
    score[::50] = 0
    text = generator.normal(size=(count, 8))
    text[:, 0] += 0.8 * np.sign(score)
    vision = generator.normal(size=(count, 8))
    part = np.where(np.repeat(np.arange(dialogues) < 40, each), "train", "test")
    if leaked:
        vision[part == "train", 1] += 4 * np.sign(score[part == "train"])
    table = pd.DataFrame(
        {
            "id": [f"{name}_{row % each}" for row, name in enumerate(names)],
            "dialogue": names,
            "index": [row % each for row in range(count)],
            "speaker": "",
            "sentiment": score,
            "split_release": part,
            "split_other": np.where(np.repeat(np.arange(dialogues) % 3 == 0, each), "test", "train"),
        }
    )
    return Contents(
        "made",
        table,
        (SCORE,),
        (features(text), features(vision, "vision")),
        split_columns=("split_release", "split_other"),
    )


def test_area_under_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score, roc_auc_score

    generator = np.random.default_rng(1)
    for classes in (2, 4):
        true = generator.integers(classes, size=200)
        probabilities = generator.dirichlet(np.ones(classes), size=200).round(2)  # ties
        expected = (
            roc_auc_score(true, probabilities[:, 1])
            if classes == 2
            else np.mean([roc_auc_score(true == c, probabilities[:, c]) for c in range(classes)])
        )
        assert auc(true, probabilities) == pytest.approx(expected)
        reading = Reading(true, probabilities, true)
        assert reading.weighted_f1() == pytest.approx(
            f1_score(true, probabilities.argmax(axis=1), average="weighted")
        )


def test_the_probe_is_standardised_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    contents = made(leaked=False)
    target = target_of(contents.utterances, SCORE)
    assert len(target.rows) == 1200 - 24  # zeros are left out
    train, test = target.part(target.rows < 800), target.part(target.rows >= 800)
    reading = held_out([contents.features[0]], train, test)
    values = contents.features[0].values
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(values[train.rows], train.classes)
    np.testing.assert_allclose(reading.probabilities, model.predict_proba(values[test.rows]), atol=1e-4)


def test_a_dialogue_is_never_on_both_sides():
    dialogues = np.array(["a"] * 30 + ["b"] * 2 + ["c"] * 3 + ["d"] * 9 + ["e"] * 5 + ["f"] * 6)
    folds = balanced_folds(dialogues)
    assert all(len(set(folds[dialogues == name])) == 1 for name in "abcdef")
    assert len(set(folds)) == 5
    # Features that say nothing but who is speaking, labels that depend on the dialogue: held out, no signal.
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(40), 10)
    values = np.eye(40)[names] + 0.01 * generator.normal(size=(400, 40))
    table = pd.DataFrame(
        {"dialogue": names.astype(str), "sentiment": np.sign(generator.normal(size=40))[names]}
    )
    reading = out_of_fold([features(values)], target_of(table, SCORE))
    assert reading.auc() < 0.6


def test_sequences_are_averaged_over_valid_steps_and_absent_rows_carry_no_signal():
    values = np.zeros((2, 3, 1), dtype=np.float32)
    values[0, :2, 0] = [1, 3]
    item = FeatureSet("audio", "s", values, np.array([2, 0]), np.array([True, False]))
    np.testing.assert_array_equal(vectors_of(item), [[2], [0]])
    contents = made(leaked=False)
    observed = np.zeros(1200, dtype=bool)
    observed[::2] = True
    half = replace(contents.features[0], observed=observed)
    target = target_of(contents.utterances, SCORE)
    reading = out_of_fold([half], target)
    seen = observed[target.rows]
    inside = Reading(target.classes[seen], reading.probabilities[seen], target.dialogues[seen])
    outside = Reading(target.classes[~seen], reading.probabilities[~seen], target.dialogues[~seen])
    assert inside.auc() > 0.7
    assert outside.auc() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_leak_is_found_and_honest_features_are_not_blamed(seed):
    contents = made(leaked=True, seed=seed)
    card = make_card(contents, "")
    blamed = {(leak.feature, leak.modality, leak.column) for leak in card.label_leaks if leak.suspicious}
    assert blamed == {("a", "vision", "split_release")}
    assert [(kind.modality, kind.suspicious) for kind in card.kinds] == [("text", False), ("vision", True)]
    # Every third of the first 40 dialogues, which the features know, is in the other split's test part.
    other = next(item for item in card.contaminated if item.column == "split_other")
    assert (other.dialogues, other.of_dialogues, other.utterances, other.of_utterances) == (14, 20, 280, 400)
    honest = make_card(made(leaked=False, seed=seed), "")
    assert not any(leak.suspicious for leak in honest.label_leaks)
    assert not any(kind.suspicious for kind in honest.kinds)
    assert honest.findings == ()


def test_without_a_split_the_leak_is_a_suspicion():
    contents = made(leaked=True)
    table = contents.utterances.drop(columns=["split_release"])
    card = make_card(replace(contents, utterances=table, split_columns=("split_other",)), "")
    assert any(text.startswith("SUSPICION: whatever the split, vision/a is read") for text in card.findings)
    kind = card.kinds[1]
    assert set(kind.dialogues) == {f"d{number:02}" for number in range(40)}


def test_a_harder_test_part_is_a_suspicion_only():
    contents = made(leaked=False)
    values = contents.features[0].values.copy()
    values[800:] = np.random.default_rng(3).normal(size=(400, 8))
    item = replace(contents.features[0], values=values.astype(np.float32))
    target = target_of(contents.utterances, SCORE)
    parts = contents.utterances["split_release"].to_numpy()[target.rows]
    found = label_leak(item, target, "split_release", parts)
    assert found is not None
    assert found.suspicious  # by this comparison alone it cannot be told from a leak
    assert not two_kinds(item, out_of_fold([item], target)).suspicious
    card = make_card(replace(contents, features=(item,)), "")
    assert [text.partition(":")[0] for text in card.findings] == ["SUSPICION", "SUSPICION"]


def test_near_duplicates():
    rows = [
        ("a", "train", "I really liked the film a lot, it was fun."),
        ("b", "train", "okay"),
        ("c", "test", "i REALLY liked the film a lot it was fun"),
        ("d", "test", "Okay."),
        ("e", "valid", "I really liked the film a lot, it was funny."),
        ("f", "test", "Something entirely different is said here, on purpose."),
    ]
    table = pd.DataFrame(rows, columns=["id", "split", "transcript"])
    found = near_duplicates(table, "split")
    assert [(pair.training, pair.other) for pair in found] == [("a", "c"), ("a", "e")]
    assert found[0].similarity == pytest.approx(1)


def test_contamination_counts_dialogues_and_utterances():
    table = pd.DataFrame(
        {"dialogue": list("aabbcc"), "split": ["train", "train", "test", "test", "test", "test"]}
    )
    (found,) = contamination(table, ["split"], ["a", "b"])
    assert (found.part, found.dialogues, found.of_dialogues, found.utterances, found.of_utterances) == (
        "test",
        1,
        2,
        2,
        4,
    )


def test_the_command_writes_the_card(tmp_path, capsys):
    contents = made(leaked=True)
    absent = contents.features[1].observed.copy()
    absent[:120] = False
    contents = replace(
        contents, features=(contents.features[0], replace(contents.features[1], observed=absent))
    )
    write_corpus(tmp_path / "made", contents)
    assert main(["data", "card", "made", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "LEAK: vision/a" in out
    assert "text + vision 1080, text 120" in out
    assert (tmp_path / "made" / "card.md").read_text() in out
    plain = json.loads((tmp_path / "made" / "card.json").read_text())
    assert plain["utterances"] == 1200
    assert main(["data", "verify", "made", "--data-root", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["data", "card", "made", "--data-root", str(tmp_path), "--features", "text=b"]) == 1
    assert "text=b: at hand: text=a, vision=a" in capsys.readouterr().err
    assert main(["data", "card", "made", "--data-root", str(tmp_path), "--label", "joy"]) == 1
    assert "no label 'joy'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def mosi() -> Contents:
    if not MOSI.is_dir():
        pytest.skip("the CMU-MOSI features are not at hand")
    from imer_bench.harness.corpus.importers.common import ImportOptions
    from imer_bench.harness.corpus.importers.table import import_table
    from imer_bench.harness.corpus.native import ordered

    sources = [MOSI / "utterances.json", MOSI / "features.safetensors", MOSI / "text_minilm.safetensors"]
    return ordered(import_table(sources, ImportOptions(name="cmu_mosi")).contents)


def test_the_probe_repeats_the_numbers_of_the_release(mosi):
    """Clean protocol of the data's own README: five folds by video, C = 0.01, 752 utterances."""
    table = mosi.utterances
    label = next(item for item in mosi.labels if item.column == "label")
    target = target_of(table, label)
    folds = table["clean_fold"].to_numpy()
    inside = folds >= 0
    by_name = {(item.modality, item.name): item for item in mosi.features}
    text, audio, vision = (by_name[name, "release"] for name in ("text", "audio", "vision"))
    published = [
        ([text], 75.7, 75.3),
        ([audio], 58.9, 54.4),
        ([vision], 63.7, 58.1),
        ([text, audio, vision], 75.3, 75.1),
    ]
    for items, accuracy, f1 in published:
        reading = out_of_fold(items, target.part(inside), folds[inside])
        assert 100 * reading.accuracy() == pytest.approx(accuracy, abs=0.3)
        assert 100 * reading.weighted_f1() == pytest.approx(f1, abs=0.3)


def test_the_card_of_cmu_mosi_finds_its_leak(mosi):
    card = make_card(mosi, "")
    blamed = {(leak.modality, leak.feature, leak.column) for leak in card.label_leaks if leak.suspicious}
    assert blamed == {("text", "release", "split_release"), ("vision", "release", "split_release")}
    # The README: 24 of the 31 standard test videos (558 of 686 utterances) are among the known ones.
    test = next(item for item in card.contaminated if (item.column, item.part) == ("split_standard", "test"))
    assert (test.dialogues, test.of_dialogues, test.utterances, test.of_utterances) == (24, 31, 558, 686)
    kinds = {(kind.modality, kind.feature): kind.suspicious for kind in card.kinds}
    assert kinds == {
        ("text", "release"): True,
        ("text", "minilm"): False,
        ("audio", "release"): False,
        ("vision", "release"): True,
    }
    assert "24 of 31 test dialogues of 'split_standard' (558 of 686 utterances)" in card_text(card)
