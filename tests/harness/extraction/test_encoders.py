"""Features against plain calls of the real classes, one utterance at a time, without padding."""

import numpy as np
import pytest
import torch
from tiny_encoders import (
    audio_checkpoint,
    text_checkpoint,
    vision_checkpoint,
    whisper_checkpoint,
    write_frames,
    write_wave,
)

from imer_bench.harness.extraction.encoders import Encoder, Utterance, make_encoder
from imer_bench.harness.extraction.errors import EncoderNotFound, ExtractionError, Unreadable
from imer_bench.harness.extraction.media import Recording, read_frames, sampled
from imer_bench.harness.extraction.pretrained import find_checkpoint
from imer_bench.harness.extraction.settings import make_settings

SENTENCES = ("the funny film", "it was good . i really liked it", "dull")


def encoder_of(modality: str, folder, *changes: str) -> Encoder:
    settings = make_settings({modality: str(folder)}, changes)[modality]
    return make_encoder(settings, find_checkpoint(settings.model), "cpu", amp=False)


def encoded(encoder: Encoder, utterances: list[Utterance]) -> list[np.ndarray]:
    inputs = [encoder.input(utterance) for utterance in utterances]
    encoder.load()
    return encoder.encode([encoder.read(item) for item in inputs])


def plain_states(folder, text: str):
    """Tokens and hidden states of one sentence."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        answer = model(
            input_ids=inputs["input_ids"],
            attention_mask=torch.ones_like(inputs["input_ids"]),
            output_hidden_states=True,
        )
    tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    return tokens, [state[0] for state in answer.hidden_states]


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_text_pooling(tmp_path, family):
    folder = text_checkpoint(tmp_path / family, family)
    utterances = [Utterance(text) for text in SENTENCES]
    vectors = {
        name: encoded(encoder_of("text", folder, *changes), utterances)
        for name, changes in {
            "mean": (),
            "content": ("text.pooling=content",),
            "words": ("text.pooling=words", "text.layers=sum2"),
            "first": ("text.pooling=first", "text.layers=mean2"),
            "steps": ("text.sequence=true",),
        }.items()
    }
    for row, text in enumerate(SENTENCES):
        tokens, states = plain_states(folder, text)
        last, both = states[-1], states[-1] + states[-2]
        words: list[list[int]] = []
        for place, token in enumerate(tokens[1:-1], start=1):
            if token.startswith("##"):
                words[-1].append(place)
            else:
                words.append([place])
        expected = {
            "mean": last.mean(dim=0),
            "content": last[1:-1].mean(dim=0),
            "words": torch.stack([both[word].mean(dim=0) for word in words]).mean(dim=0),
            "first": both[0] / 2,
            "steps": last[1:-1],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(vectors[name][row], value.numpy(), atol=2e-6, err_msg=name)


def test_unit_length_and_lower_case(tmp_path):
    folder = text_checkpoint(tmp_path / "bert")
    plain, upper = encoded(encoder_of("text", folder), [Utterance("good film"), Utterance("dull film")])
    unit = encoded(encoder_of("text", folder, "text.normalise=true"), [Utterance("good film")])[0]
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain), atol=1e-6)
    assert not np.allclose(plain, upper, atol=1e-3)


def test_a_long_transcript_is_cut(tmp_path):
    encoder = encoder_of("text", text_checkpoint(tmp_path / "bert"), "text.max_tokens=8")
    item = encoder.input(Utterance("good bad " * 20))
    assert item.length == 8
    assert np.isfinite(encoded(encoder, [Utterance("good bad " * 20)])[0]).all()


def test_neighbours_are_read_only_when_asked_for(tmp_path):
    folder = text_checkpoint(tmp_path / "bert")
    alone = Utterance("it was good")
    praised = Utterance("it was good", before=("i liked the film",), after=("really fun",))
    panned = Utterance("it was good", before=("dull",), after=("not good",))
    encoder = encoder_of("text", folder, "text.context=1")
    assert len({encoder.input(item).key for item in (alone, praised, panned)}) == 3
    vectors = encoded(encoder, [praised, panned])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    # Only the utterance's own words are pooled, whatever stands around them.
    steps = encoded(encoder_of("text", folder, "text.context=1", "text.sequence=true"), [praised, panned])
    assert [len(step) for step in steps] == [3, 3]
    # Neighbours that do not fit are dropped, the utterance never is.
    short = encoder_of("text", folder, "text.context=1", "text.sequence=true", "text.max_tokens=8")
    assert [len(step) for step in encoded(short, [praised])] == [3]


def test_an_empty_transcript_is_absent(tmp_path):
    encoder = encoder_of("text", text_checkpoint(tmp_path / "bert"))
    with pytest.raises(Unreadable, match="no transcript"):
        encoder.input(Utterance("  "))


@pytest.mark.parametrize(
    ("family", "norm"),
    [
        ("wav2vec2", "layer"),
        ("wav2vec2", "group"),
        ("hubert", "layer"),
        ("hubert", "group"),
        ("wavlm", "layer"),
        ("data2vec-audio", "layer"),
    ],
)
def test_sound_of_different_lengths(tmp_path, family, norm):
    from scipy.io import wavfile
    from transformers import AutoModel

    folder = audio_checkpoint(tmp_path / "model", family, norm)
    names = []
    for number, seconds in enumerate((0.20, 0.13, 0.20)):
        names.append(tmp_path / f"{number}.wav")
        write_wave(names[-1], seconds, pitch=200 + 50 * number)
    utterances = [Utterance(recording=Recording(name)) for name in names]
    vectors = encoded(encoder_of("audio", folder), utterances)
    steps = encoded(encoder_of("audio", folder, "audio.sequence=true", "audio.stride=7"), utterances)
    model = AutoModel.from_pretrained(folder).eval()
    for name, vector, step in zip(names, vectors, steps, strict=True):
        samples = wavfile.read(name)[1].astype(np.float32) / 32768
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.no_grad():
            states = model(torch.tensor(samples)[None]).last_hidden_state[0].numpy()
        np.testing.assert_allclose(vector, states.mean(axis=0), atol=1e-4)
        expected = [states[first : first + 7].mean(axis=0) for first in range(0, len(states), 7)]
        np.testing.assert_allclose(step, expected, atol=1e-4)


def test_whisper_pools_what_was_heard_and_no_silence_of_the_window(tmp_path):
    from transformers import WhisperFeatureExtractor, WhisperModel

    folder = whisper_checkpoint(tmp_path / "whisper")
    write_wave(tmp_path / "a.wav", 0.5)
    utterance = Utterance(recording=Recording(tmp_path / "a.wav"))
    vector = encoded(encoder_of("audio", folder, "audio.max_seconds=2"), [utterance])[0]
    time = np.arange(8000) / 16000
    samples = (0.5 * np.sin(2 * np.pi * 220 * time) * 32767).astype("<i2") / np.float32(32768)
    features = WhisperFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        encoder = WhisperModel.from_pretrained(folder).eval().get_encoder()
        states = encoder(features["input_features"]).last_hidden_state[0]
    np.testing.assert_allclose(vector, states[:25].mean(dim=0).numpy(), atol=1e-5)  # 50 frames a second
    with pytest.raises(ExtractionError, match=r"takes 2 seconds"):
        encoder_of("audio", folder)


@pytest.mark.parametrize("family", ["vit", "clip"])
def test_pictures_are_encoded_one_by_one(tmp_path, family):
    from transformers import AutoModel

    folder = vision_checkpoint(tmp_path / "model", family)
    write_frames(tmp_path / "a", [10, 90, 170, 250])
    utterance = Utterance(recording=Recording(tmp_path / "a"))
    changes = ("vision.frames=2", "vision.sequence=true")
    steps = encoded(encoder_of("vision", folder, *changes), [utterance])[0]
    first = encoded(encoder_of("vision", folder, *changes, "vision.pooling=first"), [utterance])[0]
    encoder = encoder_of("vision", folder, "vision.frames=2")
    vector = encoded(encoder, [utterance])[0]
    pixels = encoder.read(encoder.input(utterance))
    # Plain grey pictures: any resizing keeps them, so the processor's normalisation is all there is.
    config = encoder.processor  # type: ignore[attr-defined]
    shades = np.array([[90 / 255], [250 / 255]])
    expected = (shades - np.array(config.image_mean)) / np.array(config.image_std)
    np.testing.assert_allclose(pixels.mean(dim=(2, 3)).numpy(), expected, atol=1e-5)
    model = AutoModel.from_pretrained(folder).eval()
    model = model.vision_model if family == "clip" else model
    with torch.no_grad():
        states = torch.cat([model(pixel_values=frame[None]).last_hidden_state for frame in pixels])
    np.testing.assert_allclose(steps, states[:, 1:].mean(dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(first, states[:, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(vector, states[:, 1:].mean(dim=(0, 1)).numpy(), atol=1e-5)


@pytest.mark.parametrize(("family", "steps"), [("timesformer", 4), ("videomae", 2)])
def test_a_step_of_a_clip_holds_its_own_frames(tmp_path, family, steps):
    # Without layers nothing mixes the frames: a changed frame may change its own step only.
    encoder = encoder_of(
        "vision", vision_checkpoint(tmp_path / "model", family, layers=0), "vision.sequence=true"
    )
    clip = encoder.frames  # type: ignore[attr-defined]
    shades = [20 * place for place in range(clip)]
    write_frames(tmp_path / "0", shades)
    for place in range(clip):
        write_frames(
            tmp_path / f"{place + 1}", [250 if place == at else shade for at, shade in enumerate(shades)]
        )
    recordings = [Utterance(recording=Recording(tmp_path / str(number))) for number in range(clip + 1)]
    base, *changed = encoded(encoder, recordings)
    assert base.shape == (clip // (clip // steps), 16)
    for place, other in enumerate(changed):
        moved = np.abs(other - base).max(axis=1) > 1e-4
        assert np.flatnonzero(moved).tolist() == [place // (clip // steps)]


def test_class_token_of_a_clip(tmp_path):
    from transformers import TimesformerModel

    folder = vision_checkpoint(tmp_path / "model", "timesformer")
    write_frames(tmp_path / "a", [10, 90, 170, 250])
    encoder = encoder_of("vision", folder, "vision.pooling=first")
    utterance = Utterance(recording=Recording(tmp_path / "a"))
    pixels = encoder.read(encoder.input(utterance))
    with torch.no_grad():
        states = TimesformerModel.from_pretrained(folder).eval()(pixel_values=pixels[None]).last_hidden_state
    np.testing.assert_allclose(encoded(encoder, [utterance])[0], states[0, 0].numpy(), atol=1e-5)
    with pytest.raises(ExtractionError, match="no class token"):
        encoder_of("vision", vision_checkpoint(tmp_path / "mae", "videomae"), "vision.pooling=first")


def test_frames_are_the_centres_of_equal_parts(tmp_path):
    assert sampled(8, 4) == [1, 3, 5, 7]
    assert sampled(2, 4) == [0, 0, 1, 1]
    write_frames(tmp_path / "a", [0, 50, 100, 150, 200, 250])
    frames = read_frames(Recording(tmp_path / "a"), 3)
    assert [int(frame[0, 0, 0]) for frame in frames] == [50, 150, 250]


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(ExtractionError, match="did you mean 'pooling'"):
        make_settings({"text": "bert"}, ["text.poolling=words"])
    with pytest.raises(ExtractionError, match=r"text\.pooling = 'median'"):
        make_settings({"text": "bert"}, ["text.pooling=median"])
    with pytest.raises(ExtractionError, match="no encoder was given for 'audio'"):
        make_settings({"text": "bert"}, ["audio.stride=2"])


def test_more_layers_than_there_are(tmp_path):
    with pytest.raises(ExtractionError, match="has 3 layers"):
        encoder_of("text", text_checkpoint(tmp_path / "bert"), "text.layers=sum4")


def test_pickled_weights_are_not_read(tmp_path):
    folder = text_checkpoint(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderNotFound, match=r"no safetensors weights.*save_pretrained"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_an_unknown_encoder_ends_at_once_in_a_message_that_names_it(monkeypatch, variable):
    import time

    monkeypatch.setenv(variable, "1")
    begun = time.perf_counter()
    with pytest.raises(EncoderNotFound, match=f"'nobody/no-such-encoder' at hand.*{variable}.*hf download"):
        find_checkpoint("nobody/no-such-encoder")
    assert time.perf_counter() - begun < 10


def test_a_folder_that_is_not_there():
    with pytest.raises(EncoderNotFound, match="no such folder"):
        find_checkpoint("./no-such-folder")


def test_a_checkpoint_is_known_by_its_parameters(tmp_path):
    from transformers import AutoModel

    first = text_checkpoint(tmp_path / "first")
    again = text_checkpoint(tmp_path / "again")
    other = text_checkpoint(tmp_path / "other", seed=1)
    AutoModel.from_pretrained(first).save_pretrained(again, max_shard_size="5KB")
    (again / "model.safetensors").unlink(missing_ok=True)
    assert len(list(again.glob("model-*.safetensors"))) > 1
    assert find_checkpoint(str(first)).identity == find_checkpoint(str(again)).identity
    assert find_checkpoint(str(first)).identity != find_checkpoint(str(other)).identity
