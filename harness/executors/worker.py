"""What a worker does with the runs it is given, on this machine or another."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.run import SplitCache, Workshop, compute
from ..engine.training import Progress
from ..errors import UserError
from ..language_models import LanguageModels
from ..method import Stage
from ..protocol.plan import PlannedRun
from ..store import Store
from .events import Ended, EpochDone, Event, Started, Unable
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
        """Whether the plan that was made here has this run: data and code are those of the command."""
        return address in self._runs

    def work(self, address: str, tell: Callable[[Event], None]) -> Ended | Unable:
        """Computes a run, unless another process does or has done, or the results folder takes no files.

        Args:
            address: Address of the run.
            tell: Called when it starts and after every epoch.
        """
        try:
            return self._work(address, tell)
        except UserError as error:
            return Unable(str(error))

    def _work(self, address: str, tell: Callable[[Event], None]) -> Ended:
        run, store = self._runs[address], self._shop.store
        with store.claim(address) as mine:
            if not mine:
                return Ended(address, "elsewhere")
            if store.find(address) is not None:
                return Ended(address, "found")
            tell(Started(address))
            compute(run, self._shop, lambda stage, progress: tell(_epoch(run, stage, progress)))
            return Ended(address, "computed")


def _epoch(run: PlannedRun, stage: Stage, progress: Progress) -> EpochDone:
    return EpochDone(run.address, stage.name, progress.step, progress.history[-1].get("train/total"))
