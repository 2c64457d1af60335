"""A card as Markdown, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .card import Card
from .leaks import ERRORS, LARGE
from .probe import PENALTY


def card_text(card: Card) -> str:
    """The card as Markdown."""
    parts = [
        [f"# {card.name}", "", f"fingerprint `{card.fingerprint[:16]}`"],
        _findings(card),
        _sizes(card),
        _signal(card),
        _leaks(card),
        _missing(card),
        ["## Origin", "", f"- origin: {card.origin or 'unknown'}", f"- licence: {card.licence or 'unknown'}"]
        + [f"- {note}" for note in card.notes],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _findings(card: Card) -> list[str]:
    return ["## Findings", "", *([f"- {text}" for text in card.findings] or ["- nothing was found"])]


def _sizes(card: Card) -> list[str]:
    short, middle, long = card.lengths
    lines = [
        "## Sizes and labels",
        "",
        f"{card.utterances} utterances in {card.dialogues} dialogues ({short} to {long} utterances, median "
        f"{middle:g}), up to {card.speakers} speaker{'s' if card.speakers > 1 else ''} in one dialogue.",
        "",
    ]
    for label in card.labels:
        total = sum(label.counts.values())
        counts = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in label.counts.items())
        scores = (
            f" in {label.low:g} .. {label.high:g}, mean {label.mean:.3f}" if label.kind == "score" else ""
        )
        lines.append(f"- label `{label.column}`{scores}: {counts}")
    for column in dict.fromkeys(part.column for part in card.parts):
        sizes = [part for part in card.parts if part.column == column]
        said = ", ".join(f"{part.value} {part.utterances} in {part.dialogues}" for part in sizes)
        lines.append(f"- `{column}` (utterances in dialogues): {said}")
    return lines


def _signal(card: Card) -> list[str]:
    rows = [
        [
            " + ".join(signal.features),
            _percent(signal.accuracy),
            _percent(signal.weighted_f1),
            f"{signal.auc:.3f}",
            _percent(signal.test_accuracy),
            "" if signal.test_auc != signal.test_auc else f"{signal.test_auc:.3f}",
        ]
        for signal in card.signals
    ]
    head = ["features", "accuracy %", "weighted F1 %", "AUC", "test accuracy %", "test AUC"]
    return [
        "## Signal of each modality",
        "",
        f"Linear probe (logistic regression, C = {PENALTY:g}) of {card.target}. Cross-validation: "
        f"{card.signal_rows}; the most frequent class has {_percent(card.majority)} % there. Test: trained "
        "on training and validation.",
        "",
        *_table(head, rows),
    ]


def _leaks(card: Card) -> list[str]:
    lines = [
        "## Leakage",
        "",
        "Dialogues in two parts: " + (_counted(card.crossing) or "no split columns") + ".",
        "Nearly equal transcripts across parts (4-letter cosine of at least 0.9, from 20 letters on): "
        f"{len(card.duplicates)}.",
        *[
            f"- {pair.column}: {pair.other} and {pair.training} of training ({pair.similarity:.2f})"
            for pair in card.duplicates[:5]
        ],
        "Held-out utterances with exactly the features of a training utterance: "
        + (_counted({key: count for key, count in card.shared_rows.items() if count}) or "none")
        + ".",
        "",
        "Do features know labels? AUC of the probe for dialogues held out from it, inside the training part "
        "and on test (the better of training -> test and cross-validation inside test). Without a leak they "
        f"differ by chance and shift only; flagged: more than {LARGE:g} and {ERRORS:g} standard errors.",
        "",
    ]
    rows = [
        [
            leak.column,
            f"{leak.modality}/{leak.feature}",
            f"{leak.inside:.3f}",
            f"{leak.outside:.3f}",
            f"{leak.gap:+.3f}",
            f"{leak.error:.3f}",
            "LEAK" if leak.suspicious else "",
        ]
        for leak in card.label_leaks
    ]
    head = ["split", "features", "inside training", "on test", "gap", "s.e.", ""]
    lines += _table(head, rows) if rows else ["No split has training and test parts to compare."]
    lines += [
        "",
        "Dialogues of two kinds, without any split: accuracy of the probe in the better and the other "
        "dialogues (two binomial distributions). Flagged: at least 0.9, and 0.15 better than the others.",
        "",
    ]
    kinds = [
        [
            f"{kind.modality}/{kind.feature}",
            f"{kind.share:.2f}",
            f"{kind.high:.3f}",
            f"{kind.low:.3f}",
            f"{kind.evidence:.1f}",
            "SUSPICIOUS" if kind.suspicious else "",
        ]
        for kind in card.kinds
    ]
    return lines + _table(["features", "share", "better", "others", "log-likelihood ratio", ""], kinds)


def _missing(card: Card) -> list[str]:
    rows = [
        [item.feature, f"{item.column} {item.part}".strip(), _percent(item.observed), item.utterances]
        for item in card.missing
        if not item.column or item.observed < 1
    ]
    patterns = ", ".join(f"{name} {count}" for name, count in card.patterns.items())
    return [
        "## What is really missing",
        "",
        *_table(["features", "part", "observed %", "utterances"], rows),
        "",
        f"Utterances by the modalities that they have: {patterns}.",
    ]


def _counted(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    from tabulate import tabulate

    return tabulate(rows, headers=head, tablefmt="github", disable_numparse=True).splitlines()
