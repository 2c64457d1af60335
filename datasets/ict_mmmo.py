"""ICT-MMMO: online film reviews, word-aligned sequences; text is really absent for the training part."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="ict_mmmo",
    title="ICT-MMMO",
    summary="340 film reviews with a score from 1 to 5; text exists for 120 of them.",
    task="regression",
    label="score",
    labels=(
        LabelInfo("score", "score", low=1.0, high=5.0),
        LabelInfo("label", "class", classes=("negative", "positive")),
    ),
    features=(
        FeatureInfo("text", "release", 300, 20, "word vectors"),
        FeatureInfo("audio", "release", 74, 20, "acoustic frames"),
        FeatureInfo("vision", "release", 36, 20, "facial frames"),
    ),
    split=SplitRule("column", "split"),
    parts=(
        PartInfo("train", 220, 220, 1, 1),
        PartInfo("valid", 40, 40, 1, 1),
        PartInfo("test", 80, 80, 1, 1),
    ),
    expected=("samples.json and features.safetensors",),
    release="github.com/pliang279/MFN, new_data/mmmo",
    import_command="python bench.py data import --format table ict_mmmo/ --name ict_mmmo",
    licence="MIT (features); the corpus is its creators'",
    citation="""@article{woellmer2013mmmo,
  author  = {W{\\"o}llmer, Martin and Weninger, Felix and Knaup, Tobias and Schuller, Bj{\\"o}rn and
             Sun, Congkai and Sagae, Kenji and Morency, Louis-Philippe},
  title   = {{YouTube} Movie Reviews: Sentiment Analysis in an Audio-Visual Context},
  journal = {IEEE Intelligent Systems},
  volume  = {28},
  number  = {3},
  pages   = {46--53},
  year    = {2013}
}""",
)
