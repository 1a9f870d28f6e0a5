"""Word and character errors, by hand and by their laws."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.evaluation import ErrorCounts, character_errors, comparable_words, word_errors

pytest.importorskip("jiwer", reason="the eval extra is not installed")

TEXTS = st.lists(st.sampled_from(["a", "to", "tea", "ten", "it's"]), max_size=9).map(" ".join)


@pytest.mark.parametrize(
    ("said", "heard", "counts"),
    [
        ("a b c d", "a b c d", (0, 0, 0, 4)),
        ("a b c d", "a x c d", (1, 0, 0, 4)),
        ("a b c d", "a c d", (0, 1, 0, 4)),
        ("a b c d", "a b c d e f", (0, 0, 2, 4)),
        ("a b c d", "", (0, 4, 0, 4)),
        ("", "a b", (0, 0, 2, 0)),
        ("Platform 22, please!", "platform twenty two please", (0, 0, 0, 4)),
        ("the cat sat", "a cat sat down", (1, 0, 1, 3)),
    ],
)
def test_known_texts_give_known_counts(said, heard, counts):
    assert word_errors(said, heard) == ErrorCounts(*counts)


def test_characters_are_counted_with_the_spaces_between_words():
    assert character_errors("ab cd", "abcd") == ErrorCounts(0, 1, 0, 5)
    assert character_errors("tea", "ten") == ErrorCounts(1, 0, 0, 3)


def test_the_rate_of_a_corpus_is_all_edits_by_all_words():
    total = word_errors("a", "b") + word_errors("a b c d e f g h i", "a b c d e f g h i")
    assert total.rate == pytest.approx(0.1)


def test_an_empty_reference_has_no_rate():
    assert word_errors("...", "a b").rate is None


@settings(deadline=None)
@given(TEXTS)
def test_a_text_has_no_errors_against_itself(text):
    assert word_errors(text, text).edits == character_errors(text, text).edits == 0


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_exchanging_the_texts_exchanges_insertions_and_deletions(a, b):
    there, back = word_errors(a, b), word_errors(b, a)
    assert there.edits == back.edits
    assert there.insertions - there.deletions == back.deletions - back.insertions


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_edits_lie_between_the_difference_in_length_and_the_longer_text(a, b):
    first, second = len(comparable_words(a)), len(comparable_words(b))
    counts = word_errors(a, b)
    assert abs(first - second) <= counts.edits <= max(first, second)
    assert counts.length == first


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_a_detour_is_never_shorter(a, b, c):
    assert word_errors(a, c).edits <= word_errors(a, b).edits + word_errors(b, c).edits
