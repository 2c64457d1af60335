r"""Any text as LaTeX that prints it: labels and data set names are free text.

The result is pure ASCII and uses nothing beyond LaTeX's kernel, so that it doesn't depend on the
input encoding, the font encoding or a package of the document that takes it in.
"""

from __future__ import annotations

import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Ligatures and arguments: "--", "``", "\\[" and "\\*" mean something to LaTeX.
    "-": "-{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\char34{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "!": "!{}",
    "?": "?{}",
}
_SYMBOLS = {
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\dots{}",
    "·": r"\textperiodcentered{}",
    "•": r"\textbullet{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": r"$-$",
    "°": r"\textdegree{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "å": r"\aa{}",
    "Å": r"\AA{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
# Combining characters after the letter they belong to. The ogonek needs another font encoding.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "o", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_GREEK_CAPITALS = {"Γ", "Δ", "Θ", "Λ", "Ξ", "Π", "Σ", "Φ", "Ψ", "Ω"}


def escape(text: str) -> str:
    """LaTeX that prints a text, whatever is in it.

    Letters with common accents, Greek and common symbols are mapped; any other character that is not
    ASCII becomes its code point in brackets, such as ``[U+4E2D]``. Line ends and control characters
    become blanks.
    """
    return "".join(map(_character, unicodedata.normalize("NFC", text)))


def _character(character: str) -> str:
    known = _SPECIAL.get(character) or _SYMBOLS.get(character)
    if known is not None:
        return known
    if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
        return " "
    if character.isascii():
        return character
    return _greek(character) or _accented(character) or f"{{[}}U+{ord(character):04X}{{]}}"


def _accented(character: str) -> str:
    parts = unicodedata.normalize("NFD", character)
    base, marks = parts[0], parts[1:]
    if not marks or not (base.isascii() and base.isalpha()):
        return ""
    if any(mark not in _ACCENTS for mark in marks):
        return ""
    for mark in marks:
        # Accents above take the place of the dot of i and j.
        letter = f"\\{base}{{}}" if base in "ij" and mark != "\u0327" else base
        base = f"\\{_ACCENTS[mark]}{{{letter}}}"
    return base


def _greek(character: str) -> str:
    index = ord(character) - ord("α")
    if 0 <= index < len(_GREEK):
        return f"${_GREEK[index]}$" if _GREEK[index] == "o" else f"$\\{_GREEK[index]}$"
    if character in _GREEK_CAPITALS:
        return f"$\\{_GREEK[ord(character.lower()) - ord('α')].capitalize()}$"
    return ""
