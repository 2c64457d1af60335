"""Tiny checkpoints of the real classes with random weights, and recordings, saved on the spot."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch

_SENTENCE = ["the", "film", "was", "good", "bad", "i", "liked", "it", "not", "really", "dull", "fun", "."]
WORDS = (*_SENTENCE, "##ny", "##s")
WIDTH = 16


def text_checkpoint(folder: Path, family: str = "bert", seed: int = 0, **settings: object) -> Path:
    """BERT, RoBERTa or DeBERTa-v3 with a word-piece tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, PreTrainedTokenizerFast

    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    letters = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
    tokens = dict.fromkeys((*marks, *WORDS, *letters, *(f"##{letter}" for letter in letters)))
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    ).save_pretrained(folder)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=0,
        **settings,
    )
    return _saved(folder, config, seed)


def audio_checkpoint(folder: Path, family: str = "wav2vec2", norm: str = "layer", seed: int = 0) -> Path:
    """wav2vec 2.0, HuBERT or data2vec-audio: frames of 5 samples."""
    from transformers import AutoConfig, Wav2Vec2FeatureExtractor

    config = AutoConfig.for_model(
        family,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer" and family != "data2vec-audio",
        num_conv_pos_embeddings=4 if family != "data2vec-audio" else 2,
        num_conv_pos_embedding_groups=2,
        conv_pos_kernel_size=5,
    )
    Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=16000, do_normalize=True, return_attention_mask=norm == "layer"
    ).save_pretrained(folder)
    return _saved(folder, config, seed)


def whisper_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Whisper that hears two seconds."""
    from transformers import WhisperConfig, WhisperFeatureExtractor

    config = WhisperConfig(
        vocab_size=20,
        num_mel_bins=16,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    return _saved(folder, config, seed)


def vision_checkpoint(folder: Path, family: str = "vit", seed: int = 0, layers: int = 2) -> Path:
    """ViT, CLIP, VideoMAE or TimeSformer on pictures of 16 x 16."""
    import json

    from transformers import AutoConfig

    shape = {
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    processors = {"vit": "ViT", "clip": "CLIP", "videomae": "VideoMAE", "timesformer": "VideoMAE"}
    size: dict[str, object] = {"size": {"height": 16, "width": 16}}
    if family != "vit":
        size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": f"{processors[family]}ImageProcessor", **size})
    )
    if family == "clip":
        words = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        words |= {"intermediate_size": 8, "bos_token_id": 0, "eos_token_id": 1}
        config = AutoConfig.for_model("clip", vision_config=shape, text_config=words)
    else:
        video = {"num_frames": 4} if family in ("videomae", "timesformer") else {}
        config = AutoConfig.for_model(family, **shape, **video)
    return _saved(folder, config, seed)


def write_wave(path: Path, seconds: float, rate: int = 16000, pitch: float = 220.0) -> None:
    """A tone of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    samples = (0.5 * np.sin(2 * np.pi * pitch * time) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def write_frames(folder: Path, shades: list[int], width: int = 24) -> None:
    """A folder of plain grey pictures."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for place, shade in enumerate(shades):
        Image.fromarray(np.full((20, width, 3), shade, dtype=np.uint8)).save(folder / f"{place:04}.png")


def _saved(folder: Path, config: object, seed: int) -> Path:
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    return folder
