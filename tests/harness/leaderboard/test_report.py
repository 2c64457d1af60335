"""The report: one page that needs nothing else, figures as files, made again only when needed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from result_tables import sentiment_table

from imer_bench.harness.language_models import is_random
from imer_bench.harness.leaderboard import (
    Board,
    Condition,
    IntervalSettings,
    RunSummary,
    TableInfo,
    build_boards,
    render_markdown,
    render_terminal,
)
from imer_bench.harness.leaderboard.audit import AuditedRun, audit_tables
from imer_bench.harness.leaderboard.claims import Claims, ClaimSettings
from imer_bench.harness.leaderboard.content import Background, Content, MaskDraw, content_of
from imer_bench.harness.leaderboard.html import render_html
from imer_bench.harness.leaderboard.latex import render_latex
from imer_bench.harness.leaderboard.published import Quotation
from imer_bench.harness.leaderboard.report import write_report
from imer_bench.harness.report import _remarks

NASTY = "<script>alert('x')</script> & \"b\" $t_1$ </table>"
INFO = TableInfo("regression", score_range=(-3.0, 3.0))
FEW = IntervalSettings(resamples=50)
VOID = {"meta", "img", "br", "link", "input"}


def board_of(frame, **options) -> Board:
    return build_boards(frame, INFO, intervals=FEW, **options)[0]


@pytest.fixture(scope="module")
def content() -> Content:
    frame = sentiment_table(("strong", "weak", NASTY))
    frame = frame[
        (frame["label"] != "weak") | (frame["seed"] != 1) | (frame["test_condition"] != "random-0.5")
    ]
    board = replace(board_of(frame), warnings=(f"odd: {NASTY}",))
    scores = {"complete": (0.5, 0.6)}
    audits = audit_tables(
        [AuditedRun(NASTY, board.data_set, board.regime, board.comparison_hash, 1, "wf1", 0, scores)]
    )
    background = Background(
        name=NASTY,
        protocol={"name": NASTY, "test": {"mask_seeds": [201], "conditions": []}},
        masks=(MaskDraw("mosi", "test", NASTY, "201", 0.30123, {"text": 0.29}, "abc"),),
        environments=({"python": "3.11", NASTY: NASTY, "runs": 4},),
        data=({"name": "mosi", "origin": "https://example.org/x"},),
        audits=audits,
        notes=(NASTY,),
    )
    published = (Quotation(NASTY, "mosi", "F1", "weak", "complete", 77.7, 0.01),)
    return content_of((board,), background, published)


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.resources: list[str] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if self.rows and any(tag in ("td", "th") for tag in self.open):
            self.rows[-1][-1] += data

    def cells(self, start: str) -> Iterator[list[str]]:
        return (row for row in self.rows if any(cell.startswith(start) for cell in row[:2]))


def test_the_page_is_balanced_and_fetches_nothing(content):
    page = Page(render_html(content))
    assert page.open == []
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.resources)
    assert page.tags.count("script") == 1
    assert not {"link", "iframe", "object"} & set(page.tags)


def test_any_name_is_shown_as_it_is_everywhere(content):
    text = render_html(content)
    page = Page(text)
    # Row, warning, audit, masks, environment, protocol, notes, quotation, title.
    assert " ".join(page.text).count(NASTY) >= 9
    assert "alert('x')" not in text


def test_the_page_has_scores_holes_masks_and_quotations(content):
    page = Page(render_html(content))
    board = content.shown[0].board
    mean = next(row for row in board.rows if row.label == "strong").cells["wf1"]["complete"].mean
    strong = next(page.cells("strong"))
    assert any(cell.startswith(f"{100 * mean:.1f} ±") for cell in strong)
    assert "hole" in next(page.cells("weak"))
    assert ["mosi", "test", NASTY, "201", "0.3012", "0.2900", "abc"] in page.rows
    assert any("77.7" in row for row in page.rows)
    assert any("+10.0" in row for row in page.rows)
    assert next(page.cells("no information"))


def test_statements_and_limits_are_in_the_page(content):
    claims = Claims(
        "wf1", ClaimSettings(), "a test", statements=("strong beats weak",), limits=("too few seeds",)
    )
    shown = (replace(content.shown[0], board=replace(content.shown[0].board, claims=claims)),)
    words = " ".join(Page(render_html(replace(content, shown=shown))).text)
    assert "strong beats weak" in words
    assert "too few seeds" in words


def test_files_are_those_of_the_content(content, tmp_path):
    # Few figures, as drawing takes its time.
    few = replace(content.shown[0].board, robustness=(), claims=None)
    columns = tuple(column for column in few.columns if column.name in ("complete", few.ranked_by))
    content = replace(content, shown=(replace(content.shown[0], board=replace(few, columns=columns)),))
    paths = write_report(content, tmp_path)
    assert [path.name for path in paths] == ["report.html", "leaderboard.tex", "references.bib"]
    figures = sorted((tmp_path / "figures").glob("*.p*"))
    assert {path.suffix for path in figures} == {".pdf", ".png"}
    assert len({path.stem for path in figures}) * 2 == len(figures)
    for path in figures:
        data = path.read_bytes()
        if path.suffix == ".pdf":
            assert data.startswith(b"%PDF-")
        else:
            assert data.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", data[16:24])
            # One or two columns at 200 dots an inch.
            assert width in (680, 1400)
            assert height > 100
    stale = tmp_path / "figures" / "cmu_old.png"
    stale.write_bytes(b"old")
    changed = replace(content, background=replace(content.background, notes=("another note",)))
    write_report(changed, tmp_path)
    assert not stale.exists()
    assert "another note" in paths[0].read_text(encoding="utf-8")
    assert "data:image/png" in paths[0].read_text(encoding="utf-8")


def test_boards_without_any_value_have_a_report(tmp_path):
    conditions = (Condition("complete", "complete"), Condition("random-0.5", "random"))
    runs = [
        RunSummary("broken", "mosi", 1, "random-0.5", "failed", message="no memory", conditions=conditions)
    ]
    frame = sentiment_table(("strong",), seeds=(1,), conditions=("complete",)).iloc[:0]
    board = board_of(frame, runs=runs)
    page, *_ = write_report(content_of((board,)), tmp_path)
    assert "no memory" in page.read_text(encoding="utf-8")


def test_rows_with_a_random_encoder_are_marked_in_every_table():
    frame = sentiment_table(("strong", "weak"), seeds=(0,), conditions=("complete", "fixed-t"))
    remark = _remarks({"language_models": {"random-t5-tiny": "ab12"}})
    runs = [
        RunSummary(
            "weak", "mosi", 0, "random-0.5", regime="single", selection="best", remarks=remark,
            comparison_hash="c0ffee0123456789",
        )
    ]  # fmt: skip
    board = board_of(frame, runs=runs)
    assert [bool(row.remarks) for row in board.rows if row.kind == "method"] == [False, True]
    words = "random encoder: no language knowledge"
    for text in (render_terminal(board), render_markdown([board])):
        assert f"¶ {words} (weak)" in text
        assert "weak ¶" in text
        assert "strong ¶" not in text
    assert "weak\\textsuperscript{a}" in render_latex([board])
    assert f"$^{{a}}$: {words}" in render_latex([board])
    page = Page(render_html(content_of((board,))))
    assert "weaka" in next(page.cells("weak"))
    assert f"a: {words}" in " ".join(page.text)


@pytest.mark.parametrize(
    "name", ["random-t5-tiny", "random:7:bert-tiny", "google-t5/t5-base", "randomness/encoder", "bert-random"]
)
def test_random_encoders_are_known_by_their_names(name):
    assert bool(_remarks({"language_models": {name: "ab12"}})) == is_random(name)


def test_runs_without_language_models_have_no_remark():
    assert _remarks({}) == ()
