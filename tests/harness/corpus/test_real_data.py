"""Real releases, where they are at hand, import with the published counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imer_bench.harness.corpus.catalogue import data_set_info
from imer_bench.harness.corpus.importers import import_data
from imer_bench.harness.corpus.info import SplitRule
from imer_bench.harness.corpus.native import load_corpus
from imer_bench.harness.corpus.report import ImportReport, label_checksum
from imer_bench.harness.corpus.splits import make_split
from imer_bench.harness.corpus.verify import verify_folder

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not at hand")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def mosi(root: Path) -> ImportReport:
    return import_data("auto", [DATA / "cmu_mosi"], "cmu_mosi", root)


def test_cmu_mosi(mosi: ImportReport, root: Path) -> None:
    # Counts and checksum of the published format description.
    assert (mosi.utterances, mosi.dialogues, mosi.checksum) == (2199, 93, "ffc13d34b6622e60")
    sizes = {(part.column, part.value): (part.dialogues, part.utterances) for part in mosi.parts}
    assert sizes["split_standard", "train"] == (52, 1284)
    assert sizes["split_standard", "valid"] == (10, 229)
    assert sizes["split_standard", "test"] == (31, 686)
    assert sizes["split_release", "train"] == (62, 1447)
    assert sizes["split_release", "test"] == (31, 752)
    assert sum(sizes["clean_fold", str(fold)][1] for fold in range(5)) == 752
    dims = {(item.modality, item.name): item.dim for item in mosi.features}
    assert dims == {
        ("text", "release"): 100,
        ("text", "minilm"): 384,
        ("audio", "release"): 73,
        ("vision", "release"): 100,
    }
    assert mosi.warnings == ("column 'split_release' has no valid rows",)
    assert verify_folder(root / "cmu_mosi") == ()


def test_cmu_mosi_labels_by_split(mosi: ImportReport, root: Path) -> None:
    table = load_corpus(root / "cmu_mosi", {"text": "minilm"}).utterances
    signs = {"train": (552, 53, 679), "valid": (92, 13, 124), "test": (379, 30, 277)}
    rounded = {
        "train": [24, 199, 227, 248, 227, 313, 46],
        "valid": [10, 30, 32, 49, 39, 50, 19],
        "test": [46, 156, 145, 106, 113, 100, 20],
    }
    for split, expected in signs.items():
        scores = table.loc[table["split_standard"] == split, "sentiment"].to_numpy()
        assert ((scores < 0).sum(), (scores == 0).sum(), (scores > 0).sum()) == expected
        bins = np.bincount(np.clip(np.round(scores), -3, 3).astype(int) + 3)
        assert bins.tolist() == rounded[split]
    assert len(set(table["sentiment"])) == 53
    np.testing.assert_array_equal(table["label"], (table["sentiment"] >= 0).astype(int))


def test_the_original_label_file_agrees(mosi: ImportReport, root: Path) -> None:
    """The pickle that GCNet and MoMKE load imports, and adds nothing that differs."""
    before = load_corpus(root / "cmu_mosi").fingerprint
    path = DATA / "cmu_mosi" / "original" / "CMUMOSI_features_raw_2way.pkl"
    report = import_data("auto", [path], "cmu_mosi", root)
    assert load_corpus(root / "cmu_mosi").fingerprint == before
    assert report.checksum == "ffc13d34b6622e60"
    alone = import_data("gcnet", [path], "cmu_mosi", root / "alone")
    assert alone.checksum == "ffc13d34b6622e60"
    table = load_corpus(root / "cmu_mosi").utterances
    original = load_corpus(root / "alone" / "cmu_mosi").utterances
    for column in ("id", "dialogue", "index", "speaker", "transcript", "split_standard"):
        assert table[column].tolist() == original[column].tolist()
    words = original["transcript"].str.split().str.len()
    assert (words.min(), words.median(), words.max()) == (1, 10, 114)


def test_the_original_audio_is_the_imported_audio(mosi: ImportReport, root: Path) -> None:
    """Row by row against the authors' own padded arrays."""
    import json

    from imer_bench.harness.corpus.unpickle import read_pickle

    original = read_pickle(DATA / "cmu_mosi" / "original" / "audio.pickle")
    order = json.loads((DATA / "cmu_mosi" / "audio_pickle_video_order.json").read_text())
    corpus = load_corpus(root / "cmu_mosi", {"audio": "release"})
    dialogues = corpus.utterances["dialogue"].to_numpy()
    for split, (values, lengths) in {
        "train": (original[0], original[5]),
        "test": (original[2], original[6]),
    }.items():
        for position, video in enumerate(order[split]):
            rows = np.flatnonzero(dialogues == video)
            assert len(rows) == lengths[position]
            np.testing.assert_allclose(
                corpus.features["audio"].values[rows], values[position, : len(rows)], rtol=1e-6, atol=1e-5
            )


def test_clean_folds_are_nested_without_crossing(mosi: ImportReport, root: Path) -> None:
    table = load_corpus(root / "cmu_mosi").utterances
    rule = SplitRule("nested_folds", "clean_fold")
    tested = []
    for fold in range(5):
        split = make_split(rule, table, fold)
        names = [set(table["dialogue"].iloc[rows]) for rows in (split.train, split.valid, split.test)]
        assert sum(map(len, names)) == len(set.union(*names)) == 31
        tested += split.test.tolist()
    assert len(set(tested)) == 752


def test_meld_dev(root: Path) -> None:
    report = import_data("auto", [DATA / "meld_dev"], "meld_dev", root)
    assert (report.utterances, report.dialogues) == (1108, 114)
    assert dict(report.labels[0].counts) == {
        "neutral": 469, "joy": 163, "sadness": 111, "anger": 153, "surprise": 150, "fear": 40, "disgust": 22,
    }  # fmt: skip
    corpus = load_corpus(root / "meld_dev", {"text": "release", "audio": "mel"})
    assert corpus.features["audio"].dim == 300
    assert len(set(corpus.utterances["speaker"])) == 47
    parts = [(part.dialogues, part.utterances) for part in data_set_info("meld_dev").parts]
    found = [(part.dialogues, part.utterances) for part in report.parts if part.column == "fold"]
    assert found == parts
    assert verify_folder(root / "meld_dev") == ()


def test_ict_mmmo(root: Path) -> None:
    from safetensors.numpy import load_file

    report = import_data("auto", [DATA / "ict_mmmo"], "ict_mmmo", root)
    assert (report.utterances, report.dialogues) == (340, 340)
    corpus = load_corpus(root / "ict_mmmo", {"text": "release", "audio": "release", "vision": "release"})
    table = corpus.utterances
    assert table["split"].value_counts().to_dict() == {"train": 220, "test": 80, "valid": 40}
    # Text was never recorded for training, and for training only.
    np.testing.assert_array_equal(corpus.features["text"].observed, table["split"] != "train")
    assert corpus.features["audio"].observed.all()
    assert sorted(table["fold"].value_counts().to_dict().items()) == [
        (-1, 220),
        *((fold, 24) for fold in range(5)),
    ]
    # Every real frame of the source is kept, in order.
    source = load_file(DATA / "ict_mmmo" / "features.safetensors")
    audio = corpus.features["audio"]
    row = table.index[table["id"] == "mmmo_train_003"][0]
    filled = source["audio"][3].any(axis=1)
    kept = audio.values[row][audio.values[row].any(axis=1)]
    np.testing.assert_array_equal(kept, source["audio"][3][filled])
    assert verify_folder(root / "ict_mmmo") == ()


def test_the_checksum_is_over_sorted_videos(mosi: ImportReport, root: Path) -> None:
    table = load_corpus(root / "cmu_mosi").utterances
    assert label_checksum(table.iloc[::-1], "sentiment") != "ffc13d34b6622e60"
