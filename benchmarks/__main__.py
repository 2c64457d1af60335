"""All benchmarks as one command.

    python -m benchmarks [SECTION ...] [--device cuda] [--methods late_fusion,momke] [--json FILE] [--quick]

Run it from the root of the repository. Wall times need a machine that nobody else uses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import epochs, jobs, leaderboard, masks, overhead, stack, startup
from .setting import Setting
from .table import as_records, as_text

SECTIONS = {
    "startup": startup.measure,
    "masks": masks.measure,
    "overhead": overhead.measure,
    "epochs": epochs.measure,
    "jobs": jobs.measure,
    "stack": stack.measure,
    "leaderboard": leaderboard.measure,
}


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--epochs", type=int, help="epochs of each training")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    args = parser.parse_args()
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.exit(message="no CUDA device: not measured\n")
    methods = tuple(args.methods.split(",")) if args.methods else ()
    setting = Setting(args.device, methods, args.epochs, args.quick)
    figures = [figure for name in args.sections or SECTIONS for figure in SECTIONS[name](setting)]
    print(as_text(figures))
    if args.json:
        from imer_bench.harness.files import write_json

        write_json(args.json, as_records(figures))


if __name__ == "__main__":
    main()
