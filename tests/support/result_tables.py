"""Hand-made result tables: predictions of pretended methods, with everything known about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def sentiment_rows(
    label: str,
    seed: int,
    condition: str = "complete",
    *,
    noise: float = 0.5,
    mask_seed: int | None = None,
    dialogues: int = 8,
    per_dialogue: int = 6,
    fold: int | None = None,
    classes: bool = False,
    **columns: object,
) -> pd.DataFrame:
    """One run under one draw of one condition, on labels that are the same in every call.

    Labels are on the grid of CMU-MOSI with zeros; predictions are labels with noise of the given
    size, different for each label, seed, condition and mask seed.
    """
    count = dialogues * per_dialogue
    start = 0 if fold is None else fold * dialogues
    y_true = np.round(np.random.default_rng([1, start]).normal(0.3, 1.4, count).clip(-3, 3) * 5) / 5
    key = [seed, mask_seed or 0, start, *label.encode(), *condition.encode()]
    score = y_true + noise * np.random.default_rng(key).normal(size=count)
    rows: dict[str, object] = {
        "comparison_hash": "c0ffee0123456789",
        "data_set": "mosi",
        "fold": fold,
        "regime": "single",
        "method": label,
        "label": label,
        "profile": "default",
        "seed": seed,
        "train_condition": "random-0.5",
        "test_condition": condition,
        "family": condition.partition("-")[0],
        "mask_seed": mask_seed,
        "dialogue": [f"video{start + index // per_dialogue:03d}" for index in range(count)],
        "utterance": [f"u{start * per_dialogue + index:04d}" for index in range(count)],
        "y_true": y_true.astype(np.float32),
        "score": score.astype(np.float32),
        "available": "tav",
        "synthetic": False,
        "selection": "best",
        "privileged": "",
        "status": "finished",
    }
    if classes:
        rows["score"] = np.nan
        logits = np.stack([-score, 0.5 - np.abs(score), score], axis=1)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows |= {f"class_{index}": probabilities[:, index].astype(np.float32) for index in range(3)}
    return pd.DataFrame({**rows, **columns}, index=range(count))


def sentiment_table(
    labels: Sequence[str] = ("strong", "weak"),
    seeds: Sequence[int] = (0, 1, 2),
    conditions: Sequence[str] = ("complete", "random-0.1", "random-0.5", "fixed-t", "fixed-a"),
    mask_seeds: Sequence[int] = (201, 202),
    **columns: object,
) -> pd.DataFrame:
    """All runs of some labels; a label ``weak`` has three times the noise of the others."""
    frames = [
        sentiment_rows(
            label,
            seed,
            condition,
            noise=1.8 if label == "weak" else 0.6,
            mask_seed=mask_seed,
            **columns,  # type: ignore[arg-type]
        )
        for label in labels
        for seed in seeds
        for condition in conditions
        for mask_seed in (mask_seeds if condition.startswith("random") else (None,))
    ]
    return pd.concat(frames, ignore_index=True)
