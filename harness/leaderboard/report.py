"""The files of a report: LaTeX tables, references, figures, one HTML page.

They are made again only when what they show has changed: a key over the content is kept beside the
figures, so that a protocol that has nothing to compute costs no drawing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ..files import write_json, write_text
from ..hashing import address
from .appendix import appendix_latex
from .bibliography import bibtex
from .content import Content
from .latex import render_latex
from .latex_options import LatexOptions

# Raised whenever the same content looks different than before.
APPEARANCE = 2
_KEY = Path("figures") / "content.json"


def write_report(content: Content, folder: Path, options: LatexOptions | None = None) -> tuple[Path, ...]:
    """Writes ``leaderboard.tex``, ``references.bib``, ``figures/`` and ``report.html``.

    Args:
        content: What the report is about.
        folder: Where the files go.
        options: How LaTeX tables look.

    Returns:
        Path of the page, the tables and the references.
    """
    options = options or LatexOptions()
    paths = (folder / "report.html", folder / "leaderboard.tex", folder / "references.bib")
    key = address([APPEARANCE, _plain(content), _plain(options)])
    if _is_current(folder, key) and all(path.is_file() for path in paths):
        return paths
    from .figures import draw_figures
    from .html import render_html

    (folder / _KEY).unlink(missing_ok=True)
    boards = [item.board for item in content.shown]
    sources = content.background.sources
    figures = draw_figures(boards, folder / "figures", content.across)
    write_text(paths[0], render_html(content, figures))
    write_text(paths[1], render_latex(boards, sources, options, appendix_latex(content)))
    write_text(paths[2], bibtex(sources, [row.method for board in boards for row in board.rows]))
    names = [path.name for figure in figures for path in (figure.pdf, figure.png)]
    write_json(folder / _KEY, {"key": key, "figures": names})
    return paths


def _is_current(folder: Path, key: str) -> bool:
    try:
        known = json.loads((folder / _KEY).read_text(encoding="utf-8"))
        return known["key"] == key and all((folder / "figures" / name).is_file() for name in known["figures"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _plain(value: Any) -> Any:
    """Content as values that have one JSON text."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value, dict_factory=lambda items: {str(k): v for k, v in items}))
    if isinstance(value, dict):
        return {_name(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def _name(key: Any) -> str:
    return "|".join(map(str, key)) if isinstance(key, tuple) else str(key)
