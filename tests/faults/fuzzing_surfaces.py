"""Files that others may have written, each with a small valid example and the command that reads it."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
from fuzzing import Surface
from result_tables import sentiment_table
from run_folders import make_protocol_folder, make_run
from safetensors.numpy import save_file

from imer_bench.harness.cli import main
from imer_bench.harness.corpus.verify import verify_folder

from tiny import TINY, tiny_plan

PARAMETERS = """
method = "late_fusion"
profile = "default"

[parameters]
hidden = 8
lr = 0.002
"""

# --- Protocols ---------------------------------------------------------------------------------------


def _protocol(folder: Path) -> None:
    small = TINY.replace("dialogues = [12, 5, 6]", "dialogues = [3, 2, 2]").replace(
        "mean_length = 6", "mean_length = 2"
    )
    entry = small.replace("parameters = { hidden = 8 }", 'params_from = "best.toml"')
    (folder / "tiny.toml").write_text(entry)
    (folder / "best.toml").write_text(PARAMETERS)
    (folder / "child.toml").write_text('extends = "tiny.toml"\n\n[compute]\nepochs = 2\n')


def _plan(file: str) -> Callable[[Path], int]:
    return lambda folder: main(
        ["plan", "--protocol", str(folder / file), "--results", str(folder / "out"), "--device", "cpu"]
    )


def _loaded(folder: Path) -> int:
    """Reading and checking alone: many more inputs than whole plans."""
    from imer_bench.harness.errors import UserError
    from imer_bench.harness.protocol.load import load_protocol

    try:
        load_protocol(folder / "tiny.toml")
    except UserError as error:
        print(error)
        return 1
    return 0


# --- Imports -----------------------------------------------------------------------------------------


def _import(*sources: str, options: tuple[str, ...] = ()) -> Callable[[Path], int]:
    def read(folder: Path) -> int:
        given = [str(folder / name) for name in sources]
        return main(
            ["data", "import", *given, "--name", "mine", "--data-root", str(folder / "out"), *options]
        )

    return read


def _imported_is_sound(folder: Path) -> str:
    return "; ".join(verify_folder(folder / "out" / "mine"))


_LABEL = ("--label", "valence:score:1:5")


def _table_rows() -> list[dict[str, Any]]:
    keys = ("id", "dialogue", "index", "speaker", "text", "valence", "split")
    rows = [
        ("b2", "b", 2, "X", "NA", 4, "dev"),
        ("a1", "a", 1, "Y", "two", 1, "train"),
        ("b1", "b", 1, "X", "three", 2.5, "dev"),
        ("c1", "c", 1, "Z", "four", 5, "test"),
    ]
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _table(folder: Path) -> None:
    """The same table in three forms, and arrays in three."""
    rows = _table_rows()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pd.DataFrame(rows).to_parquet(folder / "table.parquet")
    (folder / "table.json").write_text(json.dumps({"label_names": ["negative (0)"], "utterances": rows}))
    # Class labels of which neither user nor record knows the number.
    classes = [{key: value for key, value in row.items() if key != "valence"} for row in rows]
    (folder / "classes.json").write_text(
        json.dumps([{**row, "label": n % 2} for n, row in enumerate(classes)])
    )
    np.save(folder / "text_mine.npy", np.arange(8, dtype=np.float32).reshape(4, 2) + 1)
    lengths = np.array([5, 2, 3, 1])
    np.savez(folder / "more.npz", audio=np.ones((4, 5, 3), dtype=np.float32), audio_lengths=lengths)
    seen = np.array([1, 1, 0, 1], dtype=bool)
    save_file(
        {"video/faces": np.eye(4, dtype=np.float32), "video/faces_observed": seen},
        folder / "faces.safetensors",
    )


def _gcnet(folder: Path) -> None:
    scores = {"vidB": [1.0, -0.4], "vidA": [0.0, 3.0], "vidC": [0.2]}
    ids = {video: [f"{video}_{n + 1}" for n in range(len(values))] for video, values in scores.items()}
    labels = [
        ids,
        {video: [np.float64(value) for value in values] for video, values in scores.items()},
        {video: [""] * len(values) for video, values in scores.items()},
        {video: np.array([f"SAID {n}" for n in range(len(v))]) for video, v in scores.items()},
        {"vidA"},
        {"vidB"},
        {"vidC"},
    ]
    release = folder / "CMUMOSI"
    text = release / "features" / "deberta-large-4-UTT"
    text.mkdir(parents=True)
    (release / "CMUMOSI_features_raw_2way.pkl").write_bytes(pickle.dumps(labels, protocol=4))
    for number, name in enumerate(name for names in ids.values() for name in names):
        np.save(text / f"{name}.npy", np.full(4, number + 1.0, dtype=np.float32))


def _mmsa(folder: Path) -> None:
    def split(videos: dict[str, list[float]]) -> dict[str, Any]:
        members = [(video, n, score) for video, scores in videos.items() for n, score in enumerate(scores)]
        size = len(members)
        tokens = np.zeros((size, 3, 4), dtype=np.int64)
        tokens[:, 0, :3], tokens[:, 1, :3] = [101, 1000, 102], 1
        scores = np.array([score for *_, score in members], dtype=np.float32)
        return {
            "raw_text": np.array(["text"] * size, dtype=object),
            "id": np.array([f"{video}$_${clip}" for video, clip, _ in members]),
            "text": np.ones((size, 4, 2), dtype=np.float32),
            "text_bert": tokens,
            "audio": np.ones((size, 5, 2), dtype=np.float32),
            "vision": np.ones((size, 3, 2), dtype=np.float32),
            "annotations": np.array(
                [["Negative", "Neutral", "Positive"][int(np.sign(s)) + 1] for s in scores]
            ),
            "classification_labels": np.sign(scores) + 1,
            "regression_labels": scores,
            "audio_lengths": [5] * size,
            "vision_lengths": [2] * size,
        }

    data = {
        "train": split({"a": [1.0, -1.0]}),
        "valid": split({"b": [0.5]}),
        "test": split({"c": [0.0, 2.0]}),
    }
    (folder / "unaligned_50.pkl").write_bytes(pickle.dumps(data, protocol=4))


def _magtkd(folder: Path) -> None:
    def split(dialogues: dict[Any, list[int]]) -> dict[str, Any]:
        keys = ("text", "audio", "video", "audio_kd", "video_kd")
        vectors = {d: [np.ones(3, dtype=np.float32) for _ in v] for d, v in dialogues.items()}
        return {
            **{key: dict(vectors) for key in keys},
            "speakers": {d: [n % 2 for n in range(len(v))] for d, v in dialogues.items()},
            "labels": dict(dialogues),
            "vids": list(dialogues),
            "dia2utt": {d: list(range(len(v))) for d, v in dialogues.items()},
        }

    parts = {"train": split({0: [0, 1], 1: [2]}), "dev": split({0: [1]}), "test": split({0: [2, 0]})}
    (folder / "all.pkl").write_bytes(pickle.dumps(parts, protocol=4))


# --- Data sets on disk -------------------------------------------------------------------------------


def _native(folder: Path) -> None:
    _table(folder)
    given = [str(folder / name) for name in ("table.csv", "text_mine.npy", "more.npz", "faces.safetensors")]
    code = main(
        ["data", "import", *given, "--name", "mine", "--data-root", str(folder / "data"), "--quiet", *_LABEL]
    )
    assert code == 0


def _native_read(folder: Path) -> int:
    """Everything that reads a data set: verify, show, list, and a run's own way."""
    from imer_bench.harness.corpus.catalogue import data_set_info, load_data_set
    from imer_bench.harness.errors import UserError

    root = str(folder / "data")
    codes = [
        main(["data", *command, "--data-root", root])
        for command in (["verify", "mine"], ["show", "mine"], ["list"])
    ]
    try:
        data_set_info("mine", root)
        load_data_set("mine", root=root)
    except UserError as error:
        print(error)
        codes.append(1)
    return max(codes)


# --- Results -----------------------------------------------------------------------------------------

_EXTRA = '\n[leaderboard]\nresamples = 100\n\n[[methods]]\nname = "constant"\n'


@cache
def _results() -> Path:
    """A store with two runs and its tables; made once a process."""
    from imer_bench.harness.cli.display import Quiet
    from imer_bench.harness.execute import execute
    from imer_bench.harness.leaderboard import write_leaderboard
    from imer_bench.harness.report import boards_of_plan
    from imer_bench.harness.store import Store

    folder = Path(mkdtemp(prefix="fuzz-results-"))
    plan = tiny_plan(folder, "compute.epochs=2", 'test.conditions=["complete","fixed-t"]', extra=_EXTRA)
    store = Store(folder / "results" / "tiny")
    execute(plan, store, Quiet())
    write_leaderboard(boards_of_plan(plan, store), store.folder)
    return folder


def _stored(folder: Path) -> None:
    shutil.copytree(_results(), folder, dirs_exist_ok=True)


def _tables(folder: Path) -> int:
    store, out = str(folder / "results" / "tiny"), str(folder / "out")
    return main(["leaderboard", store, "--no-report", "--out", out])


def _report(folder: Path) -> int:
    store, out = str(folder / "results" / "tiny"), str(folder / "out")
    return main(["leaderboard", store, "--out", out])


def _verify(folder: Path) -> int:
    return main(["verify", str(folder / "results" / "tiny")])


def _to_mirror(folder: Path) -> None:
    make_run(make_protocol_folder(folder))


def _mirrored(folder: Path) -> int:
    """What ``mlflow sync`` takes from a run, without a server."""
    from imer_bench.harness.tracking.entry import UnreadableRun, read_entry
    from imer_bench.harness.tracking.executions import read_journal

    read_journal(folder / "mosi_test")
    code = 0
    for run in (folder / "mosi_test" / "runs").iterdir():
        try:
            read_entry(run)
        except UnreadableRun as error:
            print(error)
            code = 1
    return code


def _costs(folder: Path) -> None:
    _stored(folder)
    _protocol(folder)
    cost = {
        "method": "late_fusion",
        "variant": "0" * 16,
        "data_set": "synthetic",
        "utterances": 20,
        "epochs": 3,
        "device": "cpu",
        "device_name": "cpu",
        "threads": 1,
        "precision": "float32",
        "epoch_s": 0.1,
        "rest_s": 0.2,
        "memory_mib": 300.0,
    }
    (folder / "results" / "tiny" / "costs.json").write_text(json.dumps([cost, {**cost, "epochs": 5}]))


def _plan_with_costs(folder: Path) -> int:
    protocol, results = str(folder / "tiny.toml"), str(folder / "results")
    return main(["plan", "--protocol", protocol, "--results", results, "--device", "cpu"])


# --- Tables and quotations ---------------------------------------------------------------------------


def _predictions(folder: Path) -> None:
    frame = sentiment_table(
        seeds=(0, 1), conditions=("complete", "random-0.5"), mask_seeds=(201,), dialogues=4
    )
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_parquet(folder / "table.parquet", index=False)


def _predictions_read(suffix: str) -> Callable[[Path], int]:
    def read(folder: Path) -> int:
        from imer_bench.harness.errors import UserError
        from imer_bench.harness.leaderboard import read_predictions

        try:
            read_predictions(folder / f"table.{suffix}")
        except UserError as error:
            print(error)
            return 1
        return 0

    return read


def _predictions_shown(suffix: str) -> Callable[[Path], int]:
    return lambda folder: main(
        ["leaderboard", str(folder / f"table.{suffix}"), "--no-report", "--out", str(folder / "out")]
    )


def _published(folder: Path) -> None:
    lines = [
        "source,data_set,metric,method,condition,value",
        "GCNet (rerun),CMU-MOSI,F1,GCNet,0.3,78.1",
        '"MoMKE, test set",MOSI,ACC2,MoMKE [x],"available={text,audio}",0.8',
        "X,synthetic,F1,strong,mean(random 0.1-0.5),70",
    ]
    (folder / "published.csv").write_text("\n".join(lines) + "\n")


@cache
def _board() -> Any:
    from imer_bench.harness.leaderboard import build_boards, infer_info
    from imer_bench.harness.leaderboard.table import validate

    frame = validate(sentiment_table(seeds=(0,), dialogues=3, mask_seeds=(201,)))
    key = ("c0ffee0123456789", "mosi")
    return build_boards(frame, {key: infer_info(frame)})[0]


def _quoted(folder: Path) -> int:
    """Read, matched with a board, and asked for what is known to differ."""
    from imer_bench.harness.errors import UserError
    from imer_bench.harness.leaderboard.published import quotations_for, read_published

    try:
        quotations_for(_board(), read_published([folder / "published.csv"]))
    except UserError as error:
        print(error)
        return 1
    return 0


# --- Golden cases ------------------------------------------------------------------------------------

_GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "golden"


def _golden(folder: Path) -> None:
    cases = sorted(
        _GOLDEN.rglob("case.json"), key=lambda file: sum(f.stat().st_size for f in file.parent.iterdir())
    )
    shutil.copytree(cases[0].parent, folder / "case")


def _golden_read(folder: Path) -> int:
    from imer_bench.harness.parity.case import read_case
    from imer_bench.harness.parity.contract import ParityError

    try:
        read_case(folder / "case")
    except ParityError as error:
        print(error)
        return 1
    return 0


def _all() -> list[Surface]:
    arrays = ("text_mine.npy", "more.npz", "faces.safetensors")

    def imported(
        name: str,
        kind: str,
        file: str,
        make: Callable[[Path], object],
        *sources: str,
        options: tuple[str, ...] = (),
    ) -> Surface:
        return Surface(
            f"import: {name}", kind, file, make, _import(*sources, options=options), sound=_imported_is_sound
        )

    def stored(name: str, kind: str, file: str, read: Callable[[Path], int], weight: float = 0.1) -> Surface:
        place = file if "/" in file else f"results/tiny/runs/late_fusion-*/{file}"
        return Surface(f"results: {name}", kind, place, _stored, read, weight=weight)

    data = "data/mine"
    return [
        Surface("protocol", "toml", "tiny.toml", _protocol, _loaded),
        Surface("protocol: plan", "toml", "tiny.toml", _protocol, _plan("tiny.toml"), weight=0.1),
        Surface("protocol: extends", "toml", "child.toml", _protocol, _plan("child.toml"), weight=0.1),
        Surface("protocol: params_from", "toml", "best.toml", _protocol, _plan("tiny.toml"), weight=0.1),
        imported("GCNet pickle", "pickle", "CMUMOSI/CMUMOSI_features_raw_2way.pkl", _gcnet, "CMUMOSI"),
        imported("MMSA pickle", "pickle", "unaligned_50.pkl", _mmsa, "unaligned_50.pkl"),
        imported("MAGTKD pickle", "pickle", "all.pkl", _magtkd, "all.pkl"),
        imported("csv", "csv", "table.csv", _table, "table.csv", *arrays, options=_LABEL),
        imported(
            "parquet", "parquet", "table.parquet", _table, "table.parquet", "text_mine.npy", options=_LABEL
        ),
        imported("json", "json", "table.json", _table, "table.json", "text_mine.npy", options=_LABEL),
        imported("json, classes", "json", "classes.json", _table, "classes.json", "text_mine.npy"),
        imported("npy", "npy", arrays[0], _table, "table.csv", *arrays, options=_LABEL),
        imported("npz", "npz", arrays[1], _table, "table.csv", *arrays, options=_LABEL),
        imported("safetensors", "safetensors", arrays[2], _table, "table.csv", *arrays, options=_LABEL),
        Surface("data set: manifest", "json", f"{data}/manifest.json", _native, _native_read, weight=0.3),
        Surface(
            "data set: utterances", "parquet", f"{data}/utterances.parquet", _native, _native_read, weight=0.3
        ),
        Surface(
            "data set: features",
            "safetensors",
            f"{data}/features.safetensors",
            _native,
            _native_read,
            weight=0.3,
        ),
        stored("run.json, verify", "json", "run.json", _verify),
        stored("run.json, tables", "json", "run.json", _tables),
        stored("run.json, report", "json", "run.json", _report, weight=0.01),
        Surface(
            "results: run.json, MLflow entry", "json", "mosi_test/runs/*/run.json", _to_mirror, _mirrored
        ),
        stored("manifest.json, verify", "json", "manifest.json", _verify),
        stored("manifest.json, tables", "json", "manifest.json", _tables),
        stored("history, verify", "jsonl", "history.jsonl", _verify),
        Surface(
            "results: history, MLflow entry", "jsonl", "mosi_test/runs/*/history.jsonl", _to_mirror, _mirrored
        ),
        stored("predictions, verify", "parquet", "predictions.parquet", _verify),
        stored("predictions, tables", "parquet", "predictions.parquet", _tables),
        stored("model.safetensors, verify", "safetensors", "model.safetensors", _verify),
        stored("leaderboard.json, verify", "json", "results/tiny/leaderboard.json", _verify),
        Surface(
            "results: costs.json, plan",
            "json",
            "results/tiny/costs.json",
            _costs,
            _plan_with_costs,
            weight=0.1,
        ),
        Surface("result table: csv", "csv", "table.csv", _predictions, _predictions_read("csv")),
        Surface(
            "result table: parquet", "parquet", "table.parquet", _predictions, _predictions_read("parquet")
        ),
        Surface(
            "result table: csv, tables",
            "csv",
            "table.csv",
            _predictions,
            _predictions_shown("csv"),
            weight=0.1,
        ),
        Surface(
            "result table: parquet, tables",
            "parquet",
            "table.parquet",
            _predictions,
            _predictions_shown("parquet"),
            weight=0.1,
        ),
        Surface("published numbers", "csv", "published.csv", _published, _quoted),
        Surface("golden case", "json", "case/case.json", _golden, _golden_read, weight=0.2),
    ]


@cache
def surfaces() -> dict[str, Surface]:
    """All surfaces by name."""
    os.environ.setdefault("IMER_NO_MLFLOW", "1")
    return {surface.name: surface for surface in _all()}
