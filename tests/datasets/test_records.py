"""The records of the data sets, their generated stand-ins, and the embedded data set."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

from imer_bench.harness.corpus.catalogue import (
    data_set_info,
    data_sets,
    find_corpus,
    load_data_set,
    search_roots,
)
from imer_bench.harness.corpus.errors import CorpusError, DataNotFound
from imer_bench.harness.corpus.generator import SyntheticParameters, generate, synthetic_like
from imer_bench.harness.corpus.info import DatasetInfo
from imer_bench.harness.corpus.native import load_corpus, write_corpus
from imer_bench.harness.corpus.records import Corpus
from imer_bench.harness.corpus.splits import fold_numbers, make_split
from imer_bench.harness.errors import UnknownName

NAMES = ("synthetic", "cmu_mosi", "cmu_mosei", "iemocap4", "iemocap6", "meld", "ch_sims")


def test_all_data_sets_are_known() -> None:
    assert set(NAMES) <= {info.name for info in data_sets()}
    with pytest.raises(UnknownName, match=r"unknown data set 'cmu_mose'; did you mean 'cmu_mose?i'"):
        data_set_info("cmu_mose")


def test_records_load_without_pandas_and_torch() -> None:
    """The command line lists data sets and prints help in an instant."""
    code = (
        "import sys\n"
        "from imer_bench.harness.corpus.catalogue import data_sets\n"
        "import imer_bench.harness.corpus.commands\n"
        "data_sets()\n"
        "print(sorted({'pandas', 'torch', 'numpy', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("info", data_sets(), ids=lambda info: info.name)
def test_records_are_complete_and_agree_with_themselves(info: DatasetInfo) -> None:
    assert info.title
    assert info.summary.endswith(".")
    assert len(info.features) >= 2
    assert info.label_info in info.labels
    assert (info.task == "regression") == (info.score_range is not None)
    assert len(info.class_shares) in (0, len(info.classes))
    assert info.parts
    assert len(info.default_features) == len(info.features)
    if not info.embedded:
        assert info.expected
        assert info.release
        assert info.licence
        assert info.citation.startswith("@")
        assert f"--name {info.name}" in info.import_command


# Published counts: utterances of the whole data set and of its usual test part.
PUBLISHED = {
    "cmu_mosi": (2199, 686),
    "cmu_mosei": (22856, 4659),
    "iemocap4": (5531, 1241),
    "iemocap6": (7433, 1623),
    "meld": (13708, 2610),
    "ch_sims": (2281, 457),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_known_sizes_are_the_published_ones(name: str) -> None:
    parts = data_set_info(name).parts
    assert (sum(part.utterances for part in parts), parts[-1].utterances) == PUBLISHED[name]
    for part in parts:
        assert part.shortest * part.dialogues <= part.utterances <= part.longest * part.dialogues


def test_absent_data_say_what_is_expected_and_how_to_import_them(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        find_corpus("iemocap4", tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "iemocap4") in message
    assert "IEMOCAP_features_raw_4way.pkl" in message
    assert "release form" in message
    assert "bench.py data import" in message
    assert "--synthetic" in message
    with pytest.raises(UnknownName):
        find_corpus("nothing_like_it", tmp_path)


def test_roots_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMER_DATA", str(tmp_path / "environment"))
    contents = generate(SyntheticParameters(name="mine"))
    for root in ("data", "protocol", "environment", "argument"):
        write_corpus(tmp_path / root / "mine", contents)
    assert search_roots("argument", "protocol") == (
        Path("argument"),
        tmp_path / "environment",
        Path("protocol"),
        Path("data"),
    )
    assert find_corpus("mine", "argument", "protocol") == Path("argument/mine")
    assert find_corpus("mine", None, "protocol") == tmp_path / "environment" / "mine"
    monkeypatch.delenv("IMER_DATA")
    assert find_corpus("mine", None, "protocol") == Path("protocol/mine")
    assert find_corpus("mine") == Path("data/mine")


def test_other_features_than_the_record_names_are_never_chosen_silently(tmp_path: Path) -> None:
    contents = generate(SyntheticParameters(name="cmu_mosi"))
    write_corpus(tmp_path / "cmu_mosi", contents)
    with pytest.raises(
        CorpusError, match="no text feature set 'deberta-large-4-UTT'; at hand: vectors, sequences"
    ):
        load_data_set("cmu_mosi", root=tmp_path)
    assert load_data_set("cmu_mosi", {"text": "vectors"}, root=tmp_path).synthetic


# Stand-ins.


@pytest.mark.parametrize("name", PUBLISHED)
def test_stand_ins_have_the_shape_of_their_data_set(name: str) -> None:
    info = data_set_info(name)
    corpus = synthetic_like(info, scale=0.05)
    assert corpus.synthetic
    assert corpus.name == name
    assert list(corpus.features) == [item.modality for item in info.features]
    for item in info.features:
        features = corpus.features[item.modality]
        assert (features.name, features.dim, features.max_length) == (item.name, item.dim, item.max_length)
    sizes = Counter(corpus.utterances["dialogue"])
    for part in info.parts:
        rows = corpus.utterances[corpus.utterances[info.part_column] == part.value]
        lengths = [sizes[dialogue] for dialogue in set(rows["dialogue"])]
        assert part.shortest <= min(lengths)
        assert max(lengths) <= part.longest
    speakers = corpus.utterances.groupby("dialogue")["speaker"].nunique().to_numpy()
    assert speakers.max() <= info.speakers
    for label in info.labels:
        values = corpus.utterances[label.column]
        if label.kind == "class":
            assert set(values) <= set(range(len(label.classes)))
        else:
            assert values.between(label.low, label.high).all()
    for fold in fold_numbers(info.split, corpus.utterances):
        split = make_split(info.split, corpus.utterances, fold)
        assert min(map(len, (split.train, split.valid, split.test))) > 0


def test_a_full_stand_in_has_the_published_counts() -> None:
    info = data_set_info("iemocap6")
    features = {"text": "deberta-large-4-UTT"}
    corpus = synthetic_like(info, features=features)
    counts = corpus.utterances.groupby("fold").agg(n=("id", "size"), d=("dialogue", "nunique"))
    assert counts["n"].tolist() == [1373, 1356, 1569, 1512, 1623]
    assert counts["d"].tolist() == [28, 30, 32, 30, 31]
    # Class shares are those of the data set: 648, 1084, 1708, 1103, 1041, 1849 of 7433.
    found = np.bincount(corpus.utterances["emotion"]) / 7433
    np.testing.assert_allclose(found, np.array([648, 1084, 1708, 1103, 1041, 1849]) / 7433, atol=0.03)


def test_stand_ins_take_known_feature_sets_and_refuse_unknown_modalities() -> None:
    info = data_set_info("cmu_mosi")
    corpus = synthetic_like(info, 0.1, {"text": "unaligned_50", "audio": "unaligned_50"}, tokens=True)
    assert corpus.features["audio"].values.shape[1:] == (375, 5)
    assert corpus.tokens is not None
    assert corpus.tokens.ids.shape[1] == 50
    with pytest.raises(CorpusError, match="no modality 'smell'"):
        synthetic_like(info, 0.1, {"smell": "x"})
    with pytest.raises(CorpusError, match="scale"):
        synthetic_like(info, 0.0)


# The embedded data set.


@pytest.fixture(scope="module")
def embedded() -> Corpus:
    return load_data_set("synthetic", tokens=True)


def test_embedded_data_are_deterministic_in_any_process(embedded: Corpus) -> None:
    assert load_data_set("synthetic", tokens=True).fingerprint == embedded.fingerprint
    assert load_data_set("synthetic", tokens=True, parameters={"seed": 1}).fingerprint != embedded.fingerprint
    code = (
        "from imer_bench.harness.corpus.catalogue import load_data_set\n"
        "print(load_data_set('synthetic', tokens=True).fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == embedded.fingerprint


def test_a_modality_does_not_change_with_the_others() -> None:
    parameters = {"dims": {"text": 32, "audio": 5}}
    other = load_data_set("synthetic", parameters=parameters)
    usual = load_data_set("synthetic")
    np.testing.assert_array_equal(other.features["text"].values, usual.features["text"].values)
    assert other.utterances.equals(usual.utterances)
    assert other.features["audio"].dim == 5


def test_scores_lie_on_the_grid_and_some_are_zero(embedded: Corpus) -> None:
    scores = embedded.utterances["sentiment"].to_numpy()
    np.testing.assert_allclose(scores * 5, np.round(scores * 5), atol=1e-9)
    assert scores.min() >= -3
    assert scores.max() <= 3
    # Normal scores of standard deviation 1.5 on a grid of 0.2: 5.3 % zeros expected, 1320 rows.
    assert 0.03 < (scores == 0).mean() < 0.08
    assert not np.signbit(scores[scores == 0]).any()


def test_sequences_have_valid_lengths_and_zero_padding() -> None:
    features = {"text": "sequences", "audio": "sequences", "vision": "sequences"}
    corpus = load_data_set("synthetic", features, parameters={"absent": {"vision": 0.3}})
    for name, item in corpus.features.items():
        assert item.lengths is not None
        valid = np.arange(item.max_length)[None, :] < item.lengths[:, None]
        assert not item.values[~valid].any()
        assert item.values[valid].any(axis=1).all()
        np.testing.assert_array_equal(item.lengths > 0, item.observed)
        assert len(set(item.lengths)) > 5
        assert item.observed.all() == (name != "vision")
    assert 0.25 < 1 - corpus.features["vision"].observed.mean() < 0.35


def test_tokens_are_sound_and_speak_of_the_sentiment(embedded: Corpus) -> None:
    tokens = embedded.tokens
    assert tokens is not None
    assert tokens.ids.max() < tokens.vocabulary
    assert not tokens.ids[~tokens.mask].any()
    assert (tokens.special.sum(1) == 2).all()
    words = tokens.mask & ~tokens.special
    means = np.where(words, tokens.ids, 0).sum(1) / words.sum(1)
    assert np.corrcoef(means, embedded.utterances["sentiment"])[0, 1] > 0.4


def test_dialogues_have_memory_and_speakers_moods(embedded: Corpus) -> None:
    table = embedded.utterances
    scores = table["sentiment"].to_numpy()
    same = table["dialogue"].to_numpy()[1:] == table["dialogue"].to_numpy()[:-1]
    neighbours = np.corrcoef(scores[1:][same], scores[:-1][same])[0, 1]
    strangers = np.corrcoef(scores[1:][~same], scores[:-1][~same])[0, 1]
    assert neighbours > 0.35
    assert abs(strangers) < 0.3
    assert table.groupby("dialogue")["speaker"].nunique().to_numpy().max() == 2


def weighted_f1(corpus: Corpus, modalities: tuple[str, ...]) -> float:
    """Logistic regression on standardised vectors, non-zero scores, as in the documentation."""
    split = make_split(data_set_info("synthetic").split, corpus.utterances)
    scores = corpus.utterances["sentiment"].to_numpy()
    train, test = (rows[scores[rows] != 0] for rows in (split.train, split.test))
    values = np.concatenate([corpus.features[name].values for name in modalities], axis=1)
    scaler = StandardScaler().fit(values[train])
    model = LogisticRegression(C=0.05, max_iter=500).fit(scaler.transform(values[train]), scores[train] > 0)
    return 100 * float(
        f1_score(scores[test] > 0, model.predict(scaler.transform(values[test])), average="weighted")
    )


def test_text_says_most_and_more_modalities_say_more() -> None:
    """The documented check: mean over five data seeds of the weighted F1 of logistic regression."""
    corpora = [load_data_set("synthetic", parameters={"seed": seed}) for seed in range(5)]
    names = ("text", "audio", "vision")
    found = {
        subset: float(np.mean([weighted_f1(corpus, subset) for corpus in corpora]))
        for size in (1, 2, 3)
        for subset in itertools.combinations(names, size)
    }
    everything = found[names]
    assert 78 < everything < 84
    assert 72 < found["text",] < 78
    assert everything - found["text",] > 4
    for weak in ("audio", "vision"):
        assert 57 < found[weak,] < 66
    # Losing text hurts most, and every modality adds something to every other.
    assert found["audio", "vision"] < found["text", "audio"] - 8
    assert found["audio", "vision"] < found["text", "vision"] - 8
    assert min(found["text", "audio"], found["text", "vision"]) > found["text",] + 1
    assert everything > max(found["text", "audio"], found["text", "vision"]) + 1


def test_sequences_carry_the_signal_of_the_vectors() -> None:
    """The mean over valid frames predicts about as well as the vector does."""
    corpus = load_data_set("synthetic", {"text": "sequences"})
    item = corpus.features["text"]
    assert item.lengths is not None
    means = item.values.sum(1) / item.lengths[:, None]
    pooled = replace(corpus, features={"text": replace(item, values=means.astype(np.float32), lengths=None)})
    assert abs(weighted_f1(pooled, ("text",)) - weighted_f1(load_data_set("synthetic"), ("text",))) < 6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dialoges": (1, 1, 1)}, "'dialoges'.*did you mean 'dialogues'"),
        ({"dims": {"text": 0}}, r"dims.text"),
        ({"absent": {"text": 1.0}}, r"absent.text"),
        ({"classes": 1}, "classes"),
    ],
)
def test_options_out_of_range_are_named(parameters: dict, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        load_data_set("synthetic", parameters=parameters)


def test_options_are_met() -> None:
    corpus = load_data_set(
        "synthetic",
        {"text": "vectors", "smell": "sequences"},
        parameters={
            "dialogues": (5, 2, 3),
            "mean_length": 6,
            "dims": {"text": 4, "smell": 3},
            "lengths": {"smell": 7},
            "classes": ("neutral", "joy", "anger", "fear", "surprise"),
            "speakers": 4,
        },
    )
    assert len(corpus) == 60
    assert corpus.utterances.groupby("split")["dialogue"].nunique().to_dict() == {
        "test": 3,
        "train": 5,
        "valid": 2,
    }
    assert corpus.features["smell"].values.shape == (60, 7, 3)
    assert corpus.labels["emotion"].classes[0] == "neutral"


def test_generated_data_survive_the_native_format(embedded: Corpus, tmp_path: Path) -> None:
    write_corpus(tmp_path / "synthetic", generate(SyntheticParameters()))
    stored = load_corpus(
        tmp_path / "synthetic", embedded and {k: "vectors" for k in embedded.features}, tokens=True
    )
    assert stored.fingerprint == embedded.fingerprint
    assert stored.synthetic
