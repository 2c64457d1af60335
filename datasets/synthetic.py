"""The embedded data set: generated dialogues, for trying things out without any download."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="synthetic",
    title="Synthetic dialogues",
    summary="Generated dialogues with speakers in which text says most and audio and vision add the rest.",
    task="regression",
    label="sentiment",
    labels=(
        LabelInfo("sentiment", "score", low=-3.0, high=3.0),
        LabelInfo("emotion", "class", classes=("happy", "sad", "neutral", "angry")),
    ),
    features=(
        FeatureInfo("text", "vectors", 32, source="harness/corpus/generator.py"),
        FeatureInfo("audio", "vectors", 16, source="harness/corpus/generator.py"),
        FeatureInfo("vision", "vectors", 24, source="harness/corpus/generator.py"),
    ),
    other_features=(
        FeatureInfo("text", "sequences", 32, 10, "harness/corpus/generator.py"),
        FeatureInfo("audio", "sequences", 16, 16, "harness/corpus/generator.py"),
        FeatureInfo("vision", "sequences", 24, 12, "harness/corpus/generator.py"),
    ),
    parts=(
        PartInfo("train", 60, 720, 4, 24),
        PartInfo("valid", 20, 240, 4, 24),
        PartInfo("test", 30, 360, 4, 24),
    ),
    speakers=2,
    release="generated on the fly; nothing to download",
    licence="free to use",
    embedded=True,
)
