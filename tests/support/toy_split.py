"""A corpus of nine utterances and its tensors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from imer_bench.harness.corpus.records import Corpus, FeatureSet, TokenSet
from imer_bench.harness.engine.tensors import SplitTensors

CPU = torch.device("cpu")


def make_corpus(sequences: bool = False, observed: np.ndarray | None = None) -> Corpus:
    """Nine utterances in three dialogues of 2, 4 and 3."""
    generator = np.random.default_rng(0)
    dialogues = ["a"] * 2 + ["b"] * 4 + ["c"] * 3
    count = len(dialogues)
    table = pd.DataFrame(
        {
            "id": [f"u{row}" for row in range(count)],
            "dialogue": dialogues,
            "index": [0, 1, 0, 1, 2, 3, 0, 1, 2],
            "speaker": list("xyzzyzppq"),
        }
    )
    observed = np.ones((count, 2), bool) if observed is None else observed
    features = {}
    for column, (name, dim, length) in enumerate((("text", 3, 4), ("audio", 2, 5))):
        shape = (count, length, dim) if sequences else (count, dim)
        values = generator.normal(size=shape).astype(np.float32) + 1
        lengths = generator.integers(1, length + 1, count) if sequences else None
        features[name] = FeatureSet(name, "f", values, lengths, observed[:, column])
    ids = np.arange(count * 4).reshape(count, 4).astype(np.int32) + 10
    special = np.zeros((count, 4), bool)
    special[:, 0] = True
    mask = np.ones((count, 4), bool)
    mask[:, 3] = False
    tokens = TokenSet(ids, mask, 1, special, 100)
    return Corpus("c", table, {}, features, tokens)


def split_of(corpus: Corpus, level, **options) -> SplitTensors:
    rows = np.arange(len(corpus))
    return SplitTensors(corpus, rows, np.arange(len(corpus), dtype=float), level, CPU, **options)
