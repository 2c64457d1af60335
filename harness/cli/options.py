"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..executors.events import Workers
    from ..protocol.plan import Execution, Plan
    from ..protocol.schema import Protocol
    from ..store import Store

SYNTHETIC_SUFFIX = "-SYNTHETIC"


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that choose a protocol and change it."""
    parser.add_argument("--protocol", type=Path, required=True, metavar="FILE", help="protocol file (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the protocol, such as compute.epochs=5 (repeatable)",
    )
    parser.add_argument("--methods", type=_names, metavar="A,B", help="run only these methods")
    parser.add_argument("--seeds", type=_seeds, metavar="1,2", help="training seeds instead of the file's")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data sets")
    parser.add_argument(
        "--synthetic", action="store_true", help="use generated data of the same shape; results are marked"
    )
    parser.add_argument(
        "--synthetic-scale",
        type=_share,
        default=1.0,
        metavar="X",
        help="size of the generated data relative to the data set's, in (0, 1]",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results folder")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say who computes."""
    parser.add_argument(
        "--jobs",
        type=jobs,
        default=1,
        metavar="N",
        help="runs computed at a time, each with the protocol's threads; 'auto': as many as there are "
        "cores for (default: 1)",
    )
    parser.add_argument(
        "--executor",
        choices=("processes", "ray"),
        default="processes",
        help="compute in processes of this machine, or as tasks of Ray (default: processes)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a running Ray cluster to join, such as auto (default: Ray on this machine with --jobs workers)",
    )
    parser.add_argument(
        "--gpu-share",
        type=_share,
        metavar="X",
        help="part of a GPU that a run on CUDA takes under Ray, in (0, 1] (default: 1)",
    )


def check_worker_arguments(args: argparse.Namespace) -> None:
    """Refuses options of workers that don't fit together.

    Raises:
        UserError: They don't, or Ray is not installed.
    """
    from ..errors import UserError

    if args.executor == "ray":
        from ..executors.cluster import cluster_address, import_ray

        import_ray(alone=cluster_address(args.ray_address) is None)
    elif args.ray_address or args.gpu_share is not None:
        option = "--ray-address" if args.ray_address else "--gpu-share"
        raise UserError(f"{option} belongs to --executor ray")


def workers_of(args: argparse.Namespace, plan: Plan, store: Store) -> Callable[[], Workers] | None:
    """Answers who computes the runs, or ``None`` for this process alone.

    Raises:
        UserError: The options don't fit together, or Ray is not installed.
    """
    check_worker_arguments(args)
    count = args.jobs or max(1, usable_cores() // plan.execution.threads)
    if args.executor == "ray":
        from ..executors.cluster import RayWorkers
        from ..executors.request import PlanRequest

        needs = memory_needs(plan, args.results)
        request = PlanRequest.of(plan, store.folder)
        return lambda: RayWorkers(request, count, args.ray_address, args.gpu_share or 1.0, needs)
    if count == 1:
        return None
    from ..executors.processes import ProcessWorkers
    from ..executors.request import PlanRequest

    request, gpus = PlanRequest.of(plan, store.folder), visible_gpus(plan.execution.device)
    return lambda: ProcessWorkers(request, count, gpus)


def memory_needs(plan: Plan, results: Path) -> dict[str, int]:
    """Bytes of main memory that runs are known to need, by address, with a tenth to spare."""
    from ..costs import estimate, read_costs

    if plan.execution.device != "cpu":
        return {}  # what was measured is the device's memory
    costs = read_costs(sorted(results.glob("*")))
    known = {run.address: estimate(run, plan.execution, costs) for run in plan.runs if not run.skip}
    return {address: int(1.1 * 2**20 * item.memory_mib) for address, item in known.items() if item}


def visible_gpus(device: str) -> tuple[str, ...]:
    """The GPUs of this machine that may be used, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if device != "cuda":
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return tuple(name.strip() for name in named.split(","))
    import torch

    return tuple(str(index) for index in range(torch.cuda.device_count()))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs(text: str) -> int:
    """Reads a number of jobs; ``"auto"`` is 0."""
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of one or more, or 'auto', not {text!r}")
    return int(text)


def load_plan(args: argparse.Namespace) -> Plan:
    """The whole plan that the options ask for, all shards together.

    Raises:
        UserError: Something in the file or the options can't be used.
    """
    from ..protocol.data import DataSource, load_data
    from ..protocol.load import Overrides, load_protocol
    from ..protocol.plan import make_plan

    overrides = Overrides(tuple(args.set), args.methods, args.seeds)
    protocol = load_protocol(args.protocol, overrides)
    source = DataSource(args.data_root, args.synthetic, args.synthetic_scale)
    return make_plan(protocol, load_data(protocol, source), execution_of(protocol, args.device), source)


def store_of(args: argparse.Namespace, protocol: Protocol) -> Store:
    """The store of a protocol; runs on generated data have a folder of their own."""
    from ..store import Store

    return Store(args.results / (protocol.name + (SYNTHETIC_SUFFIX if args.synthetic else "")))


def execution_of(protocol: Protocol, device: str) -> Execution:
    """Where and how the runs of a protocol are computed on this machine.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    from ..errors import UserError
    from ..protocol.plan import Execution

    if device != "cpu":
        found = _cuda_is_available()
        if device == "cuda" and not found:
            raise UserError("--device cuda: this machine has no usable CUDA device; leave it out or use cpu")
        device = "cuda" if found else "cpu"
    return Execution.of(protocol, device)


def _cuda_is_available() -> bool:
    # Importing torch takes seconds; without the driver's device there is nothing to ask it.
    if os.name == "posix" and not (os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return names


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, not {text!r}") from None


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1], not {text!r}")
    return value


def shard(text: str) -> tuple[int, int]:
    """Reads ``I/N``, part I of N counted from 1."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, not {text!r}")
    return int(index), int(count)
