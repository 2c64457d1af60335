r"""Anchor drift of the finished runs of a protocol, as a table and a figure.

Run the protocol first, then::

    python bench.py --protocol protocols/quickstart.toml
    python benchmarks/drift.py --protocol protocols/quickstart.toml --classes-of ad_mcpd \
        --csv drift.csv --figure drift.png

The measure is defined in ``harness/drift.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from imer_bench.harness.api import plan_protocol
from imer_bench.harness.drift import drift_table
from imer_bench.harness.store import Store

_TITLES = {"raw": "representations as they are", "unit": "representations of length 1"}


def over_draws_and_folds(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean of each seed over folds, mask draws and what else is not in ``by``, then over seeds.

    Returns:
        ``by`` columns and ``mean`` and ``sd`` (n - 1) of the drift, ``common``, ``separation``, ``seeds``.
    """
    values = ["drift", "common", "separation"]
    per_seed = pd.DataFrame(table.groupby([*by, "seed"], sort=False)[values].mean()).reset_index()
    groups = per_seed.groupby(list(by), sort=False)
    return groups.agg(
        mean=("drift", "mean"),
        sd=("drift", "std"),
        common=("common", "mean"),
        separation=("separation", "mean"),
        seeds=("seed", "nunique"),
    ).reset_index()


def against(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Paired differences from one row: mean over the conditions of a family per seed, t interval over seeds.

    Returns:
        ``space, family, label, difference, low, high, seeds``; rows without a common seed are left out.
    """
    per_seed = pd.DataFrame(table.groupby(["space", "family", "label", "seed"], sort=False)["drift"].mean())
    grid = per_seed["drift"].unstack("seed")
    rows = []
    for key in grid.index.to_list():
        space, family, label = key
        gap = (grid.loc[key] - grid.loc[(space, family, reference)]).dropna().to_numpy(float)
        if label == reference or len(gap) < 2:
            continue
        reach = float(stats.t.ppf(0.975, len(gap) - 1)) * float(gap.std(ddof=1)) / len(gap) ** 0.5
        mean = float(gap.mean())
        rows.append((space, family, label, mean, mean - reach, mean + reach, len(gap)))
    return pd.DataFrame(rows, columns=["space", "family", "label", "difference", "low", "high", "seeds"])


def draw(table: pd.DataFrame, classes_of: str, title: str, path: Path) -> None:
    """Heat maps: rows by condition (mean over classes), and classes by condition of one row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels, conditions = (list(dict.fromkeys(table[name])) for name in ("label", "condition"))
    names = list(dict.fromkeys(table["class"]))
    width = 2.2 + 0.55 * len(conditions)
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(2 * width, 1.9 + 0.27 * (len(labels) + len(names))),
        height_ratios=[len(labels), len(names)],
        layout="constrained",
    )
    for column, space in enumerate(("raw", "unit")):
        own = table.loc[table["space"] == space]
        shown = own.loc[own["label"] == classes_of]
        parts = (
            (over_draws_and_folds(own, ("label", "condition")), "label", labels),
            (over_draws_and_folds(shown, ("class", "condition")), "class", names),
        )
        for row, (cells, index, order) in enumerate(parts):
            grid = cells.pivot(index=index, columns="condition", values="mean").loc[order, conditions]
            axis = axes[row, column]
            axis.imshow(grid.to_numpy(), cmap="cividis", vmin=0, vmax=3, aspect="auto")
            axis.set_yticks(range(len(order)), order, fontsize=7)
            last = row == 1
            axis.set_xticks(
                range(len(conditions)), conditions if last else [], rotation=45, ha="right", fontsize=7
            )
            for y, x in ((y, x) for y in range(len(order)) for x in range(len(conditions))):
                value = grid.iloc[y, x]
                colour = "white" if value < 1.8 else "black"
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
            axis.set_title(_TITLES[space] if row == 0 else f"classes of {classes_of}", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    if path.suffix == ".png":  # few colours, a third of the size
        from PIL import Image

        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(48)
        small.save(path, optimize=True)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", required=True, type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--labels", help="only these rows, separated by commas")
    parser.add_argument("--against", help="also print paired differences from this row")
    parser.add_argument("--classes-of", default="ad_mcpd", help="row whose classes the figure shows")
    parser.add_argument("--csv", type=Path, help="where the table goes")
    parser.add_argument("--figure", type=Path, help="where the figure goes (.png or .pdf)")
    args = parser.parse_args()

    plan = plan_protocol(args.protocol, data_root=args.data_root)
    labels = args.labels.split(",") if args.labels else None
    table = drift_table(plan, Store(args.results / plan.protocol.name), labels)
    if table.empty:
        raise SystemExit(
            f"no finished run with a representation under {args.results}; run the protocol first"
        )
    if args.csv:
        table.to_csv(args.csv, index=False, float_format="%.5f")
    for space in ("raw", "unit"):
        cells = over_draws_and_folds(table.loc[table["space"] == space], ("label", "condition"))
        print(f"\nMean over classes and mask draws, deviation over seeds; {_TITLES[space]}")
        cells["drift (sd)"] = [
            f"{mean:.2f} ({sd:.2f})" for mean, sd in zip(cells["mean"], cells["sd"], strict=True)
        ]
        rows, columns = (list(dict.fromkeys(cells[name])) for name in ("label", "condition"))
        for value in ("drift (sd)", "common", "separation"):
            print(f"\n{value}")
            print(
                cells.pivot(index="label", columns="condition", values=value)
                .loc[rows, columns]
                .round(2)
                .to_string()
            )
    if args.against:
        print(
            f"\nDifference from {args.against!r}, mean over a family's conditions, 95 % interval over seeds"
        )
        print(against(table, args.against).round(2).to_string(index=False))
    if args.figure:
        kind = "SYNTHETIC data" if all(table["synthetic"]) else "real data"
        title = f"Anchor drift, {plan.protocol.name}: {', '.join(table['data_set'].unique())} ({kind}), "
        title += f"{table['seed'].nunique()} seeds; 1 = mean distance between classes"
        draw(table, args.classes_of, title, args.figure)


if __name__ == "__main__":
    main()
