"""LaTeX: a real compiler takes the tables in, free text prints as it is, marks stand where they must."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_tables import sentiment_table

from imer_bench.harness.errors import UserError
from imer_bench.harness.leaderboard import Board, IntervalSettings, TableInfo, build_boards
from imer_bench.harness.leaderboard.bibliography import Source, bibtex
from imer_bench.harness.leaderboard.claims import BestSet, Claims, ClaimSettings, Comparison
from imer_bench.harness.leaderboard.latex import render_latex
from imer_bench.harness.leaderboard.latex_options import LatexOptions, latex_options
from imer_bench.harness.leaderboard.latex_text import escape
from imer_bench.harness.record import Paper

NASTY = r"a_b & 100% #1 {x} $\alpha$ ~^ <b> 'q' -- [0] * \\ é 中"
PAPER = Paper("A. Lee, B.-C. Cho, et al.", "Fusion & friends: 50% of $x$", "Proc. X_1", 2024, doi="10.1/a_b")
SOURCES = {"strong": Source("Strong", PAPER)}


@pytest.fixture(scope="module")
def board() -> Board:
    frame = sentiment_table(("strong", "weak", NASTY))
    info = TableInfo("regression", score_range=(-3.0, 3.0))
    return build_boards(frame, info, intervals=IntervalSettings(resamples=50))[0]


def with_claims(board: Board, tied: str = "strong", better: str | None = "strong") -> Board:
    """Claims by hand, the same in every column: the best set, and one comparison with ``weak``."""
    labels = ("strong", "weak", NASTY)
    claims = Claims(
        "wf1",
        ClaimSettings(),
        "a test",
        comparisons=tuple(
            Comparison("strong", "weak", column.name, "condition", 0.1, p=0.001, better=better)
            for column in board.columns
        ),
        family_size=18,
        best=tuple(
            BestSet(column.name, NASTY, (NASTY, tied), dict.fromkeys(labels, 0.5)) for column in board.columns
        ),
    )
    return replace(board, claims=claims)


def row_of(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(label))
    return [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix("\\\\"))]


def compiled(folder: Path, body: str, packages: str = "booktabs,siunitx,rotating") -> tuple[str, str]:
    """Log of pdflatex and text of the page."""
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is not installed")
    document = (
        "\\documentclass[twocolumn]{article}\\usepackage[margin=0.75in]{geometry}"
        f"\\usepackage{{{packages}}}\\begin{{document}}{body}\n\\end{{document}}"
    )
    (folder / "page.tex").write_text(document, encoding="ascii")
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    reader = shutil.which("pdftotext")
    if reader is None:
        return done.stdout, ""
    subprocess.run([reader, "-layout", "page.pdf"], cwd=folder, check=True, timeout=60)
    return done.stdout, (folder / "page.txt").read_text(encoding="utf-8")


def test_tables_of_every_kind_compile_without_edits(board, tmp_path):
    board = with_claims(board)
    kinds = {
        "plain": LatexOptions(baseline="weak"),
        "units": LatexOptions(siunitx=True, baseline="weak"),
        "turned": LatexOptions(transpose=True, spread="interval"),
        "sideways": LatexOptions(layout="sideways", metrics=("mae", "corr"), precision=2),
    }
    for name, options in kinds.items():
        (tmp_path / f"{name}.tex").write_text(render_latex([board], SOURCES, options), encoding="ascii")
    body = "\n\\clearpage\n".join(f"\\input{{{name}}}" for name in kinds)
    log, page = compiled(tmp_path, f"{body}\\bibliographystyle{{plain}}\\bibliography{{references}}")
    widest = [float(size) for size in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert all(size < 12 for size in widest), widest
    if page:
        mean = board.rows[0].cells["wf1"]["complete"].mean
        assert f"{100 * mean:.1f}" in page
        assert "Holm-corrected (family of 18)" in " ".join(page.split())


def test_free_text_prints_as_it_is(tmp_path):
    printable = "".join(map(chr, range(33, 127)))
    _, page = compiled(
        tmp_path, f"X{escape(printable)}X \\clearpage {escape('é ü ß α Σ ± ≥')} {escape(NASTY)}"
    )
    if not page:
        pytest.skip("pdftotext is not installed")
    # The default fonts have curly quotes and draw "_" as a line; everything else comes back unchanged.
    same = str.maketrans(
        {"”": '"', "’": "'", "\u2018": "`", "ˋ": "`", "−": "-", "ˆ": "^", "˜": "~", "∗": "*"}
    )
    first = "".join(page.split("X\n")[0].split()).translate(same)
    assert first.strip("X").replace("1\f", "") == printable.replace("_", "")


@given(st.text(max_size=40))
def test_escaped_text_is_ascii_and_has_no_live_special_character(text):
    result = escape(text)
    assert result.isascii()
    assert "\n" not in result
    # Take away what escape may write: control words and symbols, mathematics, escaped characters.
    rest = re.sub(r"\$(\\[A-Za-z]+|-|o)\$", "", result)
    rest = re.sub(r"\\[{}$&#%_]", "", rest)
    rest = re.sub(r"\\([A-Za-z]+|[`'^~=.\"])", "", rest)
    assert not set(rest) & set("\\$&#%_^~")
    depth = 0
    for character in rest:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0


def test_best_is_bold_second_underlined_tied_and_different_ones_marked(board):
    text = render_latex([with_claims(board)], options=LatexOptions(baseline="weak"))
    order = sorted(
        (row for row in board.rows if row.kind == "method"),
        key=lambda row: -row.cells["wf1"]["complete"].mean,
    )
    names = {"strong": "strong", "weak": "weak", NASTY: escape(NASTY)}
    first, second, third = (row_of(text, names[row.label])[1] for row in order)
    assert first.startswith("$\\mathbf{")
    assert second.startswith("\\underline{")
    assert not third.startswith(("$\\mathbf", "\\underline"))
    assert order[-1].label == "weak"
    strong = row_of(text, "strong")[1]
    assert "\\dagger" in strong
    assert ("\\approx" in strong) == (order[0].label != "strong")
    assert "\\dagger" not in row_of(text, "weak")[1]
    assert "\\approx" not in row_of(text, "weak")[1]


def test_without_significance_there_is_no_dagger(board):
    text = render_latex([with_claims(board, better=None)], options=LatexOptions(baseline="weak"))
    assert "\\dagger" not in row_of(text, "strong")[1]


def test_numbers_directions_and_groups(board):
    text = render_latex([board], options=LatexOptions(metrics=("wf1", "mae"), precision=2))
    mean = board.rows[0].cells["wf1"]["complete"].mean
    assert f"{100 * mean:.2f}" in text
    assert "WF1 ($\\uparrow$, \\%)" in text
    assert "MAE ($\\downarrow$)" in text
    assert "\\multicolumn{3}{c}{Random missing, rate}" in text
    assert "differences are not tested" in render_latex([replace(board, claims=None)])
    fractions = render_latex([board], options=LatexOptions(percent=False, precision=3))
    assert f"{mean:.3f}" in fractions


def test_marks_of_rows_have_footnotes(board):
    rows = tuple(
        replace(row, privileged=("targets",), remarks=("random encoder: no language knowledge",))
        if row.label == "weak"
        else row
        for row in board.rows
    )
    marked = replace(board, rows=rows, synthetic=True)
    text = render_latex([marked])
    assert row_of(text, "weak")[0] == "weak\\textsuperscript{b,c,a}"
    assert "$^{a}$: synthetic data" in text
    assert "$^{b}$: saw true features of absent modalities in training (targets)" in text
    assert "$^{c}$: random encoder: no language knowledge" in text


def test_transposed_tables_have_a_row_per_condition(board):
    text = render_latex([board], options=LatexOptions(transpose=True))
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert body.count("\\\\") == len(board.columns)


def test_names_and_citations_come_from_the_records(board):
    text = render_latex([board], SOURCES)
    assert row_of(text, "Strong")[0] == "Strong~\\cite{imer:strong}"
    references = bibtex(SOURCES, ["strong", "weak"])
    assert "@misc{imer:strong," in references
    assert "author = {A. Lee and B.-{}C. Cho and others}" in references
    assert "title = {{Fusion \\& friends: 50\\% of \\$x\\$}}" in references
    assert "doi = {10.1/a_b}" in references


def test_options_are_read_and_checked():
    assert latex_options(["precision=2", "transpose=yes", "metrics=wf1,mae"]) == LatexOptions(
        precision=2, transpose=True, metrics=("wf1", "mae")
    )
    for text, words in (
        ("precison=2", "precision"),
        ("layout=wide", "sideways"),
        ("siunitx=maybe", "true or"),
    ):
        with pytest.raises(UserError, match=words):
            latex_options([text])
