"""``bench.py data card``: what a user must know of a data set before believing a number on it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data card``."""
    parser.add_argument("name", help="name of the data set")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--label", default="", metavar="COLUMN", help="label that the probe reads")
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="MODALITY=NAME",
        help="look at this feature set only (repeatable; default: all)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=6000,
        metavar="N",
        help="most utterances that the probe reads, drawn by dialogue (default: 6000)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (default: card.md in the data folder)"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON, and write nothing")


def run(args: argparse.Namespace) -> int:
    """Writes and prints the card."""
    from dataclasses import replace

    from ..corpus.catalogue import data_sets, find_corpus
    from ..corpus.manifest import read_manifest
    from ..corpus.native import load_contents
    from ..errors import UserError
    from ..files import write_json, write_text
    from .card import make_card
    from .text import card_text

    folder = find_corpus(args.name, args.data_root)
    contents = load_contents(folder)
    if args.features:
        pairs = {tuple(text.split("=", 1)) for text in args.features}
        kept = tuple(item for item in contents.features if (item.modality, item.name) in pairs)
        unknown = pairs - {(item.modality, item.name) for item in kept}
        if unknown:
            at_hand = ", ".join(f"{item.modality}={item.name}" for item in contents.features)
            raise UserError(f"--features {'='.join(min(unknown))}: at hand: {at_hand}")
        contents = replace(contents, features=kept)
    if args.limit < 1:
        raise UserError(f"--limit {args.limit}: at least 1 is needed")
    info = {item.name: item for item in data_sets()}.get(args.name)
    card = make_card(contents, read_manifest(folder).fingerprint, info, args.label, args.limit)
    if args.json:
        print(json.dumps(card.plain(), indent=1, ensure_ascii=False))
        return 0
    text = card_text(card)
    path = args.output or folder / "card.md"
    write_text(path, text)
    write_json(path.with_suffix(".json"), card.plain())
    print(text)
    print(f"written to {path}")
    return 0
