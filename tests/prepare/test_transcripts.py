"""Transcripts beside recordings: which file counts, and what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.transcripts import Transcripts, clean


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
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert Transcripts().read(tmp_path / "a.wav").text == text


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no transcript"),
        ({"b.txt": b"other", "a.wav.txt": b"other"}, "no transcript"),
        ({"a.txt": b" \r\n\xc2\xa0"}, "empty transcript"),
        ({"a.txt": "größe".encode("latin-1")}, "unreadable transcript"),
    ],
)
def test_a_missing_text_has_a_reason(tmp_path, files, reason):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    text, left_out, _ = Transcripts().read(tmp_path / "a.wav")
    assert text is None and left_out.startswith(reason)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_cleaning_loses_no_visible_character(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned == cleaned.strip()
    assert "".join(cleaned.split()) == "".join(text.split())
