"""The directory layouts of the corpora, with files of our own in them."""

import numpy as np
import pandas as pd
import pytest
from tiny_encoders import write_frames, write_wave

from imer_bench.harness.corpus.catalogue import data_set_info
from imer_bench.harness.errors import UserError
from imer_bench.harness.extraction.command import LAYOUTS
from imer_bench.harness.extraction.sources import SourceOptions, detect_layout, layouts, read_sources


def options(name: str, *media) -> SourceOptions:
    return SourceOptions(name, data_set_info(name), media=tuple(media))


def rows(sources, *columns: str) -> list[tuple]:
    return list(sources.contents.utterances[list(columns)].itertuples(index=False, name=None))


def test_the_command_knows_all_layouts():
    assert ("auto", *layouts()) == LAYOUTS


def test_meld(tmp_path):
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    (tmp_path / "train_sent_emo.csv").write_text(
        head + "1,It\x92s fine,Joey,joy,positive,0,1\n2,Hi,Monica,neutral,neutral,0,0\n", encoding="utf-8"
    )
    (tmp_path / "dev_sent_emo.csv").write_text(head + '1,"Oh, no",Ross,sadness,negative,3,0\n')
    for place in ("train/train_splits/dia0_utt0", "dev/dev_splits_complete/dia3_utt0"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / f"{place}.mp4").write_bytes(b"film")
    (tmp_path / "train/train_splits/._dia0_utt1.mp4").write_bytes(b"not a film")
    assert detect_layout(tmp_path) == "meld"
    found = read_sources("meld", tmp_path, options("meld"))
    assert rows(found, "id", "dialogue", "index", "speaker", "emotion", "split") == [
        ("dev_dia3_utt0", "dev_dia3", 0, "Ross", 2, "valid"),
        ("train_dia0_utt0", "train_dia0", 0, "Monica", 0, "train"),
        ("train_dia0_utt1", "train_dia0", 1, "Joey", 1, "train"),
    ]
    assert list(found.contents.utterances["transcript"]) == ["Oh, no", "Hi", "It’s fine"]
    assert found.video["train_dia0_utt0"].path == tmp_path / "train/train_splits/dia0_utt0.mp4"
    assert set(found.video) == set(found.audio) == {"train_dia0_utt0", "dev_dia3_utt0"}


def iemocap(root):
    dialog = root / "Session1" / "dialog"
    for folder in ("EmoEvaluation", "transcriptions", "avi/DivX"):
        (dialog / folder).mkdir(parents=True)
    (dialog / "EmoEvaluation" / "Ses01F_impro01.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]\n"
        "[12.0000 - 13.0000]\tSes01F_impro01_M001\txxx\t[2.5000, 2.5000, 2.5000]\n"
        "[14.0000 - 15.0000]\tSes01F_impro01_F001\tfru\t[2.5000, 2.5000, 2.5000]\n"
    )
    (dialog / "transcriptions" / "Ses01F_impro01.txt").write_text(
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
        "Ses01F_impro01_M000 [010.0100-011.3925]: Yeah.\n"
        "Ses01F_impro01_M001 [012.0000-013.0000]: Okay.\n"
        "Ses01F_impro01_F001 [014.0000-015.0000]: What? [LAUGHTER]\n"
    )
    (dialog / "avi" / "DivX" / "Ses01F_impro01.avi").write_bytes(b"film")
    write_wave(root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", 0.1)


def test_iemocap_of_six_and_four_classes(tmp_path):
    iemocap(tmp_path)
    assert detect_layout(tmp_path) == "iemocap"
    six = read_sources("auto", tmp_path, options("iemocap6"))
    assert rows(six, "id", "index", "speaker", "transcript", "emotion", "fold") == [
        ("Ses01F_impro01_F000", 0, "F", "Excuse me.", 2, 0),
        ("Ses01F_impro01_M000", 1, "M", "Yeah.", 4, 0),
        ("Ses01F_impro01_F001", 3, "F", "What? [LAUGHTER]", 5, 0),
    ]
    assert set(six.audio) == {"Ses01F_impro01_F000"}
    woman, man = six.video["Ses01F_impro01_F000"], six.video["Ses01F_impro01_M000"]
    assert (woman.half, woman.start, woman.end) == ("left", 6.2901, 8.2357)
    assert man.half == "right"
    four = read_sources("auto", tmp_path, options("iemocap4"))
    assert rows(four, "id", "emotion") == [("Ses01F_impro01_F000", 2), ("Ses01F_impro01_M000", 0)]


def test_mmsa_layout_of_ch_sims(tmp_path):
    (tmp_path / "label.csv").write_text(
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        "video_0001,0001,我不想嫁给李茶,-1.0,-0.8,0.0,-1.0,Negative,train\n"
        "video_0001,0002,好,0.4,0.4,0.2,0.0,Positive,test\n",
        encoding="utf-8",
    )
    (tmp_path / "Raw" / "video_0001").mkdir(parents=True)
    (tmp_path / "Raw" / "video_0001" / "0001.mp4").write_bytes(b"film")
    assert detect_layout(tmp_path) == "mmsa"
    found = read_sources("auto", tmp_path, options("ch_sims"))
    assert rows(found, "id", "dialogue", "index", "split_standard", "sentiment", "sentiment_T") == [
        ("video_0001_0001", "video_0001_0001", 1, "train", -1.0, -0.8),
        ("video_0001_0002", "video_0001_0002", 2, "test", 0.4, 0.4),
    ]
    assert found.contents.utterances["transcript"].iloc[0] == "我不想嫁给李茶"
    assert set(found.video) == {"video_0001_0001"}


def test_cmu_layouts_of_mosi_and_mosei(tmp_path):
    text = tmp_path / "Raw" / "Transcript" / "Segmented"
    text.mkdir(parents=True)
    (text / "abc_d.annotprocessed").write_text("1_DELIM_VERY GOOD\n2_DELIM_NOT SO GOOD\n")
    (text / "xyz.txt").write_text("xyz___0___1.5___4.25___I liked it___a lot\n")
    write_wave(tmp_path / "Raw/Audio/WAV_16000/Segmented/abc_d_1.wav", 0.1)
    write_wave(tmp_path / "Raw/Audio/WAV_16000/Full/xyz.wav", 5.0)
    with pytest.raises(UserError, match=r"labels\.csv"):
        read_sources("auto", tmp_path, options("cmu_mosi"))
    (tmp_path / "labels.csv").write_text(
        "id,sentiment,split\nabc_d_1,2.4,train\nabc_d_2,-1.0,train\nxyz_0,1.0,test\n"
    )
    found = read_sources("auto", tmp_path, options("cmu_mosi"))
    assert rows(found, "id", "dialogue", "index", "transcript", "sentiment", "split_standard") == [
        ("abc_d_1", "abc_d", 1, "VERY GOOD", 2.4, "train"),
        ("abc_d_2", "abc_d", 2, "NOT SO GOOD", -1.0, "train"),
        ("xyz_0", "xyz", 0, "I liked it___a lot", 1.0, "test"),
    ]
    assert (found.audio["xyz_0"].start, found.audio["xyz_0"].end) == (1.5, 4.25)
    assert found.audio["abc_d_1"].start is None
    assert "abc_d_2" not in found.audio


def test_a_table_with_paths_and_segments(tmp_path):
    pd.DataFrame(
        {
            "id": ["a", "b"],
            "dialogue": ["d", "d"],
            "index": [1, 0],
            "speaker": ["x", "y"],
            "split": ["train", "test"],
            "sentiment": [1.0, -1.0],
            "transcript": ["NA", ""],
            "audio_path": ["sound/a.wav", ""],
            "start": ["0.5", ""],
            "end": [1.0, np.nan],
            "video_path": ["", "frames/b"],
            "half": ["", "left"],
        }
    ).assign(dialogue=["d", "e"]).to_csv(tmp_path / "table.csv", index=False)
    found = read_sources("auto", tmp_path / "table.csv", options("cmu_mosi"))
    assert rows(found, "id", "transcript") == [("a", "NA"), ("b", "")]
    assert set(found.audio) == {"a"}
    assert (found.audio["a"].path, found.audio["a"].start, found.audio["a"].end) == (
        tmp_path / "sound/a.wav",
        0.5,
        1.0,
    )
    assert (found.video["b"].half, found.video["b"].start) == ("left", None)


def test_media_by_id(tmp_path):
    (tmp_path / "table.csv").write_text(
        "id,dialogue,index,sentiment\nv_1,v,1,1\nv_2,v,2,1\nv_3,v,3,-1\nv_4,v,4,-1\n"
    )
    write_wave(tmp_path / "m" / "v_1.wav", 0.1)
    (tmp_path / "m" / "v_1.mp4").write_bytes(b"film")
    (tmp_path / "m" / "v").mkdir()
    (tmp_path / "m" / "v" / "2.mp4").write_bytes(b"film")
    write_frames(tmp_path / "m" / "v_3", [1, 2])
    found = read_sources("table", tmp_path / "table.csv", options("cmu_mosi", tmp_path / "m"))
    assert {name: item.path.name for name, item in found.audio.items()} == {"v_1": "v_1.wav", "v_2": "2.mp4"}
    assert {name: item.path.name for name, item in found.video.items()} == {
        "v_1": "v_1.mp4",
        "v_2": "2.mp4",
        "v_3": "v_3",
    }
    (tmp_path / "m" / "w").mkdir()
    (tmp_path / "m" / "w" / "v_1.mp4").write_bytes(b"another")
    with pytest.raises(UserError, match="two recordings of 'v_1'"):
        read_sources("table", tmp_path / "table.csv", options("cmu_mosi", tmp_path / "m"))


def test_an_unknown_layout_is_answered(tmp_path):
    with pytest.raises(UserError, match="no known layout"):
        read_sources("auto", tmp_path, options("meld"))
    with pytest.raises(UserError, match="unknown layout 'meldd'; did you mean 'meld'"):
        read_sources("meldd", tmp_path, options("meld"))
