"""``bench.py methods``: the methods at hand and their records."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..record import MethodInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bench.py methods``."""
    parser.add_argument("name", nargs="?", help="method whose record is shown; all are listed without it")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints one record or the list."""
    from ..registry import method_info, method_names, shipped_methods

    if args.name:
        _show(_record(method_info(args.name)), args.json)
        return 0
    # Plug-ins are named and not imported: that takes a protocol that names them, or their name here.
    own = shipped_methods()
    records = [_record(method_info(name)) for name in method_names() if name in own]
    others = [name for name in method_names() if name not in own]
    if args.json:
        print(json.dumps(records, indent=1, ensure_ascii=False))
        return 0
    from tabulate import tabulate

    rows = [
        [item["name"], item["title"], item["context"], ", ".join(item["takes"]), ", ".join(item["profiles"])]
        for item in records
    ]
    print(tabulate(rows, headers=["method", "title", "context", "takes", "profiles"], tablefmt="simple"))
    if others:
        print(f"\nplug-ins, not imported: {', '.join(others)}")
    print("\nbench.py methods NAME shows its paper, licence, hyper-parameters and search space")
    return 0


def _record(info: MethodInfo) -> dict[str, Any]:
    fields = info.parameters.model_fields
    space = info.parameters.search_space()
    return {
        "name": info.name,
        "title": info.title,
        "summary": info.summary,
        "takes": list(info.takes),
        "tasks": sorted(info.tasks),
        "context": info.context,
        "predicts_score": info.predicts_score,
        "profiles": {name: dict(values) for name, values in info.profiles.items()},
        "data_set_parameters": {name: dict(values) for name, values in info.data_set_parameters.items()},
        "paper": vars(info.paper) if info.paper else None,
        "reference": vars(info.reference) if info.reference else None,
        "numerics_version": info.numerics_version,
        "hyper_parameters": {
            name: {
                "default": field.get_default(call_default_factory=True),
                "search": repr(space[name]) if name in space else None,
            }
            for name, field in fields.items()
        },
    }


def _show(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(record, indent=1, ensure_ascii=False, default=str))
        return
    from tabulate import tabulate

    print(f"{record['name']}: {record['title']}\n{record['summary']}\n")
    if record["paper"]:
        paper = record["paper"]
        print(f"paper      {paper['authors']}: {paper['title']}. {paper['venue']}, {paper['year']}.")
    if record["reference"]:
        print("reference  {repository} at {commit}, licence: {licence}".format(**record["reference"]))
    print(
        f"takes      {', '.join(record['takes'])}; tasks {', '.join(record['tasks'])}; "
        f"context {record['context']}"
    )
    print(f"profiles   {', '.join(record['profiles'])}\n")
    rows = [
        [name, item["default"], item["search"] or ""] for name, item in record["hyper_parameters"].items()
    ]
    print(
        tabulate(
            rows,
            headers=["hyper-parameter", "default", "search space"],
            tablefmt="simple",
            disable_numparse=True,
        )
    )
    for kind in ("profiles", "data_set_parameters"):
        for name, values in record[kind].items():
            if values:
                print(f"\n{kind.removesuffix('_parameters').rstrip('s')} {name}: {values}")
