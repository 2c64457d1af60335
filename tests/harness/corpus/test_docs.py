"""The example of docs/add-a-dataset.md works as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from imer_bench.harness.cli import main
from imer_bench.harness.corpus.catalogue import data_set_info, load_data_set
from imer_bench.harness.corpus.generator import synthetic_like

PAGE = Path(__file__).resolve().parents[3] / "docs" / "add-a-dataset.md"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [body for name, body in found if name == language]


def test_the_example_imports_and_its_record_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMER_DATA", raising=False)
    (tmp_path / "utterances.csv").write_text(blocks("csv")[0])
    save, record = blocks("python")
    exec(save, {})
    command = shlex.split(blocks("")[0].replace("\\\n", " "))
    assert command[:2] == ["python", "bench.py"]
    assert main(command[2:]) == 0
    assert main(["data", "verify", "films"]) == 0

    described = data_set_info("films")
    names: dict = {}
    exec(record, names)
    info = names["INFO"]
    for field in ("task", "label", "labels", "split", "speakers", "default_features", "part_column"):
        assert getattr(described, field) == getattr(info, field), field
    corpus = load_data_set("films")
    assert corpus.utterances["transcript"].tolist()[0] == "so here we are"
    for item in info.features:
        assert corpus.features[item.modality].values.shape[-1] == item.dim
    stand_in = synthetic_like(info)
    assert stand_in.utterances["split"].value_counts().to_dict() == {"train": 2, "valid": 2, "test": 1}
