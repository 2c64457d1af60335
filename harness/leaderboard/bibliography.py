"""Where the methods of a table come from: names for its rows, keys to cite, a BibTeX file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..record import Paper
from .latex_text import escape

# Characters that a DOI or an arXiv number may have; anything else is no such number.
_IDENTIFIER = re.compile(r"[A-Za-z0-9./_;()<>:-]+")


@dataclass(frozen=True)
class Source:
    """A method as its record names it.

    Attributes:
        title: Name in papers.
        paper: Where it was published; ``None`` for baselines.
    """

    title: str
    paper: Paper | None = None


Sources = Mapping[str, Source]


def citation_key(method: str) -> str:
    """Key of a method in ``references.bib``."""
    return "imer:" + re.sub(r"[^a-z0-9]+", "-", method.lower()).strip("-")


def bibtex(sources: Sources, methods: Iterable[str]) -> str:
    """BibTeX entries of the methods that have a paper, by name.

    Args:
        sources: Methods by name.
        methods: Names of the methods that the tables show.
    """
    entries = []
    for method in sorted(set(methods)):
        paper = sources[method].paper if method in sources else None
        if paper is not None:
            entries.append(_entry(citation_key(method), paper))
    return "\n".join(entries) or "% No method of these tables has a publication in its record.\n"


def _entry(key: str, paper: Paper) -> str:
    fields = {
        "author": _authors(paper.authors),
        "title": f"{{{escape(paper.title)}}}",
        "howpublished": escape(paper.venue),
        "year": str(paper.year),
    }
    if _IDENTIFIER.fullmatch(paper.doi):
        fields["doi"] = paper.doi
    if _IDENTIFIER.fullmatch(paper.arxiv):
        fields |= {"eprint": paper.arxiv, "archiveprefix": "arXiv", "note": f"arXiv:{escape(paper.arxiv)}"}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@misc{{{key},\n{body}\n}}\n"


def _authors(text: str) -> str:
    """``"A. Lee, B. Cho, et al."`` as BibTeX names."""
    names = [name.strip() for name in re.split(r",|;|\band\b|&", text) if name.strip()]
    found = ["others" if re.fullmatch(r"et al\.?|others", name) else escape(name) for name in names]
    return " and ".join(part for name in found for part in _others(name))


def _others(name: str) -> list[str]:
    first, found, _ = name.partition(" et al")
    return [first, "others"] if found else [name]
