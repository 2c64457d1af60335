"""What a report is about: boards with their claims, and what a reader must know beside the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from .audit import AuditTable
from .bibliography import Sources
from .claims import AcrossDataSets
from .published import Quotation, Quotations, data_set_key, quotations_for
from .published_checks import check_quotations
from .ranks import across_data_sets
from .records import Board


@dataclass(frozen=True)
class Shown:
    """A board and what stands beside it.

    Attributes:
        board: The board.
        quotations: Numbers of the literature that belong beside it.
        audit: What test selection would have added to its rows.
    """

    board: Board
    quotations: Quotations | None = None
    audit: AuditTable | None = None


@dataclass(frozen=True)
class MaskDraw:
    """The masks of one condition as they came out.

    Attributes:
        data_set: Data set, with its fold if there are folds.
        split: ``train`` (first epoch), ``validation`` or ``test``.
        condition: Condition.
        seed: Seed of the draw; empty where nothing is drawn or every training seed has its own.
        rate: Realised missing rate (mean over training seeds for ``train``).
        per_modality: Realised missing rate of each modality.
        hash: Hash of the masks; empty where it differs between seeds.
    """

    data_set: str
    split: str
    condition: str
    seed: str
    rate: float
    per_modality: Mapping[str, float]
    hash: str = ""


@dataclass(frozen=True)
class Background:
    """What runs say of themselves; empty for a table without runs.

    Attributes:
        name: Name of the protocol or table.
        protocol: The protocol.
        masks: Masks as they came out.
        environments: Distinct environments of the runs, each with its number of runs.
        data: Distinct data sets of the runs.
        sources: Names and publications of methods.
        audits: Audits of selection.
        notes: Anything else, such as notes of runs.
    """

    name: str = "results"
    protocol: Mapping[str, Any] = field(default_factory=dict)
    masks: tuple[MaskDraw, ...] = ()
    environments: tuple[Mapping[str, Any], ...] = ()
    data: tuple[Mapping[str, Any], ...] = ()
    sources: Sources = field(default_factory=dict)
    audits: tuple[AuditTable, ...] = ()
    notes: tuple[str, ...] = ()

    def titles(self) -> dict[str, str]:
        """Names of methods in papers, by own name."""
        return {name: source.title for name, source in self.sources.items()}


@dataclass(frozen=True)
class Content:
    """All of a report.

    Attributes:
        shown: Boards with what is said about them.
        background: What runs say of themselves.
        across: Ranks over five or more independent data sets.
        quotation_warnings: What looks wrong in the numbers of the literature.
    """

    shown: tuple[Shown, ...]
    background: Background = field(default_factory=Background)
    across: tuple[AcrossDataSets, ...] = ()
    quotation_warnings: tuple[str, ...] = ()


def content_of(
    boards: tuple[Board, ...],
    background: Background | None = None,
    published: tuple[Quotation, ...] = (),
    across: tuple[AcrossDataSets, ...] | None = None,
) -> Content:
    """Puts a report together.

    Args:
        boards: Boards, with their claims.
        background: What runs say of themselves.
        published: Numbers of the literature.
        across: Ranks over data sets; those that the boards allow if ``None``.
    """
    background = background or Background()
    if across is None:
        across = tuple(_across(boards))
    audits = {(audit.comparison_hash, audit.data_set): audit for audit in background.audits}
    shown = tuple(
        Shown(
            board=board,
            quotations=quotations_for(board, published, background.titles()) if published else None,
            audit=audits.get((board.comparison_hash, board.data_set)),
        )
        for board in boards
    )
    known = {data_set_key(board.data_set) for board in boards}
    about = [item for item in published if data_set_key(item.data_set) in known]
    return Content(shown, background, across, check_quotations(about))


def _across(boards: Iterable[Board]) -> Iterator[AcrossDataSets]:
    """Ranks over data sets, wherever five or more independent ones have boards of one kind."""
    kinds: dict[tuple[object, ...], dict[str, Board]] = {}
    for board in boards:
        kind = (
            board.regime,
            board.trained_on,
            board.test_selected,
            board.synthetic,
            board.ranked_by,
            board.info.primary,
        )
        # iemocap4 and iemocap6 are the same recordings: one of them counts.
        corpus = re.sub(r"[^a-z]", "", board.data_set.lower().removesuffix("_dev"))
        kinds.setdefault(kind, {}).setdefault(corpus, board)
    for own in kinds.values():
        # What can't be ranked together has no ranks; why is said by the function itself.
        with suppress(UserError):
            yield across_data_sets(list(own.values()))
