"""MELD: emotions in dialogues of a television series, several speakers."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="meld",
    title="MELD",
    summary="1 432 dialogues of several speakers from a television series, 13 708 utterances.",
    task="multiclass",
    label="emotion",
    labels=(
        LabelInfo(
            "emotion",
            "class",
            classes=("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust"),
        ),
    ),
    # The authors of MAGTKD use distilled audio and video on MELD.
    features=(
        FeatureInfo("text", "magtkd", 768, source="prompted RoBERTa-large, MAGTKD stage 1"),
        FeatureInfo("audio", "magtkd_kd", 768, source="distilled data2vec, MAGTKD stage 1"),
        FeatureInfo("vision", "magtkd_kd", 768, source="distilled TimeSformer, MAGTKD stage 1"),
    ),
    other_features=(
        FeatureInfo("audio", "magtkd", 768, source="data2vec fine-tuned on MELD, MAGTKD stage 1"),
        FeatureInfo("vision", "magtkd", 768, source="TimeSformer fine-tuned on MELD, MAGTKD stage 1"),
    ),
    split=SplitRule("column", "split"),
    parts=(
        PartInfo("train", 1038, 9989, 1, 33),
        PartInfo("valid", 114, 1109, 1, 33),
        PartInfo("test", 280, 2610, 1, 33),
    ),
    speakers=9,
    class_shares=(4710, 1743, 683, 1109, 1205, 268, 271),
    expected=("train, dev and test pickles of MAGTKD's stage 1, or a table with feature files",),
    release="the download links of github.com/JieLi-dd/MAGTKD",
    import_command="python bench.py data import --format magtkd train.pkl dev.pkl test.pkl --name meld",
    licence="GNU General Public License 3 (labels and transcripts); bring your own copy",
    citation="""@inproceedings{poria2019meld,
  author    = {Poria, Soujanya and Hazarika, Devamanyu and Majumder, Navonil and Naik, Gautam and
               Cambria, Erik and Mihalcea, Rada},
  title     = {{MELD}: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations},
  booktitle = {ACL},
  pages     = {527--536},
  year      = {2019}
}""",
)
