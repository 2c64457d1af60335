"""Per-class results agree with scikit-learn on the same predictions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from imer_bench.harness.leaderboard import TableInfo, validate
from imer_bench.harness.leaderboard.per_class import per_class, render_per_class

CLASSES = ("happy", "sad", "angry")


def table(task: str, seeds: int = 2) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 40) if task == "multiclass" else generator.integers(-3, 4, 40)
    frames = []
    for label in ("a", "b"):
        for seed in range(seeds):
            frame = pd.DataFrame(
                {
                    "data_set": "d",
                    "label": label,
                    "seed": seed,
                    "test_condition": "complete",
                    "dialogue": [f"v{row % 5}" for row in range(40)],
                    "utterance": [f"u{row}" for row in range(40)],
                    "y_true": truth,
                }
            )
            if task == "multiclass":
                shares = generator.dirichlet(np.ones(3), 40)
                frame[[f"class_{index}" for index in range(3)]] = shares
            else:
                frame["score"] = truth + generator.normal(0, 3, 40)
            frames.append(frame)
    return validate(pd.concat(frames, ignore_index=True))


def test_classes_are_counted_as_scikit_learn_counts_them():
    frame = table("multiclass")
    results = per_class(frame, TableInfo("multiclass", CLASSES), "complete")
    assert [item.label for item in results] == ["a", "b"]
    for item in results:
        own = frame[frame["label"] == item.label]
        predicted = own[["class_0", "class_1", "class_2"]].to_numpy().argmax(axis=1)
        np.testing.assert_allclose(item.confusion, confusion_matrix(own["y_true"], predicted) / 2)
        np.testing.assert_allclose(item.recall, recall_score(own["y_true"], predicted, average=None))
        np.testing.assert_allclose(item.f1, f1_score(own["y_true"], predicted, average=None))


def test_a_score_counts_as_negative_and_positive_without_zeros():
    frame = table("regression")
    (first, _) = per_class(frame, TableInfo("regression", score_range=(-3, 3)), "complete")
    own = frame[(frame["label"] == "a") & (frame["y_true"] != 0)]
    expected = confusion_matrix(own["y_true"] > 0, own["score"] > 0) / 2
    np.testing.assert_allclose(first.confusion, expected)
    assert first.classes == ("negative", "positive")


def test_the_text_names_rows_and_classes():
    text = render_per_class(per_class(table("multiclass"), TableInfo("multiclass", CLASSES), "complete"))
    for word in ("recall sad", "F1 angry", "true happy", "predicted angry"):
        assert word in text
    assert "no finished run" in render_per_class(())


@pytest.mark.parametrize("condition", ["absent"])
def test_a_condition_without_runs_is_empty(condition):
    assert per_class(table("multiclass"), TableInfo("multiclass", CLASSES), condition) == ()
