"""The files of a report: LaTeX tables, references, figures, one HTML page."""

from __future__ import annotations

from pathlib import Path

from ..files import write_text
from .appendix import appendix_latex
from .bibliography import bibtex
from .content import Content
from .latex import render_latex
from .latex_options import LatexOptions


def write_report(content: Content, folder: Path, options: LatexOptions | None = None) -> tuple[Path, ...]:
    """Writes ``leaderboard.tex``, ``references.bib``, ``figures/`` and ``report.html``.

    Args:
        content: What the report is about.
        folder: Where the files go.
        options: How LaTeX tables look.

    Returns:
        Path of the page, the tables and the references.
    """
    # matplotlib is asked for only here: it may not be installed, and takes a second to load.
    from .figures import draw_figures
    from .html import render_html

    options = options or LatexOptions()
    paths = (folder / "report.html", folder / "leaderboard.tex", folder / "references.bib")
    boards = [item.board for item in content.shown]
    sources = content.background.sources
    figures = draw_figures(boards, folder / "figures", content.across)
    write_text(paths[0], render_html(content, figures))
    write_text(paths[1], render_latex(boards, sources, options, appendix_latex(content)))
    write_text(paths[2], bibtex(sources, [row.method for board in boards for row in board.rows]))
    return paths
