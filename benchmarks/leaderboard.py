"""Time and memory of a large leaderboard: all pairs tested, intervals by resampling.

    python benchmarks/leaderboard.py            # 10 methods x 15 conditions x 10 seeds x 4659 samples
    python benchmarks/leaderboard.py --small

Bound: 60 s and 2 GB on two CPU cores, reading of result files not counted.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd

from imer_bench.harness.leaderboard import IntervalSettings, TableInfo, build_boards, validate
from imer_bench.harness.leaderboard.table import TEXT


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a hundredth of it")
    parser.add_argument("--resamples", type=int, default=10_000)
    args = parser.parse_args()
    sizes = (4, 15, 3, 686) if args.small else (10, 15, 10, 4659)
    frame = table(*sizes)
    info = TableInfo("regression", score_range=(-3.0, 3.0), metrics=("wf1",))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    (board,) = build_boards(frame, info, intervals=IntervalSettings(resamples=args.resamples))
    wall = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tests = 0 if board.claims is None else board.claims.family_size
    print(f"{len(frame)} rows, {tests} pairwise tests, {args.resamples} resamples")
    print(f"build_boards: {wall:.1f} s; peak memory {peak:.2f} GB ({before:.2f} GB with the table alone)")


if __name__ == "__main__":
    main()
