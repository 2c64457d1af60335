"""The development split of MELD in five folds of whole dialogues: small, real, two modalities."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="meld_dev",
    title="MELD (dev)",
    summary="The 114 development dialogues of MELD, 1 108 utterances, text and audio, in five folds.",
    task="multiclass",
    label="emotion",
    labels=(
        LabelInfo(
            "emotion",
            "class",
            classes=("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust"),
        ),
    ),
    features=(
        FeatureInfo("text", "release", 768, source="RoBERTa-base fine-tuned on MELD train, with neighbours"),
        FeatureInfo("audio", "release", 768, source="wav2vec 2.0 base fine-tuned on MELD train"),
    ),
    other_features=(FeatureInfo("audio", "mel", 300, source="mel-spectrogram network; near chance"),),
    split=SplitRule("nested_folds", "fold"),
    parts=(
        PartInfo(0, 23, 241, 1, 19),
        PartInfo(1, 23, 204, 2, 22),
        PartInfo(2, 23, 242, 1, 21),
        PartInfo(3, 23, 190, 1, 23),
        PartInfo(4, 22, 231, 1, 22),
    ),
    part_column="fold",
    speakers=8,
    class_shares=(469, 163, 111, 153, 150, 40, 22),
    expected=("utterances.json and features.safetensors",),
    release="features of github.com/iosonopersia/Multimodal-Emotion-Recognition joined with the tables of "
    "github.com/declare-lab/MELD",
    import_command="python bench.py data import --format table meld_dev/ --name meld_dev",
    licence="GNU General Public License 3 (labels and transcripts); features without a licence",
    citation="""@inproceedings{poria2019meld,
  author    = {Poria, Soujanya and Hazarika, Devamanyu and Majumder, Navonil and Naik, Gautam and
               Cambria, Erik and Mihalcea, Rada},
  title     = {{MELD}: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations},
  booktitle = {ACL},
  pages     = {527--536},
  year      = {2019}
}""",
)
