"""Changed files never get past the door: a message and exit code 1, or a sound result; nothing in between.

The quick part tries a few dozen inputs a surface, found by hypothesis; the long one, in processes of
their own, as many as ``IMER_FUZZ_INPUTS`` says (10000), changed at random and guided by coverage::

    python -m pytest -m slow tests/faults/test_fuzzing.py -s
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random

import pytest
from fuzzing import Bench, Tally, Verdict
from fuzzing_mutations import STRUCTURAL, mutated
from fuzzing_surfaces import surfaces
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

INPUTS = int(os.environ.get("IMER_FUZZ_INPUTS", "10000"))
RUN = Path(__file__).with_name("fuzzing_run.py")
REGRESSIONS = Path(__file__).with_name("regressions")
# Those that take a second an input are left to the long part.
QUICK = [name for name, surface in surfaces().items() if surface.weight >= 0.3]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    made: dict[str, Bench] = {}

    def bench(name: str) -> Bench:
        if name not in made:
            made[name] = Bench(surfaces()[name], tmp_path_factory.mktemp("fuzz"))
        return made[name]

    return bench


@pytest.mark.parametrize("name", QUICK)
def test_changed_files_are_refused_with_a_message_or_read_soundly(benches, name):
    bench = benches(name)
    assert bench.attempt(bench.example) == Verdict("accepted")

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def holds(random):
        content = bench.mutated(random)
        verdict = bench.attempt(content)
        assert not verdict.is_finding, f"{verdict.text}\n{content[:2000]!r}"

    holds()


@pytest.mark.parametrize("file", sorted(REGRESSIONS.iterdir()), ids=lambda file: file.name)
def test_inputs_that_once_got_past_the_door(benches, file):
    """One file an input: ``<surface> -- <what happened>``, colons left out of names."""
    stem = file.name.partition(" -- ")[0]
    name = next(name for name in surfaces() if name.replace(":", "") == stem)
    verdict = benches(name).attempt(file.read_bytes())
    assert not verdict.is_finding, verdict.text


def _break_out(folder):
    raise RuntimeError("a fault of the reader")


def _spin(folder):
    while True:
        pass


def _fill(folder):
    return len(bytearray(b"x") * (100 << 20)) * 0


def _write(folder):
    (folder / "left.txt").write_text("x")
    print("refused")
    return 1


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (_break_out, "traceback"),
        (_spin, "hang"),
        (_fill, "memory"),
        (_write, "written"),
        (lambda folder: 1, "silence"),
        (lambda folder: 3, "exit code"),
    ],
)
def test_every_kind_of_finding_is_found(tmp_path, monkeypatch, read, kind):
    from dataclasses import replace

    monkeypatch.setattr("fuzzing.MOST_SECONDS", 0.5)
    monkeypatch.setattr("fuzzing.MOST_MEMORY", 50)
    surface = surfaces()["published numbers"]
    bench = Bench(replace(surface, read=read), tmp_path)
    assert bench.attempt(bench.example).kind == kind


def test_every_format_has_changes_that_keep_it_one(benches):
    """Structure-aware changes get past the parsers: some inputs of every format are still accepted."""
    kinds = {surfaces()[name].kind: name for name in QUICK if surfaces()[name].weight == 1}
    assert kinds.keys() <= STRUCTURAL.keys()
    for kind, name in kinds.items():
        random, example = Random(1), benches(name).example
        changed = {mutated(example, kind, random) for _ in range(50)}
        assert len(changed) > 30, kind


@pytest.mark.slow
def test_many_changed_files(capsys):
    """Prints what was tried and what came of it, every surface as soon as it is through."""
    from tabulate import tabulate

    jobs = [(name, engine) for engine in _engines() for name in surfaces()]
    tallies: list[Tally] = []
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool, capsys.disabled():
        for done in as_completed([pool.submit(_fuzzed, *job) for job in jobs]):
            tallies.append(done.result())
            print(*tallies[-1].row, sep="\t", flush=True)
        rows = sorted(tally.row for tally in tallies)
        total = ["all", "", *(sum(int(str(row[at])) for row in rows) for at in range(2, 6))]
        headers = ["surface", "engine", "inputs", "refused", "accepted", "tracebacks and other findings"]
        print(f"\n{tabulate([*rows, total], headers=headers)}")
    findings = [
        f"{tally.surface}: {place}\n  input {tally.findings[place]}"
        for tally in tallies
        for place in tally.findings
    ]
    assert not findings, "\n".join(findings)


def _engines() -> list[str]:
    from importlib.util import find_spec

    return ["random", "atheris"] if find_spec("atheris") else ["random"]


def _fuzzed(name: str, engine: str) -> Tally:
    # Coverage makes an input some four times slower.
    inputs = INPUTS if engine == "random" else INPUTS // 5
    command = [sys.executable, str(RUN), name, "--engine", engine, "--inputs", str(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        words = f"its process ended with code {done.returncode}: {done.stderr[-3000:]}"
        return Tally(name, engine, {"traceback": 1}, {words: ""})
    return Tally(**json.loads(done.stdout.splitlines()[-1]))
