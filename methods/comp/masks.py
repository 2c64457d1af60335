"""The released generator of random masks, for comparison with golden draws only.

The harness draws its masks itself (``harness/schedules``): exact counts, the same for every method.
"""

from __future__ import annotations

import numpy as np

LEAST_ROWS = 32
TOLERANCE = 0.005


def released_mask(rows: int, views: int, rate: float, seed: int) -> np.ndarray:
    """Draws a mask as the released code does (section 6 of the specification).

    One guaranteed view per row, further ones in two passes (the first only counts how many fall on
    guaranteed cells), until the share of observed cells is within 0.005 of ``1 - rate``. A rate of
    ``1 - 1/views`` or more keeps exactly one view. At least 32 rows are drawn and the first kept.

    Args:
        rows: Number of rows.
        views: Number of modalities V.
        rate: Share of cells to lose.
        seed: Seed of numpy's legacy generator.

    Returns:
        ``[rows, views]`` int64, 1 = observed.
    """
    # RandomState is the legacy global generator without the global.
    generator = np.random.RandomState(seed)
    keep = 1 - rate
    if keep <= 1 / views:
        return np.eye(views, dtype=np.int64)[generator.randint(0, views, size=(rows, 1))[:, 0]]
    if keep == 1:
        return np.ones((rows, views), dtype=np.int64)
    count = max(LEAST_ROWS, rows)
    cells = views * count
    extra = cells * keep - count
    while True:
        guaranteed = np.eye(views, dtype=bool)[generator.randint(0, views, size=(count, 1))[:, 0]]
        trial = generator.randint(0, 100, size=(count, views)) < int(100 * (extra / cells))
        share = (trial & guaranteed).sum() / extra
        second = extra / (1 - share)
        mask = guaranteed | (generator.randint(0, 100, size=(count, views)) < int(100 * (second / cells)))
        if abs(mask.mean() - keep) < TOLERANCE:
            return mask[:rows].astype(np.int64)
