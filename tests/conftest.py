"""Several workers of one test run share the cores: one thread each, set before anything imports torch."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
