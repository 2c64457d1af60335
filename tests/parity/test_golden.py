"""Every golden case of every method, at the tolerances of the case."""

from pathlib import Path

import pytest

from imer_bench.harness.parity.command import check
from imer_bench.harness.registry import method_names

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(file.parent for file in GOLDEN.rglob("case.json"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_case_is_within_tolerance(folder):
    verdicts = check(folder, strict=True)
    assert verdicts
    for verdict in verdicts:
        worst = [f"{item.name}: ratio {item.ratio:.3g} {item.problem}" for item in verdict.failures]
        assert verdict.passed, f"{verdict.title}: {verdict.problem or worst}"


def test_every_method_with_parity_components_has_cases():
    from imer_bench import methods

    folder = Path(methods.__path__[0])
    proven = {name for name in method_names() if (folder / name / "parity.py").is_file()}
    assert proven == {case.parent.name for case in CASES}
