"""Does a test keep what it promises? Simulated leaderboards with known truth.

Every scenario draws labels, and for every method, seed, mask draw and utterance whether the prediction
is right, from a latent margin that is a sum of independent effects::

    margin = level + difficulty[utterance] + difficulty[dialogue]
           + taste[method, utterance] + taste[method, dialogue]
           + luck[method, seed] + bias[method, seed] * (+1 or -1 for the two classes)
           + luck[method, seed, dialogue] + mask[draw, utterance] + mask[method, draw, utterance]
           + noise[method, seed, utterance]

The margin is right if it is above 0; the score is the weighted F1 of two classes, 58 % and 42 % on
average and unevenly spread over dialogues of uneven length, as on CMU-MOSI. Methods are exchangeable
unless an advantage is given, so that the null hypothesis holds exactly while the methods' predictions differ.

The grid of scenarios was fixed before a test was chosen. It varies the variance of seeds, of methods'
tastes between dialogues, the number of dialogues, and breaks the assumptions of the default test: rows of
very unequal seed variance, heavy-tailed seeds, trainings that collapse now and then, a strong interaction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..hashing import derive_seed
from ..metrics import weighted_f1
from .influence import jackknife_values

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scenario:
    """Standard deviations of the latent effects; the total is about 1.5.

    Attributes:
        name: Name in tables.
        seed: ``luck[method, seed]``: 0.05 moves the score by about one point.
        taste: ``taste[method, dialogue]``.
        interaction: ``luck[method, seed, dialogue]``.
        dialogues: D; about 680 utterances are spread over them.
        seed_of_second: ``seed`` of the last method, if it differs.
        tails: ``"normal"``, ``"t3"`` (Student, 3 df) or ``"collapse"`` (one training in ten is much worse).
    """

    name: str
    seed: float
    taste: float
    interaction: float = 0.3
    dialogues: int = 31
    seed_of_second: float | None = None
    tails: str = "normal"


SEED_SDS = (0.0, 0.05, 0.15, 0.4)
TASTES = (0.1, 0.5)
DIALOGUES = (12, 31, 93)
GRID = (
    *(
        Scenario(f"seed {seed}, taste {taste}, {count} dialogues", seed, taste, dialogues=count)
        for count in DIALOGUES
        for taste in TASTES
        for seed in SEED_SDS
    ),
    Scenario("unequal seeds 0.02/0.3", 0.02, 0.3, seed_of_second=0.3),
    Scenario("heavy-tailed seeds", 0.15, 0.3, tails="t3"),
    Scenario("collapsing seeds", 0.05, 0.3, tails="collapse"),
    Scenario("strong interaction", 0.05, 0.3, interaction=1.0),
)
# Scenarios of the family-wise error: small, middle and extreme seed variance, and broken assumptions.
FAMILY_NAMES = (
    "seed 0.0, taste 0.5, 31 dialogues",
    "seed 0.15, taste 0.5, 31 dialogues",
    "seed 0.05, taste 0.5, 12 dialogues",
    "seed 0.4, taste 0.1, 93 dialogues",
    "seed 0.4, taste 0.5, 93 dialogues",
    "unequal seeds 0.02/0.3",
    "heavy-tailed seeds",
    "collapsing seeds",
)
FAMILY_GRID = tuple(item for item in GRID if item.name in FAMILY_NAMES)
UTTERANCES = 682


@dataclass(frozen=True, eq=False)
class Simulated:
    """R leaderboards of M methods under C conditions with S seeds.

    Attributes:
        positive: ``[R, N]`` whether the label is the upper class.
        right: ``[R, M, C, S, K, N]`` whether the prediction under mask draw k is right.
        starts: ``[D]`` first utterance of each dialogue.
    """

    positive: BoolArray
    right: BoolArray
    starts: npt.NDArray[np.int64]

    def dialogue_values(self) -> FloatArray:
        """Jackknife values of the weighted F1, mask draws averaged: ``[R, M, C, S, D]``."""
        upper = self.positive[:, None, None, None, None]
        hits = [
            np.add.reduceat(self.right & mine, self.starts, axis=-1, dtype=np.float64)
            for mine in (upper, ~upper)
        ]
        sizes = [np.add.reduceat(mine, self.starts, axis=-1, dtype=np.float64) for mine in (upper, ~upper)]
        # Confusion matrix of each dialogue, true class first: [[TN, FP], [FN, TP]].
        cells = np.stack([hits[1], sizes[1] - hits[1], sizes[0] - hits[0], hits[0]], axis=-1)
        return jackknife_values(_weighted_f1, cells).mean(axis=-2)


def _weighted_f1(sums: FloatArray) -> FloatArray:
    return weighted_f1(sums.reshape(*sums.shape[:-1], 2, 2))


def simulate(
    rng: np.random.Generator,
    scenario: Scenario,
    *,
    replicates: int,
    seeds: int,
    methods: int = 2,
    conditions: int = 1,
    masks: int = 2,
    advantage: float = 0.0,
) -> Simulated:
    """Draws R leaderboards.

    Args:
        rng: Source of randomness.
        scenario: Variances.
        replicates: R.
        seeds: S, of every method.
        methods: M.
        conditions: C; seeds' luck is shared by half between conditions, tastes and difficulties in full.
        masks: K test mask draws.
        advantage: Added to the margin of the first method: 0.05 is about one point.
    """
    shape = np.random.default_rng(derive_seed(0, "calibration", "dialogues", str(scenario.dialogues)))
    shares = shape.dirichlet(np.full(scenario.dialogues, 4.0))
    sizes = np.maximum(3, np.round(shares * UTTERANCES)).astype(np.int64)
    dialogue = np.repeat(np.arange(scenario.dialogues), sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    count, reps = len(dialogue), replicates

    def normal(*dimensions: int) -> np.ndarray:
        return rng.standard_normal((reps, *dimensions), dtype=np.float32)

    positive = (0.35 + 1.2 * normal(scenario.dialogues)[:, dialogue] + normal(count)) > 0
    sign = np.where(positive, np.float32(1), np.float32(-1))[:, None, None, None, None]
    luck = _luck(rng, scenario, normal, methods, conditions, seeds, reps)
    per_seed = 0.5**0.5 * (normal(methods, 1, seeds) + normal(methods, conditions, seeds))
    spread = np.full(methods, scenario.seed, dtype=np.float32)
    spread[-1] = scenario.seed if scenario.seed_of_second is None else scenario.seed_of_second
    bias = spread[:, None, None] * per_seed
    shared = 0.6 * normal(count) + 0.4 * normal(scenario.dialogues)[:, dialogue]
    own = 0.6 * normal(methods, count) + scenario.taste * normal(methods, scenario.dialogues)[..., dialogue]
    level = 0.9 + advantage * (np.arange(methods) == 0) + np.zeros((conditions, 1))
    margin = np.empty((reps, methods, conditions, seeds, masks, count), dtype=np.float32)
    for index in range(masks):
        drawn = 0.5 * normal(1, conditions, 1, count) + 0.2 * normal(methods, conditions, 1, count)
        margin[..., index, :] = drawn
    margin += (shared[:, None] + own)[:, :, None, None, None]
    margin += (level.T[None, :, :, None] + luck)[..., None, None].astype(np.float32)
    margin += bias[..., None, None] * sign
    steps = scenario.interaction * normal(methods, conditions, seeds, scenario.dialogues)
    margin += (steps[..., dialogue] + 0.6 * normal(methods, conditions, seeds, count))[..., None, :]
    return Simulated(positive, margin > 0, starts)


def _luck(
    rng, scenario: Scenario, normal, methods: int, conditions: int, seeds: int, reps: int
) -> np.ndarray:
    """``luck[method, seed]`` ``[R, M, C, S]``, half of its variance shared by all conditions."""
    spread = np.full(methods, scenario.seed, dtype=np.float32)
    spread[-1] = scenario.seed if scenario.seed_of_second is None else scenario.seed_of_second
    if scenario.tails == "t3":
        # Scaled to unit variance; one draw for all conditions.
        drawn = rng.standard_t(3, (reps, methods, 1, seeds)) / 3**0.5 + np.zeros((conditions, 1))
    elif scenario.tails == "collapse":
        fallen = rng.random((reps, methods, 1, seeds)) < 0.1
        drawn = normal(methods, conditions, seeds) - 0.6 / max(scenario.seed, 0.01) * fallen
    else:
        drawn = 0.5**0.5 * (normal(methods, 1, seeds) + normal(methods, conditions, seeds))
    return spread[:, None, None] * drawn
