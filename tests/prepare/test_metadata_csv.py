"""metadata.csv: which columns it has, and which line is about which recording."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.metadata_csv import METADATA, Metadata
from fish_speech.prepare.plain_text import Unusable

LJSPEECH = (
    "LJ001-0001|Printing, in the only sense with which we are at present concerned, differs|Printing, in the only "
    "sense with which we are at present concerned, differs\n"
    "LJ001-0007|the earliest book printed with movable types, the Gutenberg, of about 1455,|the earliest book printed "
    "with movable types, the Gutenberg, of about fourteen fifty-five,\n"
    'LJ001-0008|has "never been surpassed.|has "never been surpassed.\n'
)


def metadata(folder, text: str) -> Metadata:
    (folder / METADATA).write_bytes(text.encode())
    return Metadata(folder / METADATA)


def found(folder, text: str, recording: str = "a.wav") -> tuple[str, str | None] | None:
    entry = metadata(folder, text).find(folder / recording)
    return entry and (entry.text, entry.speaker)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a|Hello there.\nb|Bye.", ("Hello there.", None)),
        ("a.wav|Hello  there.\r\n\r\nb.wav|Bye.\r\n", ("Hello there.", None)),
        ("./a.wav|Hello, you.\nb.wav|Bye.", ("Hello, you.", None)),
        ('a.wav|He said "no.\nb.wav|Bye."', ('He said "no.', None)),
        ("a.wav|anna|Hello there.\nb.wav|bob|Bye.", ("Hello there.", "anna")),
        ("a.wav|7|Hello there.\nb.wav|8|It is late now.", ("Hello there.", "7")),
        ("a|anna|stop\nb|anna|go\nc|bob|yes\nd|bob|no", ("stop", "anna")),
        ("a.wav|Hello there.|\nb.wav|Bye.|\n", ("Hello there.", None)),
        ("a|Dr. Who has 2 cats and a dog at home|Doctor Who has two cats and a dog at home\nb|So it is.|So it is.\n"
         "c|And so.|", ("Doctor Who has two cats and a dog at home", None)),
        ("a|It was late.|It was late.\nb|So it is.|So it is.\nc|And so.|", ("It was late.", None)),
        ("file|speaker|text\na|anna|yes\nb|bob|no", ("yes", "anna")),
        ("audio_file|text|speaker_name\nwavs/b.wav|No|bob\na.wav|Yes|anna", ("Yes", "anna")),
        ('file_name,transcription\na.wav,"Hello, you"\nb.wav,Bye', ("Hello, you", None)),
        ("Text\tFile\nHello, you\ta.wav", ("Hello, you", None)),
        ("id|text|normalized_text\na|2 cats|two cats", ("two cats", None)),
        ("b|Bye.", None),
    ],
)  # fmt: skip
def test_the_columns_are_recognised(tmp_path, text, wanted):
    assert found(tmp_path, text) == wanted


def test_real_ljspeech_gives_the_normalized_text(tmp_path):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "LJ001-0007.wav").touch()
    entry = metadata(tmp_path, LJSPEECH).find(tmp_path / "wavs" / "LJ001-0007.wav")
    assert entry.text.endswith("of about fourteen fifty-five,") and entry.speaker is None
    entry = metadata(tmp_path, LJSPEECH).find(tmp_path / "wavs" / "LJ001-0008.wav")
    assert entry.text == 'has "never been surpassed.'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty transcript"),
        ("a Hello there.\n", "line 1 has no |"),
        ("a.wav,Hello there.\n", "add a first line such as file|speaker|text"),
        ("a|Hello.\nb|x|Bye.", "line 2 has another number of columns than line 1"),
        ("a|Hello there.|anna\nb|Bye now.|bob", "cannot tell which of the three columns"),
        ("a|yes|no\nb|left|right", "cannot tell which"),
        ("a|3.25|It was late and dark.\nb|1.75|So it is.", "cannot tell which"),
        ("a|anna|Hello.|1 2 3", "4 columns and no header line"),
        ("file|text\na", "line 2 has fewer columns"),
        ("file,text\na.wav,Hello, you", "line 2 has more columns"),
        ('file,text\na.wav,"Hello' + " you" * 60_000, "field larger than field limit"),
        ("a|" + "x" * 20_001, "line 1: a field of more than 20000 characters"),
    ],
)
def test_a_table_that_could_mean_two_things_is_refused(tmp_path, text, reason):
    with pytest.raises(Unusable) as error:
        metadata(tmp_path, text)
    assert reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["wavs/a.wav", "wavs/a", "./wavs/a.wav", "wavs\\a.wav", "a.wav", "a", "wavs/a.flac"])
def test_a_recording_is_found_with_or_without_folder_and_suffix(tmp_path, file):
    assert found(tmp_path, f"{file}|Hello.\nwavs/b|Bye.", "wavs/a.wav") == ("Hello.", None)


@pytest.mark.parametrize(
    "file", ["../wavs/a.wav", "x/../wavs/a.wav", "/wavs/a.wav", "C:\\wavs\\a.wav", "other/a.wav", "", "A.wav", ".."]
)
def test_paths_that_leave_the_folder_or_lie_elsewhere_match_nothing(tmp_path, file):
    assert found(tmp_path, f"{file}|Hello.\nwavs/b|Bye.", "wavs/a.wav") is None


def test_names_in_another_unicode_form_match(tmp_path):
    assert found(tmp_path, "caf\u00e9|Hello.", "cafe\u0301.wav") == ("Hello.", None)


def test_a_name_without_folder_is_refused_if_several_folders_have_it(tmp_path):
    for folder in ("anna", "bob"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.wav").touch()
    (tmp_path / "bob" / "b.wav").touch()
    table = metadata(tmp_path, "a|Hello.\nb|Bye.")
    with pytest.raises(Unusable, match=r"^ambiguous transcript: metadata.csv line 1 names no folder"):
        table.find(tmp_path / "anna" / "a.wav")
    assert table.find(tmp_path / "bob" / "b.wav").text == "Bye."


def test_lines_that_contradict_each_other_are_told(tmp_path):
    table = metadata(tmp_path, "a.wav|Hello.\nb|Bye.\nb|Bye.\na|Good day.\na.wav|No.")
    with pytest.raises(Unusable, match=r"^ambiguous transcript: metadata.csv lines 1 and 5 say different"):
        table.find(tmp_path / "a.wav")
    assert table.find(tmp_path / "b.wav").text == "Bye."


def test_files_that_differ_in_their_suffix_have_their_own_lines(tmp_path):
    table = metadata(tmp_path, "a.wav|Hello.\na.flac|Bye.")
    assert [table.find(tmp_path / name).text for name in ("a.wav", "a.flac")] == ["Hello.", "Bye."]
    with pytest.raises(Unusable, match="lines 1 and 2"):
        table.find(tmp_path / "a.mp3")


CELL = st.sampled_from(
    ["file", "text", "speaker", "a", "a.wav", "b", "../a", "Hello there.", "", '"', "anna", "x" * 30_000]
)


@given(
    st.lists(st.lists(CELL, max_size=5), max_size=6), st.sampled_from("|,;\t"), st.sampled_from(["\n", "\r", "\r\n"])
)
def test_any_table_gives_an_entry_or_a_reason(tmp_path_factory, rows, separator, line_break):
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    try:
        entry = metadata(folder, line_break.join(separator.join(row) for row in rows)).find(folder / "a.wav")
    except Unusable as error:
        assert METADATA in str(error) and "\n" not in str(error)
    else:
        assert entry is None or any(entry.text in row or entry.text == "" for row in rows) or '"' in str(rows)
