from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from imer_bench.harness.corpus.errors import CorpusError
from imer_bench.harness.corpus.manifest import read_manifest
from imer_bench.harness.corpus.native import (
    Contents,
    load_contents,
    load_corpus,
    write_corpus,
)
from imer_bench.harness.corpus.records import FeatureSet, LabelInfo, TokenSet
from imer_bench.harness.corpus.verify import verify_folder


def make_contents() -> Contents:
    """Two dialogues in mixed order, vectors and sequences, one absent recording."""
    table = pd.DataFrame(
        {
            "id": ["b_2", "a_1", "b_1", "a_3"],
            "dialogue": ["b", "a", "b", "a"],
            "index": [2, 1, 1, 3],
            "speaker": ["x", "y", "x", "z"],
            "transcript": ["äh", "one", "two", "three"],
            "sentiment": [1.0, -0.2, 0.0, 3.0],
            "split": ["test", "train", "test", "train"],
            "fold": [1, 0, 1, 0],
        }
    )
    rows = np.arange(4, dtype=np.float32)
    vectors = rows[:, None] + np.array([10, 20], dtype=np.float32)
    frames = np.ones((4, 3, 2), dtype=np.float32) * (1 + rows[:, None, None])
    yes = np.ones(4, dtype=bool)
    tokens = TokenSet(
        ids=np.arange(12, dtype=np.int32).reshape(4, 3),
        mask=np.ones((4, 3), dtype=bool),
        unknown=1,
        special=np.zeros((4, 3), dtype=bool),
        vocabulary=20,
    )
    return Contents(
        name="small",
        utterances=table,
        labels=(LabelInfo("sentiment", "score", low=-3, high=3),),
        features=(
            FeatureSet("text", "one", vectors, None, yes),
            FeatureSet("text", "two", vectors[:, :1] * 2, None, yes),
            FeatureSet(
                "audio", "frames", frames, np.array([3, 1, 2, 0]), np.array([True, True, False, True])
            ),
        ),
        tokens=tokens,
        split_columns=("split",),
        fold_columns=("fold",),
        origin="made by hand",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "small", make_contents())
    return tmp_path / "small"


def test_rows_are_sorted_and_features_follow(folder: Path) -> None:
    corpus = load_corpus(folder, {"audio": "frames", "text": "two"}, tokens=True)
    assert corpus.utterances["id"].tolist() == ["a_1", "a_3", "b_1", "b_2"]
    assert corpus.utterances["transcript"].tolist() == ["one", "three", "two", "äh"]
    assert list(corpus.features) == ["audio", "text"]
    # Row r of the source has text 2 (10 + r); the sorted table takes source rows 1, 3, 2, 0.
    np.testing.assert_array_equal(corpus.features["text"].values[:, 0], [22, 26, 24, 20])
    assert corpus.tokens is not None
    np.testing.assert_array_equal(corpus.tokens.ids[:, 0], [3, 9, 6, 0])


def test_absent_recordings_and_padding_are_zero(folder: Path) -> None:
    audio = load_corpus(folder, {"audio": "frames"}).features["audio"]
    # Source row 2 was never recorded, source row 3 has no valid frame, so neither is observed.
    assert audio.observed.tolist() == [True, False, False, True]
    assert audio.lengths is not None
    assert audio.lengths.tolist() == [1, 0, 0, 3]
    np.testing.assert_array_equal((audio.values != 0).any(-1).sum(1), [1, 0, 0, 3])


def test_vectors_that_were_never_recorded_are_zero(tmp_path: Path) -> None:
    contents = make_contents()
    text = replace(contents.features[0], observed=np.array([True, False, True, True]))
    write_corpus(tmp_path / "small", replace(contents, features=(text,)))
    values = load_corpus(tmp_path / "small", {"text": "one"}).features["text"].values
    np.testing.assert_array_equal(values[:, 0], [0, 13, 12, 10])  # a_1 was source row 1


def test_without_a_choice_the_first_feature_set_of_every_modality_is_loaded(folder: Path) -> None:
    corpus = load_corpus(folder)
    assert {name: item.name for name, item in corpus.features.items()} == {"text": "one", "audio": "frames"}
    assert corpus.tokens is None


def test_written_and_generated_contents_have_the_same_fingerprint(folder: Path) -> None:
    picked = {"text": "two", "audio": "frames"}
    assert load_corpus(folder, picked, True).fingerprint == make_contents().corpus(picked, True).fingerprint


def test_fingerprint_covers_what_is_picked_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    picked = {"text": "one"}
    before = load_corpus(folder, picked).fingerprint
    contents = make_contents()
    text, other, audio = contents.features
    fewer = replace(contents, features=(text, audio))
    write_corpus(tmp_path / "fewer" / "small", fewer)
    assert load_corpus(tmp_path / "fewer" / "small", picked).fingerprint == before

    changed_values = text.values.copy()
    changed_values[0, 0] += 1e-3
    changes = {
        "values": replace(contents, features=(replace(text, values=changed_values), other, audio)),
        "label": replace(contents, utterances=contents.utterances.assign(sentiment=[1.0, -0.2, 0.2, 3.0])),
        "split": replace(contents, utterances=contents.utterances.assign(split="train")),
        "observed": replace(
            contents, features=(replace(text, observed=np.array([1, 1, 1, 0], dtype=bool)), other, audio)
        ),
    }
    for what, change in changes.items():
        assert change.corpus(picked).fingerprint != before, what
    assert load_corpus(folder, {"text": "two"}).fingerprint != before
    assert load_corpus(folder, picked, tokens=True).fingerprint != before


def test_order_of_source_rows_does_not_count(folder: Path) -> None:
    contents = make_contents()
    order = np.array([3, 0, 2, 1])
    text = contents.features[0]
    shuffled = replace(
        contents,
        utterances=contents.utterances.iloc[order],
        features=(replace(text, values=text.values[order], observed=text.observed[order]),),
        tokens=None,
    )
    assert shuffled.corpus({"text": "one"}).fingerprint == load_corpus(folder, {"text": "one"}).fingerprint


def test_a_sound_folder_verifies(folder: Path) -> None:
    assert verify_folder(folder) == ()


def tamper_value(folder: Path) -> None:
    tensors = load_file(folder / "features.safetensors")
    tensors["text/one/values"][1, 1] += 0.5
    save_file(tensors, folder / "features.safetensors")


def tamper_observed(folder: Path) -> None:
    tensors = load_file(folder / "features.safetensors")
    tensors["text/one/observed"][0] = False
    save_file(tensors, folder / "features.safetensors")


def tamper_label(folder: Path) -> None:
    table = pd.read_parquet(folder / "utterances.parquet")
    table.loc[0, "sentiment"] = 2.0
    table.to_parquet(folder / "utterances.parquet", index=False)


def tamper_transcript(folder: Path) -> None:
    table = pd.read_parquet(folder / "utterances.parquet")
    table.loc[0, "transcript"] = "another"
    table.to_parquet(folder / "utterances.parquet", index=False)


@pytest.mark.parametrize("tamper", [tamper_value, tamper_observed, tamper_label, tamper_transcript])
def test_tampering_is_found_by_verify_and_by_loading(folder: Path, tamper) -> None:
    tamper(folder)
    assert verify_folder(folder)
    with pytest.raises(CorpusError, match="does not agree with its digest"):
        load_corpus(folder, {"text": "one"})


def test_a_changed_fingerprint_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["fingerprint"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert any("fingerprint" in problem for problem in verify_folder(folder))


def test_a_dialogue_in_two_splits_is_found(tmp_path: Path) -> None:
    contents = make_contents()
    table = contents.utterances.assign(split=["test", "train", "train", "train"])
    write_corpus(tmp_path / "small", replace(contents, utterances=table))
    assert any("'b' lies in two parts" in problem for problem in verify_folder(tmp_path / "small"))


def test_unknown_feature_sets_and_modalities_are_named(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"no text feature set 'three'; at hand: one, two"):
        load_corpus(folder, {"text": "three"})
    with pytest.raises(CorpusError, match=r"no modality 'texts'; did you mean 'text'"):
        load_corpus(folder, {"texts": "one"})


def test_missing_tokens_are_an_error_not_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path / "small", replace(make_contents(), tokens=None))
    with pytest.raises(CorpusError, match="no token ids"):
        load_corpus(tmp_path / "small", tokens=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ["a_1", "a_1", "b_1", "b_2"]}, "'a_1' occurs twice"),
        ({"index": [1, 1, 1, 3]}, "dialogue 'b' has two utterances with the index 1"),
    ],
)
def test_contradictions_are_refused_and_nothing_is_written(tmp_path: Path, change, message) -> None:
    contents = make_contents()
    with pytest.raises(CorpusError, match=message):
        write_corpus(tmp_path / "small", replace(contents, utterances=contents.utterances.assign(**change)))
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    contents = make_contents()
    contents.features[0].values[2, 0] = np.nan
    with pytest.raises(CorpusError, match="text/one holds values that are not finite"):
        write_corpus(tmp_path / "small", contents)


def test_an_existing_folder_is_kept_unless_told_otherwise(folder: Path) -> None:
    with pytest.raises(CorpusError, match="exists"):
        write_corpus(folder, make_contents())
    write_corpus(folder, replace(make_contents(), origin="again"), replace_existing=True)
    assert read_manifest(folder).origin == "again"
    assert sorted(path.name for path in folder.parent.iterdir()) == [".locks", "small"]


def test_broken_folders_give_clear_errors(folder: Path) -> None:
    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    (broken / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(CorpusError, match=r"manifest.json is broken at name"):
        load_corpus(broken)
    (broken / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"schema": 1', '"schema": 9')
    )
    with pytest.raises(CorpusError, match="schema 9"):
        load_corpus(broken)
    (broken / "features.safetensors").write_bytes(b"nonsense")
    shutil.copy(folder / "manifest.json", broken)
    with pytest.raises(CorpusError, match=r"features.safetensors cannot be read"):
        load_contents(broken)
    with pytest.raises(CorpusError, match="is not a native data folder"):
        load_corpus(folder.parent)
