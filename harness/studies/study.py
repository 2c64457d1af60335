"""A study in its storage: budget, queue, and the loop of a worker.

A trial **counts** if it has ended with a value, was pruned, or failed by its own fault (then its
attribute ``reason`` says why). A trial whose worker died or was stopped is marked as failed without
a reason, does not count, and its settings are queued again.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ..errors import UserError
from ..files import CannotWrite
from ..hashing import derive_seed
from .definition import StudyPlan

# Attributes of trials.
WORKER = "worker"
REASON = "reason"
SETTING = "setting"
DEATHS = "deaths"
RETRY_OF = "retry_of"
BASE = "base"
_SURPLUS = "surplus"

Interrupt = Callable[[], bool]

_MOST_DEATHS = 3
_POLL_SECONDS = 0.5
# Workers take turns at a file of SQLite; who does not get one for so long gives up.
_TURN_SECONDS = 60
# A worker elsewhere, whose lock can't be seen, is taken for dead after so many seconds of silence.
_HEARTBEAT = 10
_GRACE = 90

_SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
    "brute_force": "BruteForceSampler",
}
_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
}


class TrialFailed(Exception):
    """A trial ended without a value; the reason is in its attributes."""


class _Surplus(Exception):
    """Another worker took the last trial of the budget a moment before."""


@dataclass(frozen=True)
class Budget:
    """What a study may spend.

    Attributes:
        trials: Trials that count; ``None``: no limit.
        seconds: Compute after which no trial starts; ``None``: no limit.
    """

    trials: int | None
    seconds: float | None = None

    def is_claimed(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether nothing is left for another trial."""
        claimed = [item for item in trials if not was_lost(item)]
        enough = self.trials is not None and len(claimed) >= self.trials
        return enough or (self.seconds is not None and spent(trials) >= self.seconds)


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials that count."""
    return [item for item in trials if item.state.is_finished() and not was_lost(item)]


def spent(trials: Sequence[FrozenTrial]) -> float:
    """Seconds of compute of the trials that count, and of those that run."""
    total = 0.0
    for item in trials:
        if item.datetime_start is None or was_lost(item):
            continue
        end = item.datetime_complete or datetime.now()
        total += (end - item.datetime_start).total_seconds()
    return total


def was_lost(trial: FrozenTrial) -> bool:
    """Whether a trial ended without a fault of its own, and without counting."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def index_of(trial: FrozenTrial | optuna.Trial, trials: Sequence[FrozenTrial]) -> int:
    """Position of a trial among those that were not lost, the same with and without interruptions."""
    return sum(item.number < trial.number and not was_lost(item) for item in trials)


def open_study(plan: StudyPlan, url: str, folder: Path) -> optuna.Study:
    """Opens a study, and makes it with the base setting as its first trial where it is new.

    Args:
        plan: The study.
        url: Storage in SQLAlchemy's notation.
        folder: Folder that the workers of the study share.

    Raises:
        UserError: The storage, sampler or pruner can't be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    higher = plan.higher_is_better
    direction = optuna.study.StudyDirection.MAXIMIZE if higher else optuna.study.StudyDirection.MINIMIZE
    with FileLock(folder / "study.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=_storage(url),
            study_name=plan.name,
            sampler=_Seeded(plan),
            pruner=_pruner(plan),
            directions=[direction] * plan.objectives,
            load_if_exists=True,
        )
        if not study.get_trials(deepcopy=False):
            study.set_user_attr("space", plan.space.record())
            study.set_user_attr("primary", plan.protocol.metrics.primary)
            if plan.objectives > 1:
                study.set_metric_names([item.name for item in plan.conditions])
            study.enqueue_trial(plan.space.values_of(plan.base), {SETTING: BASE})
    return study


@contextlib.contextmanager
def storage_faults(url: str) -> Iterator[None]:
    """Turns what is wrong with a storage into an error that says what to do.

    Args:
        url: The storage, with or without its password.
    """
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, AssertionError) as error:
        inner: BaseException = error
        if isinstance(error, AssertionError):  # Optuna's word for a result that could not be stored
            if not isinstance(error.__context__, optuna.exceptions.StorageInternalError):
                raise
            inner = error.__context__
        while not isinstance(inner, sqlalchemy.exc.DBAPIError) and inner.__cause__ is not None:
            inner = inner.__cause__
        words = str(getattr(inner, "orig", None) or inner).splitlines()[0]
        advice = "the same command continues when it can be used"
        if "locked" in words:
            advice = "another process holds it; the same command continues when it is free"
        elif "malformed" in words or "not a database" in words:
            advice = "it is damaged: move it away, and the same command starts the study anew"
        raise UserError(f"--storage {shown_url(url)}: {words}; {advice}") from error


def _storage(url: str) -> optuna.storages.RDBStorage:
    import sqlalchemy.exc

    options: dict[str, Any] = {}
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": _TURN_SECONDS}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in (1, 2, 3):
            try:
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=_HEARTBEAT,
                    grace_period=_GRACE,
                    heartbeat_stale_trial_callback=requeue,
                )
            except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.IntegrityError):
                if attempt == 3:
                    raise
                time.sleep(1)  # another process makes the tables at this moment
            except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
                raise UserError(f"--storage {url!r}: {error}") from None
    raise AssertionError


def _pruner(plan: StudyPlan) -> optuna.pruners.BasePruner:
    tune = plan.protocol.tune
    options = dict(tune.pruner_options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if tune.pruner == "none" or plan.objectives > 1:
                return optuna.pruners.NopPruner()
            # First epochs say little, least of all about small learning rates.
            warm_up = {"n_warmup_steps": plan.most_epochs // 3}
            if tune.pruner == "patient":
                startup = options.pop("n_startup_trials", 5)
                median = optuna.pruners.MedianPruner(n_startup_trials=startup, **warm_up)
                return optuna.pruners.PatientPruner(median, **{"patience": 5, **options})
            if tune.pruner == "percentile":
                options = {"percentile": 50.0, **options}
            if tune.pruner in ("median", "percentile"):
                options = {**warm_up, **options}
            return getattr(optuna.pruners, _PRUNERS[tune.pruner])(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"tune.pruner {tune.pruner!r} with {tune.pruner_options}: {error}") from None


class _Seeded(BaseSampler):
    """A sampler that is seeded anew for every trial, by the trial's position.

    So a study that was interrupted goes on as the unbroken one, and workers never draw the same.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._tune = plan.protocol.tune
        self._inner = self._make(0)

    def _make(self, index: int) -> BaseSampler:
        tune = self._tune
        # A low-discrepancy sequence is one sequence: it counts its points in the storage.
        own = 0 if tune.sampler == "qmc" else index
        options = {"seed": derive_seed(tune.seed, "sampler", own) % 2**32, **tune.sampler_options}
        if tune.sampler == "qmc":
            options = {"scramble": True, "warn_asynchronous_seeding": False, **options}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return getattr(optuna.samplers, _SAMPLERS[tune.sampler])(**options)
        except (TypeError, ValueError) as error:
            raise UserError(f"tune.sampler {tune.sampler!r} with {tune.sampler_options}: {error}") from None
        except ImportError as error:
            raise UserError(f"tune.sampler {tune.sampler!r}: {error}") from None

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner = self._make(index_of(trial, study.get_trials(deepcopy=False)))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._inner.after_trial(study, trial, state, values)


def requeue(study: optuna.Study, trial: FrozenTrial, died: bool = True) -> None:
    """Queues the settings of a lost trial again; what has killed its worker often enough has failed.

    Args:
        study: The study.
        trial: The lost trial.
        died: Whether its worker has died; else it was stopped, or kept from storing the result.
    """
    kept = {name: value for name, value in trial.user_attrs.items() if name == SETTING}
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    lost = deaths > _MOST_DEATHS
    reason = {REASON: f"its worker died {deaths} times (out of memory?)"} if lost else {}
    fixed = trial.system_attrs.get("fixed_params")
    study.add_trial(
        optuna.create_trial(
            state=TrialState.FAIL if lost else TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**kept, DEATHS: deaths, RETRY_OF: trial.number, **reason},
            system_attrs={} if fixed is None else {"fixed_params": fixed},
        )
    )


@contextlib.contextmanager
def worker_lock(folder: Path) -> Iterator[str]:
    """A worker's name; its lock is held until the worker ends, however it ends."""
    name = uuid.uuid4().hex[:12]
    path = _lock_file(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with FileLock(folder / "study.lock"):  # nobody takes the new file for a dead worker's
        lock.acquire()
    try:
        yield name
    finally:
        lock.release()
    path.unlink(missing_ok=True)


def _lock_file(folder: Path, worker: str) -> Path:
    return folder / "workers" / f"{worker}.lock"


def reap(study: optuna.Study, folder: Path) -> int:
    """Queues the trials of dead and stopped workers again and answers how many there were."""
    count = _requeue_ended(study, folder)
    with FileLock(folder / "study.lock"):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_dead(trial, folder) and _set_lost(study, trial.number):
                requeue(study, trial)
                if WORKER in trial.user_attrs:
                    _lock_file(folder, trial.user_attrs[WORKER]).unlink(missing_ok=True)
                count += 1
        _remove_idle_locks(study, folder)
    return count


def _remove_idle_locks(study: optuna.Study, folder: Path) -> None:
    """Removes the locks of workers that died between trials."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    busy = {trial.user_attrs.get(WORKER) for trial in running}
    for path in (folder / "workers").glob("*.lock"):
        if path.stem not in busy and _is_free(path):
            path.unlink(missing_ok=True)


def _requeue_ended(study: optuna.Study, folder: Path) -> int:
    """Queues trials again that were ended without a fault of their own: their workers were stopped."""
    with FileLock(folder / "study.lock"):
        trials = study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        lost = [item for item in trials if was_lost(item) and _SURPLUS not in item.user_attrs]
        waiting = [item for item in lost if item.number not in again]
        for trial in waiting:
            requeue(study, trial, died=False)
    return len(waiting)


def _is_dead(trial: FrozenTrial, folder: Path) -> bool:
    worker = trial.user_attrs.get(WORKER)
    if worker is None:  # killed between taking the trial and signing it, or just about to sign it
        started = trial.datetime_start or datetime.now()
        return datetime.now() - started > timedelta(seconds=_GRACE)
    path = _lock_file(folder, worker)
    if not path.is_file():
        return False  # a worker elsewhere: its heartbeat tells
    return _is_free(path)


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def _set_lost(study: optuna.Study, number: int) -> bool:
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError, RuntimeError):
        study.tell(number, state=TrialState.FAIL)
        return True
    return False


def work(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float | list[float]],
    budget: Budget,
    folder: Path,
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
    interrupt: Interrupt = lambda: False,
) -> None:
    """Computes trials until the budget is spent and no trial runs anywhere.

    Args:
        study: The study.
        objective: The objective.
        budget: What the study may spend, whoever spends it.
        folder: Folder that the workers of the study share.
        on_trial: Called with every trial of this worker that has ended.
        interrupt: Asked between trials whether this worker must stop.

    Raises:
        KeyboardInterrupt: The worker was stopped; its trial is queued again.
        CannotWrite: The results folder takes no files; the trial is queued again.
    """
    with worker_lock(folder) as worker:

        def one(trial: optuna.Trial) -> float | list[float]:
            trial.set_user_attr(WORKER, worker)
            everyone = study.get_trials(deepcopy=False)
            if budget.trials is not None and index_of(trial, everyone) >= budget.trials:
                trial.set_user_attr(_SURPLUS, True)
                raise _Surplus
            return objective(trial)

        while not interrupt():
            reap(study, folder)
            trials = study.get_trials(deepcopy=False)
            if any(item.state == TrialState.WAITING for item in trials) or not budget.is_claimed(trials):
                _run_one(study, one, folder, on_trial)
            elif any(item.state == TrialState.RUNNING for item in trials):
                time.sleep(_POLL_SECONDS)
            else:
                return


def _run_one(
    study: optuna.Study,
    one: Callable[[optuna.Trial], float | list[float]],
    folder: Path,
    on_trial: Callable[[FrozenTrial], None],
) -> None:
    def ended(study: optuna.Study, trial: FrozenTrial) -> None:
        if not was_lost(trial):
            on_trial(trial)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.optimize(one, n_trials=1, catch=(TrialFailed, _Surplus), callbacks=[ended])
    except optuna.exceptions.UpdateFinishedTrialError:
        pass  # this worker was silent for so long that another one has queued its trial again
    except (KeyboardInterrupt, CannotWrite):
        _requeue_ended(study, folder)
        raise


def parent_is_gone(parent: int) -> bool:
    """Whether the process that started this worker has ended."""
    return os.getppid() != parent


def predictions_file(folder: Path, number: int) -> Path:
    """Where the validation predictions of a trial are kept, if they are."""
    return folder / "validation" / f"{number}.parquet"


def shown_url(url: str) -> str:
    """A storage without its password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)
