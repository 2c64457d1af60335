"""``bench.py compare``: two methods of one results folder, or two results folders."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py compare``."""
    parser.add_argument("first", metavar="A", help="a label, or a results folder")
    parser.add_argument("second", metavar="B", help="another label, or another results folder")
    parser.add_argument(
        "--in",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="results folder of the two labels; with two folders, every common label is compared",
    )
    parser.add_argument("--label", default="", help="with two folders: only this label")


def run(args: argparse.Namespace) -> int:
    """Prints the comparison: 0, or 1 if a difference was shown between two folders (a regression check)."""
    from ..errors import UserError
    from ..leaderboard import render_terminal
    from ..report import boards_of_two
    from ..store import Store

    if args.folder is not None:
        _check(args.folder)
        store = Store(args.folder)
        boards = boards_of_two(store, store, args.first, args.second)
    else:
        folders = Path(args.first), Path(args.second)
        for folder in folders:
            if not folder.is_dir():
                raise UserError(
                    f"no folder {str(folder)!r}; to compare two methods name their results folder with --in"
                )
            _check(folder)
        boards = boards_of_two(Store(folders[0]), Store(folders[1]), args.label)
    for board in boards:
        print(render_terminal(board))
    differ = any(item.significant for board in boards if board.claims for item in board.claims.comparisons)
    return 1 if differ and args.folder is None else 0


def _check(folder: Path) -> None:
    from ..errors import UserError

    if not (folder / "runs").is_dir():
        raise UserError(f"no results under {str(folder)!r}: it has no folder 'runs'")
