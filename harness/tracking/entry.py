"""What MLflow shows of one run folder, as plain values: names, parameters, tags, metrics."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..cells import csv_cell

Status = Literal["FINISHED", "FAILED", "KILLED"]

# Every server accepts values of this length, whatever its version.
_LONGEST_PARAMETER = 500
_LONGEST_TAG = 2000

_STATUS: dict[str, Status] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "skipped": "KILLED",
}
_POSITION = ("stage", "epoch", "step")


class UnreadableRun(ValueError):
    """A run folder does not hold what a run folder holds; the message names the file."""


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        key: Name of the metric, of characters that MLflow accepts.
        value: A finite number.
        timestamp: Milliseconds since 1970.
        step: Epoch counted over all stages; 0 for final metrics.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True)
class DataSetEntry:
    """The data set as MLflow records it; ``source`` and ``profile`` are JSON."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class RunEntry:
    """One run as MLflow shows it.

    Attributes:
        experiment: Name of the experiment: the protocol, and whether the data are generated.
        name: Readable name of the run.
        address: Run address; a store has one run of each.
        digest: Hash of ``run.json``; a run mirrored with another digest is out of date.
        status: Status in MLflow's words; the tag ``status`` has ours.
        started: Milliseconds since 1970.
        finished: Milliseconds since 1970.
        parameters: Identity, and hyper-parameters as ``hp.<name>``.
        tags: What runs are filtered and grouped by.
        points: Final metrics, which the UI lists first, and curves over epochs.
        data_set: The data set.
        columns: Final metrics that a table of runs should show.
        masks: CSV, one row per mask draw.
        file: The ``run.json`` it was read from.
    """

    experiment: str
    name: str
    address: str
    digest: str
    status: Status
    started: int
    finished: int
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...]
    data_set: DataSetEntry
    columns: frozenset[str]
    masks: str
    file: Path


def experiment_name(protocol: str, synthetic: bool) -> str:
    """Name of the experiment; results on generated data are kept apart from real ones."""
    return f"{protocol} (SYNTHETIC)" if synthetic else protocol


def metric_key(*parts: str) -> str:
    """Joins parts by slashes, with characters and dots that MLflow refuses replaced by ``_``."""
    plain = "/".join(re.sub(r"[^\w.\- /]", "_", part) for part in parts)
    # MLflow wants a path in its shortest form: no "", "." or ".." between slashes.
    return "/".join(part if part.strip(".") else "_" * max(len(part), 1) for part in plain.split("/"))[:250]


def read_entry(run_folder: Path) -> RunEntry:
    """Reads a run folder.

    Raises:
        UnreadableRun: ``run.json`` or ``history.jsonl`` is absent, broken or lacks a key.
    """
    from ..run_file import NewerRun, refuse_newer  # with pydantic, which `mlflow --help` does without

    file = run_folder / "run.json"
    try:
        text = file.read_bytes()
        record = json.loads(text)
        refuse_newer(file, record.get("schema"))
        return _entry(file, record, hashlib.sha256(text).hexdigest()[:16])
    except KeyError as error:
        raise UnreadableRun(f"{file}: no key {error}") from error
    except NewerRun as error:
        raise UnreadableRun(str(error)) from error
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableRun(f"{file}: {error}") from error


def _entry(file: Path, record: Mapping[str, Any], digest: str) -> RunEntry:
    identity, marks, timings = record["identity"], record["marks"], record["timings"]
    started = _milliseconds(timings["started"])
    finished = max(started, _milliseconds(timings["finished"]))
    final = tuple(_final_metrics(record, finished))
    return RunEntry(
        experiment=experiment_name(identity["protocol"], marks["synthetic"]),
        name=_name(identity),
        address=record["address"],
        digest=digest,
        status=_STATUS.get(record["status"], "FAILED"),
        started=started,
        finished=finished,
        parameters=_parameters(identity),
        tags=_tags(record),
        points=(*final, *_curves(file.parent / "history.jsonl", started)),
        columns=_columns(record, final),
        data_set=_data_set(record["data"]),
        masks=_masks(record.get("masks") or {}),
        file=file,
    )


def _name(identity: Mapping[str, Any]) -> str:
    # Short, because the UI cuts what doesn't fit its narrow column: "gcnet/random-0.3/f2/s0".
    fold = [] if identity.get("fold") is None else [f"f{identity['fold']}"]
    return "/".join([identity["label"], identity["train_condition"], *fold, f"s{identity['seed']}"])


def _parameters(identity: Mapping[str, Any]) -> dict[str, str]:
    """Identity by its own names, hyper-parameters prefixed so that the two can't collide."""
    names = ("method", "label", "profile", "data_set", "fold", "regime", "train_condition", "seed")
    shown = {name: identity.get(name) for name in names}
    shown |= {f"hp.{name}": value for name, value in identity["hyper_parameters"].items()}
    return {
        metric_key(name): _plain(value)[:_LONGEST_PARAMETER] or "''"
        for name, value in shown.items()
        if value is not None
    }


def _tags(record: Mapping[str, Any]) -> dict[str, str]:
    identity, marks = record["identity"], record["marks"]
    environment = record.get("environment") or {}
    commit = environment.get("git_commit") or "unknown"
    tags = {
        "method": identity["method"],
        "label": identity["label"],
        "profile": identity.get("profile"),
        "data_set": identity["data_set"],
        "fold": identity.get("fold"),
        "condition": identity["train_condition"],
        "seed": identity["seed"],
        "regime": identity["regime"],
        "selection": marks["selection"],
        "context": marks.get("context"),
        "synthetic": marks["synthetic"],
        "privileged": ", ".join(marks.get("privileged") or ()) or "none",
        "status": record["status"],
        "device": environment.get("device"),
        "git_commit": f"{commit} (modified)" if environment.get("git_dirty") else commit,
        "comparison_hash": record["comparison_hash"],
    }
    if notes := marks.get("notes"):
        tags["notes"] = "; ".join(notes)
    if error := record.get("error"):
        tags["error"] = f"{error.get('type', 'error')}: {error.get('message', '')}"
    return {name: _plain(value)[:_LONGEST_TAG] for name, value in tags.items() if value is not None}


def _curves(file: Path, started: int) -> Iterator[Point]:
    """Every number of the history, one step a line.

    Lines are timed by the seconds that the epochs took, so that the axis of time in the UI means
    training time and the same folder always gives the same points.
    """
    if not file.exists():
        return
    elapsed = 0.0
    with file.open(encoding="utf-8") as lines:
        for step, line in enumerate(line for line in lines if line.strip()):
            row = json.loads(line)
            elapsed += row.get("seconds") or 0.0
            for name, value in row.items():
                if name not in _POSITION and (number := _finite(value)) is not None:
                    key = "usage/epoch_s" if name == "seconds" else metric_key(name)
                    yield Point(key, number, started + int(1000 * elapsed), step)


def _final_metrics(record: Mapping[str, Any], finished: int) -> Iterator[Point]:
    metrics = record.get("metrics") or {}
    chosen = metrics.get("validation") or {}
    timings = record["timings"]
    final = {
        **{
            ("test", condition, name): value
            for condition, values in (metrics.get("test") or {}).items()
            for name, value in values.items()
        },
        # Apart from the curve "validation/<metric>": its last point is not the chosen epoch's.
        **{("validation", "chosen", name): value for name, value in chosen.items()},
        ("validation", "chosen", "epoch"): record.get("best_epoch"),
        **{("usage", name): seconds for name, seconds in timings.items() if name.endswith("_s")},
        ("usage", "peak_memory_mib"): record.get("peak_memory_mib"),
        ("usage", "epochs"): record.get("epochs"),
    }
    for parts, value in final.items():
        if (number := _finite(value)) is not None:
            # The UI shows every digit; the exact numbers are in the artifact run.json.
            yield Point(metric_key(*parts), round(number, 6), finished)


def _columns(record: Mapping[str, Any], final: Iterable[Point]) -> frozenset[str]:
    """The primary metric on every condition and on validation; all of them if none is named."""
    metrics = (record.get("protocol") or {}).get("metrics")
    primary = metrics.get("primary", "") if isinstance(metrics, Mapping) else ""
    end = f"/{primary}" if primary else ""
    shown = (point.key for point in final if point.key.startswith(("test/", "validation/")))
    return frozenset(key for key in shown if key.endswith(end))


def _data_set(data: Mapping[str, Any]) -> DataSetEntry:
    source = {name: data[name] for name in ("origin", "licence") if data.get(name)}
    profile = {"utterances": data.get("utterances"), "features": data.get("features")}
    return DataSetEntry(
        name=data["name"],
        digest=str(data["fingerprint"])[:16],
        source=json.dumps({"uri": data.get("origin") or data["name"], **source}),
        profile=json.dumps(profile),
    )


def _masks(masks: Mapping[str, Any]) -> str:
    """A table of the mask draws, which the UI shows as one."""
    rows = [
        {
            "split": where[0],
            "condition": "/".join(where[1:]),
            "mask_seed": draw.get("seed"),
            "realised_rate": draw.get("realised_rate"),
            **{f"rate {name}": rate for name, rate in (draw.get("per_modality") or {}).items()},
            **{f"share {name}": share for name, share in (draw.get("patterns") or {}).items()},
            "hash": draw["hash"],
        }
        for where, draw in _draws(masks)
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "hash"))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "hash"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_cell(_rounded(value)) for name, value in row.items()})
    return text.getvalue()


def _draws(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every mask draw with the names that lead to it (split, condition)."""
    if isinstance(value, Mapping):
        if "hash" in value:
            yield where, value
        else:
            for name, inner in value.items():
                yield from _draws(inner, (*where, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _draws(inner, where)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _finite(value: Any) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _milliseconds(moment: str) -> int:
    time = datetime.fromisoformat(moment)
    # A time without zone would be read in the zone of whoever mirrors it.
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int(time.timestamp() * 1000)
