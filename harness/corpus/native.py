"""The native format: one folder a data set, written whole and checked by hashes.

::

    <root>/<name>/
        manifest.json          what is inside, digests of every part, origin, licence, import report
        utterances.parquet     id, dialogue, index, speaker, transcript, labels, splits, folds
        features.safetensors   <modality>/<feature set>/{values,lengths,observed}, tokens/{ids,mask,special}

The fingerprint of loaded data covers the table and the feature sets that were picked, and nothing
else: adding another feature set to the folder does not change it. Digests are taken over content
(columns and arrays), not over file bytes, so that the same import gives the same fingerprint
whatever the versions of the libraries.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import suggestion
from ..files import move_whole, writing
from ..reading import read_parquet
from .digests import features_digest, fingerprint, tokens_digest, utterances_digest
from .errors import CorpusError
from .manifest import MANIFEST, SCHEMA, FeatureEntry, LabelEntry, Manifest, TokenEntry, read_manifest
from .records import UTTERANCE_COLUMNS, Corpus, FeatureSet, LabelInfo, TokenSet

UTTERANCES = "utterances.parquet"
FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Contents:
    """Everything that a native folder holds.

    Attributes:
        name: Name of the data set.
        utterances: One row per utterance; feature rows follow its order.
        labels: Label columns.
        features: All feature sets; several of one modality may stand side by side.
        tokens: Token ids of the transcripts, if any.
        split_columns: Columns with the values train, valid, test and ``""`` (in no split).
        fold_columns: Columns with fold numbers, -1: in no fold.
        synthetic: Whether the data come from the generator.
        origin: Where the data come from, in words.
        licence: Licence note.
        notes: Repairs and conversions, in words.
        report: The import report, as plain values.
    """

    name: str
    utterances: pd.DataFrame
    labels: tuple[LabelInfo, ...]
    features: tuple[FeatureSet, ...]
    tokens: TokenSet | None = None
    split_columns: tuple[str, ...] = ()
    fold_columns: tuple[str, ...] = ()
    synthetic: bool = False
    origin: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    def corpus(self, features: Mapping[str, str] | None = None, tokens: bool = False) -> Corpus:
        """The data with one feature set per modality, as ``load_corpus`` returns them."""
        contents = ordered(self)
        known = tuple((item.modality, item.name) for item in contents.features)
        picked = _pick(contents.name, known, features)
        by_key = {_key(item): item for item in contents.features}
        sets = {pair[0]: by_key[pair] for pair in picked}
        digests = {pair: features_digest(by_key[pair]) for pair in picked}
        chosen = _wanted_tokens(contents.name, contents.tokens, tokens)
        return Corpus(
            name=contents.name,
            utterances=contents.utterances,
            labels={label.column: label for label in contents.labels},
            features=sets,
            tokens=chosen,
            fingerprint=fingerprint(
                contents.name,
                contents.labels,
                utterances_digest(contents.utterances),
                digests,
                tokens_digest(chosen) if chosen else "",
            ),
            synthetic=contents.synthetic,
            origin=contents.origin,
            licence=contents.licence,
            notes=contents.notes,
        )


# Writing.


def ordered(contents: Contents) -> Contents:
    """The contents with rows sorted by dialogue and index, and everything that is absent set to zero.

    Raises:
        CorpusError: A column is absent, an id is not unique, or the sizes disagree.
    """
    table = contents.utterances.reset_index(drop=True)
    labels = [label.column for label in contents.labels]
    needed = [*UTTERANCE_COLUMNS, *labels, *contents.split_columns, *contents.fold_columns]
    absent = [column for column in needed if column not in table.columns]
    if absent:
        raise CorpusError(f"{contents.name}: the utterance table lacks the column {absent[0]!r}")
    if not len(table):
        raise CorpusError(f"{contents.name}: there are no utterances")
    for column in ("id", "dialogue", "speaker"):
        table[column] = table[column].astype(str)
    for column in ("index", *contents.fold_columns):
        table[column] = table[column].astype(np.int64)
    for column in contents.split_columns:
        table[column] = table[column].astype(str)
    for label in contents.labels:
        table[label.column] = table[label.column].astype(np.float64 if label.kind == "score" else np.int64)
    if "transcript" in table.columns:
        table["transcript"] = table["transcript"].astype(str)
    repeated = first_repeated(table["id"])
    if repeated is not None:
        raise CorpusError(f"{contents.name}: the utterance id {repeated!r} occurs twice")
    place = first_repeated(zip(table["dialogue"], table["index"], strict=True))
    if place is not None:
        raise CorpusError(
            f"{contents.name}: dialogue {place[0]!r} has two utterances with the index {place[1]}"
        )
    order = np.lexsort((table["index"].to_numpy(), np.unique(table["dialogue"], return_inverse=True)[1]))
    keys = [_key(item) for item in contents.features]
    if len(set(keys)) < len(keys):
        raise CorpusError(f"{contents.name}: two feature sets have the same modality and name")
    return replace(
        contents,
        utterances=table.iloc[order].reset_index(drop=True),
        features=tuple(_clean(item, order) for item in contents.features),
        tokens=contents.tokens and _reordered_tokens(contents.tokens, order),
    )


def first_repeated(values: Iterable[Any]) -> Any:
    """The first value that occurs a second time; ``None`` if all differ."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _clean(item: FeatureSet, order: np.ndarray) -> FeatureSet:
    name = f"{item.modality}/{item.name}"
    if item.values.ndim not in (2, 3) or (item.values.ndim == 3) != (item.lengths is not None):
        raise CorpusError(f"feature set {name}: vectors are [N, d], sequences [N, T, d] with lengths")
    if len(item.values) != len(order) or len(item.observed) != len(order):
        raise CorpusError(f"feature set {name} has {len(item.values)} rows for {len(order)} utterances")
    values = np.ascontiguousarray(item.values[order], dtype=np.float32)
    if not np.isfinite(values).all():
        raise CorpusError(f"feature set {name} holds values that are not finite")
    observed = np.ascontiguousarray(item.observed[order], dtype=bool)
    if item.lengths is None:
        values[~observed] = 0
        return replace(item, values=values, observed=observed)
    lengths = np.where(observed, item.lengths[order], 0).astype(np.int64)
    if len(lengths) and (lengths.min() < 0 or lengths.max() > values.shape[1]):
        raise CorpusError(f"feature set {name}: lengths must lie in 0..{values.shape[1]}")
    observed &= lengths > 0
    values[np.arange(values.shape[1])[None, :] >= lengths[:, None]] = 0
    return replace(item, values=values, lengths=lengths, observed=observed)


def _reordered_tokens(tokens: TokenSet, order: np.ndarray) -> TokenSet:
    if len(tokens.ids) != len(order):
        raise CorpusError(f"there are {len(tokens.ids)} rows of tokens for {len(order)} utterances")
    return replace(
        tokens,
        ids=np.ascontiguousarray(tokens.ids[order], dtype=np.int32),
        mask=np.ascontiguousarray(tokens.mask[order], dtype=bool),
        special=np.ascontiguousarray(tokens.special[order], dtype=bool),
    )


def write_corpus(folder: Path, contents: Contents, replace_existing: bool = False) -> Manifest:
    """Writes a native folder whole or not at all.

    Args:
        folder: The folder, ``<root>/<name>``; its parents are made.
        contents: What to write; rows are sorted by dialogue and index.
        replace_existing: Take the place of a folder that is there.

    Raises:
        CorpusError: The folder exists, or the contents contradict themselves.
    """
    contents = ordered(contents)
    manifest = make_manifest(contents)
    with only_writer(folder):
        if folder.exists() and not replace_existing:
            raise CorpusError(f"{folder} exists; nothing was written")
        temporary = folder.parent / f".{folder.name}.part"
        temporary.mkdir()
        try:
            with writing(folder):
                contents.utterances.to_parquet(temporary / UTTERANCES, index=False)
                save_file(_tensors(contents), temporary / FEATURES)
                (temporary / MANIFEST).write_text(
                    manifest.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8"
                )
                if folder.exists():
                    os.rename(folder, _old(folder))
                move_whole(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(_old(folder), ignore_errors=True)
    return manifest


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a native folder while it is changed, after what a killed import left has been put right.

    Args:
        folder: The folder; may be absent. Held twice by one process it stays held until the end.
    """
    with writing(folder):
        locks = folder.parent / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{folder.name}.lock", is_singleton=True)
        lock.acquire()
    try:
        if lock.lock_counter == 1:
            _put_right(folder)
        yield
    finally:
        lock.release()


def _put_right(folder: Path) -> None:
    if _old(folder).exists() and not folder.exists():  # killed between two renames
        os.rename(_old(folder), folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    shutil.rmtree(folder.parent / f".{folder.name}.part", ignore_errors=True)


def _old(folder: Path) -> Path:
    """Where a data set lies while another one takes its place."""
    return folder.parent / f".{folder.name}.old"


def make_manifest(contents: Contents) -> Manifest:
    """The manifest of contents whose rows are in order."""
    table_digest = utterances_digest(contents.utterances)
    entries = tuple(
        FeatureEntry(
            modality=item.modality,
            name=item.name,
            dim=item.dim,
            max_length=item.max_length,
            sequence=item.lengths is not None,
            observed=int(item.observed.sum()),
            note=item.note,
            digest=features_digest(item),
        )
        for item in contents.features
    )
    tokens = contents.tokens and TokenEntry(
        max_length=int(contents.tokens.ids.shape[1]),
        unknown=contents.tokens.unknown,
        vocabulary=contents.tokens.vocabulary,
        tokenizer=contents.tokens.tokenizer,
        digest=tokens_digest(contents.tokens),
    )
    return Manifest(
        schema=SCHEMA,
        name=contents.name,
        synthetic=contents.synthetic,
        utterances=len(contents.utterances),
        dialogues=len(set(contents.utterances["dialogue"])),
        utterances_digest=table_digest,
        labels=tuple(LabelEntry(**asdict(label)) for label in contents.labels),
        features=entries,
        tokens=tokens,
        split_columns=contents.split_columns,
        fold_columns=contents.fold_columns,
        fingerprint=fingerprint(
            contents.name,
            contents.labels,
            table_digest,
            {(entry.modality, entry.name): entry.digest for entry in entries},
            tokens.digest if tokens else "",
        ),
        origin=contents.origin,
        licence=contents.licence,
        notes=contents.notes,
        report=dict(contents.report),
    )


def _tensors(contents: Contents) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for item in contents.features:
        prefix = f"{item.modality}/{item.name}"
        tensors[f"{prefix}/values"] = item.values
        tensors[f"{prefix}/observed"] = item.observed
        if item.lengths is not None:
            tensors[f"{prefix}/lengths"] = item.lengths
    if contents.tokens:
        tensors |= {
            "tokens/ids": contents.tokens.ids,
            "tokens/mask": contents.tokens.mask,
            "tokens/special": contents.tokens.special,
        }
    return tensors


# Reading.


def load_corpus(
    folder: Path,
    features: Mapping[str, str] | None = None,
    tokens: bool = False,
    check: bool = True,
) -> Corpus:
    """Loads a native folder; only the feature sets that are picked are read.

    Args:
        folder: The folder ``<root>/<name>``.
        features: Feature set per modality, in mask order; ``None``: the first of every modality.
        tokens: Load token ids as well.
        check: Recompute the digests of what is read, so that data that were changed by accident are
            noticed before they become numbers.

    Raises:
        CorpusError: A part is absent, broken or changed, or a feature set is unknown.
    """
    manifest = read_manifest(folder)
    known = tuple((entry.modality, entry.name) for entry in manifest.features)
    entries = {(entry.modality, entry.name): entry for entry in manifest.features}
    picked = _pick(manifest.name, known, features)
    table = _read_table(folder, manifest)
    sets = {pair[0]: _read_features(folder, entries[pair]) for pair in picked}
    stored = _read_tokens(folder, manifest.tokens) if tokens and manifest.tokens else None
    token_set = _wanted_tokens(manifest.name, stored, tokens)
    if check:
        found = {"utterances": utterances_digest(table)} | {
            entries[pair].key: features_digest(sets[pair[0]]) for pair in picked
        }
        stated = {"utterances": manifest.utterances_digest} | {
            entries[pair].key: entries[pair].digest for pair in picked
        }
        if token_set and manifest.tokens:
            found["tokens"], stated["tokens"] = tokens_digest(token_set), manifest.tokens.digest
        changed = [part for part in found if found[part] != stated[part]]
        if changed:
            raise CorpusError(f"{folder}: {changed[0]} does not agree with its digest; import the data again")
    labels = _labels(manifest)
    return Corpus(
        name=manifest.name,
        utterances=table,
        labels={label.column: label for label in labels},
        features=sets,
        tokens=token_set,
        fingerprint=fingerprint(
            manifest.name,
            labels,
            manifest.utterances_digest,
            {pair: entries[pair].digest for pair in picked},
            manifest.tokens.digest if token_set and manifest.tokens else "",
        ),
        synthetic=manifest.synthetic,
        origin=manifest.origin,
        licence=manifest.licence,
        notes=manifest.notes,
    )


def load_contents(folder: Path) -> Contents:
    """Loads everything that a native folder holds, for merging and verification."""
    manifest = read_manifest(folder)
    return Contents(
        name=manifest.name,
        utterances=_read_table(folder, manifest),
        labels=_labels(manifest),
        features=tuple(_read_features(folder, entry) for entry in manifest.features),
        tokens=manifest.tokens and _read_tokens(folder, manifest.tokens),
        split_columns=manifest.split_columns,
        fold_columns=manifest.fold_columns,
        synthetic=manifest.synthetic,
        origin=manifest.origin,
        licence=manifest.licence,
        notes=manifest.notes,
        report=manifest.report,
    )


def _read_table(folder: Path, manifest: Manifest) -> pd.DataFrame:
    path = folder / UTTERANCES
    try:
        table = read_parquet(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    kinds = dict.fromkeys(("id", "dialogue", "speaker", *manifest.split_columns), "text")
    kinds |= dict.fromkeys(("index", *manifest.fold_columns), "whole numbers")
    kinds |= {
        label.column: "numbers" if label.kind == "score" else "whole numbers" for label in manifest.labels
    }
    for column, kind in kinds.items():
        if column not in table.columns:
            raise CorpusError(f"{path} has no column {column!r}, which {MANIFEST} names")
        if _kind(cast(pd.Series, table[column])) != kind:
            raise CorpusError(f"{path}: column {column!r} must hold {kind} in every row")
    if not len(table):
        raise CorpusError(f"{path} has no rows")
    return table


def _kind(column: pd.Series) -> str:
    """What every row of a column holds, in words; empty if it is anything else."""
    if column.dtype.kind in "iu":
        return "whole numbers"
    if column.dtype.kind == "f":
        return "numbers" if np.isfinite(column.to_numpy()).all() else ""
    return "text" if all(isinstance(value, str) for value in column) else ""


def _read_features(folder: Path, entry: FeatureEntry) -> FeatureSet:
    names = ["values", "observed", *(["lengths"] if entry.sequence else [])]
    arrays = _read_tensors(folder, entry.key, names)
    return FeatureSet(
        entry.modality, entry.name, arrays["values"], arrays.get("lengths"), arrays["observed"], entry.note
    )


def _read_tokens(folder: Path, entry: TokenEntry) -> TokenSet:
    arrays = _read_tensors(folder, "tokens", ["ids", "mask", "special"])
    return TokenSet(
        ids=arrays["ids"],
        mask=arrays["mask"],
        unknown=entry.unknown,
        special=arrays["special"],
        vocabulary=entry.vocabulary,
        tokenizer=entry.tokenizer,
    )


def _read_tensors(folder: Path, prefix: str, names: list[str]) -> dict[str, np.ndarray]:
    path = folder / FEATURES
    try:
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(f"{prefix}/{name}") for name in names}
    # AttributeError: of a type that NumPy does not have, such as eight-bit floats.
    except (OSError, ValueError, SafetensorError, AttributeError, MemoryError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None


def _labels(manifest: Manifest) -> tuple[LabelInfo, ...]:
    return tuple(LabelInfo(**entry.model_dump()) for entry in manifest.labels)


def _key(item: FeatureSet) -> tuple[str, str]:
    return item.modality, item.name


def _pick(
    name: str, known: tuple[tuple[str, str], ...], features: Mapping[str, str] | None
) -> tuple[tuple[str, str], ...]:
    if features is None:
        first = {modality: (modality, found) for modality, found in reversed(known)}
        return tuple(first[modality] for modality in dict.fromkeys(modality for modality, _ in known))
    modalities = list(dict.fromkeys(modality for modality, _ in known))
    for modality, wanted in features.items():
        if modality not in modalities:
            raise CorpusError(
                f"data set {name!r} has no modality {modality!r}{suggestion(modality, modalities)}"
            )
        sets = [found for owner, found in known if owner == modality]
        if wanted not in sets:
            near = f"; at hand: {', '.join(sets)}"
            raise CorpusError(f"data set {name!r} has no {modality} feature set {wanted!r}{near}")
    return tuple(features.items())


def _wanted_tokens(name: str, tokens: TokenSet | None, wanted: bool) -> TokenSet | None:
    if wanted and tokens is None:
        raise CorpusError(f"data set {name!r} has no token ids; import a release that has them")
    return tokens if wanted else None
