"""What can go wrong with data; every message names the offending file, id, column or global."""

from __future__ import annotations

from ..errors import UserError


class CorpusError(UserError):
    """Data that cannot be read or are not what they should be."""


class DataNotFound(CorpusError):
    """A data set is not at hand; the message says where it comes from and how to import it."""


class ForbiddenGlobal(CorpusError):
    """A pickle asks for something outside the allow-list.

    Attributes:
        name: The forbidden ``module.name``.
    """

    def __init__(self, name: str, source: str = "the pickle") -> None:
        super().__init__(
            f"{source} asks for the forbidden global {name!r}; it was refused, nothing was executed"
        )
        self.name = name
