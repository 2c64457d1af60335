"""The saved view "Results" of an experiment in MLflow's UI.

By default the UI folds all runs under their parent and shows no metric. A saved view, which the UI
keeps as a tag of the experiment, lists the runs with the columns that matter instead. The form of
the tag is the UI's own and not a promise of MLflow's: a UI that doesn't know it shows its default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

VIEW_KEY = "results"
TAG = f"mlflow.sharedViewState.{VIEW_KEY}"

_RUN_NAME = "attributes.`Run Name`"


def results_view(columns: Iterable[str]) -> str:
    """The tag's value for a view with these metrics as columns."""
    metrics = [f"metrics.`{name}`" for name in sorted(columns)]
    state = {
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["tags.`status`", *metrics],
        "columnOrder": [_RUN_NAME, *metrics],
        "columnWidths": {_RUN_NAME: 280} | dict.fromkeys(metrics, 150),
    }
    # A fixed time, so that the same columns always give the same tag.
    return json.dumps({"name": "Results", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def columns_of(tag: str | None) -> set[str]:
    """The metrics of a view as it was saved; empty if there is none that can be read."""
    try:
        view: Mapping[str, Any] = json.loads(tag or "")
        selected = json.loads(view["state"])["selectedColumns"]
        return {name[len("metrics.`") : -1] for name in selected if name.startswith("metrics.`")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
