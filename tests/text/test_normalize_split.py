"""clean_text and split_text against upstream's answers, and what no answer can show: nothing gets lost."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.text import clean_text, split_text

SILENT = set(string.punctuation + string.whitespace)


def test_cleaned_text_equals_the_golden_answers(golden):
    for text, cleaned in golden("text.json")["clean_text"]:
        assert clean_text(text) == cleaned


def test_segments_equal_the_golden_answers(golden):
    for case in golden("text.json")["split_text"]:
        assert split_text(case["text"], case["length"]) == case["segments"]


def letters(text):
    return [character for character in text if not character.isspace() and character not in SILENT]


texts = st.text(st.sampled_from("ab7 .,!?，。é世\n") | st.characters(exclude_categories=["Cs"]), max_size=80)


@given(texts, st.integers(1, 40))
def test_splitting_loses_and_reorders_nothing_that_is_spoken(text, length):
    if "_f_" not in text:  # "<1_f_5>" stands for 1.5 in between, so text that has it already comes out as 1.5
        assert letters("".join(split_text(text, length))) == letters(clean_text(text))


@given(texts, st.integers(1, 40))
def test_a_segment_exceeds_its_length_by_part_of_a_character_at_most(text, length):
    for segment in split_text(text, length):
        assert len(segment.encode()) < length + 4
        assert segment == segment.strip() and letters(segment)


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError):
        split_text("hello", 0)
