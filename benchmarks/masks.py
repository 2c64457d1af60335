"""Drawing the masks of many utterances, beside as many random numbers without keys or exact counts."""

from __future__ import annotations

import numpy as np

from .setting import Setting, timed
from .table import Figure


def measure(setting: Setting) -> list[Figure]:
    """Time of a draw for utterances whose ids are hashed, and of hashing the ids once."""
    from imer_bench.harness.schedules import IdHashes, Imbalanced, Random, draw_availability

    count = 10_000 if setting.quick else 1_000_000
    names = ("text", "audio", "vision")
    ids = [f"video{row // 20}_{row % 20}" for row in range(count)]
    hashes = IdHashes.of(ids)
    rng = np.random.default_rng(0)
    plain = timed(lambda: rng.random((count, len(names))) > 0.5, rounds=3)
    schedules = {
        "random-0.5": Random(kind="random", rate=0.5),
        "imbalanced": Imbalanced(kind="imbalanced", rates={"text": 0.2, "audio": 0.5, "vision": 0.6}),
    }
    figures = []
    for name, schedule in schedules.items():
        drawn = timed(
            lambda schedule=schedule: draw_availability(
                schedule, data_set="benchmark", ids=hashes, modalities=names, seed=1
            ),
            rounds=3,
        )
        figures.append(
            Figure(
                "Masks",
                f"{name}, {count} utterances, CPU seconds",
                drawn.cpu,
                "s",
                beside="unkeyed random numbers",
                other=plain.cpu,
                target="under 1 s",
                met=drawn.cpu < 1,
            )
        )
    hashing = timed(lambda: IdHashes.of(ids), rounds=2)
    figures.append(Figure("Masks", f"hashing {count} ids, once per split", hashing.cpu, "s"))
    return figures
