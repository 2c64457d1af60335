"""Run folders as the results store writes them, made by hand."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

CONDITIONS = ("random-0.3", "fixed-text+audio")


def make_protocol_folder(results: Path, name: str = "mosi_test") -> Path:
    """``results/<name>`` with a resolved protocol and leaderboards, without runs."""
    folder = results / name
    (folder / "runs").mkdir(parents=True)
    (folder / "protocol.json").write_text(json.dumps({"name": name}))
    (folder / "leaderboard.md").write_text(
        "| method | random-0.3 |\n|---|---|\n| early_fusion | 0.66 ± 0.01 |\n"
    )
    (folder / "leaderboard.csv").write_text("method,random-0.3\nearly_fusion,0.66\n")
    (folder / "leaderboard.json").write_text('{"rows": []}')
    return folder


def make_run(
    protocol_folder: Path,
    method: str = "early_fusion",
    condition: str = "random-0.3",
    seed: int = 0,
    status: str = "finished",
    epochs: int = 3,
    **changes: Any,
) -> Path:
    """One run folder with ``epochs`` lines of history; ``changes`` replace keys of ``run.json``."""
    settings = {"epochs": epochs, "lr": 0.001, "hidden": [64, 32], "norm": True, "patience": None}
    identity = {
        "protocol": protocol_folder.name,
        "method": method,
        "label": method,
        "profile": "default",
        "hyper_parameters": settings,
        "data_set": "cmu_mosi",
        "fold": None,
        "regime": "matched",
        "train_condition": condition,
        "seed": seed,
        "method_numerics": 1,
        "engine_numerics": 1,
    }
    address = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{method}-{condition}-seed{seed}-{address[:6]}"
    folder = protocol_folder / "runs" / name
    folder.mkdir(exist_ok=True)
    strength = {"constant": 0.42, "late_fusion": 0.63}.get(method, 0.68) + 0.01 * seed
    history = [
        {
            "stage": "train",
            "epoch": epoch,
            "step": epoch,
            "train/total": math.exp(-epoch / 5) + 0.1 * seed,
            "validation/wf1": strength * (1 - math.exp(-(epoch + 1) / 3)),
            "validation/mae": None,
            "seconds": 2.0,
        }
        for epoch in range(epochs)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    (folder / "predictions.parquet").write_bytes(b"not for MLflow")
    (folder / "model.safetensors").write_bytes(b"not for MLflow")
    finished = status == "finished"
    error = {"type": "ValueError", "message": "NaN in the loss", "traceback": "..."}
    record = {
        "schema": 1,
        "address": address,
        "comparison_hash": "c0ffee00c0ffee00",
        "name": name,
        "status": status,
        "error": None if finished else error,
        "identity": identity,
        "marks": {
            "synthetic": False,
            "privileged": [],
            "selection": "validation",
            "context": "dialogue",
            "notes": ["frames averaged"],
        },
        "metrics": {
            "validation": {"wf1": strength, "mae": 1.1},
            "test": {condition: {"wf1": strength - 0.02, "acc7": strength - 0.3, "mae": None}},
        }
        if finished
        else {},
        "masks": {
            "test": {
                condition: [
                    {
                        "seed": draw,
                        "hash": f"{draw:016x}",
                        "realised_rate": 0.3,
                        "per_modality": {"text": 0.29, "audio": 0.31, "vision": 0.3},
                        "patterns": {"t": 0.1, "tav": 0.4},
                    }
                    for draw in (1, 2, 3)
                ]
            }
        },
        "data": {
            "name": "cmu_mosi",
            "fingerprint": "f" * 64,
            "features": {"text": "deberta", "audio": "wav2vec", "vision": "manet"},
            "origin": "https://example.org/release",
            "licence": "research only",
            "utterances": {"train": 1284, "valid": 229, "test": 686},
        },
        "environment": {
            "python": "3.11",
            "torch": "2.13",
            "device": "cpu",
            "threads": 1,
            "git_commit": "0123456789abcdef",
            "git_dirty": False,
        },
        "timings": {
            "started": f"2026-01-02T03:0{seed}:00+00:00",
            "finished": f"2026-01-02T03:0{seed}:30+00:00",
            "wall_s": 30.0,
            "train_s": 24.5,
            "evaluate_s": 4.0,
        },
        "peak_memory_mib": 812.5,
        "epochs": epochs,
        "best_epoch": epochs - 1,
        "protocol": {"name": protocol_folder.name, "metrics": {"primary": "wf1"}},
    }
    (folder / "run.json").write_text(json.dumps({**record, **changes}, indent=1))
    return folder
