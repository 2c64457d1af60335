"""Figures of leaderboards as vector PDF and PNG: one module a family, one style for all.

matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import written_whole
from ..claims import AcrossDataSets
from ..records import Board

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigureFile:
    """A figure on disk.

    Attributes:
        name: File name without suffix.
        caption: What it shows.
        folder: Where ``<name>.pdf`` and ``<name>.png`` are.
    """

    name: str
    caption: str
    folder: Path

    @property
    def png(self) -> Path:
        """The picture in pixels."""
        return self.folder / f"{self.name}.png"

    @property
    def pdf(self) -> Path:
        """The picture in vectors."""
        return self.folder / f"{self.name}.pdf"


@dataclass(frozen=True)
class _Planned:
    name: str
    caption: str
    draw: Callable[[], Figure]


def draw_figures(
    boards: Sequence[Board], folder: Path, across: Iterable[AcrossDataSets] = ()
) -> tuple[FigureFile, ...]:
    """Draws every figure that the results allow; figures of an earlier call that don't apply go.

    Args:
        boards: Boards with their claims.
        folder: Where figures go.
        across: Ranks over five or more independent data sets.
    """
    from .style import drawing

    files: list[FigureFile] = []
    with drawing():
        for item in _planned(boards, across):
            file = FigureFile(item.name, item.caption, folder)
            figure = item.draw()
            with written_whole(file.png) as temporary:
                figure.savefig(temporary, format="png")
            # Both files have the layout that was found for the first.
            figure.set_layout_engine("none")
            with written_whole(file.pdf) as temporary:
                # Without a date the same results give the same file.
                figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
            files.append(file)
    wanted = {path.name for file in files for path in (file.png, file.pdf)}
    for path in folder.glob("*.p[dn][fg]"):
        if path.name not in wanted:
            path.unlink()
    return tuple(files)


def _planned(boards: Sequence[Board], across: Iterable[AcrossDataSets]) -> Iterator[_Planned]:
    from .curves import rate_curves, rate_families
    from .modalities import modality_shares, with_shares
    from .pairs import compared, pair_matrix
    from .ranks import critical_difference
    from .seeds import seed_scatter
    from .subsets import has_subsets, subset_map

    names = _Names()
    for own in _kinds(boards):
        for family in rate_families(own):
            yield _Planned(
                names.of("rates", family, _kind(own[0])),
                f"Score against missing rate ({family}), {_kind_words(own[0])}. Bands: intervals over "
                "dialogues, seeds and masks averaged; where they are missing, one standard deviation over "
                "seeds.",
                lambda own=own, family=family: rate_curves(own, family),
            )
    for board in boards:
        claims = board.claims
        about = (board.data_set, _kind(board))
        methods = [row for row in board.rows if row.kind == "method"]
        valued = [row for row in methods if row.cells[board.info.primary][board.ranked_by].mean is not None]
        if has_subsets(board) and any(
            row.cells[board.info.primary][column.name].mean is not None
            for row in methods
            for column in board.columns
            if column.family == "fixed"
        ):
            yield _Planned(
                names.of("subsets", *about),
                f"Score with a fixed subset of modalities available, {board.title}.",
                lambda board=board: subset_map(board),
            )
        if claims is not None and len(compared(board, claims)) > 1:
            yield _Planned(
                names.of("pairs", *about),
                f"Differences between methods (row minus column) in {board.ranked_by}, {board.title}. Bold "
                f"with an asterisk: significant ({claims.test}; corrected in a family of "
                f"{claims.family_size}).",
                lambda board=board, claims=claims: pair_matrix(board, claims),
            )
        if valued:
            yield _Planned(
                names.of("seeds", *about),
                f"Each training seed in {board.ranked_by}, {board.title}. Line: mean; grey: interval over "
                "dialogues.",
                lambda board=board: seed_scatter(board),
            )
        if with_shares(board.robustness):
            yield _Planned(
                names.of("modalities", *about),
                f"Shapley share of each modality, {board.title}; negative contributions are left out. "
                "Evenness: 1 if all contribute the same, 0 if one carries all.",
                lambda board=board: modality_shares(board.robustness),
            )
    for ranks in across:
        yield _Planned(
            names.of("critical-difference", ranks.column),
            f"Mean ranks over {len(ranks.data_sets)} data sets ({', '.join(ranks.data_sets)}), "
            f"{ranks.column}; a bar joins methods that can't be told apart (Nemenyi).",
            lambda ranks=ranks: critical_difference(ranks),
        )


def _kind(board: Board) -> str:
    parts = [board.regime, board.trained_on]
    parts += ["test-selected"] if board.test_selected else []
    parts += ["synthetic"] if board.synthetic else []
    return "-".join(part for part in parts if part)


def _kind_words(board: Board) -> str:
    return board.title.removeprefix(board.data_set).removeprefix(", ") or board.data_set


def _kinds(boards: Iterable[Board]) -> list[list[Board]]:
    """Boards whose panels may stand side by side: one a data set, all else the same."""
    kinds: dict[tuple[object, ...], list[Board]] = {}
    for board in boards:
        key: tuple[object, ...] = (_kind(board), board.info.primary)
        # A second comparison of one data set gets a figure of its own.
        count = sum(other.data_set == board.data_set for other in kinds.get(key, []))
        kinds.setdefault((*key, board.comparison_hash) if count else key, []).append(board)
    return list(kinds.values())


class _Names:
    """File names: plain, short, each once."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def of(self, *parts: str) -> str:
        text = re.sub(r"[^A-Za-z0-9.+]+", "-", "-".join(part for part in parts if part))[:80].strip("-.")
        count = self._given[text] = self._given.get(text, 0) + 1
        return text if count == 1 else f"{text}-{count}"
