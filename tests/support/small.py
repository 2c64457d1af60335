"""Small settings of every method, so that tests of all methods take seconds."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "constant": {},
    "late_fusion": {"hidden": 8},
    "early_fusion": {"hidden": 8},
    "gcnet": {"hidden": 8},
    "momke": {"hidden": 8, "depth": 2, "heads": 2},
    "comp": {"hidden": 8, "depth": 2, "heads": 2, "prompt_dim": 4, "n_proto": 3},
    "dmd": {"hidden": 10, "heads": 2, "nlevels": 1, "homo_gd_size": 8, "hetero_gd_size": 8},
    "magtkd": {"hidden_dim": 16, "num_heads": 2},
    "ad_mcpd": {"shared_dim": 16, "top_k": 4, "language_model": "random-t5-tiny"},
}
