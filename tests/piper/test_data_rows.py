"""Rows of metadata.csv and of prepared folders: what is read, what is left out and why."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.audio import write_wav
from fish_speech.errors import UserError
from piper_train.data.rows import read_rows

from .data_sets import RATE, tone


def data_set(folder: Path, content: str | bytes, names: tuple[str, ...] = ("a", "b", "c", "d")) -> Path:
    (folder / "wavs").mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / "wavs" / f"{name}.wav").write_bytes(b"RIFF")
    path = folder / "metadata.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(found) -> list[tuple[str, str]]:
    return [(row.name, row.text) for row in found.rows]


def test_two_columns_are_file_and_text(tmp_path):
    found = read_rows(data_set(tmp_path, "a.wav|Hello there.\nb.wav|Привет.\n"))
    assert texts(found) == [("a.wav", "Hello there."), ("b.wav", "Привет.")]
    assert [row.number for row in found.rows] == [1, 2]
    assert found.left_out.total == 0
    assert {row.speaker for row in found.rows} == {None}


def test_of_three_columns_of_one_speaker_the_last_is_the_text(tmp_path):
    found = read_rows(data_set(tmp_path, "a|In 1999|In nineteen ninety-nine\nb|x|y"))
    assert texts(found) == [("a", "In nineteen ninety-nine"), ("b", "y")]
    assert found.rows[0].audio == tmp_path / "wavs" / "a.wav"


def test_three_columns_are_file_speaker_text_where_there_are_speakers(tmp_path):
    found = read_rows(data_set(tmp_path, "b|zoe|x\na|anna|y\nc|zoe|z"), num_speakers=2)
    assert found.speakers == ["zoe", "anna"]  # by first appearance
    assert [(row.speaker, row.text) for row in found.rows] == [("zoe", "x"), ("anna", "y"), ("zoe", "z")]


def test_speakers_keep_their_numbers_when_a_recording_is_missing(tmp_path):
    found = read_rows(data_set(tmp_path, "gone|zoe|x\na|anna|y\n"), num_speakers=2)
    assert found.speakers == ["zoe", "anna"]


@pytest.mark.parametrize(("speakers", "line"), [(1, "a.wav|Hi.|1 0 20 0 2"), (2, "a.wav|anna|Hi.|1 0 20 0 2")])
def test_the_last_column_holds_ids_if_the_data_set_says_so(tmp_path, speakers, line):
    found = read_rows(data_set(tmp_path, line), num_speakers=speakers, dataset_type="phoneme_ids")
    assert found.rows[0].ids == (1, 0, 20, 0, 2)
    assert found.rows[0].text == "Hi."


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "no phoneme ids"),
        ("1 0 x", "no whole numbers"),
        ("1 -1", "no whole numbers"),
        ("9" * 9, "no whole numbers"),
    ],
)
def test_ids_that_are_none_are_left_out(tmp_path, cell, reason):
    found = read_rows(data_set(tmp_path, f"a.wav|Hi.|{cell}\nb|x|1 2"), dataset_type="phoneme_ids")
    assert [row.name for row in found.rows] == ["b"]
    assert reason in next(iter(found.left_out.counts))


def test_a_stray_quote_swallows_no_lines(tmp_path):
    found = read_rows(data_set(tmp_path, 'a|He said "no.\nb|Second\nc|"Third\nd|Fourth"\n'))
    assert texts(found) == [("a", 'He said "no.'), ("b", "Second"), ("c", '"Third'), ("d", 'Fourth"')]


def test_a_file_name_in_quotes_is_the_name_within(tmp_path):
    assert read_rows(data_set(tmp_path, '"a.wav"|Hi')).rows[0].audio.name == "a.wav"


def test_marks_and_line_ends_of_windows_change_nothing(tmp_path):
    plain = read_rows(data_set(tmp_path / "1", "a|One\nb|Two\n"))
    windows = read_rows(data_set(tmp_path / "2", "\ufeffa|One\r\n\r\nb|Two\r\n".encode()))
    utf16 = read_rows(data_set(tmp_path / "3", "a|One\nb|Two\n".encode("utf-16")))
    assert texts(plain) == texts(windows) == texts(utf16)
    assert windows.rows[1].number == 3  # as an editor counts
    assert windows.left_out.total == 0


def test_line_separators_that_are_no_line_ends_stay_in_the_text(tmp_path):
    assert texts(read_rows(data_set(tmp_path, "a|One\u2028two\x0cthree\n"))) == [("a", "One two three")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("gone.wav|x", "no such file"),
        ("../wavs/a.wav|x", "leaves the folder"),
        ("/etc/passwd|x", "leaves the folder"),
        ("C:\\x.wav|x", "leaves the folder"),
        ("..\\wavs\\a.wav|x", "leaves the folder"),
        ("a.wav|", "empty text"),
        ("a.wav|  \t ", "empty text"),
        ("a.wav", "not of the form"),
        ("|x", "not of the form"),
        ("a\0.wav|x", "no such file"),
        (f"{'a' * 5000}|x", "no such file"),
        ("a.wav|" + "x" * 30_000, "more than"),
        ("b.wav|x\nb.wav|y", "second time"),
        ("b|x\nb.wav|y", "second time"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_with_its_reason(tmp_path, line, reason):
    found = read_rows(data_set(tmp_path, f"{line}\nd.wav|Good.\n"))
    assert found.rows[-1].name == "d.wav"
    assert found.left_out.total == 1
    assert reason in next(iter(found.left_out.counts))
    assert all(len(said) < 400 and said.isprintable() for said in found.left_out.lines())


def test_a_file_of_short_lines_takes_little_more_memory_than_its_text(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"\n" * 200_000 + b"x|y")
    tracemalloc.start()
    try:
        found = read_rows(tmp_path / "metadata.csv")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.left_out.names["no such file"] == ["x (row 200001)"]
    assert most < 1_200_000  # a list of the lines has 1.6 MB


def test_left_out_rows_are_counted_by_reason_and_the_first_are_named(tmp_path):
    lines = "\n".join(f"gone{number}|x" for number in range(7)) + "\na|\n"
    assert read_rows(data_set(tmp_path, lines + "b|Good\n")).left_out.lines() == [
        "7 no such file: gone0 (row 1), gone1 (row 2), gone2 (row 3), ...",
        "1 empty text: a (row 8)",
    ]


def test_more_speakers_than_the_voice_has_is_an_error_and_fewer_a_hint(tmp_path):
    path = data_set(tmp_path, "a|x|1\nb|y|2\nc|z|3")
    with pytest.raises(UserError, match="has 3 speakers, but the voice has 2"):
        read_rows(path, num_speakers=2)
    assert read_rows(path, num_speakers=3).hints == []
    assert "only 3" in read_rows(path, num_speakers=5).hints[0]


def test_a_column_that_looks_like_speakers_is_asked_about(tmp_path):
    names = tuple(f"n{number}" for number in range(12))
    lines = "\n".join(f"{name}|{'anna' if i % 2 else 'bob'}|text {i}" for i, name in enumerate(names))
    assert "--model.num_speakers 2" in read_rows(data_set(tmp_path, lines, names)).hints[0]


def test_a_data_set_that_is_not_there_or_no_text_is_one_message(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        read_rows(tmp_path / "metadata.csv")
    with pytest.raises(UserError, match="not UTF-8"):
        read_rows(data_set(tmp_path, b"a|\xff\xfe\xfa\n"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no data set"):
        read_rows(tmp_path / "empty")


def prepared_folder(folder: Path, speakers: tuple[str, ...]) -> Path:
    for speaker in speakers:
        for number in range(2):
            write_wav(folder / speaker / f"clip{number}.wav", tone(0.5, number), RATE)
            (folder / speaker / f"clip{number}.lab").write_text(f"{speaker} {number}\n", encoding="utf-8")
    return folder


def test_a_prepared_folder_gives_its_clips_and_speakers(tmp_path):
    folder = prepared_folder(tmp_path / "set", ("bob", "anna"))
    (folder / "anna" / "clip1.lab").unlink()
    found = read_rows(folder, num_speakers=2)
    assert found.speakers == ["anna", "bob"]
    assert [(row.name, row.speaker, row.text) for row in found.rows] == [
        ("anna/clip0.wav", "anna", "anna 0"),
        ("bob/clip0.wav", "bob", "bob 0"),
        ("bob/clip1.wav", "bob", "bob 1"),
    ]
    assert found.left_out.lines() == ["1 no transcript (.lab): anna/clip1.wav"]
    with pytest.raises(UserError, match="has 2 speakers, but the voice has 1"):
        read_rows(folder)


def test_a_prepared_folder_of_one_speaker_needs_no_names(tmp_path):
    found = read_rows(prepared_folder(tmp_path / "set", ("bob",)))
    assert found.speakers == [] and {row.speaker for row in found.rows} == {None}


def test_marks_for_another_engine_in_a_prepared_folder_are_not_spoken(tmp_path):
    folder = prepared_folder(tmp_path / "set", ("bob",))
    (folder / "bob" / "clip0.lab").write_text("(Laughing) Well (as I said) (soft tone)yes.", encoding="utf-8")
    assert read_rows(folder).rows[0].text == "Well (as I said) yes."


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_names_that_are_no_text_are_left_out(tmp_path):
    for folder in ("anna", os.fsdecode(b"\xff\xfe")):
        (tmp_path / folder).mkdir()
        write_wav(tmp_path / folder / "a.wav", tone(0.6), RATE)
        (tmp_path / folder / "a.lab").write_text("one", encoding="utf-8")
    found = read_rows(tmp_path)
    assert [row.name for row in found.rows] == ["anna/a.wav"]
    assert found.left_out.counts == {"a file name that is not UTF-8": 1}
    json.dumps(found.left_out.to_mapping(), ensure_ascii=False).encode()  # as prepared.json takes it


def test_a_folder_of_recordings_beside_a_prepared_set_has_no_effect_and_is_refused(tmp_path):
    with pytest.raises(UserError, match="audio_dir has no effect"):
        read_rows(prepared_folder(tmp_path / "set", ("bob",)), tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=12))
def test_whatever_the_file_holds_every_line_is_used_or_counted(tmp_path_factory, lines):
    path = data_set(tmp_path_factory.mktemp("any"), "a|good\n" + "\n".join(lines), ("a",))
    content = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    filled = [line for line in content.split("\n") if line.strip()]
    found = read_rows(path)
    assert len(found.rows) + found.left_out.total == len(filled)
    assert found.rows[0].text == "good"
