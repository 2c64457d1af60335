"""Means over batches are those over utterances."""

import numpy as np
import pytest
import torch

from imer_bench.harness.engine.means import Means


def test_batches_count_by_their_size_and_keep_no_graph():
    values = np.random.default_rng(0).normal(size=10)
    means = Means("loss/")
    for part in np.split(values, [4, 8]):
        loss = torch.tensor(part.mean(), requires_grad=True) * 1
        means.add({"total": loss, "other": torch.ones(1)}, len(part))
    assert means.read() == {"loss/total": pytest.approx(values.mean()), "loss/other": 1.0}
