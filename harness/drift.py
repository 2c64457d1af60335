"""Anchor drift: how far missing modalities move what a method represents a class by.

Class means of the hidden representation (``Prediction.hidden``) are taken twice on the SAME
utterances, once complete and once incomplete. With ``h_i(s)`` the representation of utterance i under
condition s, ``N_c`` the number of utterances of class c and ``P`` the pairs of classes::

    mu_c(s)       = 1/N_c sum_{i: y_i = c} h_i(s)
    scale         = 1/|P| sum_{(c, d) in P} || mu_c(complete) - mu_d(complete) ||
    drift_c(s)    = || mu_c(s) - mu_c(complete) || / scale
    common(s)     = || 1/C sum_c (mu_c(s) - mu_c(complete)) || / scale
    separation(s) = 1/|P| sum_{(c, d) in P} || mu_c(s) - mu_d(s) || / scale

A drift of 1 is the mean distance between two classes. ``common`` is the part that all classes share: it
moves them together and leaves the distances between them as they are. A separation of 1 is that of
complete data, 0 means that all class means coincide. None depends on the unit, origin or rotation of
the representation, so that methods can be set side by side. In the ``"unit"`` space every ``h_i`` is divided
by its length first: what a classifier by cosines sees, which no shrinking can move.

The utterances are the same on both sides, so a method that ignores the missing modalities has a
drift of exactly 0; there is no sampling noise between the sides, only in which utterances were tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import UserError

if TYPE_CHECKING:
    from .engine.run import Workshop
    from .engine.tensors import Masks, SplitTensors
    from .method import Method
    from .protocol.plan import Plan, PlannedRun
    from .store import Store, StoredRun

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Space = Literal["raw", "unit"]

# How far a restored model's predictions may be from the stored ones.
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Drift:
    """Drift of one condition.

    Attributes:
        by_class: ``[C]`` drift of each class, NaN for a class without utterances.
        common: Length of the mean displacement of the classes.
        separation: Mean distance between class means, relative to that of complete data.
        counts: ``[C]`` utterances of each class.
    """

    by_class: FloatArray
    common: float
    separation: float
    counts: IntArray

    @property
    def mean(self) -> float:
        """Mean over the classes that have utterances, each counted once."""
        return float(np.nanmean(self.by_class))


def anchor_drift(
    complete: npt.ArrayLike,
    incomplete: npt.ArrayLike,
    classes: npt.ArrayLike,
    count: int,
    space: Space = "raw",
) -> Drift:
    """Drift of class means between two representations of the same utterances.

    Args:
        complete: ``[N, H]`` representations with all modalities.
        incomplete: ``[N, H]`` representations of the same utterances under a condition.
        classes: ``[N]`` classes, 0 to ``count - 1``.
        count: Number of classes C.
        space: ``"raw"``, or ``"unit"``: every representation at length 1 (zero stays zero).

    Raises:
        ValueError: Shapes differ, fewer than two classes are there, or complete class means coincide.
    """
    before, after = (
        _in_space(np.asarray(values, dtype=np.float64), space) for values in (complete, incomplete)
    )
    labels = np.asarray(classes, dtype=np.int64)
    if before.shape != after.shape or before.ndim != 2 or labels.shape != before.shape[:1]:
        raise ValueError(
            f"shapes {before.shape}, {after.shape} and {labels.shape} are not of the same utterances"
        )
    counts = np.bincount(labels, minlength=count)
    seen = np.flatnonzero(counts)
    if len(seen) < 2:
        raise ValueError("drift needs utterances of at least two classes")
    mean_before, mean_after = _class_means(before, labels, counts), _class_means(after, labels, counts)
    scale = _mean_distance(mean_before[seen])
    if scale == 0:
        raise ValueError("the class means of complete data coincide: drift has no scale")
    moved = mean_after - mean_before
    return Drift(
        by_class=np.linalg.norm(moved, axis=1) / scale,
        common=float(np.linalg.norm(moved[seen].mean(axis=0))) / scale,
        separation=_mean_distance(mean_after[seen]) / scale,
        counts=counts,
    )


def _in_space(values: FloatArray, space: Space) -> FloatArray:
    if space == "raw":
        return values
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)


def _class_means(values: FloatArray, labels: IntArray, counts: IntArray) -> FloatArray:
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, labels, values)
    return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)


def _mean_distance(means: FloatArray) -> float:
    pairs = itertools.combinations(means, 2)
    return float(np.mean([np.linalg.norm(first - second) for first, second in pairs]))


# Measuring it on finished runs.


def drift_table(plan: Plan, store: Store, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """Drift of every finished run of a plan, on its test split and test conditions.

    Sentiment scores count as negative, neutral (0) and positive. Rows without a representation
    (``Prediction.hidden``), such as ``constant``, are left out.

    Args:
        plan: The plan.
        store: Results of the protocol; runs that it lacks are left out.
        labels: Only these rows of the comparison.

    Returns:
        A row per run, condition, mask draw, space and class: ``data_set, synthetic, label, method, fold,
        train_condition, seed, condition, family, mask_seed, space, class, utterances, drift, common,
        separation`` (the last two are of all classes together).

    Raises:
        UserError: A restored model does not predict what the store has.
    """
    from .engine.run import SplitCache, Workshop, prepare_torch
    from .language_models import LanguageModels

    prepare_torch(plan.execution)
    shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())
    found = {stored.address: stored for stored in store.runs()}
    rows: list[dict[str, object]] = []
    for run in plan.runs:
        stored = found.get(run.address)
        if stored is None or stored.status != "finished" or (labels and run.variant.label not in labels):
            continue
        rows += _drift_of_run(run, stored, shop)
    return pd.DataFrame(rows)


def _drift_of_run(run: PlannedRun, stored: StoredRun, shop: Workshop) -> Iterator[dict[str, object]]:
    import torch

    from .engine.masking import conditions
    from .engine.run import evaluation_batch

    device = torch.device(shop.execution.device)
    method = restore(run, stored, shop)
    test = shop.splits.split(run, device, "test")
    tests = conditions(test, run.test, run.data.info.name, shop.protocol.test.mask_seeds)
    size = evaluation_batch(run)
    complete = hidden_states(method, test, test.everything(), size)
    if complete is None:
        return
    labels = test.labels.cpu().numpy()
    classes = np.sign(labels).astype(np.int64) + 1 if run.spec.task == "regression" else labels
    for condition in tests:
        if condition.name == "complete":
            continue
        incomplete = hidden_states(method, test, condition.masks, size)
        assert incomplete is not None
        for space in ("raw", "unit"):
            drift = anchor_drift(complete, incomplete, classes, len(run.spec.classes), space)
            for name, value, count in zip(run.spec.classes, drift.by_class, drift.counts, strict=True):
                yield {
                    "data_set": run.data.info.name,
                    "synthetic": run.data.samples.corpus.synthetic,
                    "label": run.variant.label,
                    "method": run.variant.info.name,
                    "fold": run.fold,
                    "train_condition": run.train.name,
                    "seed": run.seed,
                    "condition": condition.name,
                    "family": condition.family,
                    "mask_seed": condition.mask_seed,
                    "space": space,
                    "class": name,
                    "utterances": int(count),
                    "drift": float(value),
                    "common": drift.common,
                    "separation": drift.separation,
                }


def restore(run: PlannedRun, stored: StoredRun, shop: Workshop) -> Method:
    """The model of a finished run, in evaluation mode; it predicts what the store has.

    Raises:
        UserError: It does not, on the first test condition, or a language model has other weights.
    """
    import torch
    from safetensors.torch import load_file

    from .engine.run import RunServices, build_method
    from .method import StagePlan

    device = torch.device(shop.execution.device)
    train = shop.splits.split(run, device, "train")
    services = RunServices(run.seed, device, shop.models)
    with torch.random.fork_rng(devices=[]):
        method = build_method(run, services)
        # Stages switch parts of some methods on and off; the model that is tested has been through all.
        steps = math.ceil(train.units / run.parameters.batch_size)
        for index, stage in enumerate(stage for stage in method.stages() if stage.epochs > 0):
            method.start_stage(StagePlan(stage, index, steps))
    if services.used != stored.record["language_models"]:
        raise UserError(f"{stored.folder.name}: its language model had other weights than the one at hand")
    method.load_state_dict(load_file(stored.folder / "model.safetensors"))
    method.eval()
    _check_predictions(method, run, stored, shop)
    return method


def _check_predictions(method: Method, run: PlannedRun, stored: StoredRun, shop: Workshop) -> None:
    import torch

    from .engine.evaluation import predict
    from .engine.masking import conditions
    from .engine.run import evaluation_batch
    from .leaderboard.table import numbers

    test = shop.splits.split(run, torch.device(shop.execution.device), "test")
    first = conditions(test, run.test[:1], run.data.info.name, shop.protocol.test.mask_seeds[:1])[0]
    table = pd.read_parquet(stored.predictions)
    table = table.loc[table["test_condition"] == first.name]
    if first.mask_seed is not None:
        table = table.loc[table["mask_seed"] == first.mask_seed]
    predicted = predict(method, test, first.masks, evaluation_batch(run), shop.execution.precision)
    pairs = [] if predicted.score is None else [(predicted.score, numbers(table, "score"))]
    if predicted.probabilities is not None:
        columns = [f"class_{index}" for index in range(predicted.probabilities.shape[1])]
        pairs.append((predicted.probabilities, np.stack([numbers(table, name) for name in columns], axis=1)))
    for now, then in pairs:
        if now.shape != then.shape or not np.allclose(now, then, atol=_TOLERANCE):
            raise UserError(f"run {stored.folder.name}: its model does not predict what its record has")


def hidden_states(method: Method, split: SplitTensors, masks: Masks, batch_size: int) -> FloatArray | None:
    """Representations ``[N, H]`` of a split in row order, or ``None`` if the method gives none."""
    import torch

    from .engine.evaluation import batches_in_order

    states, rows = [], []
    with torch.no_grad():
        for batch in batches_in_order(split, masks, batch_size):
            hidden = method.predict(batch).hidden
            if hidden is None:
                return None
            states.append(hidden[batch.real].double())
            rows.append(batch.rows[batch.real])
    return torch.cat(states)[torch.argsort(torch.cat(rows))].cpu().numpy()
