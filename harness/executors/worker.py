"""What a worker does with the runs it is given, on this machine or another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ..engine.run import Report, SplitCache, Workshop, compute_group
from ..engine.training import Progress
from ..errors import UserError
from ..language_models import LanguageModels
from ..method import Stage
from ..protocol.plan import PlannedRun
from ..store import Store
from .events import Ended, EpochDone, Event, Started, Unable, parts_of
from .request import PlanRequest


class Worker:
    """Computes runs of one plan.

    Args:
        request: The plan.

    Raises:
        UserError: The plan can't be made here, as where data are absent.
    """

    def __init__(self, request: PlanRequest) -> None:
        plan = request.plan()
        self._runs = {run.address: run for run in plan.runs if not run.skip}
        store = Store(request.results)
        self._shop = Workshop(plan.protocol, plan.execution, store, SplitCache(), LanguageModels())

    def has(self, address: str) -> bool:
        """Whether the plan that was made here has these runs: data and code are those of the command."""
        return all(one in self._runs for one in parts_of(address))

    def work(self, address: str, tell: Callable[[Event], None]) -> Ended | Unable:
        """Computes runs, unless another process does or has done, or the results folder takes no files.

        Args:
            address: Address of a run, or of a stack.
            tell: Called when a run starts, after each of its epochs, and when one of a stack ends.
        """
        try:
            return self._work(address, tell)
        except UserError as error:
            return Unable(str(error))

    def _work(self, address: str, tell: Callable[[Event], None]) -> Ended:
        runs, store = [self._runs[one] for one in parts_of(address)], self._shop.store
        ended: list[Ended] = []

        def end(event: Ended) -> None:
            ended.append(event)
            if len(runs) > 1:
                tell(event)

        with ExitStack() as claims:
            missing: list[PlannedRun] = []
            for run in runs:
                if not claims.enter_context(store.claim(run.address)):
                    end(Ended(run.address, "elsewhere"))
                elif store.find(run.address) is not None:
                    end(Ended(run.address, "found"))
                else:
                    missing.append(run)
                    tell(Started(run.address))
            for run, _ in compute_group(missing, self._shop, lambda run: _teller(run, tell)):
                end(Ended(run.address, "computed"))
        return Ended(address, ended[-1].how)


def _teller(run: PlannedRun, tell: Callable[[Event], None]) -> Report:
    return lambda stage, progress: tell(_epoch(run, stage, progress))


def _epoch(run: PlannedRun, stage: Stage, progress: Progress) -> EpochDone:
    return EpochDone(run.address, stage.name, progress.step, progress.history[-1].get("train/total"))
