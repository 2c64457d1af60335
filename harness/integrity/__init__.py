"""Stored results checked against themselves: files, records, addresses, masks, metrics, tables.

Everything that a run states twice must agree, and everything that can be computed again from what it
holds must come out again. A hash is no signature: whoever rewrites a run with its manifest can make
any numbers agree; the digest that a check prints, noted elsewhere, shows that too.

- ``findings``: what a check finds;
- ``check``: the checks of one run, and of the results of one protocol;
- ``files``, ``addresses``, ``masks``, ``predictions``, ``data``, ``tables``, ``leftovers``: the checks.
"""
