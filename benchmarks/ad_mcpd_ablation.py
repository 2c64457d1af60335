"""Which components of AD-MCPD matter: paired differences of an ablation's rows from the full method.

Run the protocol first, then::

    python bench.py --protocol protocols/ad_mcpd_ablation.toml
    python benchmarks/ad_mcpd_ablation.py --protocol protocols/ad_mcpd_ablation.toml

The primary metric of every seed (test masks averaged) is compared with the full method's at the same
seed. With S seeds, d_s these differences and V the variance of their mean when test dialogues are
resampled (the same dialogues for both rows and all seeds)::

    se^2 = var(d_s) / S + V,    interval = mean(d_s) -/+ t(0.975, df) * se

with Satterthwaite's degrees of freedom from S - 1 and D - 1 (D dialogues). Seeds and dialogues are
crossed; what they do together is in both terms, so that intervals are rather too wide than too narrow.
p-values are Holm-adjusted over all variants of the method and all columns; rows of other methods are
shown beside them. Means are taken within a family of conditions, never across.

``--batch-anchors`` adds a diagnostic: the full method's trained models with anchors and graph taken from
whatever batch is evaluated, as the released code does it, for several batch sizes. It is never ranked.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from imer_bench.harness.api import plan_protocol
from imer_bench.harness.leaderboard import IntervalSettings, TableInfo, concatenate, read_predictions
from imer_bench.harness.leaderboard.intervals import replicates, resampled_counts
from imer_bench.harness.leaderboard.multiplicity import holm
from imer_bench.harness.leaderboard.scores import dialogues, draws
from imer_bench.harness.leaderboard.table import numbers
from imer_bench.harness.metrics import Metric, metric
from imer_bench.harness.protocol.plan import Plan
from imer_bench.harness.store import Store

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Row:
    """Scores of one row in one column.

    Attributes:
        method: Registry name of its method.
        by_seed: ``[S]``.
        resampled: ``[R]`` mean over seeds on every resample of dialogues.
        dialogues: Number of dialogues D.
    """

    method: str

    by_seed: FloatArray
    resampled: FloatArray
    dialogues: int


@dataclass(frozen=True)
class Difference:
    """Score of a row minus score of the full method.

    Attributes:
        value: The difference.
        interval: At 95 %.
        p: Two-sided p-value.
    """

    value: float
    interval: tuple[float, float]
    p: float


def paired_difference(row: Row, full: Row) -> Difference:
    """Difference of two rows by the module's formula; without any variance only 0 can't be told."""
    by_seed = row.by_seed - full.by_seed
    parts = np.array([by_seed.var(ddof=1) / len(by_seed), (row.resampled - full.resampled).var(ddof=1)])
    value, variance = float(by_seed.mean()), float(parts.sum())
    if variance == 0:
        return Difference(value, (value, value), float(value == 0))
    df = variance**2 / float((parts**2 / [len(by_seed) - 1, row.dialogues - 1]).sum())
    error = variance**0.5
    reach = float(stats.t.ppf(0.975, df)) * error
    return Difference(value, (value - reach, value + reach), float(2 * stats.t.sf(abs(value) / error, df)))


def score_rows(plan: Plan, store: Store, measure: Metric) -> dict[str, dict[str, Row]]:
    """Scores per column (``complete`` and family means) and row label, over all seeds that every row has."""
    found = {stored.address: stored for stored in store.runs()}
    frames, families, methods = [], {}, {}
    for run in plan.runs:
        stored = found.get(run.address)
        if stored is None or stored.status != "finished":
            continue
        frames.append(read_predictions(stored.predictions).frame)
        families.update({test.name: test.family for test in run.test})
        methods[run.variant.label] = run.variant.info.name
    if not frames:
        raise SystemExit(f"no finished run under {store.folder}; run the protocol first")
    frame = concatenate(frames)
    spec, data_set = plan.runs[0].spec, plan.data[0].info.name
    info = TableInfo(spec.task, spec.classes, spec.score_range, measure.name, (measure.name,))
    counts = resampled_counts(len(dialogues(frame)), IntervalSettings(), data_set)
    cells: dict[tuple[str, str, int], dict[str, list[tuple[float, FloatArray]]]] = {}
    for draw in draws(frame, info):
        resampled = replicates(measure, draw.outcome, draw.dialogue, counts)
        value = measure.compute(draw.outcome)
        if resampled is None or value is None:
            raise SystemExit(f"{draw.label}: {measure.name} does not apply")
        own = cells.setdefault((families[draw.condition], draw.label, draw.seed), {})
        own.setdefault(draw.condition, []).append((value, resampled))
    seeds: dict[str, set[int]] = {}
    for _, label, seed in cells:
        seeds.setdefault(label, set()).add(seed)
    common = sorted(set.intersection(*(own for label, own in seeds.items() if label != "constant")))
    columns: dict[str, dict[str, Row]] = {}
    for family in dict.fromkeys(families.values()):
        for label in dict.fromkeys(label for _, label, _ in cells):
            if not set(common) <= seeds[label]:
                continue
            per_seed = [_mean_of(cells[family, label, seed]) for seed in common]
            columns.setdefault(family, {})[label] = Row(
                methods[label],
                np.array([value for value, _ in per_seed]),
                np.mean([part for _, part in per_seed], axis=0),
                counts.shape[1],
            )
    return columns


def _mean_of(conditions: dict[str, list[tuple[float, FloatArray]]]) -> tuple[float, FloatArray]:
    """Mean over masks, then over conditions."""
    values = [float(np.mean([value for value, _ in masks])) for masks in conditions.values()]
    parts = [np.mean([part for _, part in masks], axis=0) for masks in conditions.values()]
    return float(np.mean(values)), np.mean(parts, axis=0)


def compare(columns: dict[str, dict[str, Row]], full: str) -> pd.DataFrame:
    """A row per label and column: score, difference from ``full``, interval, p, adjusted p; in points."""
    rows = []
    for column, labels in columns.items():
        reference = labels[full]
        for label, row in labels.items():
            entry: dict[str, object] = {"row": label, "column": column, "score": 100 * row.by_seed.mean()}
            if label != full:
                found = paired_difference(row, reference)
                entry |= {
                    "difference": 100 * found.value,
                    "low": 100 * found.interval[0],
                    "high": 100 * found.interval[1],
                    "p": found.p,
                }
            entry["variant"] = row.method == reference.method and label != full
            rows.append(entry)
    table = pd.DataFrame(rows)
    tested = table.pop("variant").to_numpy(bool)
    table.loc[tested, "p_holm"] = holm(numbers(table, "p")[tested])
    return table


def batch_anchors(plan: Plan, store: Store, full: str, measure: Metric) -> Iterator[dict[str, object]]:
    """Scores of the full method's models under stored anchors and under anchors of the evaluated batch."""
    from dataclasses import replace

    import torch

    from imer_bench.harness.drift import restore
    from imer_bench.harness.engine.evaluation import predict, score
    from imer_bench.harness.engine.masking import conditions
    from imer_bench.harness.engine.run import RunServices, SplitCache, Workshop, build_method
    from imer_bench.harness.language_models import LanguageModels

    shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
    found = {stored.address: stored for stored in store.runs()}
    device = torch.device(plan.execution.device)
    for run in plan.runs:
        if run.variant.label != full or run.address not in found:
            continue
        stored_anchors = restore(run, found[run.address], shop)
        changed = replace(
            run,
            parameters=type(run.parameters)(**{**run.parameters.model_dump(), "outside_training": "batch"}),
        )
        from_batch = build_method(changed, RunServices(run.seed, device, shop.models))
        from_batch.load_state_dict(stored_anchors.state_dict())
        from_batch.eval()
        test = shop.splits.split(run, device, "test")
        labels = test.labels.cpu().numpy()
        for condition in conditions(test, run.test, run.data.info.name, plan.protocol.test.mask_seeds[:1]):
            rows = [("stored", stored_anchors, len(test))]
            rows += [(f"batch of {size}", from_batch, size) for size in (8, 32, 128)]
            rows += [("batch of all", from_batch, len(test))]
            for name, method, size in rows:
                predicted = predict(method, test, condition.masks, size, "float32")
                value = score(predicted, labels, run.spec, [measure.name])[measure.name]
                assert value is not None
                yield {"anchors": name, "condition": condition.name, "seed": run.seed, "score": 100 * value}


def main() -> None:
    """Compares, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", required=True, type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--full", default="full", help="label of the row that the others are compared with")
    parser.add_argument("--csv", type=Path, help="where the table goes")
    parser.add_argument("--batch-anchors", action="store_true", help="the diagnostic, instead of the table")
    args = parser.parse_args()

    plan = plan_protocol(args.protocol, data_root=args.data_root)
    store = Store(args.results / plan.protocol.name)
    measure = metric(plan.protocol.metrics.primary)
    if args.batch_anchors:
        table = pd.DataFrame(batch_anchors(plan, store, args.full, measure))
        print(
            table.pivot_table(index="anchors", columns="condition", values="score", sort=False)
            .round(1)
            .to_string()
        )
        return
    columns = score_rows(plan, store, measure)
    table = compare(columns, args.full)
    if args.csv:
        table.to_csv(args.csv, index=False, float_format="%.4f")
    seeds = len(next(iter(columns.values()))[args.full].by_seed)
    print(f"{plan.protocol.name}: {measure.name} in points, difference from {args.full!r}, {seeds} seeds")
    column = ""
    for row in table.to_dict("records"):
        if row["column"] != column:
            column = row["column"]
            print(f"\n{column}")
        line = f"  {row['row']:20s} {row['score']:6.2f}"
        if row["row"] != args.full:
            line += f"  {row['difference']:+6.2f} [{row['low']:+6.2f}, {row['high']:+6.2f}]"
            line += f"  p {row['p']:.3f}"
            line += "" if math.isnan(row["p_holm"]) else f", Holm {row['p_holm']:.3f}"
        print(line)


if __name__ == "__main__":
    main()
