"""Safe names: any text becomes a file name that works on every system, and no two collide."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fish_speech.prepare.names import MAX_BYTES, NameBook, collision_key, one_line, safe_name

any_text = st.text(st.characters(), max_size=400)  # surrogates included: POSIX names may be any bytes


@given(any_text)
@example("../x")
@example("-rf")
@example("CON")
@example("COM¹")
@example("a\nb")
@example("x" * 300)
@example("😀")
@example("́a")
@example("ä" * 101)
@example("\udcff")
@example("-" * 99 + "x")
def test_a_safe_name_is_one_plain_short_component_and_stays_itself(text):
    name = safe_name(text)
    assert name and len(name.encode("utf-8")) <= MAX_BYTES
    assert not set(name) & set('/\\:*?"<>|. \n\0') and name.isprintable() and name[0] not in "-_"
    assert not PureWindowsPath(name).is_reserved()
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0007", "0007"),
        ("Session 1.5 (final)", "Session_1_5_final"),
        ("../../etc/passwd", "etc_passwd"),
        ("--speaker", "speaker"),
        ("Ünï-cödé", "Ünï-cödé"),
        ("Ünï", "Ünï"),
        ("声の記録", "声の記録"),
        ("हिन्दी", "हिन्दी"),
        ("nul", "nul-1"),
        ("🎤", "clip"),
    ],
)
def test_readable_names_stay_readable(text, name):
    assert safe_name(text) == name


@given(st.lists(st.sampled_from(["a", "A", "a-2", "ä", "ä", "ﬁ", "fi", "ß", "SS", "b"]), max_size=12))
def test_no_two_names_collide_on_any_file_system(names):
    given_out = [NameBook.take(book, name) for book in [NameBook(["a"])] for name in names]
    keys = [collision_key(name) for name in given_out]
    assert len({*keys, "a"}) == len(keys) + 1


@given(any_text)
def test_a_line_for_the_terminal_has_no_control_characters(text):
    assert one_line(text).isprintable()
    one_line(text).encode("utf-8")
