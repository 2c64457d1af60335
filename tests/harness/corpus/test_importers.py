"""Small releases in the exact published layouts, written here, must import as what they say."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from imer_bench.harness.corpus.errors import CorpusError, ForbiddenGlobal
from imer_bench.harness.corpus.importers import FORMATS, detect_format, import_data
from imer_bench.harness.corpus.info import SplitRule
from imer_bench.harness.corpus.manifest import read_manifest
from imer_bench.harness.corpus.native import load_corpus
from imer_bench.harness.corpus.records import Corpus, LabelInfo
from imer_bench.harness.corpus.splits import make_split
from imer_bench.harness.corpus.verify import verify_folder

# The GCNet family.


def gcnet_mosi(folder: Path, scores: dict[str, list[float]] | None = None) -> Path:
    """A label pickle of protocol 4 with seven elements and folders of vectors, frames and matrices."""
    scores = scores or {"vidB": [1.0, -0.4], "vidA": [0.0, 3.0, -3.0], "vidC": [0.2]}
    labels = [
        {video: [f"{video}_{n + 1}" for n in range(len(values))] for video, values in scores.items()},
        {video: [np.float64(value) for value in values] for video, values in scores.items()},
        {video: [""] * len(values) for video, values in scores.items()},
        {video: np.array([f"SAID {n}" for n in range(len(v))]) for video, v in scores.items()},
        {"vidA"},
        {"vidB"},
        {"vidC"},
    ]
    folder.mkdir(parents=True)
    with (folder / "CMUMOSI_features_raw_2way.pkl").open("wb") as file:
        pickle.dump(labels, file, protocol=4)
    ids = [name for names in labels[0].values() for name in names]  # type: ignore[union-attr]
    text, audio, vision = (
        folder / "features" / name for name in ("deberta-large-4-UTT", "wav2vec-large-c-UTT", "manet_UTT")
    )
    for path in (text, audio, vision):
        path.mkdir(parents=True)
    for number, name in enumerate(ids):
        np.save(text / f"{name}.npy", np.full(4, number + 1.0, dtype=np.float32))
        # A matrix over time: rows number and number + 2, whose mean is number + 1.
        np.save(audio / f"{name}.npy", np.array([[number] * 3, [number + 2] * 3], dtype=np.float64))
        frames = vision / name
        frames.mkdir()
        if number != 2:
            np.save(frames / "0001.npy", np.array([number, 1.0]))
            np.save(frames / "0002.npy", np.array([[number, 3.0]]))
    return folder


def test_gcnet_mosi(tmp_path: Path) -> None:
    source = gcnet_mosi(tmp_path / "CMUMOSI")
    assert detect_format([source]) == "gcnet"
    report = import_data("auto", [source], "cmu_mosi", tmp_path / "data")
    corpus = load_corpus(tmp_path / "data" / "cmu_mosi")
    table = corpus.utterances
    assert table["id"].tolist() == ["vidA_1", "vidA_2", "vidA_3", "vidB_1", "vidB_2", "vidC_1"]
    assert table["index"].tolist() == [1, 2, 3, 1, 2, 1]
    assert table["sentiment"].tolist() == [0.0, 3.0, -3.0, 1.0, -0.4, 0.2]
    assert table["transcript"].tolist()[:2] == ["SAID 0", "SAID 1"]
    assert table["split_standard"].tolist() == ["train"] * 3 + ["valid"] * 2 + ["test"]
    assert {name: item.name for name, item in corpus.features.items()} == {
        "text": "deberta-large-4-UTT",
        "audio": "wav2vec-large-c-UTT",
        "vision": "manet_UTT",
    }
    # Utterances were numbered in the file's order: vidB 0-1, vidA 2-4, vidC 5.
    order = np.array([2, 3, 4, 0, 1, 5])
    np.testing.assert_allclose(corpus.features["text"].values[:, 0], order + 1)
    np.testing.assert_allclose(corpus.features["audio"].values[:, 2], order + 1)
    vision = corpus.features["vision"]
    assert vision.observed.tolist() == [False, True, True, True, True, True]
    np.testing.assert_allclose(vision.values[1:], np.stack([order, np.full(6, 2.0)], axis=1)[1:])
    assert any("1 utterances have an empty folder" in note for note in report.notes)
    assert any("utterances, 1284 are known" in warning for warning in report.warnings)
    assert verify_folder(tmp_path / "data" / "cmu_mosi") == ()


def gcnet_iemocap(folder: Path) -> Path:
    """Six elements, builtins only; keys not sorted; faces of both parties in every utterance."""
    dialogues = {"Ses03M_impro08b": ["F", "M", "F"], "Ses01F_impro01": ["F", "M"], "Ses05F_script01": ["M"]}
    dialogues |= {"Ses02F_a": ["F"], "Ses04F_a": ["M"]}
    labels = [
        {d: [f"{d}_{letter}{n:03d}" for n, letter in enumerate(who)] for d, who in dialogues.items()},
        {d: [n % 4 for n in range(len(who))] for d, who in dialogues.items()},
        dialogues,
        {d: [f"Sentence {n}. [LAUGHTER]" for n in range(len(who))] for d, who in dialogues.items()},
        {d for d in dialogues if "Ses05" not in d},
        {"Ses05F_script01"},
    ]
    folder.mkdir(parents=True)
    for ways in (4, 6):
        with (folder / f"IEMOCAP_features_raw_{ways}way.pkl").open("wb") as file:
            pickle.dump(labels, file, protocol=4)
    for number, name in enumerate(n for names in labels[0].values() for n in names):  # type: ignore[union-attr]
        for extractor in ("wav2vec-large-c-UTT", "deberta-large-4-UTT"):
            path = folder / "features" / extractor
            path.mkdir(parents=True, exist_ok=True)
            np.save(path / f"{name}.npy", np.full(3, number + 1.0))
        faces = folder / "features" / "manet_UTT" / name
        faces.mkdir(parents=True)
        np.save(faces / "compress_F.npy", np.full(2, 100.0 + number))
        np.save(faces / "compress_M.npy", np.full(2, 200.0 + number) * (number != 1))
    return folder


def test_gcnet_iemocap(tmp_path: Path) -> None:
    source = gcnet_iemocap(tmp_path / "IEMOCAP")
    report = import_data("gcnet", [source], "iemocap4", tmp_path / "data")
    corpus = load_corpus(tmp_path / "data" / "iemocap4")
    table = corpus.utterances
    assert table["fold"].tolist() == [0, 0, 1, 2, 2, 2, 3, 4]
    third = table[table["dialogue"] == "Ses03M_impro08b"]
    assert third["id"].tolist() == [f"Ses03M_impro08b_{x}" for x in ("F000", "M001", "F002")]
    assert third["speaker"].tolist() == ["F", "M", "F"]
    assert third["emotion"].tolist() == [0, 1, 2]
    assert corpus.labels["emotion"].classes == ("happy", "sad", "neutral", "angry")
    # The face is the speaker's: 100 + n for F, 200 + n for M; utterance 1 has no face of M.
    rows = third.index.to_numpy()
    np.testing.assert_allclose(corpus.features["vision"].values[rows, 0], [100, 0, 102])
    assert corpus.features["vision"].observed[rows].tolist() == [True, False, True]
    assert any("1 utterances are zero throughout" in note for note in report.notes)
    split = make_split(SplitRule("folds_with_validation", "fold"), table, 2)
    assert set(table["dialogue"].iloc[split.test]) == {"Ses03M_impro08b"}


def test_gcnet_entries_are_found_by_unique_prefix(tmp_path: Path) -> None:
    source = gcnet_mosi(tmp_path / "CMUMOSI", {"vidA": [1.0], "vidB": [1.0], "vidC": [1.0]})
    text = source / "features" / "deberta-large-4-UTT"
    (text / "vidA_1.npy").rename(text / "vidA_1_extra.npy")
    import_data("gcnet", [source], "one", tmp_path / "data", features=["deberta-large-4-UTT"])
    np.save(text / "vidA_1_more.npy", np.ones(4))
    with pytest.raises(CorpusError, match=r"'vidA_1_extra' and 'vidA_1_more' both fit 'vidA_1'"):
        import_data("gcnet", [source], "two", tmp_path / "data", features=["deberta-large-4-UTT"])


def test_gcnet_missing_and_broken_files(tmp_path: Path) -> None:
    source = gcnet_mosi(tmp_path / "CMUMOSI")
    text = source / "features" / "deberta-large-4-UTT"
    only = {"features": ["deberta-large-4-UTT"]}
    (text / "vidA_2.npy").unlink()
    with pytest.raises(CorpusError, match="1 of 6 utterances have no file, first 'vidA_2'"):
        import_data("gcnet", [source], "x", tmp_path / "data", **only)
    import_data("gcnet", [source], "x", tmp_path / "data", allow_missing=True, **only)
    assert load_corpus(tmp_path / "data" / "x").features["text"].observed.sum() == 5

    np.save(text / "vidA_2.npy", np.array([1.0, np.nan, 1, 1]))
    with pytest.raises(CorpusError, match=r"1 values in 1 utterances are not finite, first in 'vidA_2'"):
        import_data("gcnet", [source], "y", tmp_path / "data", **only)
    report = import_data("gcnet", [source], "y", tmp_path / "data", repair=True, **only)
    assert any("1 values that were not finite were set to zero" in note for note in report.notes)

    np.save(text / "vidA_2.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CorpusError, match=r"vidA_2.npy is not a plain .npy array"):
        import_data("gcnet", [source], "z", tmp_path / "data", **only)
    np.save(text / "vidA_2.npy", np.ones(5))
    with pytest.raises(CorpusError, match=r"one width, found \[4, 5\]"):
        import_data("gcnet", [source], "z", tmp_path / "data", **only)


def test_gcnet_broken_label_files(tmp_path: Path) -> None:
    source = gcnet_mosi(tmp_path / "CMUMOSI")
    path = source / "CMUMOSI_features_raw_2way.pkl"
    good = pickle.loads(path.read_bytes())

    def refused(message: str, **changes: Any) -> None:
        parts = list(good)
        for number, value in changes.items():
            parts[int(number[1:])] = value
        path.write_bytes(pickle.dumps(parts, protocol=4))
        with pytest.raises(CorpusError, match=message):
            import_data("gcnet", [path], "cmu_mosi", tmp_path / "data")
        assert not (tmp_path / "data").exists()

    refused("'vidA' is in train and in test", _6={"vidA", "vidC"})
    refused("'vidC' is in no split", _6=set())
    refused("the test dialogue 'vidX' has no utterances", _6={"vidC", "vidX"})
    refused("lists of dialogue 'vidC' have different lengths", _1=good[1] | {"vidC": []})
    refused("outside -3 .. 3", _1=good[1] | {"vidC": [np.float64(4.0)]})
    refused("'vidA_1' occurs twice", _0=good[0] | {"vidB": ["vidA_1", "vidB_2"]})
    refused("not a dictionary over the same dialogues", _2={})


# The MMSA family.


def mmsa_split(
    videos: dict[str, list[tuple[int, float]]], aligned: bool, sims: bool, seed: int
) -> dict[str, Any]:
    """One split as in the published files: float arrays, padded with zeros, ids ``video$_$clip``."""
    rng = np.random.default_rng(seed)
    members = [(video, clip, score) for video, clips in videos.items() for clip, score in clips]
    size = len(members)
    text_length, audio_length, vision_length = (6, 6, 6) if aligned else (6, 9, 8)
    words = rng.integers(1, text_length - 2, size)
    valid = words + 2
    block = np.zeros((size, 3, text_length), dtype=np.int64)
    for row, count in enumerate(words):
        block[row, 0, : count + 2] = [101, *rng.integers(1000, 2000, count), 102]
        block[row, 1, : count + 2] = 1

    def frames(length: int, dim: int, lengths: np.ndarray) -> np.ndarray:
        values = rng.normal(size=(size, length, dim)).astype(np.float32)
        values[np.arange(length)[None, :] >= lengths[:, None]] = 0
        return values

    audio_valid = valid if aligned else rng.integers(1, audio_length + 1, size)
    vision_valid = valid if aligned else rng.integers(1, vision_length + 1, size)
    scores = np.array([score for *_, score in members], dtype=np.float32)
    split: dict[str, Any] = {
        "raw_text": np.array([f"text {row}" for row in range(size)], dtype=object),
        "id": np.array([f"{video}$_${clip}" for video, clip, _ in members]),
        "text": frames(text_length, 4, valid),
        "text_bert": block,
        "audio": frames(audio_length, 5, audio_valid),
        "vision": frames(vision_length, 3, vision_valid),
        "annotations": np.array([["Negative", "Neutral", "Positive"][int(np.sign(s)) + 1] for s in scores]),
        "classification_labels": np.sign(scores) + 1,
        "regression_labels": scores,
    }
    if not aligned:
        split |= {"audio_lengths": audio_valid.tolist(), "vision_lengths": vision_valid.tolist()}
    if sims:
        split |= {f"regression_labels_{key}": scores * 0.5 for key in "TAV"}
    return split


def mmsa_file(path: Path, aligned: bool = True, sims: bool = False, crossing: bool = False) -> Path:
    low = 0.2 if sims else 1 / 3
    data = {
        "train": mmsa_split({"vid-1": [(10, low), (9, -1.0)], "vid_2": [(1, 0.0)]}, aligned, sims, 1),
        "valid": mmsa_split({"vid3": [(2, 0.4)]}, aligned, sims, 2),
        "test": mmsa_split({"vid-1" if crossing else "vid4": [(11, 1.0), (3, -0.6)]}, aligned, sims, 3),
    }
    path.write_bytes(pickle.dumps(data, protocol=4))
    return path


def test_mmsa_aligned(tmp_path: Path) -> None:
    path = mmsa_file(tmp_path / "aligned_50.pkl")
    data = pickle.loads(path.read_bytes())
    assert detect_format([path]) == "mmsa"
    import_data("auto", [path], "cmu_mosi", tmp_path / "data")
    corpus = load_corpus(
        tmp_path / "data" / "cmu_mosi", {"text": "aligned_6", "audio": "aligned_6"}, tokens=True
    )
    table = corpus.utterances
    # The clip number orders a video, not the order of the file.
    assert table["id"].tolist() == ["vid-1_9", "vid-1_10", "vid3_2", "vid4_3", "vid4_11", "vid_2_1"]
    np.testing.assert_allclose(table["sentiment"], [-1, 1 / 3, 0.4, -0.6, 1, 0], atol=1e-6)
    assert table["split_standard"].tolist() == ["train", "train", "valid", "test", "test", "train"]
    source = data["train"]
    audio = corpus.features["audio"]
    assert audio.lengths is not None
    np.testing.assert_array_equal(audio.values[1], source["audio"][0])
    assert audio.lengths[1] == source["text_bert"][0, 1].sum()
    tokens = corpus.tokens
    assert tokens is not None
    np.testing.assert_array_equal(tokens.ids[1], source["text_bert"][0, 0])
    assert tokens.unknown == 100
    # The first and the last real token are never lost.
    length = int(source["text_bert"][0, 1].sum())
    np.testing.assert_array_equal(np.flatnonzero(tokens.special[1]), [0, length - 1])
    np.testing.assert_array_equal(tokens.ids[tokens.special], [101, 102] * 6)


def test_mmsa_unaligned_joins_the_same_data_set(tmp_path: Path) -> None:
    first = mmsa_file(tmp_path / "aligned_50.pkl")
    second = mmsa_file(tmp_path / "unaligned_50.pkl", aligned=False)
    root = tmp_path / "data"
    import_data("mmsa", [first], "cmu_mosi", root)
    alone = load_corpus(root / "cmu_mosi", {"audio": "aligned_6"}).fingerprint
    import_data("mmsa", [second], "cmu_mosi", root)
    both = load_corpus(root / "cmu_mosi", {"audio": "unaligned_6", "vision": "unaligned_6"})
    data = pickle.loads(second.read_bytes())
    lengths = both.features["vision"].lengths
    assert lengths is not None
    assert lengths[[0, 1]].tolist() == data["train"]["vision_lengths"][1::-1]
    assert both.features["audio"].values.shape == (6, 9, 5)
    assert load_corpus(root / "cmu_mosi", {"audio": "aligned_6"}).fingerprint == alone
    again = import_data("mmsa", [second], "cmu_mosi", root)
    assert again.fingerprint == read_manifest(root / "cmu_mosi").fingerprint
    assert load_corpus(root / "cmu_mosi", {"audio": "aligned_6"}).fingerprint == alone
    data["train"]["audio"] += 1
    second.write_bytes(pickle.dumps(data))
    with pytest.raises(CorpusError, match="aligned_6 already; --replace"):
        import_data("mmsa", [second], "cmu_mosi", root)


def test_mmsa_values_that_are_not_finite_are_repaired_and_reported(tmp_path: Path) -> None:
    path = mmsa_file(tmp_path / "unaligned_50.pkl", aligned=False)
    data = pickle.loads(path.read_bytes())
    data["test"]["audio"][0, 0, :2] = [-np.inf, np.nan]
    data["train"]["vision"][0, 0, 0] = np.inf
    path.write_bytes(pickle.dumps(data))
    report = import_data("mmsa", [path], "cmu_mosi", tmp_path / "data")
    assert "audio, test: 2 values that were not finite were set to zero" in report.notes
    assert "vision, train: 1 values that were not finite were set to zero" in report.notes


def test_mmsa_sims_has_unimodal_labels_and_clips_of_their_own(tmp_path: Path) -> None:
    path = mmsa_file(tmp_path / "unaligned_39.pkl", aligned=False, sims=True, crossing=True)
    report = import_data("mmsa", [path], "ch_sims", tmp_path / "data")
    corpus = load_corpus(tmp_path / "data" / "ch_sims", tokens=False)
    assert list(corpus.labels) == ["sentiment", "sentiment_text", "sentiment_audio", "sentiment_vision"]
    np.testing.assert_allclose(corpus.utterances["sentiment_text"], corpus.utterances["sentiment"] / 2)
    assert corpus.labels["sentiment"].low == -1
    assert corpus.utterances["dialogue"].tolist() == corpus.utterances["id"].tolist()
    assert set(corpus.utterances["video"]) == {"vid-1", "vid_2", "vid3"}
    assert any("1 of 3 videos lie in several splits" in warning for warning in report.warnings)


def test_mmsa_broken_files(tmp_path: Path) -> None:
    path = mmsa_file(tmp_path / "aligned_50.pkl")
    good = path.read_bytes()

    def refused(message: str, change: Any) -> None:
        data = pickle.loads(good)
        change(data)
        path.write_bytes(pickle.dumps(data))
        with pytest.raises(CorpusError, match=message):
            import_data("mmsa", [path], "cmu_mosi", tmp_path / "data")

    refused(
        "splits go by whole dialogues", lambda d: d["test"].update(id=np.array(["vid-1$_$3", "vid4$_$4"]))
    )
    refused("not a run of ones", lambda d: d["valid"]["text_bert"][0, 1].__setitem__(0, 0))
    refused("outside the vocabulary", lambda d: d["valid"]["text_bert"][0, 0].__setitem__(0, 40000))
    refused("not of the form video", lambda d: d["valid"].update(id=np.array(["nonsense"])))
    refused("outside -3 .. 3", lambda d: d["valid"].update(regression_labels=np.array([7.0])))
    refused("'audio' has different shapes", lambda d: d["valid"].update(audio=np.zeros((1, 6, 9))))
    refused("regression_labels has 7 rows", lambda d: d["valid"].update(regression_labels=np.zeros(2)))


def test_mmsa_annotations_that_disagree_are_reported(tmp_path: Path) -> None:
    path = mmsa_file(tmp_path / "aligned_50.pkl")
    data = pickle.loads(path.read_bytes())
    data["valid"]["annotations"] = np.array(["Negative"])
    path.write_bytes(pickle.dumps(data))
    report = import_data("mmsa", [path], "cmu_mosi", tmp_path / "data")
    assert any(warning.startswith("1 annotations") for warning in report.warnings)


# MAGTKD.


def magtkd_split(dialogues: dict[Any, list[int]], seed: int, torch_tensors: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def vectors(count: int) -> list[Any]:
        values = [rng.normal(size=8).astype(np.float32) for _ in range(count)]
        if torch_tensors:
            import torch

            return [torch.from_numpy(value) for value in values]
        return values

    keys = ("text", "audio", "video", "audio_kd", "video_kd")
    split: dict[str, Any] = {key: {d: vectors(len(v)) for d, v in dialogues.items()} for key in keys}
    split["speakers"] = {d: [n % 2 for n in range(len(v))] for d, v in dialogues.items()}
    split["labels"] = dict(dialogues)
    split["vids"] = list(dialogues)
    split["dia2utt"] = {d: list(range(len(v))) for d, v in dialogues.items()}
    return split


def test_magtkd_meld(tmp_path: Path) -> None:
    # Alphabetical in the release: 0 anger, 1 disgust, 2 fear, 3 joy, 4 neutral, 5 sadness, 6 surprise.
    splits = {
        "train": magtkd_split({0: [0, 4], 1: [6]}, 1),
        "dev": magtkd_split({0: [3, 5]}, 2),
        "test": magtkd_split({0: [2, 1]}, 3),
    }
    for name, split in splits.items():
        (tmp_path / f"meld_{name}.pkl").write_bytes(pickle.dumps(split))
    paths = [tmp_path / f"meld_{name}.pkl" for name in splits]
    assert detect_format(paths) == "magtkd"
    import_data("auto", paths, "meld", tmp_path / "data")
    wanted = {"text": "magtkd", "audio": "magtkd_kd", "vision": "magtkd"}
    corpus = load_corpus(tmp_path / "data" / "meld", wanted)
    table = corpus.utterances
    assert table["id"].tolist() == [
        "dev_dia0_utt0", "dev_dia0_utt1", "test_dia0_utt0", "test_dia0_utt1",
        "train_dia0_utt0", "train_dia0_utt1", "train_dia1_utt0",
    ]  # fmt: skip
    names = [corpus.labels["emotion"].classes[value] for value in table["emotion"]]
    assert names == ["joy", "sadness", "fear", "disgust", "anger", "neutral", "surprise"]
    assert table["split"].tolist() == ["valid"] * 2 + ["test"] * 2 + ["train"] * 3
    np.testing.assert_array_equal(corpus.features["audio"].values[5], splits["train"]["audio_kd"][0][1])
    np.testing.assert_array_equal(corpus.features["vision"].values[0], splits["dev"]["video"][0][0])


def test_magtkd_iemocap_with_torch_tensors(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    splits = {
        "train": magtkd_split({"Ses01F_a": [0, 1], "Ses02F_a": [2]}, 1, torch_tensors=True),
        "dev": magtkd_split({"Ses03F_a": [3]}, 2, torch_tensors=True),
        "test": magtkd_split({"Ses05F_a": [4, 5]}, 3, torch_tensors=True),
    }
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(splits))
    import_data("auto", [path], "iemocap6", tmp_path / "data")
    corpus = load_corpus(tmp_path / "data" / "iemocap6", {"text": "magtkd"})
    names = [corpus.labels["emotion"].classes[value] for value in corpus.utterances["emotion"]]
    assert names == ["angry", "excited", "frustrated", "happy", "neutral", "sad"]
    assert corpus.utterances["fold"].tolist() == [0, 0, 1, 2, 4, 4]
    np.testing.assert_array_equal(
        corpus.features["text"].values[0], splits["train"]["text"]["Ses01F_a"][0].numpy()
    )


def test_magtkd_broken_files(tmp_path: Path) -> None:
    split = magtkd_split({0: [0, 1]}, 1)
    split["audio"][0].pop()
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(split))
    with pytest.raises(CorpusError, match="dialogue 0 has 2 labels and 1 audio entries"):
        import_data("magtkd", [tmp_path / "train.pkl"], "meld", tmp_path / "data")
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(magtkd_split({0: [0]}, 1)))
    with pytest.raises(CorpusError, match="the name must say which split"):
        import_data("magtkd", [tmp_path / "features.pkl"], "meld", tmp_path / "data")
    (tmp_path / "test.pkl").write_bytes(pickle.dumps(magtkd_split({0: [7]}, 1)))
    with pytest.raises(CorpusError, match="the number 7, 7 classes are known"):
        import_data("magtkd", [tmp_path / "test.pkl"], "meld", tmp_path / "data")


# Tables.


def rows() -> list[dict[str, Any]]:
    return [
        {"id": "b2", "dialogue": "b", "index": 2, "speaker": "X", "text": "NA", "valence": 4, "split": "dev"},
        {
            "id": "a1",
            "dialogue": "a",
            "index": 1,
            "speaker": "Y",
            "text": "two",
            "valence": 1,
            "split": "train",
        },
        {
            "id": "b1",
            "dialogue": "b",
            "index": 1,
            "speaker": "X",
            "text": "three",
            "valence": 2.5,
            "split": "dev",
        },
        {
            "id": "c1",
            "dialogue": "c",
            "index": 1,
            "speaker": "Z",
            "text": "four",
            "valence": 5,
            "split": "test",
        },
    ]


def write_table(path: Path) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows()))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows()).to_parquet(path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows()[0]))
            writer.writeheader()
            writer.writerows(rows())
    return path


VALENCE = [LabelInfo("valence", "score", (), 1, 5)]


def mine(root: Path, **features: str) -> Corpus:
    return load_corpus(root / "data" / "mine", features)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_table_formats_agree(tmp_path: Path, suffix: str) -> None:
    table = write_table(tmp_path / f"utterances{suffix}")
    np.save(tmp_path / "text_mybert.npy", np.arange(8, dtype=np.float64).reshape(4, 2) + 1)
    sequences = np.ones((4, 5, 3), dtype=np.float32)
    lengths = np.array([5, 2, 3, 1])
    np.savez(tmp_path / "more.npz", audio=sequences, audio_lengths=lengths)
    save_file(
        {
            "video/faces": np.eye(4, dtype=np.float32),
            "video/faces_observed": np.array([1, 1, 0, 1], dtype=bool),
        },
        tmp_path / "faces.safetensors",
    )
    sources = [table, tmp_path / "text_mybert.npy", tmp_path / "more.npz", tmp_path / "faces.safetensors"]
    assert detect_format(sources) == "table"
    import_data("auto", sources, "mine", tmp_path / "data", labels=VALENCE)
    corpus = mine(tmp_path, text="mybert", audio="release", vision="faces")
    assert corpus.utterances["id"].tolist() == ["a1", "b1", "b2", "c1"]
    assert corpus.utterances["transcript"].tolist() == ["two", "three", "NA", "four"]
    assert corpus.utterances["valence"].tolist() == [1, 2.5, 4, 5]
    assert corpus.utterances["split"].tolist() == ["train", "valid", "valid", "test"]
    np.testing.assert_array_equal(corpus.features["text"].values[:, 0], [3, 5, 1, 7])
    audio_lengths = corpus.features["audio"].lengths
    assert audio_lengths is not None
    assert audio_lengths.tolist() == [2, 3, 5, 1]
    assert corpus.features["vision"].observed.tolist() == [True, False, True, True]
    # The three files differ in nothing that training sees.
    other = tmp_path / "other"
    other.mkdir()
    import_data("table", [write_table(other / "u.csv"), *sources[1:]], "mine", other / "data", labels=VALENCE)
    assert mine(other, text="mybert").fingerprint == mine(tmp_path, text="mybert").fingerprint


def test_aligned_sequences_without_lengths_are_shifted_together(tmp_path: Path) -> None:
    text = np.zeros((4, 5, 1), dtype=np.float32)
    audio = np.zeros((4, 5, 1), dtype=np.float32)
    text[:, 2:4, 0] = [7, 8]
    audio[:, 1, 0] = 5  # starts a step earlier; step 2 is a zero frame inside
    audio[:, 3, 0] = 6
    np.savez(tmp_path / "f.npz", text=text, audio=audio)
    import_data(
        "table",
        [write_table(tmp_path / "u.csv"), tmp_path / "f.npz"],
        "mine",
        tmp_path / "data",
        labels=VALENCE,
    )
    corpus = mine(tmp_path, text="release", audio="release")
    assert corpus.features["text"].values[0, :, 0].tolist() == [0, 7, 8, 0, 0]
    assert corpus.features["audio"].values[0, :, 0].tolist() == [5, 0, 6, 0, 0]
    assert corpus.features["text"].lengths is not None
    assert corpus.features["text"].lengths.tolist() == [3, 3, 3, 3]


def test_table_class_names_become_numbers(tmp_path: Path) -> None:
    table = [{"id": f"u{n}", "emotion": name} for n, name in enumerate(("joy", "anger", "joy"))]
    (tmp_path / "utterances.json").write_text(json.dumps(table))
    np.save(tmp_path / "audio.npy", np.ones((3, 2)))
    import_data("table", [tmp_path], "mine", tmp_path / "data")
    corpus = mine(tmp_path, audio="release")
    assert corpus.labels["emotion"].classes == ("anger", "joy")
    assert corpus.utterances["emotion"].tolist() == [1, 0, 1]
    # Without a column for it, every utterance is a dialogue of its own.
    assert corpus.utterances["dialogue"].tolist() == ["u0", "u1", "u2"]


@pytest.mark.parametrize(
    ("change", "array", "message"),
    [
        ({}, np.ones((3, 2)), "'text' has 3 rows for 4 utterances"),
        ({}, np.full((4, 2), np.inf), "8 values in 4 utterances are not finite, first in 'b2'"),
        ({}, np.ones(4), r"shape \(4,\)"),
        ({"valence": "high"}, np.ones((4, 2)), "'high' is not a number"),
        ({"valence": 6}, np.ones((4, 2)), "outside 1 .. 5"),
        ({"id": "a1"}, np.ones((4, 2)), "'a1' occurs twice"),
        ({"index": 1.5}, np.ones((4, 2)), "'b2' is not a whole number"),
        ({"split": "other"}, np.ones((4, 2)), "unknown split 'other'"),
        ({"split": "test"}, np.ones((4, 2)), "'b' lies in two parts"),
    ],
)
def test_broken_tables_are_refused(
    tmp_path: Path, change: dict[str, Any], array: np.ndarray, message: str
) -> None:
    table = rows()
    table[0] |= change
    (tmp_path / "utterances.json").write_text(json.dumps(table))
    np.save(tmp_path / "text.npy", array)
    with pytest.raises(CorpusError, match=message):
        import_data(
            "table",
            [tmp_path / "utterances.json", tmp_path / "text.npy"],
            "mine",
            tmp_path / "data",
            labels=VALENCE,
        )
    assert not (tmp_path / "data").exists()


def test_a_table_without_a_known_label_says_how_to_name_one(tmp_path: Path) -> None:
    write_table(tmp_path / "utterances.csv")  # its score is called "valence", whose range is not known
    with pytest.raises(CorpusError, match="--label COLUMN:score"):
        import_data("table", [tmp_path], "mine", tmp_path / "data")


def test_arrays_of_unknown_modality_need_a_word_from_the_user(tmp_path: Path) -> None:
    write_table(tmp_path / "utterances.csv")
    np.save(tmp_path / "gaze.npy", np.ones((4, 2)))
    with pytest.raises(CorpusError, match=r"--modality gaze="):
        import_data("table", [tmp_path], "mine", tmp_path / "data", labels=VALENCE)
    import_data("table", [tmp_path], "mine", tmp_path / "data", labels=VALENCE, modalities={"gaze": "eyes"})
    assert mine(tmp_path, eyes="gaze").features["eyes"].dim == 2


# Merging and the rest.


def test_a_second_release_must_agree_on_utterances_and_labels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    import_data("gcnet", [gcnet_mosi(tmp_path / "one")], "cmu_mosi", root)
    before = load_corpus(root / "cmu_mosi").fingerprint
    other = gcnet_mosi(tmp_path / "two", {"vidB": [1.0, -0.4], "vidA": [0.0, 2.0, -3.0], "vidC": [0.2]})
    with pytest.raises(CorpusError, match="label 'sentiment' of 'vidA_2' is 3 here and 2 in the release"):
        import_data("gcnet", [other], "cmu_mosi", root)
    fewer = gcnet_mosi(tmp_path / "three", {"vidB": [1.0], "vidA": [0.0, 3.0, -3.0], "vidC": [0.2]})
    with pytest.raises(CorpusError, match="other utterances than the release, for example 'vidB_2'"):
        import_data("gcnet", [fewer], "cmu_mosi", root)
    assert load_corpus(root / "cmu_mosi").fingerprint == before
    import_data("gcnet", [fewer], "cmu_mosi", root, replace_existing=True)
    assert len(load_corpus(root / "cmu_mosi")) == 5


def test_a_malicious_release_is_refused_by_name(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return eval, (f"open({str(tmp_path / 'executed')!r}, 'w')",)

    for name in ("aligned_50.pkl", "CMUMOSI_features_raw_2way.pkl", "train.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps({"train": {"audio": Evil()}}))
        with pytest.raises(ForbiddenGlobal, match=rf"{name} asks for the forbidden global 'builtins.eval'"):
            import_data("auto", [tmp_path / name], "x", tmp_path / "data")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "data").exists()


def test_unknown_sources_and_names(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        import_data("auto", [tmp_path / "nothing"], "x", tmp_path / "data")
    with pytest.raises(CorpusError, match="no known release"):
        import_data("auto", [tmp_path], "x", tmp_path / "data")
    with pytest.raises(CorpusError, match="not usable as a folder"):
        import_data("auto", [tmp_path], "../x", tmp_path / "data")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CorpusError, match="a sound pickle of a list, but of no known release"):
        import_data("auto", [tmp_path / "a.pkl"], "x", tmp_path / "data")


def test_the_command_line_offers_the_same_formats() -> None:
    from imer_bench.harness.corpus import commands

    assert commands.FORMATS == FORMATS
