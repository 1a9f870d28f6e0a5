"""Markers: which there are, where they stand, and what a person is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.text.markers import MARKERS, check_markers, markers_in, with_marker, without_markers

ALL = [(kind, name) for kind, names in MARKERS.items() for name in names]


def test_every_name_is_listed_once():
    names = [name for _, name in ALL]
    assert len(names) == len(set(names)) == 66
    assert all(name == " ".join(name.lower().split()) for name in names)


@given(st.sampled_from(ALL), st.text(alphabet="abc XY,.", min_size=1).map(str.strip).filter(bool))
def test_a_marker_stands_in_brackets_before_the_text_and_comes_off_again(marker, text):
    marked = with_marker(text, *marker)
    assert marked == f"({marker[1]}) {text}"
    assert markers_in(marked) == [marker[1]] and without_markers(marked) == text


def test_names_are_found_in_any_spelling():
    assert with_marker("Run!", "tone", "In-a-Hurry_tone") == "(in a hurry tone) Run!"
    assert markers_in("( Angry )Go. （whispering） Come. (see page 3) (happy) (laughing)") == [
        "angry", "whispering", "happy", "laughing",
    ]  # fmt: skip
    assert without_markers("(Angry) Go (see page 3), (sighing) then.") == "Go (see page 3), then."


def test_a_text_without_markers_stays_as_it_is():
    assert markers_in("I am angry (very).") == [] and without_markers("I am angry (very).") == "I am angry (very)."


@pytest.mark.parametrize("unit", ["(", " ", "( ", "(a", "angry ", ")"])
def test_long_text_of_one_kind_takes_no_more_than_linear_time(unit):
    text = "(" + unit * (1 << 18)  # a quadratic step would take hours
    assert markers_in(text) == [] and without_markers(text) == text.strip()


@pytest.mark.parametrize("kind, name", [("emotion", "laughing"), ("mood", "angry"), ("tone", "")])
def test_no_marker_is_made_of_an_unknown_name(kind, name):
    with pytest.raises(ValueError, match="there is no"):
        with_marker("Hello", kind, name)


def test_nothing_asked_is_right_for_every_version():
    check_markers("1.5", False, {"emotion": None, "tone": None})
    check_markers("s1-mini", True, {"emotion": "angry", "tone": "shouting", "effect": None})


def test_a_version_without_markers_says_so():
    with pytest.raises(UserError) as error:
        check_markers("1.5", False, {"emotion": "angry", "tone": "whispering", "effect": None})
    assert error.value.what == "--emotion and --tone have no effect with version 1.5"
    assert "read them aloud" in error.value.why


@pytest.mark.parametrize(
    ("kind", "name", "fix"),
    [
        ("emotion", "happy", "did you mean --emotion 'joyful'?"),
        ("emotion", "angery", "did you mean --emotion 'angry'?"),
        ("emotion", "whispering", "use --tone 'whispering'"),
        ("effect", "laugh", "did you mean --effect 'laughing'?"),
        ("emotion", "qqqq", "choose one of the emotions above"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_and_the_nearest(kind, name, fix):
    with pytest.raises(UserError) as error:
        check_markers("s1-mini", True, {kind: name})
    assert error.value.fix == fix and repr(name) in error.value.what
    assert all(known in error.value.why for known in MARKERS[kind])


def test_all_problems_are_told_at_once():
    with pytest.raises(UserError, match=r"'blue'.*'loud'"):
        check_markers("s1-mini", True, {"emotion": "blue", "tone": "loud"})
