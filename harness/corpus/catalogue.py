"""Which data sets are known, and where they are on this machine."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnknownName
from .errors import CorpusError, DataNotFound
from .info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from .records import LabelInfo

if TYPE_CHECKING:
    from .manifest import Manifest
    from .records import Corpus

_PACKAGE = __name__.split(".")[0] + ".datasets"


@cache
def data_sets() -> tuple[DatasetInfo, ...]:
    """The records of all data sets, by name: one module of ``datasets/`` each.

    Raises:
        CorpusError: A module has no ``INFO`` or one of another name.
    """
    package = importlib.import_module(_PACKAGE)
    records = []
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        info = getattr(importlib.import_module(f"{_PACKAGE}.{module.name}"), "INFO", None)
        if not isinstance(info, DatasetInfo) or info.name != module.name:
            raise CorpusError(
                f"datasets/{module.name}.py must define INFO, a DatasetInfo named {module.name!r}"
            )
        records.append(info)
    return tuple(records)


def data_set_info(
    name: str, root: Path | str | None = None, protocol_root: Path | str | None = None
) -> DatasetInfo:
    """The record of a data set; for a native folder without one, what its manifest says.

    Args:
        name: Name of the data set.
        root: ``--data-root``.
        protocol_root: ``root`` of the protocol.

    Raises:
        UnknownName: There is neither; the nearest name is suggested.
    """
    for info in data_sets():
        if info.name == name:
            return info
    folder = _folder(name, root, protocol_root)
    if folder is not None:
        from .manifest import read_manifest

        return _described(read_manifest(folder))
    raise UnknownName("data set", name, [info.name for info in data_sets()])


def _described(manifest: Manifest) -> DatasetInfo:
    """A record made from a manifest: the first label, feature sets and split are the usual ones."""
    labels = tuple(
        LabelInfo(
            entry.column, "score" if entry.kind == "score" else "class", entry.classes, entry.low, entry.high
        )
        for entry in manifest.labels
    )
    sets = [
        FeatureInfo(entry.modality, entry.name, entry.dim, entry.max_length) for entry in manifest.features
    ]
    first = {item.modality: item for item in reversed(sets)}
    usual = tuple(first[modality] for modality in manifest.feature_sets())
    if manifest.split_columns:
        rule = SplitRule("column", manifest.split_columns[0])
    elif manifest.fold_columns:
        rule = SplitRule("nested_folds", manifest.fold_columns[0])
    else:
        rule = SplitRule()
    folds = rule.kind != "column"
    parts = tuple(
        PartInfo(
            int(part.value) if folds else part.value,
            part.dialogues,
            part.utterances,
            1,
            part.utterances - part.dialogues + 1,
        )
        for part in manifest.parts()
        if part.column == rule.column and part.value != "-1" and (not folds or part.value.isdecimal())
    )
    target = labels[0]
    task = "regression" if target.kind == "score" else "binary" if len(target.classes) == 2 else "multiclass"
    return DatasetInfo(
        name=manifest.name,
        title=manifest.name,
        summary="A data set without a record; see docs/add-a-dataset.md.",
        task=task,
        label=target.column,
        labels=labels,
        features=usual,
        other_features=tuple(item for item in sets if item not in usual),
        split=rule,
        parts=parts,
        part_column=rule.column,
        speakers=manifest.speakers(),
        licence=manifest.licence,
    )


def search_roots(root: Path | str | None = None, protocol_root: Path | str | None = None) -> tuple[Path, ...]:
    """Folders that are searched for data, in order.

    ``--data-root``, the environment variable ``IMER_DATA``, the protocol's ``root``, ``./data``.
    """
    candidates = [root, os.environ.get("IMER_DATA"), protocol_root, "data"]
    return tuple(dict.fromkeys(Path(found).expanduser() for found in candidates if found))


def find_corpus(name: str, root: Path | str | None = None, protocol_root: Path | str | None = None) -> Path:
    """The native folder of a data set.

    Args:
        name: Name of the data set; a folder may have a name that no record knows.
        root: ``--data-root``.
        protocol_root: ``root`` of the protocol.

    Raises:
        DataNotFound: It is nowhere; the message says what is expected and how to import it.
        UnknownName: It is nowhere, and no record knows the name.
    """
    folder = _folder(name, root, protocol_root)
    if folder is not None:
        return folder
    info = data_set_info(name)
    searched = ", ".join(str(place / name) for place in search_roots(root, protocol_root))
    lines = [f"the data set {name!r} ({info.title}) is not at hand; searched: {searched}"]
    if info.expected:
        lines.append("  expected files: " + "; ".join(info.expected))
    if info.release:
        lines.append(f"  where they come from: {info.release}")
    if info.import_command:
        lines.append(f"  import them with: {info.import_command}")
    lines.append("  or run on generated data of the same shape with --synthetic")
    raise DataNotFound("\n".join(lines))


def _folder(name: str, root: Path | str | None, protocol_root: Path | str | None) -> Path | None:
    for place in search_roots(root, protocol_root):
        if (place / name / "manifest.json").is_file():
            return place / name
    return None


def import_root(root: Path | str | None = None) -> Path:
    """The folder that an import writes into: ``--data-root``, ``IMER_DATA`` or ``./data``."""
    return search_roots(root)[0]


def corpora(
    root: Path | str | None = None, protocol_root: Path | str | None = None
) -> tuple[tuple[Path, Manifest], ...]:
    """The native folders at hand with their manifests; of two of one name the first root's counts."""
    from .manifest import read_manifest

    found: dict[str, tuple[Path, Manifest]] = {}
    for place in search_roots(root, protocol_root):
        for path in sorted(place.glob("*/manifest.json")):
            if not path.parent.name.startswith("."):
                found.setdefault(path.parent.name, (path.parent, read_manifest(path.parent)))
    return tuple(found[name] for name in sorted(found))


def load_data_set(
    name: str,
    features: Mapping[str, str] | None = None,
    tokens: bool = False,
    root: Path | str | None = None,
    protocol_root: Path | str | None = None,
    synthetic: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Corpus:
    """Loads a data set, or generates it.

    Args:
        name: Name of the data set.
        features: Feature set per modality, in mask order; ``None``: the data set's own.
        tokens: Whether token ids are wanted.
        root: ``--data-root``.
        protocol_root: ``root`` of the protocol.
        synthetic: Generate data of the data set's shape instead of loading it.
        parameters: For the ``synthetic`` data set: changes to its generator's parameters; for
            ``synthetic=True``: ``scale`` and ``seed``.

    Raises:
        DataNotFound: The data are not at hand.
        CorpusError: The data are broken, or lack a feature set.
    """
    if name == "synthetic":
        from .embedded import embedded_corpus

        return embedded_corpus(features, tokens, **(parameters or {}))
    if synthetic:
        from .generator import synthetic_like

        return synthetic_like(
            data_set_info(name, root, protocol_root), features=features, tokens=tokens, **(parameters or {})
        )
    from .native import load_corpus

    folder = find_corpus(name, root, protocol_root)
    if features is None:
        # A folder with other feature sets than the record's is an error that lists them: which
        # features a number rests on is never chosen silently.
        known = {info.name: info for info in data_sets()}
        features = known[name].default_features if name in known else None
    return load_corpus(folder, features, tokens)
