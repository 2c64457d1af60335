"""Metrics against the references' own numbers, scikit-learn, closed forms and hand-made cases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from imer_bench.harness import metrics as m
from imer_bench.harness.errors import UnknownName
from imer_bench.harness.spec import Task

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "metrics"
SIMS = (-1.0, 1.0)
WIDE = (-3.0, 3.0)
THREE = ("negative", "neutral", "positive")
ZERO: Any = 0  # the library's stubs want a string

# Names in the golden files against ours.
MMSA = {
    "Has0_acc_2": "acc2_has0",
    "Has0_F1_score": "wf1_has0",
    "Non0_acc_2": "acc2",
    "Non0_F1_score": "wf1",
    "Mult_acc_5": "acc5",
    "Mult_acc_7": "acc7",
    "MAE": "mae",
    "Corr": "corr",
}
DMD = {"Acc_2": "acc2", "F1_score": "wf1", "Acc_7": "acc7", "MAE": "mae"}
GCNET = {
    "acc2_non0": "acc2",
    "f1_non0_weighted": "wf1",
    "mae_non0_only": "mae_non0",
    "corr_non0_only": "corr_non0",
}
COUNTS = {"Mult_acc_7": "acc7", "Mult_acc_5": "acc5", "Mult_acc_3_unreported": "acc3"}
SIMS_KEYS = {
    "Mult_acc_2": "sims_acc2",
    "Mult_acc_3": "sims_acc3",
    "Mult_acc_5": "sims_acc5",
    "F1_score": "sims_wf1",
    "MAE": "sims_mae",
    "Corr": "sims_corr",
}
CLASSES = {"WA": "acc", "balanced_accuracy_score": "ua", "WAF": "wf1", "macro_F1": "macro_f1"}


def cases(name: str) -> list[dict]:
    return json.loads((GOLDEN / f"{name}.json").read_text())["cases"]


def floats(values: list) -> np.ndarray:
    return np.array([float(value) for value in values], dtype=np.float32)


def one_hot(predicted, classes: int) -> np.ndarray:
    return np.eye(classes)[np.asarray(predicted)]


def number(name: str, outcome: m.Outcome) -> float:
    """A metric that is applicable here."""
    value = m.metric(name).compute(outcome)
    assert value is not None, name
    return value


def best_constant(name: str, y: np.ndarray, task: Task, score_range: tuple[float, float] | None) -> float:
    value = m.best_constant(name, y, task, THREE, score_range)
    assert value is not None, name
    return value


def check(outcome: m.Outcome, expected: dict, names: dict[str, str], atol: float) -> None:
    for key, name in names.items():
        value = m.metric(name).compute(outcome)
        assert value == pytest.approx(float(expected[key]), abs=atol, nan_ok=True), (key, name)


@pytest.mark.parametrize(
    ("file", "case"),
    [pytest.param(f, c, id=f"{f}-{c['name']}") for f in ("mosi", "mosei") for c in cases(f"{f}_regression")],
)
def test_regression_metrics_equal_the_references(file, case):
    labels, predictions = floats(case["labels"]), floats(case["predictions"])
    if np.isnan(predictions).any():
        # The references give plausible accuracies here; the harness fails the run.
        with pytest.raises(m.NonFinitePrediction, match="1 of 25"):
            m.Outcome(labels, predictions)
        return
    outcome, expected = m.Outcome(labels, predictions, score_range=WIDE), case["expected"]
    check(outcome, expected["unrounded_counts"], COUNTS, 1e-6)
    if "error" in expected["mmsa"]:
        assert case["name"] == "all_labels_zero"
        for name in ("acc2", "wf1", "mae_non0", "corr_non0"):
            assert math.isnan(number(name, outcome)), name
        assert "every label is zero" in " ".join(m.notes(outcome, ["acc2"]))
        return
    check(outcome, expected["mmsa"], MMSA, 1.01e-4)
    check(outcome, expected["dmd_imder"], DMD, 1.01e-4)
    check(outcome, expected["gcnet_momke_comp"], GCNET, 1e-6)


@pytest.mark.parametrize("case", cases("sims_regression"), ids=lambda case: case["name"])
def test_sims_metrics_equal_the_reference(case):
    labels, predictions = floats(case["labels"]), floats(case["predictions"])
    if np.isnan(predictions).any():
        with pytest.raises(m.NonFinitePrediction):
            m.Outcome(labels, predictions, score_range=SIMS)
        return
    outcome = m.Outcome(labels, predictions, score_range=SIMS)
    check(outcome, case["expected"]["mmsa"], SIMS_KEYS, 1.01e-4)


def test_sims_edges_written_as_float64_belong_to_the_lower_bin():
    # 0.1 and 0.7 as float64, as a CSV has them, lie above their float32 neighbours.
    edges = np.array([-0.7, -0.1, 0.0, 0.1, 0.7])
    lower = np.array([-0.9, -0.5, -0.05, 0.05, 0.5])
    outcome = m.Outcome(lower, edges, score_range=SIMS)
    assert m.metric("sims_acc5").compute(outcome) == 1.0


@pytest.mark.parametrize("case", cases("classification"), ids=lambda case: case["name"])
def test_classification_metrics_equal_the_references(case):
    count, labels = case["n_classes"], np.array(case["labels"])
    names = tuple(f"class {index}" for index in range(count))
    outcome = m.Outcome(labels, None, one_hot(case["predictions"], count), "multiclass", names)
    weights = case.get("sample_weight")
    expected = case["expected"]
    for key, name in CLASSES.items():
        assert m.metric(name).compute(outcome, weights) == pytest.approx(expected[key], abs=1e-9), name
    confusion = m.confusion_matrix(labels, case["predictions"], count, weights)
    recall = np.nan_to_num(m.per_class_recall(confusion))  # the library gives 0 to an absent class
    np.testing.assert_allclose(recall, expected["per_class_recall"], atol=1e-9)
    np.testing.assert_allclose(m.per_class_f1(confusion), expected["per_class_f1"], atol=1e-9)


def test_classes_without_a_true_sample_are_reported():
    outcome = m.Outcome(np.array([0, 2]), None, one_hot([0, 1], 3), "multiclass", ("joy", "fear", "anger"))
    assert m.n_classes_present(outcome) == 2
    assert "2 of 3" in m.notes(outcome, ["ua"])[0]
    assert "fear" in m.notes(outcome, ["ua"])[0]


@pytest.mark.parametrize("case", cases("mmsa_classification"), ids=lambda case: case["name"])
def test_three_class_accuracy_and_f1_equal_the_reference(case):
    logits, labels = np.array(case["logits"]), np.array(case["labels"])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = case["expected"]["mmsa"]
    outcome = m.Outcome(labels, None, probabilities, "multiclass", THREE)
    check(outcome, expected, {"Acc_3": "acc", "F1_score_3": "wf1"}, 1.01e-4)
    as_sentiment = m.Outcome(labels - 1.0, None, probabilities, score_range=WIDE)
    check(as_sentiment, expected, {"Acc_3": "acc3"}, 1.01e-4)


# Hand-made: the reference's own two-class forms of three-class predictions are defective.
HAND = {
    # (P(neg), P(neu), P(pos)): label, Non0 right?, Has0 right?, SIMS right? (None: not counted)
    (0.1, 0.2, 0.7): (2.0, True, True, True),
    (0.7, 0.2, 0.1): (2.0, False, False, False),
    (0.3, 0.4, 0.3): (1.0, False, True, False),  # tie of negative and positive: negative
    (0.2, 0.5, 0.3): (1.0, True, True, False),  # P(pos) < P(neg) + P(neu)
    (0.5, 0.2, 0.3): (-1.0, True, True, True),  # Has0: .5 is not more than .5: negative
    (0.4, 0.3, 0.3): (-1.0, True, False, True),  # Has0: .6 > .4
    (0.4, 0.5, 0.1): (0.0, None, True, True),
    (0.6, 0.3, 0.1): (0.0, None, False, True),
    (0.1, 0.3, 0.6): (0.0, None, True, False),
}


def test_three_class_predictions_keep_the_meaning_of_the_binary_metrics():
    probabilities = np.array(list(HAND))
    labels, non0, has0, sims = (np.array(column, dtype=object) for column in zip(*HAND.values(), strict=True))
    outcome = m.Outcome(labels.astype(float), None, probabilities, score_range=WIDE)
    assert m.metric("acc2").compute(outcome) == pytest.approx(np.mean([x for x in non0 if x is not None]))
    assert m.metric("acc2_has0").compute(outcome) == pytest.approx(np.mean(has0.astype(float)))
    small = m.Outcome(labels.astype(float) / 2, None, probabilities, score_range=SIMS)
    assert m.metric("sims_acc2").compute(small) == pytest.approx(np.mean(sims.astype(float)))


def test_perfect_three_class_predictions_are_perfect():
    # The published function gives positive samples a wrong class number: 0.5 here.
    labels = np.array([-2.0, 0.0, 1.5, -1.0, 3.0])
    outcome = m.Outcome(labels, None, one_hot(np.sign(labels).astype(int) + 1, 3), score_range=WIDE)
    for name in ("acc2", "wf1", "acc2_has0", "wf1_has0", "acc3"):
        assert m.metric(name).compute(outcome) == 1.0, name


def test_what_a_prediction_lacks_is_not_applicable_and_no_number():
    labels = np.array([-2.0, 0.0, 1.5])
    classes = m.Outcome(labels, None, one_hot([0, 1, 2], 3), score_range=WIDE)
    assert m.evaluate(classes, ["acc5", "acc7", "mae", "corr", "mae_non0"]) == dict.fromkeys(
        ["acc5", "acc7", "mae", "corr", "mae_non0"]
    )
    score_only = m.Outcome(np.array([0, 1]), np.array([0.2, 0.4]), None, "binary", ("no", "yes"))
    assert m.metric("wf1").compute(score_only) is None
    assert m.metric("acc").compute(classes) is None  # a metric of another task
    assert m.metric("sims_acc2").compute(classes) is None  # a metric of another scale
    assert m.metric("acc7").compute(m.Outcome(labels / 3, labels / 3, score_range=SIMS)) is None


def test_scores_count_where_a_method_gives_both():
    outcome = m.Outcome(np.array([1.0, -1.0]), np.array([1.0, -1.0]), one_hot([0, 2], 3), score_range=WIDE)
    assert m.metric("acc2").compute(outcome) == m.metric("acc3").compute(outcome) == 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_weighted_f1_of_a_constant_prediction_has_its_closed_form(labels):
    p = float(np.mean(labels))
    score = np.where(labels, 1.0, -1.0)
    outcome = m.Outcome(score, np.ones(len(labels)), score_range=WIDE)
    assert m.metric("wf1").compute(outcome) == pytest.approx(2 * p**2 / (1 + p))


# Labels and predictions on a coarse grid, so that ties, zeros and constants are frequent.
grid = st.integers(-35, 35).map(lambda value: value / 10)
pairs = st.lists(st.tuples(grid, grid), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(pairs)
def test_regression_metrics_equal_scikit_learn_and_scipy(values):
    y, p = np.array(values).T
    outcome = m.Outcome(y, p, score_range=WIDE)
    assert m.metric("mae").compute(outcome) == pytest.approx(sk.mean_absolute_error(y, p))
    assert m.metric("acc2_has0").compute(outcome) == pytest.approx(sk.accuracy_score(y >= 0, p >= 0))
    has0 = sk.f1_score(y >= 0, p >= 0, average="weighted", zero_division=ZERO)
    assert m.metric("wf1_has0").compute(outcome) == pytest.approx(has0)
    corr = number("corr", outcome)
    if np.ptp(y) == 0 or np.ptp(p) == 0:
        assert math.isnan(corr)
        assert m.notes(outcome, ["corr"]) == ("corr: undefined, labels or predictions are constant",)
    else:
        assert corr == pytest.approx(np.corrcoef(y, p)[0, 1], abs=1e-9)
    keep = y != 0
    if keep.any():
        non0 = sk.f1_score(y[keep] > 0, p[keep] > 0, average="weighted", zero_division=ZERO)
        assert m.metric("wf1").compute(outcome) == pytest.approx(non0)
        assert m.metric("mae_non0").compute(outcome) == pytest.approx(
            sk.mean_absolute_error(y[keep], p[keep])
        )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_class_metrics_equal_scikit_learn(values):
    y, p = np.array(values).T
    outcome = m.Outcome(y, None, one_hot(p, 5), "multiclass", tuple("abcde"))
    truth = np.unique(y)
    expected = {
        "acc": sk.accuracy_score(y, p),
        "wf1": sk.f1_score(y, p, average="weighted", zero_division=ZERO),
        "macro_f1": sk.f1_score(y, p, average="macro", zero_division=ZERO),
        "ua": sk.recall_score(y, p, labels=truth, average="macro", zero_division=ZERO),
    }
    assert m.evaluate(outcome, expected) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(grid, grid, st.integers(0, 3)), min_size=2, max_size=25), st.sampled_from([WIDE, SIMS])
)
def test_a_weight_is_a_repetition(values, score_range):
    y, p, counts = np.array(values).T
    counts = counts.astype(int)
    if counts.sum() == 0:
        counts[0] = 1
    if score_range == SIMS:
        y, p = y / 3, p / 3
    outcome = m.Outcome(y, p, score_range=score_range)
    repeated = m.Outcome(np.repeat(y, counts), np.repeat(p, counts), score_range=score_range)
    sets = np.stack([counts, np.ones(len(y))])
    for name in (*m.metrics_for("regression", score_range), "mae_non0", "corr_non0", "acc3"):
        item = m.metric(name)
        expected = item.compute(repeated)
        if expected is None:
            assert item.compute(outcome, counts) is None
            continue
        assert item.compute(outcome, counts) == pytest.approx(expected, nan_ok=True, abs=1e-9), name
        both = item.compute(outcome, sets)
        assert both == pytest.approx(np.array([expected, item.compute(outcome)]), nan_ok=True, abs=1e-9), name


def test_correlation_survives_large_offsets():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    p = 0.5 * y + rng.normal(size=200)
    far = m.Outcome(y, p + 1e6, score_range=WIDE)
    assert m.metric("corr").compute(far) == pytest.approx(np.corrcoef(y, p)[0, 1], abs=1e-8)
    almost = np.full(200, 0.1, dtype=np.float32)
    assert math.isnan(number("corr", m.Outcome(y, almost)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_fails_the_outcome(bad):
    scores = np.array([0.1, bad, 0.2])
    with pytest.raises(m.NonFinitePrediction, match="1 of 3"):
        m.Outcome(np.zeros(3), scores)
    probabilities = one_hot([0, 1, 2], 3)
    probabilities[1, 0] = bad
    with pytest.raises(m.NonFinitePrediction, match="probabilities"):
        m.Outcome(np.arange(3), None, probabilities, "multiclass", THREE)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="logits"):
        m.Outcome(np.zeros(1), None, np.array([[2.0, -1.0, 0.3]]))
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(3,\)"):
        m.Outcome(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        m.Outcome(np.array([0, 2]), None, one_hot([0, 1], 2), "binary", ("no", "yes"))
    with pytest.raises(ValueError, match="label"):
        m.Outcome(np.array([math.nan]), np.zeros(1))
    with pytest.raises(ValueError, match="scores, class probabilities"):
        m.Outcome(np.zeros(1))
    with pytest.raises(UnknownName, match="did you mean 'macro_f1'"):
        m.metric("macrof1")


def test_ties_of_classes_go_to_the_lowest():
    outcome = m.Outcome(np.array([1, 0]), None, np.full((2, 4), 0.25), "multiclass", tuple("abcd"))
    assert m.metric("acc").compute(outcome) == 0.5


@pytest.mark.parametrize("name", ["acc2", "wf1", "acc2_has0", "acc3", "acc5", "acc7", "mae", "mae_non0"])
def test_best_constant_is_best_of_a_fine_search(name):
    rng = np.random.default_rng(1)
    y = np.round(rng.normal(0.4, 1.3, 80).clip(-3, 3) * 5) / 5
    values = [number(name, m.Outcome(y, np.full(80, c), score_range=WIDE)) for c in np.linspace(-3, 3, 601)]
    best = max(values) if m.metric(name).higher_is_better else min(values)
    assert best_constant(name, y, "regression", WIDE) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", ["wf1", "acc2", "sims_acc2", "sims_acc3", "sims_acc5", "sims_mae"])
def test_best_constant_of_sims_is_best_of_a_fine_search(name):
    y = np.round(np.random.default_rng(2).normal(0.0, 0.5, 80).clip(-1, 1) * 5) / 5
    values = [number(name, m.Outcome(y, np.full(80, c), score_range=SIMS)) for c in np.linspace(-1, 1, 401)]
    best = max(values) if m.metric(name).higher_is_better else min(values)
    assert best_constant(name, y, "regression", SIMS) == pytest.approx(best, abs=1e-9)


def test_best_constant_of_classes_and_correlation():
    y = np.array([0] * 5 + [1] * 3 + [2] * 2)
    assert best_constant("acc", y, "multiclass", None) == 0.5
    assert best_constant("ua", y, "multiclass", None) == pytest.approx(1 / 3)
    assert best_constant("wf1", y, "multiclass", None) == pytest.approx(2 * 0.25 / 1.5)
    assert m.best_constant("corr", y.astype(float), "regression", THREE, WIDE) is None
    assert math.isnan(best_constant("acc2", np.zeros(3), "regression", WIDE))


def test_no_information_on_mosi_is_57_8_per_cent():
    """The constant that training suggests (positive) has 42.2 %, the best one 57.8 %."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "cmu_mosi"
    if not (folder / "utterances.json").is_file():
        pytest.skip("CMU-MOSI is not at ../shared/data/cmu_mosi")
    rows = json.loads((folder / "utterances.json").read_text())["utterances"]
    y = np.array([row["sentiment"] for row in rows if row["split_standard"] == "test"])
    assert round(100 * best_constant("acc2", y, "regression", WIDE), 1) == 57.8
    trained = m.Outcome(y, np.ones(len(y)), score_range=WIDE)
    assert round(100 * number("acc2", trained), 1) == 42.2


@pytest.mark.parametrize("score_range", [WIDE, SIMS, None])
def test_default_metrics_apply_to_regression(score_range):
    outcome = m.Outcome(np.array([-0.5, 0.5]), np.array([-0.4, 0.3]), score_range=score_range)
    names = m.metrics_for("regression", score_range)
    assert names[0] == m.primary_metric("regression") == "wf1"
    assert None not in m.evaluate(outcome, names).values()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_default_metrics_apply_to_classes(task):
    outcome = m.Outcome(np.array([0, 1]), None, one_hot([0, 1], 2), task, ("a", "b"))
    names = m.metrics_for(task)
    assert names[0] == m.primary_metric(task) == "wf1"
    assert None not in m.evaluate(outcome, names).values()
