"""Texts as comparable words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.evaluation import comparable_words

pytest.importorskip("num2words", reason="the eval extra is not installed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don’t STOP, it's 'fine'.", "don't stop it's fine"),
        ("well-known: e-mail", "well known e mail"),
        ("22 of 1,250", "twenty two of one thousand two hundred and fifty"),
        ("3.5 metres", "three point five metres"),
        ("the 21st, 2nd", "the twenty first second"),
        ("in 1984", "in nineteen eighty four"),
        ("agent 007", "agent zero zero seven"),
        ("$5 & 50%", "five dollars and fifty percent"),
        ("ﬁve ½", "five one two"),
        ("12345678901234567890", "one two three four five six seven eight nine zero " * 2),
        ("… — !", ""),
    ],
)
def test_words_are_lower_case_without_punctuation_and_numbers_are_spelled_out(text, words):
    assert comparable_words(text) == words.split()


def test_numbers_are_spelled_in_the_language_asked_for():
    assert comparable_words("22 Häuser", "de") == ["zweiundzwanzig", "häuser"]


def test_numbers_stay_digits_in_a_language_that_num2words_does_not_know():
    assert comparable_words("22 x", "xx") == ["22", "x"]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.from_regex(r"[0-9a-z .,'$%-]{0,30}", fullmatch=True))
def test_doing_it_again_changes_nothing(text):
    words = comparable_words(text)
    assert comparable_words(" ".join(words)) == words


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_word_is_empty_or_holds_a_space(text):
    assert all(word and not any(c.isspace() for c in word) for word in comparable_words(text))
