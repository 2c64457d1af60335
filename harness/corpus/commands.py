"""``bench.py data import``, ``list``, ``show`` and ``verify``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..card import command as card
from ..extraction import command as extraction

if TYPE_CHECKING:
    from .manifest import Manifest
    from .records import LabelInfo

# Kept here as text so that --help needs no pandas; a test compares it with the importers' list.
FORMATS = ("auto", "gcnet", "mmsa", "magtkd", "table")

_IMPORT_EXAMPLES = """\
formats:
  gcnet    a label pickle and folders of .npy files (GCNet, MoMKE, ComP, SDR-GNN)
  mmsa     aligned_50.pkl, unaligned_50.pkl, unaligned_39.pkl (MMSA, DMD, IMDer, LNLN)
  magtkd   pickled dictionaries of stage-1 features, one per split
  table    a CSV, Parquet or JSON table of utterances with .npy, .npz or safetensors features

Pickles are read through an allow-list; one that asks for anything else is refused (exit code 1).
A release of utterances that are there already adds its feature sets to the folder.

examples:
  python bench.py data import CMUMOSI/ --name cmu_mosi
  python bench.py data import --format mmsa unaligned_50.pkl --name cmu_mosi
  python bench.py data import utterances.csv text_mybert.npy audio.npy --name mine \\
      --label valence:score:1:5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands of ``bench.py data``."""
    names = "{import,extract,list,show,card,verify}"
    commands = parser.add_subparsers(dest="action", required=True, metavar=names)
    add_import_arguments(
        commands.add_parser(
            "import",
            help="turn a release into the native format",
            description="Turns a release into the native format and prints what it holds.",
            epilog=_IMPORT_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    extraction.add_arguments(
        commands.add_parser(
            "extract",
            help="make features from transcripts, sound and pictures",
            description="Makes features from transcripts, sound and pictures with frozen encoders.",
        )
    )
    add_list_arguments(commands.add_parser("list", help="list the native folders that are at hand"))
    add_show_arguments(commands.add_parser("show", help="show what a native folder holds"))
    card.add_arguments(
        commands.add_parser(
            "card",
            help="write a data-set card: signal of each modality, leaks, what is missing",
            description="Writes a data-set card: sizes, labels, signal of each modality, leaks, missingness.",
        )
    )
    add_verify_arguments(
        commands.add_parser("verify", help="recompute all digests and check what the format promises")
    )


def run(args: argparse.Namespace) -> int:
    """Runs a sub-command.

    Returns:
        Exit code: 0, or 1 where ``verify`` found a problem.
    """
    actions = {
        "import": run_import,
        "extract": extraction.run,
        "list": run_list,
        "show": run_show,
        "card": card.run,
        "verify": run_verify,
    }
    return actions[args.action](args)


# import


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data import``."""
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="files and folders of the release"
    )
    parser.add_argument("--name", required=True, help="name of the data set, such as cmu_mosi")
    parser.add_argument(
        "--format", default="auto", choices=FORMATS, help="format of the release (default: auto)"
    )
    _root_argument(parser, "folder that holds the data sets (default: IMER_DATA or ./data)")
    parser.add_argument(
        "--features", metavar="NAME,NAME", help="feature sets to take from the release (default: all)"
    )
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="NAME=MODALITY",
        help="modality of a feature set whose name does not tell",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="COLUMN:score:LOW:HIGH | COLUMN:class:NAME,NAME",
        help="label column of a table",
    )
    parser.add_argument(
        "--repair", action="store_true", help="set values that are not finite to zero, and record it"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="utterances without a file count as absent"
    )
    parser.add_argument("--replace", action="store_true", help="replace what is there under this name")
    parser.add_argument("--quiet", action="store_true", help="print warnings only")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run_import(args: argparse.Namespace) -> int:
    """Imports a release and prints the report."""
    from .catalogue import import_root
    from .errors import CorpusError
    from .importers import import_data

    pairs = [text.partition("=") for text in args.modality]
    for name, equals, modality in pairs:
        if not equals or not name or not modality:
            raise CorpusError(f"--modality {name!r}: expected NAME=MODALITY, such as myfeatures=audio")
    report = import_data(
        args.format,
        args.sources,
        args.name,
        import_root(args.data_root),
        modalities={name: modality for name, _, modality in pairs},
        labels=[label_argument(text) for text in args.label],
        features=args.features.split(",") if args.features else None,
        repair=args.repair,
        allow_missing=args.allow_missing,
        replace_existing=args.replace,
    )
    if args.json:
        print(json.dumps(report.plain(), indent=1, ensure_ascii=False))
    elif args.quiet:
        print(
            "\n".join(f"WARNING: {warning}" for warning in report.warnings),
            end="\n" if report.warnings else "",
        )
    else:
        print(report.text())
    return 0


def label_argument(text: str) -> LabelInfo:
    """Reads ``COLUMN:score:LOW:HIGH`` or ``COLUMN:class:NAME,NAME``.

    Raises:
        CorpusError: It is neither.
    """
    from .errors import CorpusError
    from .records import LabelInfo

    parts = text.split(":")
    if len(parts) == 4 and parts[1] == "score":
        try:
            low, high = float(parts[2]), float(parts[3])
        except ValueError:
            low, high = 0.0, 0.0
        if low < high:
            return LabelInfo(parts[0], "score", (), low, high)
    if len(parts) == 3 and parts[1] == "class" and len(parts[2].split(",")) > 1:
        return LabelInfo(parts[0], "class", tuple(parts[2].split(",")))
    raise CorpusError(f"--label {text!r}: expected COLUMN:score:LOW:HIGH or COLUMN:class:NAME,NAME,…")


# list


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data list``."""
    _root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run_list(args: argparse.Namespace) -> int:
    """Lists native folders under the roots that are searched."""
    from .catalogue import corpora, search_roots

    found = corpora(args.data_root)
    if args.json:
        print(json.dumps([_plain(folder, manifest) for folder, manifest in found], indent=1))
        return 0
    if not found:
        places = ", ".join(str(root) for root in search_roots(args.data_root))
        print(f"no data in {places}; docs/data.md says how to import a release")
        return 0
    from tabulate import tabulate

    rows = [
        [
            manifest.name,
            manifest.utterances,
            manifest.dialogues,
            "; ".join(
                f"{modality}: {', '.join(names)}" for modality, names in manifest.feature_sets().items()
            ),
            folder,
        ]
        for folder, manifest in found
    ]
    print(tabulate(rows, headers=["data set", "utterances", "dialogues", "feature sets", "folder"]))
    return 0


def _plain(folder: Path, manifest: Manifest) -> dict[str, object]:
    features = {modality: list(names) for modality, names in manifest.feature_sets().items()}
    return {
        "name": manifest.name,
        "folder": str(folder),
        "utterances": manifest.utterances,
        "dialogues": manifest.dialogues,
        "features": features,
        "fingerprint": manifest.fingerprint,
    }


# show


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data show``."""
    parser.add_argument("name", help="name of the data set")
    _root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run_show(args: argparse.Namespace) -> int:
    """Shows the manifest of a native folder, or where the data of a known data set come from."""
    from dataclasses import replace

    from .catalogue import data_set_info, find_corpus
    from .manifest import read_manifest
    from .native import load_contents
    from .report import make_report

    if args.name == "synthetic":
        info = data_set_info("synthetic")
        print(f"{info.title}: {info.summary}\nIt is generated; see docs/data.md for its options.")
        return 0
    folder = find_corpus(args.name, args.data_root)
    manifest = read_manifest(folder)
    if args.json:
        print(manifest.model_dump_json(by_alias=True, indent=1))
        return 0
    warnings = tuple(str(text) for text in manifest.report.get("warnings", ()))
    report = make_report(
        load_contents(folder),
        str(manifest.report.get("format", "")),
        str(folder),
        manifest.fingerprint,
        warnings,
    )
    print(replace(report, notes=manifest.notes).text())
    print(f"origin: {manifest.origin or 'unknown'}\nlicence: {manifest.licence or 'unknown'}")
    return 0


# verify


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data verify``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all that are at hand)")
    _root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run_verify(args: argparse.Namespace) -> int:
    """Verifies native folders; exit code 1 if any has a problem."""
    from .catalogue import corpora, find_corpus
    from .verify import verify_folder

    folders: Sequence[Path] = (
        [find_corpus(name, args.data_root) for name in args.names]
        if args.names
        else [folder for folder, _ in corpora(args.data_root)]
    )
    results = {str(folder): verify_folder(folder) for folder in folders}
    if args.json:
        print(json.dumps({folder: list(problems) for folder, problems in results.items()}, indent=1))
    else:
        for folder, problems in results.items():
            print(f"{folder}: {'sound' if not problems else f'{len(problems)} problems'}")
            for problem in problems:
                print(f"  {problem}")
        if not results:
            print("no data to verify")
    return 1 if any(results.values()) else 0


def _root_argument(parser: argparse.ArgumentParser, text: str = "folder that holds the data sets") -> None:
    parser.add_argument("--data-root", type=Path, metavar="DIR", help=text)
