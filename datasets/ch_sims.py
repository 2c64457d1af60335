"""CH-SIMS: sentiment of Chinese film and television clips, with unimodal labels."""

from __future__ import annotations

from ..harness.corpus.info import DatasetInfo, FeatureInfo, PartInfo, SplitRule
from ..harness.corpus.records import LabelInfo

INFO = DatasetInfo(
    name="ch_sims",
    title="CH-SIMS",
    summary="2 281 Chinese film and television clips with a sentiment score in [-1, 1].",
    task="regression",
    label="sentiment",
    labels=(LabelInfo("sentiment", "score", low=-1.0, high=1.0),),
    features=(
        FeatureInfo("text", "unaligned_39", 768, 39, "Chinese BERT, MMSA"),
        FeatureInfo("audio", "unaligned_39", 33, 400, "LibROSA, MMSA"),
        FeatureInfo("vision", "unaligned_39", 709, 55, "OpenFace, MMSA"),
    ),
    split=SplitRule("column", "split_standard"),
    # Every clip is a dialogue of its own: the release divides clips, not videos (docs/data.md).
    parts=(
        PartInfo("train", 1368, 1368, 1, 1),
        PartInfo("valid", 456, 456, 1, 1),
        PartInfo("test", 457, 457, 1, 1),
    ),
    part_column="split_standard",
    expected=("unaligned_39.pkl (MMSA family)",),
    release="the download links of github.com/thuiar/MMSA",
    import_command="python bench.py data import --format mmsa unaligned_39.pkl --name ch_sims",
    licence="distributed by its authors for academic research",
    citation="""@inproceedings{yu2020chsims,
  author    = {Yu, Wenmeng and Xu, Hua and Meng, Fanyang and Zhu, Yilin and Ma, Yixiao and Wu, Jiele and
               Zou, Jiyun and Yang, Kaicheng},
  title     = {{CH-SIMS}: A {C}hinese Multimodal Sentiment Analysis Dataset with Fine-grained Annotation of
               Modality},
  booktitle = {ACL},
  pages     = {3718--3727},
  year      = {2020}
}""",
)
