from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imer_bench.harness.corpus.errors import CorpusError
from imer_bench.harness.corpus.info import SplitRule
from imer_bench.harness.corpus.splits import Split, drawn_dialogues, fold_numbers, make_split


def make_table(folds: int = 5, dialogues: int = 6, length: int = 4) -> pd.DataFrame:
    """``folds`` times ``dialogues`` dialogues, rows of dialogues mixed."""
    table = pd.DataFrame(
        [
            {"dialogue": f"f{fold}d{number}", "index": index, "fold": fold}
            for index in range(length)
            for fold in range(folds)
            for number in range(dialogues)
        ]
    )
    table["split"] = ["train" if fold < 3 else "valid" if fold == 3 else "test" for fold in table["fold"]]
    return table


def parts(split: Split) -> tuple[np.ndarray, ...]:
    return split.train, split.valid, split.test


def dialogues_of(table: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(table["dialogue"].iloc[rows])


RULES = (
    SplitRule("column", "split"),
    SplitRule("nested_folds", "fold"),
    SplitRule("folds_with_validation", "fold"),
    SplitRule("folds_with_validation", "fold", validation_share=0.3, seed=9),
)


@pytest.mark.parametrize("rule", RULES)
def test_no_dialogue_crosses_splits_and_every_row_is_used_once(rule: SplitRule) -> None:
    table = make_table()
    for fold in fold_numbers(rule, table):
        split = make_split(rule, table, fold)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            found = parts(split)
            assert not dialogues_of(table, found[first]) & dialogues_of(table, found[second])
        np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(len(table)))


def test_every_fold_is_tested_once() -> None:
    table = make_table()
    for rule in RULES[1:]:
        tests = [make_split(rule, table, fold).test for fold in fold_numbers(rule, table)]
        np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(len(table)))


def test_nested_folds_validate_on_the_next_fold() -> None:
    table = make_table()
    split = make_split(SplitRule("nested_folds", "fold"), table, 4)
    assert set(table["fold"].iloc[split.test]) == {4}
    assert set(table["fold"].iloc[split.valid]) == {0}
    assert set(table["fold"].iloc[split.train]) == {1, 2, 3}


def test_rows_in_no_fold_are_never_used() -> None:
    table = make_table()
    table.loc[table["fold"] == 4, "fold"] = -1
    split = make_split(SplitRule("folds_with_validation", "fold"), table, 0)
    assert not (table["fold"].iloc[np.concatenate(parts(split))] == -1).any()


def test_validation_is_a_tenth_of_the_training_dialogues() -> None:
    table = make_table(folds=5, dialogues=30)
    split = make_split(SplitRule("folds_with_validation", "fold"), table, 1)
    assert len(dialogues_of(table, split.valid)) == 12  # a tenth of 120
    again = make_split(SplitRule("folds_with_validation", "fold", seed=1), table, 1)
    assert dialogues_of(table, split.valid) != dialogues_of(table, again.valid)
    np.testing.assert_array_equal(split.test, again.test)


@given(st.sets(st.text(min_size=1), min_size=2, max_size=40), st.integers(0, 2**31), st.randoms())
def test_the_draw_depends_on_the_set_of_dialogues_only(names: set[str], seed: int, random) -> None:
    order = list(names)
    random.shuffle(order)
    drawn = drawn_dialogues(order + order[:1], 0.2, seed)
    assert drawn == drawn_dialogues(sorted(names), 0.2, seed)
    assert len(drawn) == max(1, round(0.2 * len(names)))
    assert set(drawn) <= names


def test_the_draw_is_fair() -> None:
    """Every dialogue is drawn about equally often: 400 seeds, 10 of 50, expected 80 each."""
    names = [f"d{number}" for number in range(50)]
    counts = pd.Series(
        [name for seed in range(400) for name in drawn_dialogues(names, 0.2, seed)]
    ).value_counts()
    assert len(counts) == 50
    # Five standard deviations of a binomial count are 40.
    assert counts.between(40, 120).all()


def test_a_column_without_validation_gets_some() -> None:
    table = make_table(dialogues=10)
    table["release"] = ["train" if value != "test" else "test" for value in table["split"]]
    split = make_split(SplitRule("column", "release", validation_share=0.25), table)
    assert len(dialogues_of(table, split.valid)) == 10
    assert len(dialogues_of(table, split.train)) == 30


def test_rows_keep_their_order() -> None:
    for rule in RULES:
        table = make_table()
        for part in parts(make_split(rule, table, fold_numbers(rule, table)[0])):
            assert all(a < b for a, b in pairwise(part))


def test_a_dialogue_that_crosses_is_refused() -> None:
    table = make_table()
    table.loc[0, "split"] = "test"
    table.loc[0, "fold"] = 4
    for rule in RULES:
        with pytest.raises(CorpusError, match="'f0d0' would be in two splits"):
            make_split(rule, table, 4 if rule.kind != "column" else None)


def test_wrong_columns_and_folds_are_named() -> None:
    table = make_table()
    with pytest.raises(CorpusError, match="no column 'splits'; did you mean 'split'"):
        make_split(SplitRule("column", "splits"), table)
    with pytest.raises(CorpusError, match=r"has the folds \[0, 1, 2, 3, 4\], not 7"):
        make_split(SplitRule("nested_folds", "fold"), table, 7)
    with pytest.raises(CorpusError, match=r"not \[9\]"):
        fold_numbers(SplitRule("nested_folds", "fold", folds=(1, 9)), table)
    with pytest.raises(CorpusError, match="holds no fold numbers"):
        fold_numbers(SplitRule("nested_folds", "split"), table)
    with pytest.raises(CorpusError, match="has 2 folds, nested_folds takes at least 3"):
        fold_numbers(SplitRule("nested_folds", "fold"), make_table(folds=2))
    with pytest.raises(CorpusError, match="the test split is empty"):
        make_split(SplitRule("column", "split"), make_table(folds=4))
    assert fold_numbers(SplitRule("nested_folds", "fold", folds=(3, 1)), table) == (3, 1)
