"""Mirrors finished runs to MLflow.

The results folder is the truth; MLflow is a mirror of it that can always be rebuilt. Nothing here
imports mlflow until something is logged, and the engine imports none of this.

- ``entry``: what MLflow shows of one run folder, as plain values;
- ``executions``: which runs each call of the command brought, kept beside the results;
- ``mlflow_store``: the only module that talks to MLflow;
- ``logger``: a process that logs runs;
- ``mirror``: hands it runs in the background while others train;
- ``sync``: brings a whole results folder to a store, and the command for it.
"""

from .executions import Execution, waiting
from .mirror import Mirror, MirrorReport
from .sync import SyncReport, add_arguments, run, sync

__all__ = [
    "Execution",
    "Mirror",
    "MirrorReport",
    "SyncReport",
    "add_arguments",
    "run",
    "sync",
    "waiting",
]
