"""Imports of the field's releases: one module a family, one entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import UnknownName, UserError
from ..catalogue import data_sets
from ..digests import features_digest
from ..errors import CorpusError
from ..info import DatasetInfo
from ..manifest import read_manifest
from ..native import Contents, load_contents, only_writer, ordered, write_corpus
from ..records import LabelInfo
from ..report import ImportReport, check_contents, make_report
from ..unpickle import read_pickle
from . import gcnet, magtkd, mmsa, table
from .common import Imported, ImportOptions

FORMATS = ("auto", "gcnet", "mmsa", "magtkd", "table")


def import_data(
    format: str,
    sources: Sequence[Path],
    name: str,
    root: Path,
    modalities: Mapping[str, str] | None = None,
    labels: Sequence[LabelInfo] = (),
    features: Sequence[str] | None = None,
    repair: bool = False,
    allow_missing: bool = False,
    replace_existing: bool = False,
) -> ImportReport:
    """Imports a release into the native folder ``<root>/<name>``.

    If the folder exists and holds the same utterances with the same labels, the release's feature
    sets are added to it.

    Args:
        format: One of ``FORMATS``.
        sources: Files and folders of the release.
        name: Name of the data set.
        root: Folder that holds data sets.
        modalities: Modality per feature name, where the name does not tell.
        labels: Label columns of a table, where the record of the data set does not tell.
        features: Names of the feature sets to take; ``None``: all.
        repair: Set values that are not finite to zero and record it, instead of refusing them.
        allow_missing: Take utterances without a feature file as absent, instead of refusing them.
        replace_existing: Replace a folder or feature sets that exist.

    Raises:
        CorpusError: The release is broken, or does not fit the folder that exists.
        ForbiddenGlobal: A pickle asks for something outside the allow-list.
    """
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    if not sources:
        raise CorpusError("no source was given")
    for path in sources:
        if not path.exists():
            raise CorpusError(f"{path} does not exist")
    if not name or not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise CorpusError(f"the name {name!r} is not usable as a folder: letters, digits, _ - and . only")
    if format == "auto":
        format = detect_format(sources)
    info = {item.name: item for item in data_sets()}.get(name)
    options = ImportOptions(
        name=name,
        info=info,
        modalities=dict(modalities or {}),
        labels=tuple(labels),
        repair=repair,
        allow_missing=allow_missing,
        features=tuple(features) if features is not None else None,
    )
    importers = {
        "gcnet": gcnet.import_gcnet,
        "mmsa": mmsa.import_mmsa,
        "magtkd": magtkd.import_magtkd,
        "table": table.import_table,
    }
    try:
        imported = importers[format](sources, options)
        contents = ordered(imported.contents)
        _check_text(contents)
    except UserError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        # What the importers don't name themselves: values of other kinds than any release holds.
        places = ", ".join(path.name for path in sources)
        raise CorpusError(
            f"{places}: no sound release of the format {format!r}: {type(error).__name__}: {error}"
        ) from error
    return _finish(replace(imported, contents=contents), format, root / name, info, replace_existing)


def detect_format(sources: Sequence[Path]) -> str:
    """The format of a release by what its files hold.

    Raises:
        CorpusError: It is none of the known ones.
    """
    if gcnet.recognises(sources):
        return "gcnet"
    pickles = [
        file
        for path in sources
        for file in (sorted(path.glob("*.pkl")) if path.is_dir() else [path])
        if file.suffix in (".pkl", ".pickle")
    ]
    if pickles and not table.recognises(sources):
        value = read_pickle(pickles[0], allow_torch=True)
        if mmsa.recognises(value):
            return "mmsa"
        if magtkd.recognises(value):
            return "magtkd"
        kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise CorpusError(f"{pickles[0].name} is a sound pickle of {kind}, but of no known release")
    if table.recognises(sources):
        return "table"
    names = ", ".join(str(path) for path in sources)
    raise CorpusError(f"no known release in {names}; docs/data.md lists the layouts")


def _check_text(contents: Contents) -> None:
    """Text must be Unicode: JSON can hold halves of characters that no file can."""
    table = contents.utterances
    for column in table.columns:
        for value in (str(column), *(text for text in table[column] if isinstance(text, str))):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise CorpusError(f"column {column!a} holds the broken text {value[:60]!a}") from None


def _finish(
    imported: Imported, format: str, folder: Path, info: DatasetInfo | None, replace_existing: bool
) -> ImportReport:
    contents = imported.contents
    warnings = (*imported.warnings, *check_contents(contents, info))
    with only_writer(folder):
        if folder.exists() and not (replace_existing and _other_data(folder, contents)):
            contents = _merged(load_contents(folder), contents, replace_existing)
        report = make_report(contents, format, str(folder), "", warnings)
        manifest = write_corpus(folder, replace(contents, report=report.plain()), replace_existing=True)
    return replace(report, fingerprint=manifest.fingerprint)


def _other_data(folder: Path, contents: Contents) -> bool:
    """Whether the folder holds other utterances, or nothing that can be read."""
    try:
        read_manifest(folder)
        return list(load_contents(folder).utterances["id"]) != list(contents.utterances["id"])
    except CorpusError:
        return True


def _merged(old: Contents, new: Contents, replace_existing: bool) -> Contents:
    """The old contents with the new feature sets, if utterances and labels agree."""
    if list(old.utterances["id"]) != list(new.utterances["id"]):
        missing = sorted(set(old.utterances["id"]) ^ set(new.utterances["id"]))
        example = f", for example {missing[0]!r} is in one of them only" if missing else ""
        raise CorpusError(
            f"{old.name} holds other utterances than the release{example}; --replace replaces the data set, "
            "another --name keeps both"
        )
    for label in new.labels:
        if label.column in old.utterances.columns:
            before = old.utterances[label.column].to_numpy(dtype=np.float64)
            now = new.utterances[label.column].to_numpy(dtype=np.float64)
            differ = np.abs(before - now) > 1e-5
            if differ.any():
                row = int(np.flatnonzero(differ)[0])
                raise CorpusError(
                    f"{old.name}: label {label.column!r} of {old.utterances['id'].iloc[row]!r} is "
                    f"{before[row]:g} here and {now[row]:g} in the release ({int(differ.sum())} differ)"
                )
    had = {(item.modality, item.name): item for item in old.features}
    clash = {(item.modality, item.name) for item in new.features} & had.keys()
    # The same import again, after a kill at its end, finds what it brought.
    changed = [
        (item.modality, item.name)
        for item in new.features
        if (item.modality, item.name) in clash
        and features_digest(item) != features_digest(had[item.modality, item.name])
    ]
    if changed and not replace_existing:
        modality, feature = min(changed)
        raise CorpusError(
            f"{old.name} has another feature set {modality}/{feature} already; --replace replaces it"
        )
    table = old.utterances.copy()
    for column in new.utterances.columns:
        if column not in table.columns:
            table[column] = new.utterances[column]
    known = {label.column for label in old.labels}
    kept = tuple(item for item in old.features if (item.modality, item.name) not in clash)
    return replace(
        old,
        utterances=table,
        labels=(*old.labels, *(label for label in new.labels if label.column not in known)),
        features=(*kept, *new.features),
        tokens=new.tokens or old.tokens,
        split_columns=tuple(dict.fromkeys((*old.split_columns, *new.split_columns))),
        fold_columns=tuple(dict.fromkeys((*old.fold_columns, *new.fold_columns))),
        origin="; ".join(dict.fromkeys((old.origin, new.origin))),
        notes=tuple(dict.fromkeys((*old.notes, *new.notes))),
    )
