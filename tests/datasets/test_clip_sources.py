"""Finding clips, and reading codes and transcripts that may be anything."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.datasets.sources import (
    UnusableClip,
    clean_transcript,
    find_clips,
    parse_npy_header,
    read_codes,
    read_texts,
)
from fish_speech.errors import UserError


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


CODES = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_codes_of_any_integer_type_and_order_are_read(tmp_path, dtype, order):
    np.save(tmp_path / "a.npy", np.asarray(CODES, dtype=dtype, order=order))
    np.testing.assert_array_equal(read_codes(tmp_path / "a.npy"), CODES)


def huge_header(shape="(8, 1000000000000)"):
    text = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "not a NumPy file"),
        (b"RIFF....WAVEfmt ", "not a NumPy file"),
        (npy(CODES)[:-1], "torn"),
        (npy(CODES)[:40], "ends inside its header"),
        (npy(CODES) + b"x", "torn"),
        (huge_header(), "its header promises"),
        (huge_header("(8, -1)"), "no valid header"),
        (huge_header("(" * 200), "no valid header"),
        (huge_header("__import__('os')"), "no valid header"),
        (npy(np.array([{"a": 1}], dtype=object)), "of object"),
        (npy(np.zeros((2, 2), dtype=[("x", "i4")])), "no valid header"),
        (npy(CODES[0]), "1 axes"),
        (npy(CODES.astype(np.float32)), "float32"),
        (npy(CODES - 1), "values from -1"),
        (npy(CODES + 65530), "values from 65530"),
        (npy(np.zeros((65, 2), int)), "shape"),
        (npy(np.zeros((8, 0), int)), "shape"),
    ],
)
def test_unusable_codes_say_why(tmp_path, data, why):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UnusableClip, match=why):
        read_codes(tmp_path / "a.npy")


@given(st.binary(max_size=200))
def test_no_header_crashes_the_reader(data):
    with pytest.raises(UnusableClip):
        parse_npy_header(b"\x93NUMPY\x01\x00" + data[:1] + b"\x00" + data + b"}")


def test_a_huge_file_and_a_folder_are_no_codes(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    (tmp_path / "b.npy").mkdir()
    for name in ("a.npy", "b.npy"):
        with pytest.raises(UnusableClip):
            read_codes(tmp_path / name)


def test_transcripts_are_cleaned_like_upstream():
    assert clean_transcript(" {noise} a\t\n b <|im_end|> {x}c\n") == " a b c "


@pytest.mark.parametrize(
    "data, why",
    [(b"", "empty"), (b" \n", "empty"), (b"{laugh}", "empty"), ("😀".encode(), "empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_unusable_transcripts_say_why(make_clips, tmp_path, data, why):
    make_clips(tmp_path / "d", {"anna": 1})
    (tmp_path / "d" / "anna" / "0000.lab").write_bytes(data)
    (clip,), _ = find_clips([tmp_path / "d"], [".lab"])
    with pytest.raises(UnusableClip, match=why):
        read_texts(clip)


def test_a_mark_of_utf8_is_no_part_of_the_text(make_clips, tmp_path):
    make_clips(tmp_path / "d", {"anna": 1})
    (tmp_path / "d" / "anna" / "0000.lab").write_bytes(b"\xef\xbb\xbfhello")
    (clip,), _ = find_clips([tmp_path / "d"], [".lab"])
    assert read_texts(clip) == ["hello"]


def test_clips_are_found_in_order_and_unfinished_files_are_ignored(tmp_path):
    names = [
        "b/2.npy",
        "b/21.15-26.44.npy",
        "b/3.wav",
        "a/z/1.npy",
        "0.npy",
        "b/.partial-7-9.npy",
        "b/x.lab",
        "b/._2.npy",
    ]
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clips, rejected = find_clips([tmp_path / "data"], [".lab"])
    assert [clip.name for clip in clips] == ["0", "a/z/1", "b/2", "b/21.15-26.44", "b/3"]
    assert [clip.speaker for clip in clips] == ["data", "z", "b", "b", "b"]
    assert clips[3].transcripts[0].name == "21.15-26.44.lab" and not rejected


def test_a_linked_speaker_is_found_and_a_loop_of_links_ends(make_clips, tmp_path):
    make_clips(tmp_path / "elsewhere", {"anna": 2})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere" / "anna")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    clips, _ = find_clips([tmp_path / "data"], [".lab"])
    assert [clip.name for clip in clips] == ["link/0000", "link/0001"]


def test_a_file_list_gives_clips_by_speaker_and_rejects_bad_lines(make_clips, tmp_path):
    make_clips(tmp_path / "d", {"anna": 2})
    lines = ["d/anna/0001.wav|zoe|EN|two | bars", "d/anna/0000.wav|bob|ja|one", "d/anna/0000.wav|bob|en|again", "no"]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "", "..|bob|en|text"]), encoding="utf-8")
    clips, rejected = find_clips([tmp_path / "list.txt"], [".lab"])
    assert [(clip.speaker, clip.source, read_texts(clip)) for clip in clips] == [
        ("bob", "filelist", ["one"]),
        ("zoe", "filelist", ["two | bars"]),
    ]
    assert [where for where, _ in rejected] == ["list.txt line 3", "list.txt line 4", "list.txt line 6"]


def test_an_unknown_language_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.wav|bob|klingon|text", encoding="utf-8")
    with pytest.raises(UserError, match="klingon"):
        find_clips([tmp_path / "list.txt"], [".lab"])
