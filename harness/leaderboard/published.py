"""Numbers of the literature beside one's own: quoted, checked, never ranked.

A CSV file with the columns

=========  ==============================================================================
source     where the number was printed, and who measured it
data_set   data set (also ``dataset``)
metric     metric, as the source calls it
method     method, as the source calls it
condition  missing rate or available modalities (also ``missing_rate_or_condition``)
value      the number; shares in per cent, or as fractions if the whole column of a source is
=========  ==============================================================================

Other columns are ignored. Names are matched with one's own where they are unambiguous: ``CMU-MOSI``
is ``cmu_mosi``, ``IEMOCAPFour`` is ``iemocap4``; ``0.3``, ``random:0.3`` are ``random-0.3``; ``at``,
``fixed:at``, ``available={text,audio}`` are ``fixed-ta``. What can't be matched is counted, not guessed.
A quotation that is matched by name may still differ in everything else; ``causes`` lists what is known.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..metrics import metric
from ..reading import check_columns
from .records import Board, Cell, Row
from .table import TableError

_LONGEST = 1000  # characters of a name or remark; patterns look for words in them
_ALIASES = {
    "data_set": ("data_set", "dataset"),
    "condition": ("condition", "missing_rate_or_condition"),
}
COLUMNS = ("source", "data_set", "metric", "method", "condition", "value")
_LETTER = {"text": "t", "language": "t", "audio": "a", "acoustic": "a", "vision": "v", "video": "v"}
_NUMBER_WORDS = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
# What the literature calls a metric, on sentiment scores and on classes. A bare "ACC2" or "F1" is
# negative against positive without zeros; on classes F1 is weighted.
_SENTIMENT = {
    **dict.fromkeys(("acc2", "acc", "acc2_non0", "non0_acc_2"), "acc2"),
    **dict.fromkeys(("f1", "wf1", "f1_non0", "non0_f1_score", "weighted_f1"), "wf1"),
    **dict.fromkeys(("acc2_has0", "has0_acc_2"), "acc2_has0"),
    **dict.fromkeys(("f1_has0", "has0_f1_score"), "wf1_has0"),
}
_CLASSES = {
    **dict.fromkeys(("acc", "wa", "accuracy", "war"), "acc"),
    **dict.fromkeys(("ua", "uar"), "ua"),
    **dict.fromkeys(("f1", "wf1", "waf", "weighted_f1", "w-f1"), "wf1"),
    **dict.fromkeys(("macro_f1",), "macro_f1"),
}


@dataclass(frozen=True)
class Quotation:
    """One number of the literature.

    Attributes:
        source: Where it was printed.
        data_set: Data set as printed.
        metric: Metric as printed.
        method: Method as printed.
        condition: Condition as printed.
        value: Value as printed.
        scale: What ``value`` is multiplied with to be a fraction: 0.01 where it is per cent, else 1.
    """

    source: str
    data_set: str
    metric: str
    method: str
    condition: str
    value: float
    scale: float = 1.0


@dataclass(frozen=True)
class QuotedCell:
    """A quotation that belongs to a cell of a board.

    Attributes:
        quotation: The quotation.
        metric: Own metric.
        column: Own column.
        value: Value in the metric's own unit.
    """

    quotation: Quotation
    metric: str
    column: str
    value: float


@dataclass(frozen=True)
class Deviation:
    """An own result against a quotation of the same method, in the metric's own unit.

    Attributes:
        label: Own row.
        cell: The quotation.
        own: Own mean.
        difference: Own mean minus the quotation.
        interval: Interval of the difference from the own interval over dialogues; the quotation counts
            as exact, as its own error is not known. ``None``: the metric has no interval.
        causes: What is known to differ, whatever the method's worth.
    """

    label: str
    cell: QuotedCell
    own: float
    difference: float
    interval: tuple[float, float] | None
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Quotations:
    """Quotations that belong to one board.

    Attributes:
        cells: Those with a metric and a column of the board.
        deviations: Own results against them, where a method is in both.
        unmatched: Quotations about the data set without a place in the board.
    """

    cells: tuple[QuotedCell, ...]
    deviations: tuple[Deviation, ...]
    unmatched: int


def read_published(files: Iterable[Path]) -> tuple[Quotation, ...]:
    """Reads quotations.

    Raises:
        TableError: A file can't be read, lacks a column, or has a value that is no number.
    """
    found: list[Quotation] = []
    for file in files:
        frame = _read(file)
        own = [_quotation(file, line, record) for line, record in enumerate(frame, start=2)]
        largest: dict[tuple[str, str], float] = {}
        for item in own:
            key = item.source, item.metric
            largest[key] = max(largest.get(key, 0.0), abs(item.value))
        per_cent = {key for key, value in largest.items() if value > 1}
        found += [replace(i, scale=0.01 if (i.source, i.metric) in per_cent else 1.0) for i in own]
    return tuple(dict.fromkeys(found))


def _quotation(file: Path, line: int, record: Mapping[str, str]) -> Quotation:
    try:
        value = float(record["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{file.name}, line {line}: value {record['value']!r} is no number")
    source, data_set, name, method, condition = (record[column] for column in COLUMNS[:-1])
    return Quotation(source, data_set, name, method, condition, value)


def _read(file: Path) -> list[dict[str, str]]:
    try:
        check_columns(file)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            records = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise TableError(f"{file}: not a readable CSV file of published numbers: {error}") from None
    header = list(records[0]) if records else []
    names: dict[str, str] = {}
    for column in COLUMNS:
        known = [name for name in _ALIASES.get(column, (column,)) if name in header]
        names[column] = known[0] if known else ""
    for column, name in names.items():
        if records and not name:
            raise TableError(f"{file}: no column {column!r}; published numbers need {', '.join(COLUMNS)}")
    rows = [{column: (record[name] or "").strip() for column, name in names.items()} for record in records]
    for line, row in enumerate(rows, start=2):
        for column, text in row.items():
            if len(text) > _LONGEST:
                raise TableError(
                    f"{file.name}, line {line}: {column} has {len(text)} characters, the most is {_LONGEST}"
                )
    return rows


# --- Names -----------------------------------------------------------------------------------------


def data_set_key(name: str) -> str:
    """A data set's name without what spellings differ in: ``CMU-MOSI`` and ``cmu_mosi`` are ``mosi``."""
    text = name.lower()
    for word, digit in _NUMBER_WORDS.items():
        text = text.replace(word, digit)
    return re.sub(r"[^a-z0-9]", "", text).removeprefix("cmu")


def method_key(name: str) -> str:
    """A method's name without case, punctuation and remarks in brackets."""
    return re.sub(r"[^a-z0-9+]", "", re.sub(r"[\[(].*?[\])]", "", name).lower())


def metric_of(name: str, board: Board) -> str | None:
    """Own metric that a source means, if the board reports it; remarks after the name are no match."""
    key = name.strip().lower().replace(" ", "_")
    sims = board.info.score_range == (-1.0, 1.0)
    known = _SENTIMENT if board.info.task == "regression" else _CLASSES
    own = known.get(key, key)
    candidates = (f"sims_{own}", own) if sims else (own,)
    return next((item for item in candidates if item in board.info.metrics), None)


def column_of(condition: str, board: Board) -> str | None:
    """Own column that a source's condition means, if the board has it."""
    names = {_canonical(column.name): column.name for column in board.columns if not column.is_mean}
    return names.get(_canonical(condition)) or _mean_column(condition, board)


def _canonical(condition: str) -> str:
    """One spelling of a condition: a family, and a rate or sorted letters."""
    text = re.sub(r"\s*\(.*?\)|^cond(ition)?[:=]", "", condition.strip().lower()).strip()
    if text in ("complete", "complete modalities", "all", "0", "0.0", "clean"):
        return "complete"
    rate = re.fullmatch(r"(?:(random|frames)[-:=])?(\d*\.\d+|\d+)", text)
    if rate:
        return f"{rate[1] or 'random'}-{float(rate[2]):g}" if float(rate[2]) else "complete"
    letters = _letters(re.sub(r"^(fixed|available)[-:=]", "", text).strip("{}"))
    if letters:
        return "complete" if len(letters) == 3 else f"fixed-{letters}"
    return text


def _letters(text: str) -> str:
    """Sorted initials of named modalities; empty if it is anything else."""
    words = re.split(r"[+,\s]+", text)
    if all(word in _LETTER for word in words):
        return "".join(sorted({_LETTER[word] for word in words}))
    compact = text.replace("+", "").replace(",", "").replace("l", "t")
    unique = set(compact)
    return "".join(sorted(unique)) if unique <= set("tav") and len(unique) == len(compact) else ""


def _mean_column(condition: str, board: Board) -> str | None:
    """A mean over listed conditions, if the board's mean is over just these."""
    listed = re.fullmatch(r"mean\((random|fixed|frames) (.+)\)", condition.strip().lower())
    if not listed:
        return None
    family, what = listed.groups()
    span = re.fullmatch(r"(\d\.\d)-(\d\.\d)", what)
    if span:
        low, high = (round(10 * float(end)) for end in span.groups())
        wanted = {_canonical(f"{family}-{step / 10}") for step in range(low, high + 1)}
    else:
        wanted = {_canonical(f"{family}-{part.strip()}") for part in what.split(",")}
    members = {_canonical(c.name) for c in board.columns if c.family == family and not c.is_mean}
    mean = next((c.name for c in board.columns if c.family == family and c.is_mean), None)
    return mean if members == wanted else None


# --- Beside a board --------------------------------------------------------------------------------


def quotations_for(
    board: Board, quotations: Iterable[Quotation], titles: Mapping[str, str] | None = None
) -> Quotations:
    """Quotations that belong beside a board.

    Args:
        board: The board.
        quotations: All quotations.
        titles: Names of methods in papers, by own name.
    """
    cells: list[QuotedCell] = []
    unmatched = 0
    for item in quotations:
        if data_set_key(item.data_set) != data_set_key(board.data_set):
            continue
        name, column = metric_of(item.metric, board), column_of(item.condition, board)
        if name is None or column is None:
            unmatched += 1
            continue
        scale = item.scale if metric(name).percent else 1.0
        cells.append(QuotedCell(item, name, column, item.value * scale))
    return Quotations(tuple(cells), tuple(_deviations(board, cells, titles or {})), unmatched)


def _deviations(board: Board, cells: Iterable[QuotedCell], titles: Mapping[str, str]) -> Iterator[Deviation]:
    rows: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.kind == "method":
            for key in {method_key(row.method), method_key(titles.get(row.method, row.method))}:
                rows.setdefault(key, []).append(row)
    for quoted in cells:
        for row in rows.get(method_key(quoted.quotation.method), []):
            cell = row.cells[quoted.metric][quoted.column]
            if cell.mean is None:
                continue
            yield Deviation(
                label=row.label,
                cell=quoted,
                own=cell.mean,
                difference=cell.mean - quoted.value,
                interval=_shifted(cell, quoted.value),
                causes=causes(board, quoted.quotation),
            )


def _shifted(cell: Cell, value: float) -> tuple[float, float] | None:
    return None if cell.interval is None else (cell.interval[0] - value, cell.interval[1] - value)


# What a source says of itself, and what it means for a comparison.
_SAID = (
    (r"test[- ](set|chosen|selected)|best test epoch|checkpoint choice", "epoch selected on the test set"),
    (r"arguments swapped", "F1 computed with labels and predictions swapped"),
    (r"quoted", "quoted at second hand"),
    (r"secondary source|reading note|summary", "from a secondary source"),
    (r"re-?run|re-?implemented|retrained|reproduction", "not run by the method's authors"),
    (r"fold 5|one fold|single fold", "fewer folds"),
    (r"glove", "GloVe text features"),
    (r"element-wise|feature masking", "elements of features were masked, not modalities"),
    (r"frames", "frames were masked, not modalities"),
)
# What is known of a source's protocol from its released code or its own answers.
_KNOWN = (
    (
        r"\b(GCNet|MoMKE|ComP|SDR-GNN|PriMD)\b",
        ("masks drawn anew in every pass", "one training seed or unseeded", "features of the authors"),
    ),
    (
        r"\b(GCNet|MoMKE|ComP)\b.*IEMOCAP|IEMOCAP.*\b(GCNet|MoMKE|ComP)\b",
        ("best epoch of each fold on the test set",),
    ),
    (
        r"\b(IMDer|DiCMoR)\b",
        (
            "other mask distribution: whole batches lose modalities, more polarised than keep-one",
            "encoders trained on complete data first",
        ),
    ),
    (r"CyIN", ("one model for all conditions", "ImageBind audio and vision features")),
    (r"LNLN|HyperDAF", ("frames masked instead of modalities", "best epoch per metric on the test set")),
    (r"MAGTKD stage 2", ("best test epoch of the authors' features",)),
)


def causes(board: Board, quotation: Quotation) -> tuple[str, ...]:
    """What is known to differ between a quotation and the board, apart from the method's worth."""
    text = f"{quotation.source} | {quotation.metric} | {quotation.condition}"
    found = [cause for pattern, cause in _SAID if re.search(pattern, text, re.IGNORECASE)]
    about = f"{quotation.source} | {quotation.method} | {quotation.data_set}"
    for pattern, reasons in _KNOWN:
        if re.search(pattern, about):
            found += reasons
    if board.regime == "matched" and "one model for all conditions" in found:
        found.append("here one model per condition")
    elif board.regime in ("single", "no_prior") and re.search(r"\b(GCNet|MoMKE|ComP|IMDer)\b", about):
        found.append("there one model per condition, here one for all")
    if board.synthetic:
        found.insert(0, "these data are synthetic: no comparison is meant")
    return tuple(dict.fromkeys(found)) or ("protocol of the source not known: features, masks, selection",)


# --- Tables ----------------------------------------------------------------------------------------


def quoted_cells(board: Board, found: Quotations, name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the quotations of one metric: a row per source and method, unranked."""
    own = [cell for cell in found.cells if cell.metric == name]
    columns = [c.name for c in board.columns if any(cell.column == c.name for cell in own)]
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for cell in own:
        key = cell.quotation.method, cell.quotation.source
        text = _number(cell.value, name)
        shown = rows.setdefault(key, {}).setdefault(cell.column, [])
        if text not in shown:
            shown.append(text)
    body = [
        [method, *("; ".join(values.get(column, ["–"])) for column in columns), source]
        for (method, source), values in sorted(rows.items())
    ]
    return ["quoted method", *columns, "source"], body


def deviation_cells(found: Quotations, name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of own results against quotations."""
    body = []
    for item in found.deviations:
        if item.cell.metric != name:
            continue
        interval = "n/a"
        if item.interval is not None:
            interval = f"[{_signed(item.interval[0], name)}, {_signed(item.interval[1], name)}]"
        body.append(
            [
                item.label,
                item.cell.column,
                _number(item.own, name),
                _number(item.cell.value, name),
                _signed(item.difference, name),
                interval,
                item.cell.quotation.source,
                "; ".join(item.causes),
            ]
        )
    header = ["label", "condition", "own", "quoted", "own − quoted", "interval", "source", "known causes"]
    return header, body


def _number(value: float, name: str) -> str:
    return f"{100 * value:.1f}" if metric(name).percent else f"{value:.3f}"


def _signed(value: float, name: str) -> str:
    return f"{100 * value:+.1f}" if metric(name).percent else f"{value:+.3f}"
