"""What can go wrong in extraction; every message names the encoder or the file."""

from __future__ import annotations

from ..errors import UserError


class ExtractionError(UserError):
    """Settings or sources that cannot be used."""


class EncoderNotFound(ExtractionError):
    """An encoder is not at hand; the message names it and the ways out."""


class Unreadable(Exception):
    """One recording cannot be read; the modality counts as absent for its utterance.

    Attributes:
        reason: Why, in words.
        permanent: Whether the content is to blame. A reader that is not installed is not.
    """

    def __init__(self, reason: str, permanent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
