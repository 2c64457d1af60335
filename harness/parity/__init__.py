"""Numerical proofs: golden cases of the authors' code against our methods.

``contract`` is what a method's ``parity.py`` implements, ``case`` reads a folder of golden data,
``runner`` computes the sections of a case, ``compare`` holds the tolerances, ``command`` is
``bench.py parity``. A case says what to compute in the reference's own names; a method's
``parity.py`` translates them into its own.
"""

from __future__ import annotations

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
