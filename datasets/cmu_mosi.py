"""CMU-MOSI: sentiment of opinion videos, one speaker each."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="cmu_mosi",
    title="CMU-MOSI",
    summary="93 opinion videos of one speaker, 2 199 utterances with a sentiment score in [-3, 3].",
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
        FeatureInfo("audio", "aligned_50", 5, 50, "MMSA"),
        FeatureInfo("vision", "aligned_50", 20, 50, "MMSA"),
        FeatureInfo("text", "unaligned_50", 768, 50, "BERT, MMSA"),
        FeatureInfo("audio", "unaligned_50", 5, 375, "MMSA"),
        FeatureInfo("vision", "unaligned_50", 20, 500, "MMSA"),
        FeatureInfo("text", "release", 100, source="causal network, contextual-multimodal-fusion"),
        FeatureInfo("text", "minilm", 384, source="all-MiniLM-L6-v2 sentence embeddings"),
        FeatureInfo("audio", "release", 73, source="acoustic statistics, contextual-multimodal-fusion"),
        FeatureInfo("vision", "release", 100, source="3D network, contextual-multimodal-fusion"),
    ),
    split=SplitRule("column", "split_standard"),
    parts=(
        PartInfo("train", 52, 1284, 9, 63),
        PartInfo("valid", 10, 229, 9, 34),
        PartInfo("test", 31, 686, 10, 43),
    ),
    part_column="split_standard",
    expected=(
        "CMUMOSI/CMUMOSI_features_raw_2way.pkl and CMUMOSI/features/<feature name>/*.npy (GCNet family)",
        "aligned_50.pkl or unaligned_50.pkl (MMSA family)",
    ),
    release="the download links of github.com/zeroQiaoba/GCNet (utterance vectors) and "
    "github.com/thuiar/MMSA (sequences)",
    import_command="python bench.py data import CMUMOSI/ --name cmu_mosi",
    licence="distributed by its authors for academic research",
    citation="""@article{zadeh2016mosi,
  author  = {Zadeh, Amir and Zellers, Rowan and Pincus, Eli and Morency, Louis-Philippe},
  title   = {Multimodal Sentiment Intensity Analysis in Videos: Facial Gestures and Verbal Messages},
  journal = {IEEE Intelligent Systems},
  volume  = {31},
  number  = {6},
  pages   = {82--88},
  year    = {2016}
}""",
    checksum="ffc13d34b6622e60",
)
