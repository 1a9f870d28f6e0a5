"""Transcripts beside recordings: which file counts, and what is left out."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.transcripts import TRANSCRIPT_SUFFIXES, Transcript, Transcripts, clean
from fish_speech.timeline import Piece

SRT = b"1\n00:00:01,000 --> 00:00:02,500\nfrom srt\n"
VTT = b"WEBVTT\n\n00:01.000 --> 00:02.500\nfrom vtt\n"
JSON = json.dumps({"segments": [{"start": 1, "end": 2.5, "text": " from json"}]}).encode()


def read(folder, files: dict[str, bytes], name: str = "a.wav", language: str | None = None) -> Transcript:
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_bytes(content)
    return Transcripts(language).read(folder / name)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a.txt": b"Hello there.\n"}, "Hello there."),
        ({"a.TXT": b"Hello"}, "Hello"),
        ({"a.txt": b"from txt", "a.lab": b"from lab"}, "from lab"),
        ({"a.txt": b"from txt", "a.lab": b" \n"}, "from txt"),
        ({"a.txt": b"\xef\xbb\xbf two\r\nlines\t here \x00"}, "two lines here"),
        ({"a.txt": "Größe".encode("utf-16")}, "Größe"),
        ({"a.txt": "日本語 テキスト\u3000です".encode()}, "日本語 テキスト です"),
    ],
)
def test_text_is_one_clean_line(tmp_path, files, text):
    found = read(tmp_path, files)
    assert found.text == text and found.left_out is None and found.path.suffix.lower() == f".{found.kind}"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no transcript"),
        ({"b.txt": b"other", "a.wav.txt": b"other"}, "no transcript"),
        ({"a.txt": b" \r\n\xc2\xa0"}, "empty transcript"),
        ({"a.txt": "größe".encode("latin-1")}, "unreadable transcript"),
        (
            {"a.srt": "1\n00:00:01,0 --> 00:00:02,0\ngröße".encode("latin-1")},
            "unreadable transcript: a.srt is not UTF-8",
        ),
        ({"a.srt": b"[music]"}, "unusable transcript: a.srt holds no subtitles"),
        ({"a.vtt": VTT.replace(b"from vtt", b"[music]")}, "empty transcript: a.vtt"),
        ({"a.json": b'{"rate": 44100}'}, "no transcript: a.json is not a Whisper JSON"),
        ({"a.json": b'{"rate": 44100}', "metadata.csv": b"a|"}, "empty transcript: metadata.csv line 1"),
        ({"a.json": b'{"rate": 44100}', "metadata.csv": b"a"}, "unusable transcript: metadata.csv line 1 has no |"),
        ({"a.srt": b"", "a.json": b"{}"}, "unusable transcript: a.srt holds no subtitles"),
        ({"a.json": b'{"segments": []}'}, "empty transcript: a.json"),
        ({"metadata.csv": b"b|other"}, "no transcript"),
        ({"a.en.srt": SRT, "a.de.vtt": VTT}, "ambiguous transcript: several languages: a.en.srt, a.de.vtt"),
        ({"a.wav.srt": SRT, "a.bak.srt": SRT, "a.part.srt": SRT}, "no transcript"),
        ({"a.en.wav": b"", "a.en.srt": SRT}, "no transcript"),
    ],
)
def test_a_missing_text_has_a_reason(tmp_path, files, reason):
    found = read(tmp_path, files)
    assert (found.text, found.pieces, found.kind, found.path) == (None, (), None, None)
    assert found.left_out.startswith(reason) and "\n" not in found.left_out


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_cleaning_loses_no_visible_character(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned == cleaned.strip()
    assert "".join(cleaned.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("files", "text", "kind", "timed"),
    [
        ({"a.lab": b"from lab", "a.txt": b"from txt", "a.srt": SRT}, "from lab", "lab", False),
        ({"a.txt": b"from txt", "a.srt": SRT, "a.vtt": VTT, "a.json": JSON}, "from txt", "txt", False),
        ({"a.srt": SRT, "a.vtt": VTT, "a.json": JSON}, "from srt", "srt", True),
        ({"a.VTT": VTT, "a.json": JSON, "metadata.csv": b"a|from csv"}, "from vtt", "vtt", True),
        ({"a.json": JSON, "metadata.csv": b"a|from csv"}, "from json", "whisper-json", True),
        ({"metadata.csv": b"a|from csv\nb|other"}, "from csv", "metadata.csv", False),
        ({"a.srt": b"broken", "a.vtt": VTT}, "from vtt", "vtt", True),
        ({"a.json": b"{}", "metadata.csv": b"a|from csv"}, "from csv", "metadata.csv", False),
        ({"a.en.vtt": VTT}, "from vtt", "vtt", True),
        ({"a.en-US.srt": SRT, "a.en.vtt": VTT}, "from srt", "srt", True),
        ({"a.de.srt": SRT, "a.en-orig.vtt": VTT}, "from vtt", "vtt", True),
        ({"a.en.vtt": VTT, "a.srt": SRT}, "from srt", "srt", True),
        ({"a.srt": SRT.decode().encode("utf-16")}, "from srt", "srt", True),
    ],
)
def test_the_most_telling_file_counts(tmp_path, files, text, kind, timed):
    found = read(tmp_path, files)
    assert (found.text, found.kind, found.left_out) == (text, kind, None)
    assert found.path is not None and found.path.name in files
    times = [(p.text, p.start_s, p.end_s) for p in found.pieces]
    assert times == ([(text, 1.0, 2.5)] if timed else [])


def test_the_language_chooses_between_subtitles(tmp_path):
    files = {"a.en.srt": SRT, "a.de-DE.vtt": VTT}
    assert read(tmp_path, files, language="en").text == "from srt"
    assert read(tmp_path, files, language="de").text == "from vtt"
    assert (
        read(tmp_path, files, language="fr").left_out == "no transcript: none in the language fr: a.en.srt, a.de-DE.vtt"
    )


def test_a_text_takes_the_times_of_a_file_that_says_the_same(tmp_path):
    found = read(tmp_path, {"a.txt": b"From JSON.\n", "a.srt": SRT, "a.json": JSON})
    assert (found.text, found.kind, found.pieces) == ("From JSON.", "txt", (Piece("from json", 1.0, 2.5, 1.0, True),))


def test_metadata_may_lie_in_the_folder_above_and_names_the_speaker(tmp_path):
    table = b"wavs/a.wav|anna|Hello there.\nb|bob|Bye.\n"
    found = read(tmp_path, {"metadata.csv": table, "wavs/b.txt": b" "}, "wavs/a.wav")
    assert (found.text, found.speaker, found.path) == ("Hello there.", "anna", tmp_path / "metadata.csv")
    found = Transcripts().read(tmp_path / "wavs" / "b.wav")
    assert (found.text, found.speaker) == ("Bye.", "bob")
    assert Transcripts().read(tmp_path / "wavs" / "deeper" / "c.wav").text is None


def test_a_table_is_read_once_for_a_folder(tmp_path):
    transcripts = Transcripts()
    (tmp_path / "metadata.csv").write_text("a|one\nb|two\n", encoding="utf-8")
    assert transcripts.read(tmp_path / "a.wav").text == "one"
    (tmp_path / "metadata.csv").unlink()
    assert transcripts.read(tmp_path / "b.wav").text == "two"


def test_a_transcript_goes_to_another_process(tmp_path):
    found = read(tmp_path, {"a.srt": SRT})
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for a privilege to make links, and words errors its own way")
def test_what_is_no_file_has_a_reason(tmp_path):
    (tmp_path / "a.srt").mkdir()
    assert Transcripts().read(tmp_path / "a.wav").left_out == "unreadable transcript: a.srt: not a file"
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    assert Transcripts().read(tmp_path / "b.wav").left_out == "unreadable transcript: b.txt: no such file or directory"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    assert Transcripts().read(tmp_path / "a.wav").left_out == "unreadable transcript: a.txt: not a file"


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "a.srt").open("wb") as file:
        file.truncate(20_000_001)
    assert Transcripts().read(tmp_path / "a.wav").left_out == "unreadable transcript: a.srt is larger than 20 MB"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_of_two_lines_gives_a_reason_of_one(tmp_path):
    (tmp_path / "a\nb.txt").write_bytes(b"\xff")
    left_out = Transcripts().read(tmp_path / "a\nb.wav").left_out
    assert left_out == r"unreadable transcript: a\nb.txt is not UTF-8 text"


@given(
    st.dictionaries(
        st.sampled_from([*(f"a{suffix}" for suffix in TRANSCRIPT_SUFFIXES), "a.en.vtt", "metadata.csv"]),
        st.binary(max_size=60)
        | st.tuples(
            st.sampled_from([SRT, VTT, JSON, b"a|", b"file|text\na|", b"\xff\xfe"]), st.binary(max_size=20)
        ).map(b"".join),
        min_size=1,
    )
)
def test_any_bytes_give_a_text_or_a_reason(tmp_path_factory, files):
    folder = tmp_path_factory.getbasetemp() / "any-bytes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = read(folder, files)
    if found.text is None:
        assert (found.pieces, found.kind, found.path) == ((), None, None)
        assert len(found.left_out.splitlines()) == 1 and ": " in found.left_out
    else:
        assert found.left_out is None and found.path.name in files
        assert found.text == clean(found.text) != ""
