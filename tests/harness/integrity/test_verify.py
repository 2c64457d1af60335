"""``bench.py verify``: sound results pass, every way of touching them is found and named."""

import json
import random
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from imer_bench.harness.cli import main
from imer_bench.harness.cli.display import Quiet
from imer_bench.harness.execute import execute
from imer_bench.harness.leaderboard import write_leaderboard
from imer_bench.harness.report import boards_of_plan
from imer_bench.harness.run_manifest import write_manifest
from imer_bench.harness.store import Store

from tiny import tiny_plan

OLD = Path(__file__).resolve().parents[2] / "stores" / "schema-1" / "tiny"
EXTRA = """
[[methods]]
name = "constant"

[[methods]]
name = "toys:GOES_WRONG"
label = "wrong"
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with two finished runs, a failed one, and tables."""
    folder = tmp_path_factory.mktemp("sound")
    plan = tiny_plan(folder, "leaderboard.resamples=100", extra=EXTRA)
    store = Store(folder / "tiny")
    execute(plan, store, Quiet())
    write_leaderboard(boards_of_plan(plan, store), store.folder)
    return store.folder


@pytest.fixture
def store(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


def run_of(store: Path, label: str = "late_fusion") -> Path:
    (found,) = store.glob(f"runs/{label}-*")
    return found


def verify(capsys, *arguments: object) -> tuple[int, list[dict], str]:
    code = main(["verify", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else [], err


def problems(reports: list[dict]) -> list[tuple[str, str, str]]:
    findings = [
        f for r in reports for f in (*r["findings"], *(x for run in r["runs"] for x in run["findings"]))
    ]
    kinds = ("altered", "damaged", "newer", "extra")
    return [(f["kind"], f["where"], f["text"]) for f in findings if f["kind"] in kinds]


def edit(file: Path, change) -> None:
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def in_row(row: int, name: str, value: object):
    def change(frame):
        column = frame[name].astype(object).tolist()
        column[row] = value
        frame[name] = pd.Categorical(column) if name == "available" else column
        return frame

    return change


def edit_predictions(run: Path, change) -> None:
    table = pq.read_table(run / "predictions.parquet")
    frame = change(table.to_pandas())
    again = type(table).from_pandas(frame, schema=table.schema.remove_metadata(), preserve_index=False)
    pq.write_table(again.replace_schema_metadata(table.schema.metadata), run / "predictions.parquet")


def test_sound_results_pass_all_checks(store, capsys):
    code, (report,), _ = verify(capsys, store)
    assert code == 0
    assert problems([report]) == []
    finished = [run for run in report["runs"] if run["status"] == "finished"]
    assert len(finished) == 2
    for run in finished:
        assert {"files", "history", "weights", "metrics", "address", "masks", "data"} <= set(run["checks"])
    assert main(["verify", str(store.parent), "--all"]) == 0
    assert "all is well" in capsys.readouterr().out


def test_the_digest_changes_with_any_file_and_with_nothing_else(store, capsys):
    first = verify(capsys, store)[1][0]["digest"]
    assert verify(capsys, store)[1][0]["digest"] == first
    edit(run_of(store) / "run.json", lambda record: record["environment"].update(platform="elsewhere"))
    write_manifest(run_of(store))
    code, (report,), _ = verify(capsys, store)
    assert code == 0  # nothing in the folder contradicts it: that is what the digest is for
    assert report["digest"] != first


def test_results_of_an_older_schema_are_checked_and_said_to_be_older(capsys):
    code, (report,), _ = verify(capsys, OLD)
    assert code == 0
    kinds = {finding["kind"] for run in report["runs"] for finding in run["findings"]}
    assert "older" in kinds
    assert all("address" in run["checks"] for run in report["runs"])


def flip(run):
    file = run / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(run):
    file = run / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:-7])


def link(run):
    (run / "history.jsonl").unlink()
    (run / "history.jsonl").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("change", "kind", "where"),
    [
        (flip, "altered", "model.safetensors"),
        (cut, "damaged", "predictions.parquet"),
        (lambda run: (run / "history.jsonl").unlink(), "damaged", "history.jsonl"),
        (lambda run: (run / "notes.txt").write_text("x"), "extra", "notes.txt"),
        (lambda run: (run / "sub").mkdir(), "extra", "sub"),
        (link, "extra", "history.jsonl"),
        (lambda run: (run / "manifest.json").write_text("{"), "damaged", "manifest.json"),
        (lambda run: edit(run / "manifest.json", lambda m: m.update(schema=9)), "newer", "manifest.json"),
        (lambda run: edit(run / "run.json", lambda m: m.update(schema=9)), "newer", "run.json"),
        (lambda run: (run / "run.json").write_bytes(b"\xff\x00"), "damaged", "run.json"),
        (lambda run: (run / "run.json").unlink(), "damaged", "run.json"),
    ],
)
def test_a_touched_file_is_named(store, capsys, change, kind, where):
    change(run_of(store))
    code, reports, err = verify(capsys, store)
    assert code == 1
    assert (kind, where) in [(one, place) for one, place, _ in problems(reports)]
    assert "Traceback" not in err


def set_in(*keys, value):
    def change(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


def worse_than_it_was(run):
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = json.loads((run / "run.json").read_text())["best_epoch"]
    other = (best + 1) % len(rows)
    rows[other]["validation/wf1"] = 1.0
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_in("metrics", "test", "complete", "wf1", value=0.99), "wf1 under complete"),
        (set_in("metrics", "validation", "wf1", value=0.99), "validation metrics"),
        (set_in("masks", "test", "random-0.5", value=[]), "draws make"),
        (lambda r: r["masks"]["test"]["random-0.5"][0].update(hash="0" * 64), "is recorded"),
        (lambda r: r["masks"]["test"]["random-0.5"][1].update(realised_rate=0.1), "realised rates"),
        (lambda r: r["masks"]["validation"]["complete"][0].update(hash="0" * 64), "validation masks"),
        (lambda r: r["masks"]["train"]["random-0.3"][0].update(hash="0" * 64), "train masks"),
        (set_in("identity", "seed", value=7), "seed"),
        (set_in("identity", "hyper_parameters", "hidden", value=9), "address"),
        (set_in("identity", "method_numerics", value=99), "address"),
        (set_in("environment", "threads", value=99), "address"),
        (set_in("protocol", "test", "mask_seeds", value=[201, 203]), "mask"),
        (set_in("protocol", "compute", "nonsense", value=1), "its protocol is none"),
        (set_in("comparison_hash", value="0" * 16), "comparison"),
        (lambda r: r["hashed"]["comparison"].update(regime="matched"), "comparison hash"),
        (lambda r: r["hashed"]["data"].update(split="0" * 16), "split"),
        (set_in("best_epoch", value=77), "after the last epoch"),
    ],
)
def test_a_changed_record_is_found_though_its_manifest_was_made_anew(store, capsys, change, words):
    run = run_of(store)
    edit(run / "run.json", change)
    write_manifest(run)
    code, reports, _ = verify(capsys, store)
    assert code == 1
    assert any(words in text or words in where for _, where, text in problems(reports)), problems(reports)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.assign(score=-frame["score"]), "its predictions give"),
        (in_row(0, "available", "a"), "what the schedule leaves"),
        (lambda frame: frame.assign(y_true=2.0), "true labels are not those of the data"),
        (lambda frame: frame.assign(seed=5), "seed is 5"),
        (in_row(140, "utterance", "another"), "other utterances"),
        (lambda frame: frame.iloc[5:], "rows"),
    ],
)
def test_changed_predictions_are_found_though_the_manifest_was_made_anew(store, capsys, change, words):
    run = run_of(store)
    edit_predictions(run, change)
    write_manifest(run)
    code, reports, _ = verify(capsys, store)
    assert code == 1
    assert any(words in text for _, _, text in problems(reports)), problems(reports)


def test_an_epoch_that_was_better_on_validation_than_the_tested_one_is_found(store, capsys):
    run = run_of(store)
    worse_than_it_was(run)
    write_manifest(run)
    code, reports, _ = verify(capsys, store)
    assert code == 1
    assert any("better on validation" in text for _, _, text in problems(reports))


def test_a_touched_table_is_found_and_an_outdated_one_is_no_crime(store, capsys):
    def better(record):
        for row in record["boards"][0]["rows"]:
            if row["label"] == "late_fusion":
                row["cells"]["wf1"]["complete"]["mean"] = 0.99

    edit(store / "leaderboard.json", better)
    code, reports, _ = verify(capsys, store)
    assert code == 1
    assert [where for _, where, _ in problems(reports)] == ["leaderboard.json"]
    shutil.rmtree(run_of(store, "constant"))
    code, (report,), _ = verify(capsys, store, "--no-tables")
    assert code == 0
    assert problems([report]) == []


def test_without_the_data_what_needs_no_data_is_still_checked(store, capsys):
    edit_predictions(run_of(store), in_row(0, "available", "a"))
    write_manifest(run_of(store))
    code, reports, _ = verify(capsys, store, "--no-data")
    assert code == 1
    assert any("what the schedule leaves" in text for _, _, text in problems(reports))


def test_interrupted_work_is_mentioned_and_no_problem(store, capsys):
    (store / "work" / "0123456789abcdef").mkdir(parents=True)
    code, (report,), _ = verify(capsys, store)
    assert code == 0
    assert [finding["kind"] for finding in report["findings"]] == ["leftover"]


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    code, _, err = verify(capsys, tmp_path)
    assert code == 1
    assert "no results under" in err


GARBAGE = [
    b"",
    b"\x00" * 100,
    b"[]",
    b"{}",
    b"null",
    b"[" * 5000,
    b'{"schema": 2, "status": "finished"}',
    b'{"schema": 1e400}',
    b"PAR1" + b"\xff" * 64 + b"PAR1",
    (2**62).to_bytes(8, "little") + b"{}",
]


def test_whatever_is_in_the_files_it_ends_in_a_report(store, sound, capsys):
    draw = random.Random(0)
    tried = 0
    run = run_of(store)
    for name in sorted(item.name for item in run_of(sound).iterdir()):
        whole = (run_of(sound) / name).read_bytes()
        broken = bytearray(whole)
        for place in draw.sample(range(len(whole)), 20):
            broken[place] = draw.randrange(256)
        cuts = [whole[: draw.randrange(len(whole))] for _ in range(2)]
        for content in [*GARBAGE, *cuts, bytes(broken)]:
            # Half of the time the manifest is made to fit.
            for manifest in (True,) if name == "manifest.json" or tried % 2 else (False,):
                (run / name).write_bytes(content)
                if not manifest:
                    write_manifest(run)
                code, reports, err = verify(capsys, store, "--no-tables")
                tried += 1
                assert "Traceback" not in err
                assert reports
                assert code == 1 or not manifest, (name, content[:20])
                shutil.copy(run_of(sound) / name, run / name)
                shutil.copy(run_of(sound) / "manifest.json", run / "manifest.json")
    assert tried > 50


def test_types_of_every_value_of_a_record_may_be_wrong(store, sound, capsys):
    run = run_of(store)
    record = json.loads((run / "run.json").read_text())
    draw = random.Random(1)

    def places(value, path=()):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            if isinstance(item, dict | list):
                yield from places(item, (*path, key))

    every = list(places(record))
    for place in draw.sample(every, 30):
        again = json.loads((run_of(sound) / "run.json").read_text())
        set_in(*place, value=draw.choice([None, [], {}, "x", -1, 10**30, True]))(again)
        (run / "run.json").write_text(json.dumps(again))
        write_manifest(run)
        _, reports, err = verify(capsys, store, "--no-tables")
        assert reports
        assert "Traceback" not in err
