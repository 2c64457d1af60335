"""Runs of a plan on many workers: processes of this machine, or Ray's on many machines.

``scheduling`` decides which run comes next and what becomes of lost ones; ``processes`` and
``cluster`` are two kinds of workers for it. A worker gets a ``PlanRequest``, not the data: it makes
the same plan for itself, and everything it computes goes through the store. A run has the same
numbers whoever computes it, as its threads are the protocol's and not the machine's.
"""
