"""The lock file holds what the constraints say, every package with the hashes of its files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pinned(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_lock_and_constraints_agree():
    lock = pinned((ROOT / "requirements.lock").read_text())
    assert pinned((ROOT / "constraints.txt").read_text()).items() <= lock.items()


def test_every_package_has_hashes():
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text())[1:]
    assert len(entries) > 130
    for entry in entries:
        assert re.search(r"\n {4}--hash=sha256:[0-9a-f]{64}", entry), entry
