import struct
import wave

import numpy as np
import pytest
from tiny_encoders import write_frames, write_wave

from imer_bench.harness.extraction import media
from imer_bench.harness.extraction.errors import Unreadable
from imer_bench.harness.extraction.media import Recording, read_frames, read_sound


def pitch(samples: np.ndarray, rate: int) -> float:
    """Frequency of the strongest component, Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_sound_comes_at_the_rate_of_the_encoder(tmp_path, rate):
    write_wave(tmp_path / "a.wav", 1.0, rate=rate, pitch=440)
    samples = read_sound(Recording(tmp_path / "a.wav"), 16000, 30)
    assert len(samples) == 16000
    assert pitch(samples, 16000) == pytest.approx(440, abs=1)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("width", "letter", "zero", "full"), [(1, "B", 128, 128), (2, "h", 0, 2**15), (4, "i", 0, 2**31)]
)
def test_channels_are_averaged_and_widths_scaled(tmp_path, width, letter, zero, full):
    left, right = 0.5, -0.25
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(16000)
        pair = struct.pack(f"<2{letter}", int(zero + left * full), int(zero + right * full))
        file.writeframes(pair * 100)
    samples = read_sound(Recording(tmp_path / "a.wav"), 16000, 30)
    np.testing.assert_allclose(samples, np.full(100, (left + right) / 2), atol=1e-6)


def test_a_segment_and_the_longest_length(tmp_path):
    write_wave(tmp_path / "a.wav", 2.0)
    whole = read_sound(Recording(tmp_path / "a.wav"), 16000, 30)
    part = read_sound(Recording(tmp_path / "a.wav", 0.5, 1.25), 16000, 30)
    np.testing.assert_array_equal(part, whole[8000:20000])
    assert len(read_sound(Recording(tmp_path / "a.wav", 0.5), 16000, 0.1)) == 1600


def test_what_cannot_be_read_says_why(tmp_path):
    write_wave(tmp_path / "empty.wav", 0)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing at all")
    (tmp_path / "a.xyz").write_bytes(b"?")
    (tmp_path / "frames").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "0.png").write_bytes(b"\x89PNG torn")
    for name, reason in (
        ("empty.wav", "no samples|broken"),
        ("broken.wav", "broken WAV"),
        ("a.xyz", "no reader"),
    ):
        with pytest.raises(Unreadable, match=reason):
            read_sound(Recording(tmp_path / name), 16000, 30)
    for name, reason in (("frames", "no frames"), ("torn", "broken picture 0.png"), ("a.xyz", "no reader")):
        with pytest.raises(Unreadable, match=reason):
            read_frames(Recording(tmp_path / name), 2)
    with pytest.raises(Unreadable, match="no file"):
        Recording(tmp_path / "absent.wav").content()


def test_without_a_reader_the_package_is_named_and_the_file_is_not_blamed(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "_installed", lambda module: False)
    for name, read in (("a.mp4", read_sound), ("a.flac", read_sound)):
        (tmp_path / name).write_bytes(b"?")
        with pytest.raises(Unreadable, match="pip install") as caught:
            read(Recording(tmp_path / name), 16000, 30)
        assert not caught.value.permanent
    (tmp_path / "frames").mkdir()
    with pytest.raises(Unreadable, match="pip install pillow"):
        read_frames(Recording(tmp_path / "frames"), 1)


def test_half_of_the_picture(tmp_path):
    from PIL import Image

    (tmp_path / "f").mkdir()
    picture = np.zeros((8, 10, 3), dtype=np.uint8)
    picture[:, 5:] = 200
    Image.fromarray(picture).save(tmp_path / "f" / "0.png")
    left = read_frames(Recording(tmp_path / "f", half="left"), 1)[0]
    right = read_frames(Recording(tmp_path / "f", half="right"), 1)[0]
    assert left.shape == right.shape == (8, 5, 3)
    assert (left.max(), right.min()) == (0, 200)


def test_content_is_known_by_bytes_segment_and_half(tmp_path):
    write_wave(tmp_path / "a.wav", 0.1)
    write_wave(tmp_path / "b.wav", 0.1)
    write_wave(tmp_path / "c.wav", 0.1, pitch=300)
    write_frames(tmp_path / "f", [1, 2])
    a = Recording(tmp_path / "a.wav").content()
    assert a == Recording(tmp_path / "b.wav").content()
    others = [
        Recording(tmp_path / "c.wav").content(),
        Recording(tmp_path / "a.wav", 0.0, 0.05).content(),
        Recording(tmp_path / "f").content(),
        Recording(tmp_path / "f", half="left").content(),
    ]
    assert len({a, *others}) == 5


def test_films(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(40):  # four seconds: black, then white
            shade = 0 if number < 20 else 255
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, dtype=np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        time = np.arange(64000) / 16000
        tone = (0.4 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
        for first in range(0, 64000, 1024):
            block = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, first
            container.mux(sound.encode(block))
        container.mux(sound.encode())
    film = tmp_path / "a.mp4"
    assert [int(frame.mean() > 128) for frame in read_frames(Recording(film), 4)] == [0, 0, 1, 1]
    assert all(frame.mean() > 128 for frame in read_frames(Recording(film, 2.2, 3.8), 3))
    assert all(frame.mean() < 128 for frame in read_frames(Recording(film, 0.0, 1.5), 3))
    samples = read_sound(Recording(film), 16000, 30)
    assert len(samples) == pytest.approx(64000, abs=2500)
    assert pitch(samples, 16000) == pytest.approx(440, abs=2)
    (tmp_path / "torn.mp4").write_bytes(film.read_bytes()[:300])
    with pytest.raises(Unreadable, match="broken film"):
        read_frames(Recording(tmp_path / "torn.mp4"), 2)
    with pytest.raises(Unreadable, match="broken sound track"):
        read_sound(Recording(tmp_path / "torn.mp4"), 16000, 30)
