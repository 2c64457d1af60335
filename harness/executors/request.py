"""What a worker is told: enough to make the plan of the command for itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..protocol.data import DataSource, load_data
from ..protocol.plan import Execution, Plan, make_plan
from ..protocol.schema import Protocol


@dataclass(frozen=True)
class PlanRequest:
    """A plan without its data; can be pickled.

    Attributes:
        protocol: The protocol, overrides included.
        source: Where data come from.
        execution: Where and how runs are computed.
        results: Folder of the store.
        directory: Working directory of the command, which relative paths start from.
    """

    protocol: Protocol
    source: DataSource
    execution: Execution
    results: Path
    directory: Path

    @classmethod
    def of(cls, plan: Plan, results: Path) -> PlanRequest:
        """The request of a plan.

        Args:
            plan: A plan that knows where its data come from.
            results: Folder of its store.

        Raises:
            UserError: The plan was made from data in memory, which workers can't load.
        """
        if plan.source is None:
            raise UserError(
                "a plan made from data in memory has no source that workers could load it from; "
                "give make_plan(..., source=DataSource()) or compute it in this process"
            )
        root = plan.source.root
        source = plan.source if root is None else replace(plan.source, root=root.absolute())
        return cls(plan.protocol, source, plan.execution, results.absolute(), Path.cwd())

    def plan(self) -> Plan:
        """Loads the data and makes the plan.

        Raises:
            UserError: The data have gone or changed.
        """
        os.chdir(self.directory)
        return make_plan(self.protocol, load_data(self.protocol, self.source), self.execution, self.source)
