"""Schedules: closed forms, exact counts, invariances, names, errors; golden data of GCNet."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats

from imer_bench.harness.schedules import (
    MASK_VERSION,
    PRESETS,
    Complete,
    Fixed,
    Frames,
    IdHashes,
    Imbalanced,
    Ramp,
    Random,
    Schedule,
    ScheduleError,
    at_epoch,
    canonical,
    describe,
    describe_frames,
    draw_availability,
    draw_frames,
    expected_pattern_shares,
    gcnet_random_mask,
    nominal_rate,
    parse_schedule,
    presets,
)
from imer_bench.harness.schedules.draws import stream_of
from imer_bench.harness.schedules.records import Pattern

TAV: tuple[str, ...] = ("text", "audio", "vision")
FOUR: tuple[str, ...] = ("text", "audio", "vision", "eeg")
GOLDEN = json.loads(
    (Path(__file__).parents[1] / "parity" / "golden" / "masks" / "gcnet_random_mask.json").read_text()
)
DOCS = Path(__file__).parents[2] / "docs" / "schedules.md"


def names(count: int) -> list[str]:
    return [f"utterance {index}" for index in range(count)]


def mask_of(
    schedule: Schedule,
    count: int = 686,
    modalities: tuple[str, ...] = TAV,
    seed: int = 1,
    epoch: int = 0,
    data_set: str = "mosi",
) -> np.ndarray:
    return draw_availability(
        schedule, data_set=data_set, ids=names(count), modalities=modalities, seed=seed, epoch=epoch
    )


def shares_by_size(schedule: Schedule, modalities: tuple[str, ...] = TAV) -> list[float]:
    """Shares of 1, 2, ..., M available modalities; with letters a label is as long as its set."""
    sizes = [0.0] * len(modalities)
    for label, share in expected_pattern_shares(schedule, modalities).items():
        size = len(label) if "+" not in label and label != "eeg" else label.count("+") + 1
        sizes[size - 1] += share
    return sizes


# Closed forms -------------------------------------------------------------------------------------

# rate: (keep-one, IMDer's table, independent with all-missing redrawn, its realised rate), shares of
# 3, 2, 1 available modalities as tabulated for these rules, rounded as there.
SAME_RATE = {
    0.1: ((0.7225, 0.2550, 0.0225), (0.8, 0.1, 0.1), (0.730, 0.243, 0.027), 0.099),
    0.2: ((0.4900, 0.4200, 0.0900), (0.6, 0.2, 0.2), (0.516, 0.387, 0.097), 0.194),
    0.3: ((0.3025, 0.4950, 0.2025), (0.4, 0.3, 0.3), (0.353, 0.453, 0.194), 0.281),
    0.4: ((0.1600, 0.4800, 0.3600), (0.3, 0.2, 0.5), (0.231, 0.462, 0.308), 0.359),
    0.5: ((0.0625, 0.3750, 0.5625), (0.2, 0.1, 0.7), (0.143, 0.429, 0.429), 0.429),
    0.6: ((0.0100, 0.1800, 0.8100), (0.1, 0.0, 0.9), (0.082, 0.367, 0.551), 0.490),
    0.7: ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.041, 0.288, 0.671), 0.543),
}


@pytest.mark.parametrize("rate", SAME_RATE)
def test_the_same_rate_is_not_the_same_task(rate: float) -> None:
    keep_one, imder, independent, realised = SAME_RATE[rate]
    literature = rate == 0.7
    assert shares_by_size(Random(rate=rate, literature=literature))[::-1] == pytest.approx(keep_one)
    assert shares_by_size(Random(rate=rate, pattern="imder"))[::-1] == pytest.approx(imder)
    bernoulli = Random(rate=rate, pattern="independent")
    assert shares_by_size(bernoulli)[::-1] == pytest.approx(independent, abs=6e-4)
    assert nominal_rate(bernoulli, TAV) == pytest.approx(realised, abs=6e-4)
    assert nominal_rate(bernoulli, 3) == pytest.approx((rate - rate**3) / (1 - rate**3))
    for schedule in (Random(rate=rate, literature=literature), Random(rate=rate, pattern="imder")):
        assert nominal_rate(schedule, TAV) == pytest.approx(2 / 3 if literature else rate)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_instance_probability_is_twice_the_missing_rate(probability: float) -> None:
    schedule = Random(rate=probability, pattern="instance")
    assert nominal_rate(schedule, TAV) == pytest.approx(probability / 2)
    assert nominal_rate(schedule, FOUR) == pytest.approx(probability / 2)
    expected = [probability / 2, probability / 2, 1 - probability]
    assert shares_by_size(schedule) == pytest.approx(expected)


@pytest.mark.parametrize("modalities", [("text", "eeg"), FOUR])
def test_keep_one_shares_agree_with_a_simulation_of_the_rule(modalities: tuple[str, ...]) -> None:
    count, rate, rows = len(modalities), 0.4, 200_000
    generator = np.random.default_rng(0)
    kept = generator.integers(0, count, rows)
    present = generator.random((rows, count)) < 1 - rate * count / (count - 1)
    present[np.arange(rows), kept] = True
    assert 1 - present.mean() == pytest.approx(rate, abs=3e-3)
    simulated = np.bincount(present.sum(axis=1), minlength=count + 1)[1:] / rows
    shares = shares_by_size(Random(rate=rate), modalities)
    assert shares == pytest.approx(simulated, abs=5 / math.sqrt(rows))


@given(st.lists(st.floats(0.02, 0.98), min_size=2, max_size=4))
def test_imbalanced_shares_are_those_of_independent_losses_without_empty_rows(losses: list[float]) -> None:
    # From underlying rates u: condition on "not all lost", read off the rates, and get the law back.
    modalities = FOUR[: len(losses)]
    empty = math.prod(losses)
    rates = {name: (u - empty) / (1 - empty) for name, u in zip(modalities, losses, strict=True)}
    shares = expected_pattern_shares(Imbalanced(rates=rates), modalities)
    for kept in product([False, True], repeat=len(losses)):
        if not any(kept):
            continue
        law = math.prod(1 - u if k else u for u, k in zip(losses, kept, strict=True)) / (1 - empty)
        label = "+" if "eeg" in modalities and kept[3:] == (True,) and sum(kept) > 1 else ""
        subset = [name for name, k in zip(modalities, kept, strict=True) if k]
        label = "+".join(subset) if label else "".join(name if name == "eeg" else name[0] for name in subset)
        assert shares[label] == pytest.approx(law, abs=1e-8)


def test_rates_at_the_limit_leave_one_modality_each() -> None:
    shares = expected_pattern_shares(Imbalanced(rates={"text": 0.5, "audio": 0.7, "vision": 0.8}), TAV)
    assert shares["t"] == pytest.approx(0.5)
    assert shares["a"] == pytest.approx(0.3)
    assert shares["v"] == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(1)


# Exact counts -------------------------------------------------------------------------------------


@st.composite
def random_schedules(draw: st.DrawFn) -> tuple[Random, tuple[str, ...]]:
    modalities = FOUR[: draw(st.integers(2, 4))]
    patterns: list[Pattern] = ["keep_one", "independent", "instance"]
    if len(modalities) == 3:
        patterns.append("imder")
    pattern = draw(st.sampled_from(patterns))
    highest = {"keep_one": 1 - 1 / len(modalities), "independent": 0.95, "imder": 0.7, "instance": 1.0}
    rate = draw(st.integers(0, 7)) / 10 if pattern == "imder" else draw(st.floats(0, highest[pattern]))
    return Random(rate=rate, pattern=pattern), modalities


@given(random_schedules(), st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_random_counts_are_exact(drawn: tuple[Random, tuple[str, ...]], count: int, seed: int) -> None:
    schedule, modalities = drawn
    mask = mask_of(schedule, count, modalities, seed)
    sizes = mask.sum(axis=1)
    assert sizes.min() >= 1
    shares = shares_by_size(schedule, modalities)
    for size, share in enumerate(shares, start=1):
        assert abs((sizes == size).sum() - share * count) < 1
        patterns = Counter(map(tuple, mask[sizes == size].tolist()))
        times = list(patterns.values()) + [0] * (math.comb(len(modalities), size) - len(patterns))
        assert max(times) - min(times) <= 1
    assert abs(1 - mask.mean() - nominal_rate(schedule, modalities)) < len(modalities) / (4 * count)


@given(st.lists(st.integers(0, 100), min_size=2, max_size=4), st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_imbalanced_rates_are_exact(percent: list[int], count: int, seed: int) -> None:
    excess = sum(percent) - 100 * (len(percent) - 1)
    if excess > 0:  # pull back onto the limit, where every utterance keeps exactly one
        percent = [value - math.ceil(excess / len(percent)) for value in percent]
    modalities = FOUR[: len(percent)]
    rates = {name: value / 100 for name, value in zip(modalities, percent, strict=True)}
    mask = mask_of(Imbalanced(rates=rates), count, modalities, seed)
    assert mask.any(axis=1).all()
    lost = (~mask).sum(axis=0)
    for column, name in enumerate(modalities):
        assert abs(lost[column] - rates[name] * count) < 1
        if (percent[column] * count) % 100 == 0 and all((p * count) % 100 == 0 for p in percent):
            assert lost[column] == percent[column] * count // 100
    assert abs(lost.sum() - sum(rates.values()) * count) <= 0.5 + 1e-6


def test_imbalanced_patterns_follow_the_formula_and_are_shuffled() -> None:
    rates = {"text": 0.3, "audio": 0.5, "vision": 0.7}
    mask = mask_of(Imbalanced(rates=rates), 4000)
    assert (~mask).sum(axis=0).tolist() == [1200, 2000, 2800]  # not 0.265, 0.465, 0.665
    found = describe(mask, TAV, names(4000)).shares
    expected = expected_pattern_shares(Imbalanced(rates=rates), TAV)
    assert found == pytest.approx(expected, abs=8 / 4000)
    codes = mask @ np.array([1, 2, 4])
    runs = 1 + np.count_nonzero(codes[1:] != codes[:-1])
    assert runs > 2500  # seven contiguous blocks would have 7 runs, independent rows about 3200


# GCNet's own sampler ------------------------------------------------------------------------------


def test_gcnet_sampler_reproduces_the_reference_bit_for_bit() -> None:
    assert len(GOLDEN["single_masks"]) > 100
    for golden in GOLDEN["single_masks"]:
        state = np.random.RandomState(golden["seed"])
        mask = gcnet_random_mask(
            golden["num_samples"],
            3,
            golden["rate"],
            lambda high, rows, columns, state=state: state.randint(0, high, (rows, columns)),
        )
        assert mask[:6].astype(int).tolist() == golden["first_rows"]
        digest = hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
        assert digest == golden["sha256_uint8_rowmajor"]


@pytest.mark.parametrize("count", [128, 768])
def test_gcnet_legacy_agrees_with_the_reference_in_distribution(count: int) -> None:
    ids, draws = IdHashes.of(names(count)), 120
    for golden in GOLDEN["statistics"]:
        rate = golden["rate"]
        if golden["num_samples"] != count:
            continue
        schedule = Random(rate=rate, pattern="gcnet_legacy")
        values: dict[str, list[float]] = {key: [] for key in golden["mean"] if key != "attempts"}
        for seed in range(draws):
            mask = draw_availability(schedule, data_set="x", ids=ids, modalities=TAV, seed=seed)
            sizes = mask.sum(axis=1)
            values["missing_rate"].append(1 - mask.mean())
            for column, name in enumerate(("text", "audio", "visual")):
                values[f"missing_{name}"].append(1 - mask[:, column].mean())
            for size, word in enumerate(("0_modalities", "1_modality", "2_modalities", "3_modalities")):
                values[f"share_{word}"].append((sizes == size).mean())
            if count >= 768:
                assert abs(1 - mask.mean() - min(rate, 2 / 3)) < 0.005
        for key, found in values.items():
            error = math.hypot(np.std(found, ddof=1) / math.sqrt(draws), golden["standard_error"][key])
            assert abs(np.mean(found) - golden["mean"][key]) <= 4 * error + 1e-6, (rate, key)


def test_gcnet_legacy_says_when_it_can_not_end() -> None:
    schedule = Random(rate=0.66, pattern="gcnet_legacy")
    with pytest.raises(ScheduleError, match=r"rate 0.66 for 64 rows"):
        mask_of(schedule, 64)


# Pure functions of names and numbers --------------------------------------------------------------

DRAWN: tuple[Schedule, ...] = (
    Random(rate=0.3),
    Random(rate=0.4, pattern="imder"),
    Random(rate=0.5, pattern="independent"),
    Random(rate=0.5, pattern="instance"),
    Random(rate=0.3, pattern="gcnet_legacy"),
    Imbalanced(rates={"text": 0.3, "audio": 0.5, "vision": 0.7}),
)
FRAMES = (
    Frames(rate=0.3),
    Frames(rate={"text": 0.7, "audio": 0.1, "vision": 0.1}),
    Frames(rate=0.3, pattern="block"),
    Frames(rate=0.2, pattern="mixed_burst"),
    Frames(rate="uniform", complete_share=0.5),
    Frames(rate="uniform_shared"),
)
LENGTHS: dict[str, int] = {"text": 12, "audio": 40, "vision": 25}


def frames_of(
    schedule: Schedule,
    count: int = 60,
    seed: int = 1,
    epoch: int = 0,
    data_set: str = "mosi",
    lengths: dict[str, np.ndarray] | None = None,
    widths: dict[str, int] = LENGTHS,
    protected: dict[str, np.ndarray] | None = None,
    ids: list[str] | None = None,
) -> dict[str, np.ndarray]:
    ids = ids or names(count)
    lengths = lengths or {name: np.full(len(ids), widths[name]) for name in widths}
    return draw_frames(
        schedule,
        data_set=data_set,
        ids=ids,
        modality_lengths=lengths,
        max_lengths=widths,
        protected=protected,
        seed=seed,
        epoch=epoch,
    )


@pytest.mark.parametrize("schedule", DRAWN, ids=lambda schedule: schedule.name)
def test_masks_do_not_depend_on_the_order_of_rows_or_columns(schedule: Schedule) -> None:
    ids = names(200)
    mask = mask_of(schedule, 200)
    order = np.random.default_rng(0).permutation(200)
    shuffled = [ids[row] for row in order]
    again = draw_availability(
        schedule, data_set="mosi", ids=shuffled, modalities=("vision", "text", "audio"), seed=1
    )
    np.testing.assert_array_equal(again, mask[order][:, [2, 0, 1]])
    corpus = IdHashes.of([*ids, "of another split"])
    from_hashes = draw_availability(schedule, data_set="mosi", ids=corpus[order], modalities=TAV, seed=1)
    np.testing.assert_array_equal(from_hashes, mask[order])
    original = describe(mask, TAV, ids)
    assert describe(again, ("vision", "text", "audio"), shuffled).hash == original.hash
    flipped = mask.copy()
    flipped[0, 0] = not flipped[0, 0]
    assert describe(flipped, TAV, ids).hash != original.hash
    assert describe(mask, TAV, ids[1:] + ids[:1]).hash != original.hash


@pytest.mark.parametrize("schedule", [*DRAWN, *FRAMES], ids=lambda schedule: schedule.name)
def test_seeds_epochs_data_sets_and_frozen_draws(schedule: Schedule) -> None:
    def content(schedule: Schedule, **changes: object) -> bytes:
        if isinstance(schedule, Frames):
            kept = frames_of(schedule, **changes)  # type: ignore[arg-type]
            return b"".join(kept[name].tobytes() for name in TAV)
        return mask_of(schedule, **changes).tobytes()  # type: ignore[arg-type]

    base = content(schedule)
    assert content(schedule) == base
    others = [content(schedule, seed=2), content(schedule, epoch=1), content(schedule, data_set="mosei")]
    assert len({base, *others}) == 4
    frozen = schedule.model_copy(update={"draw": "frozen"})
    assert content(frozen, epoch=7) == base
    assert frozen.name == schedule.name


def test_masks_are_the_same_in_another_process() -> None:
    code = (
        "import sys, json\n"
        "from imer_bench.harness.schedules import *\n"
        "tav = ('text', 'audio', 'vision')\n"
        "ids = [f'utterance {i}' for i in range(100)]\n"
        "out = []\n"
        "for name in sys.argv[1:]:\n"
        "    schedule = parse_schedule(name, tav)\n"
        "    mask = draw_availability(schedule, data_set='mosi', ids=ids, modalities=tav, seed=1)\n"
        "    out.append(describe(mask, tav, ids).hash)\n"
        "assert 'torch' not in sys.modules\n"
        "print(json.dumps(out))\n"
    )
    hashes = [describe(mask_of(schedule, 100), TAV, names(100)).hash for schedule in DRAWN]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", code, *(schedule.name for schedule in DRAWN)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == hashes


def test_splitmix64_gives_the_published_sequence() -> None:
    # Test vector of the reference implementation for the seed 1234567.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert stream_of(np.array([1234567], dtype=np.uint64), 5)[0].tolist() == published


def test_a_mask_can_be_derived_from_the_documentation_alone() -> None:
    """Plain Python after docs/schedules.md: results of old versions stay comparable."""

    def mix(value: int) -> int:
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) % 2**64
        return value ^ value >> 31

    key = repr((MASK_VERSION, "mosi", "random-0.5", 1, 0, "rows"))
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    ids = names(48)

    def rank(name: str) -> int:
        value = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        return mix(mix((value + first) % 2**64) ^ second)

    # Rate 0.5: q = 1/4, shares 9/16, 6/16, 1/16 of 48 rows are 27, 18 and 3: no rounding.
    blocks = [({"text"}, 9), ({"audio"}, 9), ({"vision"}, 9)]
    blocks += [({"text", "audio"}, 6), ({"text", "vision"}, 6), ({"audio", "vision"}, 6), (set(TAV), 3)]
    dealt = [kept for kept, times in blocks for _ in range(times)]
    expected = dict(zip(sorted(ids, key=rank), dealt, strict=True))
    mask = mask_of(Random(rate=0.5), 48)
    for name, row in zip(ids, mask.tolist(), strict=True):
        assert {modality for modality, kept in zip(TAV, row, strict=True) if kept} == expected[name]


def test_a_repeated_id_is_named() -> None:
    with pytest.raises(ScheduleError, match="'b' occurs more than once"):
        draw_availability(Random(rate=0.3), data_set="x", ids=["a", "b", "b"], modalities=TAV, seed=0)
    hashes = IdHashes.of(["a", "b"])[[0, 1, 1]]
    for pattern in ("keep_one", "gcnet_legacy"):
        with pytest.raises(ScheduleError, match="more than once"):
            draw_availability(
                Random(rate=0.3, pattern=pattern), data_set="x", ids=hashes, modalities=TAV, seed=0
            )


# Statistics over seeds ----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", DRAWN, ids=lambda schedule: schedule.name)
def test_masks_of_different_seeds_are_independent(schedule: Schedule) -> None:
    ids = IdHashes.of(names(2000))
    masks = [
        draw_availability(schedule, data_set="x", ids=ids, modalities=TAV, seed=seed) @ np.array([1, 2, 4])
        for seed in range(12)
    ]
    statistic, freedom = 0.0, 0
    for one, other in combinations(masks[:8], 2):
        table = np.zeros((8, 8))
        np.add.at(table, (one, other), 1)
        table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        statistic += float(((table - expected) ** 2 / expected).sum())
        freedom += (table.shape[0] - 1) * (table.shape[1] - 1)
    assert 1e-6 < stats.chi2.sf(statistic, freedom) < 1 - 1e-6


def test_every_utterance_keeps_every_modality_equally_often() -> None:
    ids = IdHashes.of(names(30))
    draws = 900
    kept = np.zeros((30, 3))
    for seed in range(draws):
        schedule = Random(rate=0.7, literature=True)
        kept += draw_availability(schedule, data_set="x", ids=ids, modalities=TAV, seed=seed)
    assert kept.sum(axis=0).tolist() == [9000, 9000, 9000]
    statistic = ((kept - draws / 3) ** 2 / (draws / 3)).sum()
    assert 1e-6 < stats.chi2.sf(statistic, 60) < 1 - 1e-6


def test_rounding_favours_no_modality() -> None:
    ids = IdHashes.of(names(31))  # 31 rows keep one modality each: one of them gets the odd row
    extra = Counter(
        int(
            draw_availability(
                Random(rate=0.7, literature=True), data_set="x", ids=ids, modalities=TAV, seed=seed
            )
            .sum(axis=0)
            .argmax()
        )
        for seed in range(600)
    )
    assert stats.chisquare([extra[column] for column in range(3)]).pvalue > 1e-6


# Rates over epochs --------------------------------------------------------------------------------


def test_listed_and_ramped_rates() -> None:
    listed = Random(rate=(0.1, 0.4))
    assert [nominal_rate(listed, TAV, epoch) for epoch in range(4)] == pytest.approx([0.1, 0.4, 0.1, 0.4])
    ramp = Random(rate=Ramp(start=0.0, end=0.6, epochs=3))
    assert [nominal_rate(ramp, TAV, epoch) for epoch in range(5)] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.6])
    assert mask_of(ramp, 300, epoch=0).all()
    assert 1 - mask_of(ramp, 300, epoch=2).mean() == pytest.approx(0.4, abs=3 / 1200)
    # a listed rate draws what the constant one draws in that epoch
    np.testing.assert_array_equal(mask_of(listed, epoch=3), mask_of(Random(rate=0.4), epoch=3))
    with pytest.raises(ValueError, match="needs draw 'epoch'"):
        Random(rate=(0.1, 0.4), draw="frozen")
    assert at_epoch(Complete(), 3) == Complete()


# Frames -------------------------------------------------------------------------------------------


@given(st.sampled_from(FRAMES), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_padding_and_special_tokens_are_never_lost(schedule: Frames, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = {name: generator.integers(0, width + 1, 20) for name, width in LENGTHS.items()}
    special = {"text": generator.random((20, 12)) < 0.3}
    kept = frames_of(schedule, 20, seed, lengths=lengths, protected=special)
    for name, width in LENGTHS.items():
        padding = np.arange(width) >= lengths[name][:, None]
        assert kept[name].shape == (20, width)
        assert kept[name][padding].all()
    assert kept["text"][special["text"]].all()


@pytest.mark.parametrize("schedule", FRAMES, ids=lambda schedule: schedule.name)
def test_frame_masks_depend_neither_on_order_nor_on_padding(schedule: Frames) -> None:
    lengths = {name: np.arange(30) % (width + 1) for name, width in LENGTHS.items()}
    kept = frames_of(schedule, 30, lengths=lengths)
    order = np.random.default_rng(0).permutation(30)
    wider = {name: width + 9 for name, width in LENGTHS.items()}
    again = frames_of(
        schedule,
        lengths={name: lengths[name][order] for name in ("vision", "audio", "text")},
        widths=wider,
        ids=[names(30)[row] for row in order],
    )
    for name, width in LENGTHS.items():
        np.testing.assert_array_equal(again[name][:, :width], kept[name][order])
        assert again[name][:, width:].all()
    one = describe_frames(kept, ids=names(30), modality_lengths=lengths)
    other = describe_frames(
        again,
        ids=[names(30)[row] for row in order],
        modality_lengths={name: lengths[name][order] for name in TAV},
    )
    assert one.hash == other.hash
    assert one.rates == pytest.approx(other.rates)


def test_bernoulli_frames_have_the_rate_of_each_modality_and_separate_streams() -> None:
    widths = dict.fromkeys(TAV, 50)
    rates = {"text": 0.7, "audio": 0.1, "vision": 0.1}
    kept = frames_of(Frames(rate=rates), 2000, widths=widths)
    for name in TAV:
        lost = int((~kept[name]).sum())
        assert stats.binomtest(lost, 100_000, rates[name]).pvalue > 1e-6
    audio, vision = ~kept["audio"].ravel(), ~kept["vision"].ravel()
    assert abs(np.corrcoef(audio, vision)[0, 1]) < 5 / math.sqrt(100_000)
    neighbours = np.corrcoef(~kept["text"][:, :-1].ravel(), ~kept["text"][:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(98_000)
    summary = describe_frames(
        kept, ids=names(2000), modality_lengths={name: np.full(2000, 50) for name in TAV}
    )
    assert summary.rates == pytest.approx(rates, abs=0.01)
    assert nominal_rate(Frames(rate=rates), TAV) == pytest.approx(0.3)


def test_extreme_frame_rates_lose_all_or_nothing() -> None:
    special = {"text": np.zeros((60, 12), dtype=bool)}
    special["text"][:, 0] = True
    kept = frames_of(Frames(rate={"text": 1.0, "audio": 0.0, "vision": 0.0}), protected=special)
    assert kept["text"][:, 0].all()
    assert not kept["text"][:, 1:].any()
    assert kept["audio"].all()
    assert kept["vision"].all()


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_a_block_is_one_run_of_exact_length_with_a_uniform_start(rate: float) -> None:
    widths = {"text": 10, "audio": 10}
    kept = frames_of(Frames(rate=rate, pattern="block"), 3000, widths=widths)
    length = round(rate * 10)
    starts = {}
    for name in widths:
        lost = ~kept[name]
        assert (lost.sum(axis=1) == length).all()
        starts[name] = lost.argmax(axis=1)
        for offset in range(length):
            assert lost[np.arange(3000), starts[name] + offset].all()
        assert stats.chisquare(np.bincount(starts[name], minlength=11 - length)).pvalue > 1e-6
    assert abs(np.corrcoef(starts["text"], starts["audio"])[0, 1]) < 5 / math.sqrt(3000)


def test_a_block_runs_over_eligible_tokens_only() -> None:
    special = {"text": np.zeros((200, 8), dtype=bool)}
    special["text"][:, [0, 4, 7]] = True  # five tokens remain; 0.6 of them are three
    kept = frames_of(Frames(rate=0.6, pattern="block"), 200, widths={"text": 8}, protected=special)
    rest = ~kept["text"][:, [1, 2, 3, 5, 6]]
    assert (rest.sum(axis=1) == 3).all()
    runs = {tuple(row) for row in rest.tolist()}
    assert runs == {
        (True, True, True, False, False),
        (False, True, True, True, False),
        (False, False, True, True, True),
    }


def test_a_mixed_burst_unites_single_frames_and_a_run() -> None:
    schedule = Frames(rate=0.2, pattern="mixed_burst", block=0.3)
    kept = frames_of(schedule, 2000, widths={"audio": 50})["audio"]
    lost = ~kept
    assert nominal_rate(schedule, ["audio"]) == pytest.approx(0.44)
    assert lost.mean() == pytest.approx(0.44, abs=0.005)
    sums = np.cumsum(np.pad(lost, ((0, 0), (1, 0))), axis=1)
    assert ((sums[:, 15:] - sums[:, :-15]).max(axis=1) == 15).all()  # 0.3 * 50 in a row, in every sample


def test_uniform_rates_and_the_exact_share_of_complete_samples() -> None:
    widths = {"text": 400, "audio": 400}
    kept = frames_of(Frames(rate="uniform", complete_share=0.5), 1001, widths=widths)
    whole = kept["text"].all(axis=1) & kept["audio"].all(axis=1)
    assert abs(int(whole.sum()) - 501) <= 1  # a rate next to 0 may lose nothing, too
    shares = {name: (~kept[name][~whole]).mean(axis=1) for name in widths}
    for values in shares.values():
        assert stats.kstest(values, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(shares["text"], shares["audio"])[0, 1]) < 5 / math.sqrt(500)
    shared = frames_of(Frames(rate="uniform_shared"), 500, widths=widths)
    together = np.corrcoef((~shared["text"]).mean(axis=1), (~shared["audio"]).mean(axis=1))[0, 1]
    assert together > 0.98
    assert (shared["text"] != shared["audio"]).any()


@pytest.mark.parametrize("pattern", ["synchronous", "synchronous_block"])
def test_synchronous_loss_hits_the_same_steps_of_aligned_data_only(pattern: str) -> None:
    schedule = TypeAdapter(Schedule).validate_python({"kind": "frames", "rate": 0.4, "pattern": pattern})
    widths = dict.fromkeys(TAV, 20)
    lengths = dict.fromkeys(TAV, np.arange(40) % 21)
    special = {"text": np.zeros((40, 20), dtype=bool)}
    special["text"][:, 0] = True
    kept = frames_of(schedule, 40, lengths=lengths, widths=widths, protected=special)
    for name in TAV:
        np.testing.assert_array_equal(kept[name], kept["text"])
    assert kept["audio"][:, 0].all()
    assert (~kept["text"]).any()
    if pattern == "synchronous_block":
        eligible = np.maximum(lengths["text"] - 1, 0)
        np.testing.assert_array_equal((~kept["text"]).sum(axis=1), np.floor(0.4 * eligible + 0.5))
    shorter = lengths | {"vision": np.minimum(lengths["vision"], 7)}
    with pytest.raises(ScheduleError, match="text and vision differ: row 8 has 8 and 7 frames"):
        frames_of(schedule, 40, lengths=shorter, widths=widths)
    with pytest.raises(ScheduleError, match="padded to 20 and 21"):
        frames_of(schedule, 40, lengths=lengths, widths=widths | {"audio": 21})


def test_frame_schedules_lose_no_modality_and_others_lose_no_frame() -> None:
    assert mask_of(Frames(rate=0.5)).all()
    assert all(kept.all() for kept in frames_of(Random(rate=0.5)).values())
    assert frames_of(Frames(rate=0.0))["text"].all()


# Summaries ----------------------------------------------------------------------------------------


def test_describe_counts_cells_and_patterns() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool)
    summary = describe(mask, TAV, list("abcde"))
    assert summary.count == 5
    assert summary.rate == pytest.approx(8 / 15)
    assert summary.rates == pytest.approx({"text": 0.4, "audio": 0.6, "vision": 0.6})
    assert summary.shares == pytest.approx({"t": 0.2, "v": 0.2, "ta": 0.2, "tav": 0.2, "none": 0.2})
    with pytest.raises(ValueError, match=r"4 utterances and 3 modalities can't have shape \(5, 3\)"):
        describe(mask, TAV, list("abcd"))


# Names --------------------------------------------------------------------------------------------

rates = st.integers(0, 100).map(lambda percent: percent / 100)


@st.composite
def any_schedules(draw: st.DrawFn) -> tuple[Schedule, tuple[str, ...]]:
    modalities = draw(
        st.sampled_from([TAV, ("audio", "text"), (*FOUR, "pre-text2"), ("eeg", "eeg1", "text")])
    )
    kind = draw(st.sampled_from(["complete", "fixed", "random", "ramp", "imbalanced", "frames"]))
    highest = 1 - 1 / len(modalities)
    below = rates.filter(lambda rate: rate <= highest)
    if kind == "complete":
        return Complete(), modalities
    if kind == "fixed":
        subset = draw(st.lists(st.sampled_from(modalities), min_size=1, unique=True))
        return Fixed(available=tuple(subset)), modalities
    if kind == "ramp":
        ramp = Ramp(start=draw(below), end=draw(below), epochs=draw(st.integers(1, 50)))
        return Random(rate=ramp), modalities
    if kind == "random":
        patterns: list[Pattern] = ["keep_one", "independent", "instance", "gcnet_legacy"]
        if len(modalities) == 3:
            patterns.append("imder")
        pattern = draw(st.sampled_from(patterns))
        allowed = {
            "imder": st.integers(0, 7).map(lambda step: step / 10),
            "instance": rates,
            "independent": rates.filter(lambda rate: rate < 1),
        }.get(pattern, st.one_of(below, st.just(0.7)) if len(modalities) == 3 else below)
        listed = draw(st.one_of(allowed, st.lists(allowed, min_size=1, max_size=3).map(tuple)))
        return Random(rate=listed, pattern=pattern, literature=True), modalities
    per_modality = {name: draw(rates) for name in modalities}
    if kind == "imbalanced":
        scale = min(1.0, (len(modalities) - 1) / max(sum(per_modality.values()), 1e-9))
        return Imbalanced(
            rates={name: math.floor(rate * scale * 1000) / 1000 for name, rate in per_modality.items()}
        ), modalities
    loss = draw(st.sampled_from(["bernoulli", "block", "mixed_burst", "synchronous", "synchronous_block"]))
    options = [rates, st.sampled_from(["uniform", "uniform_shared"])]
    if "synchronous" not in loss:
        options.append(st.just(per_modality))
    fields = {"rate": draw(st.one_of(*options)), "pattern": loss, "complete_share": draw(rates)}
    if loss == "mixed_burst":
        fields["block"] = draw(rates)
    return Frames(**fields), modalities


@given(any_schedules())
@example((Imbalanced(rates={"text": 0.0, "eeg": 1.0, "eeg1": 0.0}), ("eeg", "eeg1", "text")))
@settings(max_examples=400, deadline=None)
def test_names_round_trip(drawn: tuple[Schedule, tuple[str, ...]]) -> None:
    schedule, modalities = drawn
    expected = canonical(schedule, modalities)
    assert parse_schedule(expected.name, modalities, literature=True) == expected
    assert parse_schedule(schedule.name, modalities, literature=True) == expected
    plain = json.loads(json.dumps(expected.model_dump(mode="json")))
    assert TypeAdapter(Schedule).validate_python(plain) == expected
    assert hash(TypeAdapter(Schedule).validate_python(plain)) == hash(expected)


@given(any_schedules())
@settings(max_examples=60, deadline=None)
def test_only_random_schedules_depend_on_the_seed(drawn: tuple[Schedule, tuple[str, ...]]) -> None:
    schedule, modalities = drawn
    if schedule.is_random or not isinstance(canonical(schedule, modalities), Complete | Fixed | Frames):
        return
    if isinstance(schedule, Frames):
        widths = dict.fromkeys(modalities, 30)
        one, other = (frames_of(schedule, seed=seed, widths=widths) for seed in (1, 2))
        assert all((one[name] == other[name]).all() for name in modalities)
    else:
        one, other = (mask_of(schedule, 60, modalities, seed) for seed in (1, 2))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("schedule", "name", "family"),
    [
        (Complete(), "complete", "complete"),
        (Fixed(available=("audio", "text")), "fixed-ta", "fixed"),
        (Fixed(available=("gsr", "eeg")), "fixed-eeg+gsr", "fixed"),
        (Random(rate=0.3), "random-0.3", "random"),
        (Random(rate=3 * 0.1), "random-0.3", "random"),
        (Random(rate=0.3, pattern="imder"), "random-imder-0.3", "imder"),
        (Random(rate=0.5, pattern="instance"), "instance-0.5", "instance"),
        (Random(rate=Ramp(start=0, end=0.5, epochs=20)), "random-0.0to0.5in20", "random"),
        (
            Imbalanced(rates={"vision": 0.7, "text": 0.3, "audio": 0.5}),
            "imbalanced-t0.3-a0.5-v0.7",
            "imbalanced",
        ),
        (Frames(rate=0.3), "frames-0.3", "frames"),
        (Frames(rate=0.3, pattern="block"), "frames-block-0.3", "bursts"),
        (Frames(rate=0.3, pattern="synchronous_block"), "frames-synchronous_block-0.3", "synchronous_block"),
    ],
)
def test_names_and_families(schedule: Schedule, name: str, family: str) -> None:
    assert (schedule.name, schedule.family) == (name, family)


def test_equal_conditions_have_one_form() -> None:
    assert canonical(Random(rate=0.0)) == Complete()
    assert canonical(Fixed(available=TAV), TAV) == Complete()
    assert canonical(Fixed(available=TAV), FOUR) == Fixed(available=TAV)
    assert canonical(Imbalanced(rates={"text": 0, "audio": 1, "vision": 1})) == Fixed(available=("text",))
    assert canonical(Random(rate=(0.2, 0.2))) == Random(rate=0.2)
    assert parse_schedule("fixed-av", TAV) == parse_schedule("fixed-vision+audio", TAV)
    assert parse_schedule("random-0.0", TAV) == Complete()
    assert parse_schedule("random-0.3", TAV, "imder") == Random(rate=0.3, pattern="imder")
    assert parse_schedule("random-0.3", TAV, draw="frozen") == Random(rate=0.3, draw="frozen")


@pytest.mark.parametrize(
    ("text", "modalities", "message"),
    [
        ("fixd-ta", TAV, "unknown schedule 'fixd-ta'; did you mean 'fixed-ta'?"),
        ("fixed-tx", TAV, "unknown schedule 'fixed-tx'; did you mean 'fixed-t"),
        ("random_0.3", TAV, "did you mean 'random-0.3'?"),
        ("random-", TAV, "did you mean 'random-"),
        ("", TAV, "unknown schedule ''"),
        ("fixed-", TAV, "did you mean 'fixed-"),
        ("random-1.5", TAV, "schedule 'random-1.5': Input should be less than or equal to 1"),
        ("random-0.7", TAV, "rate 0.7 is above 2/3.*literature's nominal 0.7 means 2/3.*literature = true"),
        ("random-0.8", TAV, "rate 0.8 is above 2/3, the most that 3 modalities can lose"),
        ("random-0.6", ("text", "audio"), "rate 0.6 is above 1/2"),
        ("random-imder-0.35", TAV, "rates 0.0, 0.1, ..., 0.7 only, not 0.35"),
        ("random-imder-0.3", FOUR, "IMDer's table is for 3 modalities, the data set has 4"),
        ("random-independent-1.0", TAV, "at rate 1 no utterance keeps a modality"),
        ("imbalanced-t0.3-a0.5", TAV, "no rate for vision"),
        ("imbalanced-t0.9-a0.9-v0.9", TAV, "add up to 2.7; .* at most 2"),
        ("frames-synchronous-t0.3-a0.1-v0.1", TAV, "needs one rate for all modalities"),
    ],
)
def test_wrong_names_are_answered_with_the_reason(
    text: str, modalities: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ScheduleError, match=message.replace("?", r"\?")):
        parse_schedule(text, modalities)


def test_wrong_schedules_are_answered_with_the_reason() -> None:
    with pytest.raises(ScheduleError, match=r"unknown modality 'visoin'; did you mean 'vision'\?"):
        mask_of(Fixed(available=("visoin",)))
    with pytest.raises(ScheduleError, match="above 2/3"):
        mask_of(Random(rate=0.7))
    with pytest.raises(ScheduleError, match="unknown modality 'eeg'"):
        frames_of(Frames(rate=dict.fromkeys(FOUR, 0.5)))
    with pytest.raises(ValueError, match="block belongs to pattern 'mixed_burst'"):
        Frames(rate=0.3, block=0.5)
    with pytest.raises(ValueError, match="twice"):
        Fixed(available=("text", "text"))
    with pytest.raises(ValueError, match="Extra inputs"):
        Random(rate=0.3, patern="imder")  # type: ignore[call-arg]
    assert mask_of(Random(rate=0.7), modalities=FOUR).any(axis=1).all()


# Presets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete_and_their_names_are_readable(name: str) -> None:
    preset = presets(name, TAV)
    assert preset.name == name
    assert (preset.train is None) == (preset.regime == "matched")
    assert len({schedule.name for schedule in preset.test}) == len(preset.test)
    for schedule in preset.test:
        draw = "epoch" if isinstance(schedule, Complete | Fixed) else schedule.draw
        assert parse_schedule(schedule.name, TAV, draw=draw, literature=True) == schedule
        assert isinstance(schedule, Complete) or isinstance(schedule, Frames) == (preset.unit == "frame")


def test_presets_hold_the_published_conditions() -> None:
    def conditions(name: str) -> list[str]:
        return [schedule.name for schedule in presets(name, TAV).test]

    random = [f"random-0.{step}" for step in range(1, 8)]
    fixed = ["fixed-t", "fixed-a", "fixed-v", "fixed-ta", "fixed-tv", "fixed-av"]
    assert conditions("gcnet_random") == ["complete", *random]
    assert conditions("fixed_six") == ["complete", *fixed]
    hit = [f"instance-{p}" for p in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    assert conditions("missmac") == ["complete", *fixed, *random, *hit]
    assert presets("missmac", TAV).train == Complete()
    assert conditions("lnln_frames") == ["complete", *(f"frames-0.{step}" for step in range(1, 10))]
    assert len(conditions("missbench_imr")) == 7
    for schedule in presets("missbench_imr", TAV).test:
        assert nominal_rate(schedule, TAV) == pytest.approx(0.5)
    assert [schedule.name for schedule in presets("gcnet_random", ("text", "audio")).test] == [
        "complete",
        *random[:5],
    ]
    assert sum(schedule.family == "bursts" for schedule in presets("bursts", TAV).test) == 7
    with pytest.raises(ScheduleError, match="'imder_random' is for 3 modalities, the data set has 2"):
        presets("imder_random", ("text", "audio"))
    with pytest.raises(Exception, match="unknown preset 'gcnet_randm'; did you mean 'gcnet_random'"):
        presets("gcnet_randm", TAV)


# Documentation ------------------------------------------------------------------------------------


def test_the_documented_table_is_what_the_draws_give() -> None:
    """Shares of 3, 2, 1 modalities and realised rates on 686 utterances, in docs/schedules.md."""
    lines = DOCS.read_text(encoding="utf-8").split("<!-- realised -->")[1].strip().splitlines()[2:]
    assert len(lines) >= 12
    for line in lines:
        name, *numbers = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        mask = mask_of(parse_schedule(name, TAV, literature=True), 686, seed=201)
        sizes = mask.sum(axis=1)
        found = [*((sizes == size).mean() for size in (3, 2, 1)), 1 - mask.mean()]
        assert [f"{value:.4f}" for value in found] == numbers, name
