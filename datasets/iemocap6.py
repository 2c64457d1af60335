"""IEMOCAP with six emotions: acted dialogues of two speakers."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="iemocap6",
    title="IEMOCAP-6",
    summary="151 acted dialogues of two speakers in five sessions, 7 433 utterances; no class is merged.",
    task="multiclass",
    label="emotion",
    labels=(
        LabelInfo("emotion", "class", classes=("happy", "sad", "neutral", "angry", "excited", "frustrated")),
    ),
    features=(
        FeatureInfo("text", "deberta-large-4-UTT", 1024, source="DeBERTa-large, last four layers, GCNet"),
        FeatureInfo("audio", "wav2vec-large-c-UTT", 512, source="wav2vec-large, GCNet"),
        FeatureInfo("vision", "manet_UTT", 1024, source="MA-Net faces, GCNet"),
    ),
    # Fold k tests session k + 1; a tenth of the other sessions' dialogues is for validation.
    split=SplitRule("folds_with_validation", "fold", validation_share=0.1),
    parts=(
        PartInfo(0, 28, 1373, 8, 110),
        PartInfo(1, 30, 1356, 8, 110),
        PartInfo(2, 32, 1569, 8, 110),
        PartInfo(3, 30, 1512, 8, 110),
        PartInfo(4, 31, 1623, 8, 110),
    ),
    part_column="fold",
    speakers=2,
    class_shares=(648, 1084, 1708, 1103, 1041, 1849),
    expected=(
        "IEMOCAP/IEMOCAP_features_raw_6way.pkl and IEMOCAP/features/<feature name>/*.npy (GCNet family)",
    ),
    release="labels and transcripts under the IEMOCAP release form (sail.usc.edu/iemocap), features from "
    "the download links of github.com/zeroQiaoba/GCNet",
    import_command="python bench.py data import IEMOCAP/IEMOCAP_features_raw_6way.pkl IEMOCAP/features "
    "--name iemocap6",
    licence="IEMOCAP release form; bring your own copy",
    citation="""@article{busso2008iemocap,
  author  = {Busso, Carlos and Bulut, Murtaza and Lee, Chi-Chun and Kazemzadeh, Abe and Mower, Emily and
             Kim, Samuel and Chang, Jeannette N. and Lee, Sungbok and Narayanan, Shrikanth S.},
  title   = {{IEMOCAP}: Interactive Emotional Dyadic Motion Capture Database},
  journal = {Language Resources and Evaluation},
  volume  = {42},
  pages   = {335--359},
  year    = {2008}
}""",
    checksum="540e6ec9a95e8ca6",
)
