"""``bench.py data extract``: features from transcripts, sound and pictures."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extract import Extracted
    from .settings import Settings

# Kept here as text so that --help imports nothing; a test compares it with the readers' list.
LAYOUTS = ("auto", "table", "native", "meld", "iemocap", "mmsa", "cmu")
EPILOG = """\
sources:
  table    a CSV, TSV, Parquet or JSON table: id, dialogue, index, speaker, split, label, transcript,
           audio_path, video_path (and start, end in seconds)
  native   a data folder that is there: its transcripts, and recordings from --media
  meld, iemocap, mmsa (MOSI, MOSEI, CH-SIMS with label.csv), cmu: a corpus' own folders

Encoders are frozen; fusion and fine-tuning are not done here. Missing or broken recordings are
recorded as absent. Features of known inputs come from the cache: a killed extraction continues, a
second one does nothing.

examples:
  python bench.py data extract MELD.Raw/ --name meld --text FacebookAI/roberta-large \\
      --audio facebook/data2vec-audio-base-960h --vision facebook/timesformer-base-finetuned-k400
  python bench.py data extract data/cmu_mosi --name cmu_mosi --text microsoft/deberta-v3-large \\
      --set text.layers=sum4 --set text.pooling=words --set text.lower=true
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py data extract``."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, metavar="SOURCE", help="table, data folder or corpus folder")
    parser.add_argument("--name", required=True, help="name of the data set, such as meld")
    parser.add_argument("--layout", default="auto", choices=LAYOUTS, help="what SOURCE is (default: auto)")
    parser.add_argument(
        "--media",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="folder with recordings named by utterance id (repeatable)",
    )
    for modality in ("text", "audio", "vision"):
        parser.add_argument(
            f"--{modality}", metavar="MODEL", help=f"encoder of {modality}: Hugging Face id or local folder"
        )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODALITY.FIELD=VALUE",
        help="change a setting, such as text.pooling=words or audio.sequence=true (repeatable)",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="COLUMN:score:LOW:HIGH | COLUMN:class:NAME,NAME",
        help="label column of a table",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder of data sets (default: IMER_DATA or ./data)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of the cache (default: DATA_ROOT/.features)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument("--replace", action="store_true", help="replace feature sets of the same name")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Extracts features, adds them to the data folder and prints what was found."""
    models = {name: getattr(args, name) for name in ("text", "audio", "vision") if getattr(args, name)}
    if not models:
        from .errors import ExtractionError

        raise ExtractionError("no encoder was given: say --text, --audio or --vision with a model")
    from .settings import make_settings

    return _run(args, make_settings(models, args.set))


def _run(args: argparse.Namespace, settings: Mapping[str, Settings]) -> int:
    from ..corpus.catalogue import data_sets, import_root
    from ..corpus.commands import label_argument
    from ..corpus.manifest import read_manifest
    from ..corpus.native import load_contents, make_manifest, only_writer, ordered, write_corpus
    from .extract import extract
    from .merge import onto, with_features
    from .progress import Quiet, Terminal
    from .sources import SourceOptions, read_sources

    _quiet_libraries()
    root = import_root(args.data_root)
    folder = root / args.name
    info = {item.name: item for item in data_sets()}.get(args.name)
    labels = tuple(label_argument(text) for text in args.label)
    options = SourceOptions(args.name, info, labels, tuple(args.media))
    sources = read_sources(args.layout, args.source, options)
    # Where there is no root yet nothing is made before there is something to write.
    with only_writer(folder) if root.is_dir() else nullcontext():
        exists = (folder / "manifest.json").is_file()
        contents = onto(load_contents(folder) if exists else None, sources.contents)
    with Quiet() if args.quiet else Terminal() as progress:
        features, reports = extract(
            sources, settings, args.cache or root / ".features", _device(args.device), progress
        )
    contents = ordered(with_features(contents, features, reports, args.replace))
    changed = not exists or make_manifest(contents) != read_manifest(folder)
    if changed:
        write_corpus(folder, contents, replace_existing=True)
    if args.json:
        print(
            json.dumps({"folder": str(folder), "written": changed, "features": [_plain(r) for r in reports]})
        )
    else:
        print(_text(folder, changed, reports))
    return 0


def _quiet_libraries() -> None:
    """Keeps the bars and warnings of transformers out of the progress display."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _device(name: str) -> str:
    import torch

    from .errors import ExtractionError

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ExtractionError("--device cuda: this machine has no usable CUDA device")
    return "cuda" if found and name != "cpu" else "cpu"


def _plain(report: Extracted) -> dict[str, object]:
    return {**report.plain(), "computed": report.computed, "known": report.known}


def _text(folder: Path, changed: bool, reports: Sequence[Extracted]) -> str:
    """The report for a terminal."""
    from tabulate import tabulate

    rows = [
        [
            report.modality,
            report.name,
            report.width,
            report.longest if report.longest > 1 else "vector",
            f"{report.observed} of {report.utterances}",
            report.computed,
            report.known,
        ]
        for report in reports
    ]
    head = ["modality", "feature set", "width", "steps", "observed", "encoded now", "from the cache"]
    lines = [f"{folder} ({'written' if changed else 'unchanged'})", "", tabulate(rows, headers=head), ""]
    for report in reports:
        reasons = Counter(report.absent.values())
        for reason, count in reasons.most_common():
            example = next(name for name, found in report.absent.items() if found == reason)
            lines.append(f"{report.modality} is absent from {count} utterances: {reason} (first {example})")
        lines.append(f"note: {report.note()}")
    return "\n".join(lines)
