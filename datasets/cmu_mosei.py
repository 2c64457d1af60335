"""CMU-MOSEI: sentiment of opinion videos, the large one."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="cmu_mosei",
    title="CMU-MOSEI",
    summary="3 225 opinion videos of one speaker, 22 856 utterances with a sentiment score in [-3, 3].",
    task="regression",
    label="sentiment",
    labels=(LabelInfo("sentiment", "score", low=-3.0, high=3.0),),
    features=(
        FeatureInfo("text", "deberta-large-4-UTT", 1024, source="DeBERTa-large, last four layers, GCNet"),
        FeatureInfo("audio", "wav2vec-large-c-UTT", 512, source="wav2vec-large, GCNet"),
        FeatureInfo("vision", "manet_UTT", 1024, source="MA-Net faces, GCNet"),
    ),
    other_features=(
        FeatureInfo("text", "aligned_50", 768, 50, "BERT, MMSA"),
        FeatureInfo("audio", "aligned_50", 74, 50, "MMSA"),
        FeatureInfo("vision", "aligned_50", 35, 50, "MMSA"),
        FeatureInfo("text", "unaligned_50", 768, 50, "BERT, MMSA"),
        FeatureInfo("audio", "unaligned_50", 74, 500, "MMSA"),
        FeatureInfo("vision", "unaligned_50", 35, 500, "MMSA"),
    ),
    split=SplitRule("column", "split_standard"),
    parts=(
        PartInfo("train", 2249, 16326, 1, 98),
        PartInfo("valid", 300, 1871, 1, 39),
        PartInfo("test", 676, 4659, 1, 52),
    ),
    part_column="split_standard",
    expected=(
        "CMUMOSEI/CMUMOSEI_features_raw_2way.pkl and CMUMOSEI/features/<feature name>/*.npy (GCNet family)",
        "aligned_50.pkl or unaligned_50.pkl (MMSA family)",
    ),
    release="the download links of github.com/zeroQiaoba/GCNet (utterance vectors) and "
    "github.com/thuiar/MMSA (sequences)",
    import_command="python bench.py data import CMUMOSEI/ --name cmu_mosei",
    licence="distributed by its authors for academic research",
    citation="""@inproceedings{zadeh2018mosei,
  author    = {Zadeh, AmirAli Bagher and Liang, Paul Pu and Poria, Soujanya and Cambria, Erik and
               Morency, Louis-Philippe},
  title     = {Multimodal Language Analysis in the Wild: {CMU-MOSEI} Dataset and Interpretable
               Dynamic Fusion Graph},
  booktitle = {ACL},
  pages     = {2236--2246},
  year      = {2018}
}""",
)
