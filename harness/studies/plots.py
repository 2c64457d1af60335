"""Figures of a study, drawn where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from ..files import written_whole
from .definition import StudyPlan

# Contour plots of more hyper-parameters than this can't be read.
_CONTOUR = 4


def write_plots(study: optuna.Study, plan: StudyPlan, summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws history, importance, slices, contours and the expected best; answers what was drawn.

    A plot that the trials are too few for is left out.

    Args:
        study: The study.
        plan: Its definition.
        summary: Its summary.
        folder: Where the figures go.
    """
    if summary["best"] is None or importlib.util.find_spec("matplotlib") is None:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as draw

    def target(trial: FrozenTrial) -> float:
        return float(np.mean(trial.values))

    name = f"validation {plan.protocol.metrics.primary}"
    # With a target Optuna does not know which way is better, and colours the wrong way round.
    common: dict[str, Any] = {"target_name": name}
    if plan.objectives > 1:
        common["target"] = target
    ranked = list(summary["importance"]) or list(plan.space.names)
    figures: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(study, **common),
        "importance": lambda: draw.plot_param_importances(study, **common),
        "slice": lambda: draw.plot_slice(study, **common),
        "contour": lambda: draw.plot_contour(study, params=ranked[:_CONTOUR], **common),
        "expected": lambda: _expected(pyplot, summary, name),
    }
    written = []
    for title, make in figures.items():
        path = folder / f"{title}.png"
        path.unlink(missing_ok=True)
        if title in ("importance", "contour") and (len(ranked) < 2 or not summary["importance"]):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure = np.ravel(make())[0].figure
                if title in ("slice", "contour"):
                    columns = min(len(plan.space.names), _CONTOUR if title == "contour" else 100)
                    figure.set_size_inches(4 + 3 * columns, 5 if title == "slice" else 3 * columns + 2)
                with written_whole(path) as temporary:
                    figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
            written.append(path)
        except (ValueError, RuntimeError, IndexError):
            continue  # too few trials for this one
        finally:
            pyplot.close("all")
    return written


def _expected(pyplot: Any, summary: Mapping[str, Any], name: str) -> Any:
    _, axes = pyplot.subplots(figsize=(6, 4))
    values = summary["expected_best"]
    axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label="expected best of k trials")
    if summary["base"] is not None:
        axes.axhline(summary["base"]["value"], color="grey", linestyle="--", label="base setting")
    axes.set_xlabel("number of trials k")
    axes.set_ylabel(name)
    axes.set_title(f"{summary['label']}: what a budget buys")
    axes.legend()
    return axes
