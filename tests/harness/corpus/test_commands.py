"""``bench.py data`` as a user calls it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from imer_bench.harness.cli import main
from imer_bench.harness.corpus.catalogue import data_set_info, load_data_set
from imer_bench.harness.corpus.info import SplitRule


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    table = [
        {
            "id": f"d{d}_{n}",
            "dialogue": f"d{d}",
            "index": n,
            "speaker": "ab"[n % 2],
            "mood": (d + n) % 5 + 1,
            "fold": d,
        }
        for d in range(4)
        for n in range(3)
    ]
    (folder / "utterances.json").write_text(json.dumps(table))
    np.save(folder / "text.npy", np.random.default_rng(0).normal(size=(12, 4)))
    np.save(folder / "audio_small.npy", np.random.default_rng(1).normal(size=(12, 3)))
    return folder


def imported(release: Path, *more: str) -> int:
    root = str(release.parent / "data")
    return main(
        [
            "data",
            "import",
            str(release),
            "--name",
            "mine",
            "--data-root",
            root,
            "--label",
            "mood:score:1:5",
            *more,
        ]
    )


def test_import_list_show_verify(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(release.parent / "data")
    assert imported(release) == 0
    printed = capsys.readouterr().out
    assert "mine: 12 utterances in 4 dialogues, up to 2 speakers each" in printed
    assert "label mood in 1 .. 5" in printed
    assert main(["data", "list", "--data-root", root]) == 0
    assert "text: release; audio: small" in capsys.readouterr().out
    assert main(["data", "show", "mine", "--data-root", root]) == 0
    assert "origin: table utterances.json" in capsys.readouterr().out
    assert main(["data", "verify", "--data-root", root]) == 0
    assert "sound" in capsys.readouterr().out

    path = release.parent / "data" / "mine" / "features.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert main(["data", "verify", "mine", "--data-root", root]) == 1
    assert "does not agree with its digest" in capsys.readouterr().out


def test_reports_as_json(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(release.parent / "data")
    assert imported(release, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["utterances"] == 12
    assert main(["data", "list", "--json", "--data-root", root]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["fingerprint"] == report["fingerprint"]
    assert main(["data", "show", "mine", "--json", "--data-root", root]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == report["fingerprint"]
    assert main(["data", "verify", "--json", "--data-root", root]) == 0
    assert list(json.loads(capsys.readouterr().out).values()) == [[]]


def test_a_forbidden_global_ends_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'executed')!r}, 'w')",)

    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    assert (
        main(["data", "import", str(path), "--name", "cmu_mosi", "--data-root", str(tmp_path / "data")]) == 1
    )
    assert "aligned_50.pkl asks for the forbidden global 'builtins.eval'" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_absent_data_end_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "cmu_mosei", "--data-root", str(tmp_path)]) == 1
    assert "import them with: python bench.py data import" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["mood", "mood:score:5:1", "mood:score:a:b", "mood:class:one"])
def test_wrong_labels_are_named(release: Path, label: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(release), "--name", "mine", "--label", label]) == 1
    assert f"--label '{label}'" in capsys.readouterr().err


def test_a_data_set_without_a_record_is_described_by_its_manifest(release: Path) -> None:
    root = release.parent / "data"
    imported(release, "--quiet")
    info = data_set_info("mine", root)
    assert (info.task, info.label, info.score_range) == ("regression", "mood", (1.0, 5.0))
    assert info.default_features == {"text": "release", "audio": "small"}
    assert info.split == SplitRule("nested_folds", "fold")
    assert [(part.value, part.dialogues, part.utterances) for part in info.parts] == [
        (n, 1, 3) for n in range(4)
    ]
    corpus = load_data_set("mine", root=root)
    assert corpus.features["audio"].values.shape == (12, 3)
    stand_in = load_data_set("mine", root=root, synthetic=True)
    assert stand_in.synthetic
    assert stand_in.features["audio"].values.shape == (12, 3)
