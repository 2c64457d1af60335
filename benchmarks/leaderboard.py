"""Time and memory of a large leaderboard: all pairs tested, intervals by resampling.

Reading of result files is not counted.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import pandas as pd

from imer_bench.harness.leaderboard import IntervalSettings, TableInfo, build_boards, validate
from imer_bench.harness.leaderboard.table import TEXT

from .setting import Setting, in_own_process
from .table import Figure

SECTION = "Leaderboard"
# Methods, conditions, seeds, test utterances.
_SIZE, _SMALL = (10, 15, 10, 4659), (4, 15, 3, 686)
_SECONDS, _GIGABYTES = 60, 2


def measure(setting: Setting) -> list[Figure]:
    """Seconds and peak memory of all tables and tests."""
    size = _SMALL if setting.quick else _SIZE
    seconds, peak, tests = in_own_process(build, size, 1000 if setting.quick else 10_000)
    what = "{} methods, {} conditions, {} seeds, {} utterances".format(*size)
    return [
        Figure(
            SECTION,
            what,
            seconds,
            "s",
            target=f"at most {_SECONDS} s",
            met=seconds <= _SECONDS,
            note=f"{tests} pairwise tests",
        ),
        Figure(
            SECTION,
            f"{what}, peak memory",
            peak,
            "GB",
            target=f"at most {_GIGABYTES} GB",
            met=peak <= _GIGABYTES,
        ),
    ]


def build(size: tuple[int, int, int, int], resamples: int) -> tuple[float, float, int]:
    """Seconds, peak memory in GB, and the number of tests."""
    frame = table(*size)
    info = TableInfo("regression", score_range=(-3.0, 3.0), metrics=("wf1",))
    start = time.perf_counter()
    (board,) = build_boards(frame, info, intervals=IntervalSettings(resamples=resamples))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return seconds, peak, 0 if board.claims is None else board.claims.family_size


def table(methods: int, conditions: int, seeds: int, samples: int) -> pd.DataFrame:
    """Predictions as they would come from runs: text columns categorical, numbers in float32."""
    rng = np.random.default_rng(0)
    y = rng.normal(0.3, 1.4, samples).clip(-3, 3).round(1).astype(np.float32)
    runs = methods * conditions * seeds
    names = ["complete", *(f"random-0.{n}" for n in range(1, 8))]
    names += [f"fixed-{x}" for x in ("t", "a", "v", "ta", "tv", "av")] + ["imbalanced-a"]
    method, condition, seed = np.unravel_index(np.arange(runs), (methods, conditions, seeds))

    def text(codes: np.ndarray, categories: list[str], repeat: bool = True) -> pd.Categorical:
        codes = np.repeat(codes, samples) if repeat else np.tile(codes, runs)
        return pd.Categorical.from_codes(codes.astype(np.int16), categories)

    labels = [f"method {index}" for index in range(methods)]
    dialogue = (np.arange(samples) * 676 // samples).astype(np.int64)
    noise = rng.standard_normal((runs, samples), dtype=np.float32) * (0.8 + 0.1 * method[:, None])
    frame = {name: pd.Categorical.from_codes(np.zeros(runs * samples, dtype=np.int8), ["x"]) for name in TEXT}
    families = [name.partition("-")[0] for name in names]
    kinds = list(dict.fromkeys(families))
    frame |= {
        "label": text(method, labels),
        "method": text(method, labels),
        "test_condition": text(condition, names[:conditions]),
        "family": text(np.array([kinds.index(families[c]) for c in condition]), kinds),
        "dialogue": text(dialogue, [f"v{index}" for index in range(676)], False),
        "utterance": text(np.arange(samples), [f"u{index}" for index in range(samples)], False),
        "seed": np.repeat(seed, samples),
        "y_true": np.tile(y, runs),
        "score": (y + noise).astype(np.float32).ravel(),
    }
    frame["status"] = pd.Categorical.from_codes(np.zeros(runs * samples, dtype=np.int8), ["finished"])
    return validate(pd.DataFrame(frame))
