"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    data = load_data(protocol, DataSource(args.data_root, args.synthetic, args.synthetic_scale))
    return make_plan(protocol, data, execution_of(protocol, args.device))


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
    return Execution(device, protocol.compute.threads, protocol.compute.precision)


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
