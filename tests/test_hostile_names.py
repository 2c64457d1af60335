"""Paths and names from files stay what they are: nothing outside their folder, no markup, no formula."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from result_tables import sentiment_table
from run_folders import make_protocol_folder, make_run

from imer_bench.harness.cli import main
from imer_bench.harness.store import Store, folder_name

STORE = Path(__file__).resolve().parent / "stores" / "schema-1" / "tiny"
NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\\input{/etc/passwd}",
    "\\write18{touch owned} % # $ & ~ ^ _",
    "=cmd|'/c calc'!A0",
    "+1+cmd|'/c calc'!A0",
    "-2+3",
    "@SUM(1+1)",
    "\t=1+1",
    "../../../escaped",
    "/etc/passwd",
    "a\u202egnp.exe",
    "\x1b[2Jgone\x07",
    "CON",
    "very long " * 60,
    "日本語 ünïcödé 💥",
    "[link](javascript:alert(1)) | `code` **bold**",
)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything that is made from a result table whose methods, data set and condition have such names."""
    folder = tmp_path_factory.mktemp("names")
    table = sentiment_table(
        labels=NAMES, seeds=(0,), conditions=("complete",), dialogues=3, mask_seeds=(201,)
    )
    table.assign(data_set="\\input{x} <b>", method="=1+1").to_parquet(folder / "table.parquet", index=False)
    assert main(["leaderboard", str(folder / "table.parquet"), "--out", str(folder / "out")]) == 0
    return folder


@pytest.mark.slow
def test_nothing_is_written_elsewhere(made):
    assert {item.name for item in made.iterdir()} == {"table.parquet", "out"}


@pytest.mark.slow
def test_the_page_has_no_element_of_a_name(made):
    page = (made / "out" / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert "alert(1)" in page  # the names are there, as text
    assert sum(tag == "script" for tag, _ in tags.found) == 1
    assert not [attrs for _, attrs in tags.found if any(name.startswith("on") for name in attrs)]
    assert not [attrs for _, attrs in tags.found if "javascript:" in str(attrs.get("href"))]
    assert "\x1b" not in page


@pytest.mark.slow
def test_no_cell_of_the_csv_file_is_a_formula(made):
    text = (made / "out" / "leaderboard.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert any("calc" in cell for cell in cells)
    for cell in cells:
        if not re.fullmatch(r"[-+]?[\d.]+(e-?\d+)?", cell):
            assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t")), cell


@pytest.mark.slow
def test_the_markdown_page_has_no_markup_of_a_name(made):
    text = (made / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\[link\]\(", text)
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles_and_reads_and_runs_nothing(made, tmp_path):
    shutil.copy(made / "out" / "leaderboard.tex", tmp_path / "leaderboard.tex")
    packages = "".join(
        f"\\usepackage{{{name}}}" for name in ("booktabs", "graphicx", "longtable", "rotating")
    )
    (tmp_path / "page.tex").write_text(
        f"\\documentclass{{article}}{packages}\\begin{{document}}\\input{{leaderboard}}\\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-shell-escape", "-recorder", "page.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=100
    )
    assert (tmp_path / "page.pdf").is_file(), done.stdout[-2000:]
    assert not (tmp_path / "owned").exists()
    assert "passwd" not in (tmp_path / "page.fls").read_text()
    assert not [line for line in done.stdout.splitlines() if line.startswith("! ")]


@pytest.mark.parametrize("name", [*NAMES, "", ".", "..", "..."])
def test_a_folder_name_is_one_component(name):
    found = folder_name(name)
    assert re.fullmatch(r"[A-Za-z0-9+][A-Za-z0-9._+-]*", found)
    assert len(os.fsencode(found)) <= 120


@pytest.mark.slow
def test_mlflow_takes_such_names_as_text(tmp_path):
    from mlflow.tracking import MlflowClient

    from imer_bench.harness.tracking import sync

    folder = make_protocol_folder(tmp_path / "results")
    for seed, name in enumerate(NAMES):
        run = make_run(folder, seed=seed % 10, condition=f"random-0.{1 + seed // 10}")
        record = json.loads((run / "run.json").read_text())
        record["identity"] |= {"method": name, "label": name, "data_set": name}
        (run / "run.json").write_text(json.dumps(record))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    report = sync(tmp_path / "results", uri)
    assert (len(report.logged), report.failed) == (len(NAMES), ())
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("mosi_test").experiment_id], max_results=100)
    assert len(found) >= len(NAMES)
    assert not (tmp_path.parent / "escaped").exists()
    assert {item.name for item in tmp_path.iterdir()} <= {"results", "mlflow.db", "mlruns", "mlartifacts"}


# --- Paths -------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.txt"
    file.write_text("nobody's business")
    return file


@pytest.mark.parametrize("member", ["/secret.txt", "../secret.txt", "../../secret.txt"])
def test_a_manifest_of_a_run_leads_nowhere(tmp_path, secret, capsys, member):
    """What a manifest names is compared with the folder's own files; nothing else is opened."""
    store = Path(shutil.copytree(STORE, tmp_path / "deep" / "tiny"))
    run = next(store.glob("runs/*"))
    entry = {"bytes": secret.stat().st_size, "sha256": "0" * 64}
    (run / "manifest.json").write_text(json.dumps({"schema": 1, "files": {member: entry}}))
    assert main(["verify", str(store), "--no-data", "--no-tables"]) == 1
    assert "is missing" in capsys.readouterr().out


def test_links_in_a_run_are_not_followed(tmp_path, secret, capsys):
    store = Path(shutil.copytree(STORE, tmp_path / "tiny"))
    run = next(store.glob("runs/*"))
    (run / "history.jsonl").unlink(missing_ok=True)
    (run / "history.jsonl").symlink_to(secret)
    assert main(["verify", str(store), "--no-data", "--no-tables"]) == 1
    assert "is a link to" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["../../escaped", "/tmp/escaped", "a/../../b"])
def test_a_run_is_stored_in_its_folder_whatever_its_name(tmp_path, label):
    store = Store(tmp_path / "results" / "tiny")
    name = folder_name(label)
    assert (store.folder / "runs" / f"{name}-0").resolve().parent == (store.folder / "runs").resolve()


@pytest.mark.parametrize("member", ["/abs.npy", "../up.npy", "text_../../x.npy", "text_mine/../../../x.npy"])
def test_members_of_an_archive_are_names_and_no_paths(tmp_path, member):
    array = io.BytesIO()
    np.save(array, np.ones((2, 2), dtype=np.float32))
    with zipfile.ZipFile(tmp_path / "more.npz", "w") as archive:
        archive.writestr(member, array.getvalue())
    (tmp_path / "t.csv").write_text("id,sentiment,split\na,1.0,train\nb,-1.0,test\n")
    given = [str(tmp_path / "t.csv"), str(tmp_path / "more.npz")]
    main(["data", "import", *given, "--name", "mine", "--data-root", str(tmp_path / "data"), "--quiet"])
    allowed = {tmp_path / "t.csv", tmp_path / "more.npz"}
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - allowed
    assert all(path.is_relative_to(tmp_path / "data") for path in written)
    assert not list(tmp_path.parent.glob("x*"))
    assert not Path("/abs.npy").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "/abs", "..", ".hidden", "a\0b", ""])
def test_a_data_set_or_protocol_cannot_be_named_a_path(tmp_path, name):
    (tmp_path / "t.csv").write_text("id,sentiment\na,1.0\n")
    root = str(tmp_path / "data")
    assert main(["data", "import", str(tmp_path / "t.csv"), "--name", name, "--data-root", root]) == 1
    text = (Path(__file__).resolve().parents[1] / "protocols" / "quickstart.toml").read_text()
    protocol = tmp_path / "p.toml"
    protocol.write_text(re.sub(r'(?m)^name = ".*"', lambda _: f"name = {json.dumps(name)}", text, count=1))
    assert main(["plan", "--protocol", str(protocol), "--device", "cpu"]) == 1
    assert not (tmp_path / "data").exists()
