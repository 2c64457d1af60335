"""The only module that talks to MLflow.

One experiment a protocol, a parent run per execution, a child per run. Importing MLflow takes
seconds, so that it happens when a store is opened and not before.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from filelock import FileLock

from ..files import CannotWrite
from .entry import RunEntry
from .executions import Execution
from .view import TAG, VIEW_KEY, columns_of, results_view

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCK_NAME = ".mlflow.lock"

# Our own settings of the client; what the user has set stays. An unreachable server must answer
# soon, because whoever calls does its own waiting and trying again.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}

# One call of log_batch takes 100 parameters and 1000 values in all.
_PARAMETERS_PER_CALL = 100
_POINTS_PER_CALL = 900

_LONGEST_DESCRIPTION = 5000
# Bytes that a new database takes, at least.
_NEW_DATABASE = 2**20
_PARENT_FILES = (
    *("leaderboard.md", "leaderboard.csv", "leaderboard.json", "protocol.json"),
    *("report.html", "leaderboard.tex", "references.bib"),
)

Outcome = Literal["logged", "already"]


@dataclass(frozen=True)
class Mirrored:
    """A run that a store has of one of our addresses."""

    run_id: str
    digest: str
    complete: bool


class MlflowStore:
    """A tracking store, opened.

    Every change is made under a file lock in the results folder, so that processes that mirror at
    the same time neither create the database twice nor log a run twice.

    Args:
        results: The results folder, where the lock lies.
        tracking_uri: Where to log; MLflow's own choice if ``None`` (``MLFLOW_TRACKING_URI``, else
            its default, a database in the working directory).
        patience: Seconds to wait for the lock.

    Raises:
        mlflow.exceptions.MlflowException: The store is not to be had.
        filelock.Timeout: Another process holds the lock.
    """

    def __init__(self, results: Path, tracking_uri: str | None = None, patience: float = 5.0) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._lock = FileLock(results / LOCK_NAME, timeout=patience)
        self._experiments: dict[str, str] = {}
        self._parents: dict[tuple[str, str], str] = {}
        with self._lock:
            _create_database(tracking_uri)
            self._client: MlflowClient = MlflowClient(tracking_uri)

    @property
    def uri(self) -> str:
        """Where the runs go."""
        return self._client.tracking_uri

    def mirrored(self, experiment: str) -> dict[str, list[Mirrored]]:
        """All our runs of an experiment, by address."""
        found: dict[str, list[Mirrored]] = {}
        for run in self._search(self._experiment(experiment), "tags.kind = 'run'"):
            found.setdefault(run.data.tags.get("address", ""), []).append(_mirrored(run))
        return found

    def log(self, entry: RunEntry, execution: Execution) -> Outcome:
        """Logs a run unless the store has it; what was left half-logged or is out of date goes.

        MLflow has no transactions over a whole run. A run is created as running and ended last,
        so that whatever still runs when nobody else holds the lock was cut off.
        """
        with self._lock:
            experiment = self._experiment(entry.experiment)
            runs = [_mirrored(run) for run in self._search(experiment, f"tags.address = '{entry.address}'")]
            good = [run for run in runs if run.complete and run.digest == entry.digest]
            for run in runs:
                if run not in good[:1]:
                    self._client.delete_run(run.run_id)
            if good:
                return "already"
            self._write(experiment, entry, self._parent(entry.experiment, execution))
            return "logged"

    def finish(
        self, experiment: str, execution: Execution, protocol_folder: Path | None, ended: int | None = None
    ) -> None:
        """Ends the parent run of an execution, with the leaderboards.

        Args:
            experiment: Name of the experiment.
            execution: The execution.
            protocol_folder: Where the leaderboards are; ``None``: this parent is to carry none.
            ended: When it ended, in milliseconds since 1970; now if ``None``.
        """
        with self._lock:
            parent = self._client.get_run(self._parent(experiment, execution))
            if protocol_folder is not None:
                self._log_leaderboards(self._experiment(experiment), parent, protocol_folder)
            if parent.info.status == "RUNNING":
                self._client.set_terminated(parent.info.run_id, "FINISHED", ended)

    def show(self, experiment: str, columns: Iterable[str]) -> None:
        """Adds metrics to the experiment's saved view of results."""
        with self._lock:
            known = self._client.get_experiment(self._experiment(experiment))
            before = known.tags.get(TAG)
            view = results_view(columns_of(before) | set(columns))
            if view != before:
                self._client.set_experiment_tag(known.experiment_id, TAG, view)

    def _log_leaderboards(self, experiment: str, parent: Any, protocol_folder: Path) -> None:
        run_id = parent.info.run_id
        files = [file for name in _PARENT_FILES if (file := protocol_folder / name).is_file()]
        digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
        if parent.data.tags.get("leaderboard") == digest:
            return
        for file in files:
            self._client.log_artifact(run_id, str(file))
        text = _description(experiment, protocol_folder)
        self._client.set_tag(run_id, "mlflow.note.content", text)
        self._client.set_experiment_tag(experiment, "mlflow.note.content", text)
        self._client.set_tag(run_id, "leaderboard", digest)

    def clear(self, experiment: str, addresses: Iterable[str], executions: Iterable[str]) -> None:
        """Deletes our runs of these addresses and executions; other people's stay."""
        with self._lock:
            known, started = set(addresses), set(executions)
            for run in self._search(self._experiment(experiment), ""):
                tags = run.data.tags
                if tags.get("address") in known or (
                    tags.get("kind") == "execution" and tags.get("execution") in started
                ):
                    self._client.delete_run(run.info.run_id)
            self._parents.clear()

    def _write(self, experiment: str, entry: RunEntry, parent: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        client = self._client
        tags = {
            **_source_tags(entry.tags.get("git_commit", "")),
            **entry.tags,
            "kind": "run",
            "address": entry.address,
            "run_json": entry.digest,
            "mlflow.parentRunId": parent,
        }
        run_id = client.create_run(experiment, entry.started, tags, entry.name).info.run_id
        data = entry.data_set
        record = Dataset(data.name, data.digest, "local", data.source, profile=data.profile)
        client.log_inputs(run_id, [DatasetInput(record, [InputTag("mlflow.data.context", "train, test")])])
        parameters = [Param(name, value) for name, value in entry.parameters.items()]
        metrics = [Metric(p.key, p.value, p.timestamp, p.step) for p in entry.points]
        while parameters or metrics:
            now, parameters = parameters[:_PARAMETERS_PER_CALL], parameters[_PARAMETERS_PER_CALL:]
            points, metrics = metrics[:_POINTS_PER_CALL], metrics[_POINTS_PER_CALL:]
            client.log_batch(run_id, points, now)
        client.log_artifact(run_id, str(entry.file))
        client.log_text(run_id, entry.masks, "masks.csv")
        client.set_terminated(run_id, entry.status, entry.finished)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            if known is None:
                # The kind spares the user the UI's question whether this is about models or agents.
                tags = {"mlflow.experimentKind": "custom_model_development"}
                self._experiments[name] = self._client.create_experiment(name, tags=tags)
            else:
                if known.lifecycle_stage == "deleted":
                    self._client.restore_experiment(known.experiment_id)
                self._experiments[name] = known.experiment_id
        return self._experiments[name]

    def _parent(self, experiment_name: str, execution: Execution) -> str:
        key = (experiment_name, execution.id)
        if key not in self._parents:
            experiment = self._experiment(experiment_name)
            query = f"tags.kind = 'execution' and tags.execution = '{execution.id}'"
            known = self._search(experiment, query)
            self._parents[key] = known[0].info.run_id if known else self._create_parent(experiment, execution)
        return self._parents[key]

    def _create_parent(self, experiment: str, execution: Execution) -> str:
        tags = {
            **_source_tags(),
            "kind": "execution",
            "execution": execution.id,
            "command": execution.command,
        }
        started = int(execution.started.timestamp() * 1000)
        name = f"{execution.started:%Y-%m-%d %H:%M:%S}"
        return self._client.create_run(experiment, started, tags, name).info.run_id

    def _search(self, experiment: str, query: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([experiment], query, max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found


def is_refusal(error: Exception) -> bool:
    """Whether the store said no to what was sent, so that sending it again is in vain."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def reason(error: Exception) -> str:
    """What went wrong, in a line."""
    text = str(error).strip() or type(error).__name__
    # The client quotes the whole chain of exceptions where nobody answers; the last one says it all.
    if cause := re.search(r"Caused by (\w+)", text):
        return f"{text.split(' failed with exception')[0][:200]}: {cause[1]}"
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}"


def _create_database(tracking_uri: str | None) -> None:
    """Makes a new SQLite store complete or not at all.

    MLflow builds its tables in dozens of steps and refuses a database that was cut off on the way,
    as a Ctrl-C in the first seconds would leave it.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking import get_tracking_uri
    from sqlalchemy import make_url

    uri = tracking_uri or get_tracking_uri()
    if not uri.startswith("sqlite:"):
        return
    url = make_url(uri)
    if not url.database or url.database == ":memory:" or os.path.exists(url.database):
        return
    file = Path(url.database)
    # A name of its own for every try: MLflow keeps a connection to each database that it has seen.
    new = file.with_name(f".{file.name}.new-{uuid4().hex[:8]}")
    for rest in file.parent.glob(f".{glob.escape(file.name)}.new*"):
        rest.unlink()
    new_url = url.set(database=str(new)).render_as_string(hide_password=False)
    try:
        store = SqlAlchemyStore(new_url, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    except Exception as error:
        # MLflow tries again and complains of what its first try has left, not of the disk.
        if shutil.disk_usage(file.parent).free < _NEW_DATABASE:
            raise CannotWrite(file, os.strerror(errno.ENOSPC)) from error
        raise
    store.engine.dispose()
    os.replace(new, file)


def _mirrored(run: Any) -> Mirrored:
    return Mirrored(run.info.run_id, run.data.tags.get("run_json", ""), run.info.status != "RUNNING")


def _source_tags(commit: str = "") -> Mapping[str, str]:
    tags = {"mlflow.source.name": "bench.py", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if commit and commit != "unknown":
        tags["mlflow.source.git.commit"] = commit.split()[0]
    return tags


def _description(experiment: str, protocol_folder: Path) -> str:
    """What the UI shows above the runs: where to look, and the leaderboard."""
    # Lists of experiments show the beginning as plain text, so the table comes last.
    link = f"[Results](#/experiments/{experiment}/runs?viewStateShareKey={VIEW_KEY})"
    text = f"Protocol {protocol_folder.name}, all runs: {link}"
    table = protocol_folder / "leaderboard.md"
    if table.is_file():
        text += "\n\n" + table.read_text(encoding="utf-8")
    if len(text) > _LONGEST_DESCRIPTION:
        text = text[:_LONGEST_DESCRIPTION].rsplit("\n", 1)[0] + "\n\n(more in leaderboard.md)"
    return text
