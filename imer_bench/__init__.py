"""The import namespace of IMER-Bench.

The house keeps its three packages at the top level of the repository (``harness/``, ``methods/``,
``datasets/``). They are imported as ``imer_bench.harness``, ``imer_bench.methods`` and
``imer_bench.datasets`` only, so that Hugging Face ``datasets`` can live in the same environment.
The links beside this file make that true for static tools and for wheels; where a checkout has no
symbolic links, the path below does the same at run time.
"""

from pathlib import Path

_here = Path(__file__).resolve().parent
if not (_here / "harness").is_dir():
    __path__.append(str(_here.parent))
