"""The door of IMER-Bench: ``python bench.py --protocol protocols/quickstart.toml``."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from imer_bench.harness.cli import main  # noqa: E402

# This folder holds `datasets/`; once our namespace is found, it must not hide Hugging Face's.
sys.path[:] = [entry for entry in sys.path if entry and str(Path(entry).resolve()) != _ROOT]

if __name__ == "__main__":
    sys.exit(main())
