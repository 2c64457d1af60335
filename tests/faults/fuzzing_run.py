"""Fuzzes one surface in a process of its own, within limits; prints the counts as JSON.

::

    python tests/faults/fuzzing_run.py --list
    python tests/faults/fuzzing_run.py "import: npy" --engine random --inputs 20000 --seed 1
    python tests/faults/fuzzing_run.py "import: npy" --engine atheris --inputs 20000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1])]
# Address space beyond what the libraries have taken at the start, and MiB.
ADDRESS_SPACE = 3 << 10


def main() -> None:
    """Runs one engine on one surface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("surface", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", type=Path, help="where every input is written before it is tried")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        run = _guided if args.engine == "atheris" else _random
        if args.list:
            from fuzzing_surfaces import surfaces

            print("\n".join(surfaces()))
            return
        run(args, Path(folder) / "example")


def _random(args: argparse.Namespace, folder: Path) -> None:
    from fuzzing import Bench, Tally, limit_address_space
    from fuzzing_surfaces import surfaces

    folder.mkdir()
    bench = Bench(surfaces()[args.surface], folder)
    verdict = bench.attempt(bench.example)
    assert verdict.kind == "accepted", verdict
    limit_address_space(ADDRESS_SPACE)
    tally, random = Tally(args.surface, "mutations"), Random(f"{args.seed} {args.surface}")
    for _ in range(max(20, round(args.inputs * bench.surface.weight))):
        content = bench.mutated(random)
        _note(args.last, content)
        tally.add(bench.attempt(content), content)
    print(json.dumps(asdict(tally)))


def _guided(args: argparse.Namespace, folder: Path) -> None:
    import atheris  # pyright: ignore[reportMissingImports]

    folder.mkdir()
    with atheris.instrument_imports(include=["imer_bench.harness"], enable_loader_override=False):
        from fuzzing import Bench, Tally, limit_address_space
        from fuzzing_mutations import mutated
        from fuzzing_surfaces import surfaces

        bench = Bench(surfaces()[args.surface], folder)
        verdict = bench.attempt(bench.example)  # commands import what they need when they need it
    assert verdict.kind == "accepted", verdict
    limit_address_space(ADDRESS_SPACE)
    tally = Tally(args.surface, "atheris")

    def one(content: bytes) -> None:
        _note(args.last, content)
        tally.add(bench.attempt(content), content)
        if tally.tried >= max(20, round(args.inputs * bench.surface.weight)):
            print(json.dumps(asdict(tally)), flush=True)
            shutil.rmtree(folder.parent, ignore_errors=True)
            os._exit(0)  # libFuzzer has no other end

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.7:
            # Half of them from the valid file: changes of changes are mostly refused at the first glance.
            start = content if content and random.random() < 0.5 else bench.example
            return mutated(start, bench.surface.kind, random, (bench.example,))[:most]
        return atheris.Mutate(content, most)

    corpus = folder.parent / "corpus"
    corpus.mkdir()
    (corpus / "example").write_bytes(bench.example)
    options = [
        f"-seed={args.seed + 1}",
        "-max_len=65536",
        f"-artifact_prefix={folder.parent}/",
        "-rss_limit_mb=0",
        "-timeout=100000",  # of atheris; 0 would be a second. Hangs are noticed by the bench.
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def _note(path: Path | None, content: bytes) -> None:
    if path is not None:
        path.write_bytes(content)


if __name__ == "__main__":
    main()
