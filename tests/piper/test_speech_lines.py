"""Texts in pieces: what is spoken at once is bounded, and no word is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piper_train.speech.lines import LONGEST_PIECE, pieces_of
from piper_train.speech.voice import LONGEST_SENTENCE, parts_of


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two.", ["One. Two."]),
        ("  One\nTwo\n\nthree\n", ["One", "Two", "three"]),  # a list, and an empty line
        ("He went\nhome.\nThen", ["He went home.", "Then"]),  # wrapped: it goes on in lower case
        ("A line of more than forty-five characters that meets\nAnna at its end.", 1),
        ("A line of more than forty-five characters that ends.\nAnna begins.", 2),
        ('He said: "Well."\nand left.', ['He said: "Well."', "and left."]),
        ("Привет\nмир", ["Привет мир"]),
        ("one\r\ntwo\r\n", ["one two"]),
        ("\n \n", []),
    ],
)
def test_lines_are_spoken_on_their_own_unless_they_were_wrapped(text, pieces):
    got = list(pieces_of(text))
    assert len(got) == pieces if isinstance(pieces, int) else got == pieces


def test_a_long_line_is_cut_after_a_sentence_before_a_clause_before_a_word():
    sentence = "Word " * 99 + "end. "
    assert all(piece.endswith("end.") for piece in pieces_of(sentence * 30))
    clause = "word " * 99 + "end, "
    assert all(piece.endswith("end,") for piece in pieces_of(clause * 30))
    words = list(pieces_of("word " * 3000))
    assert {piece.replace(" ", "").replace("word", "") for piece in words} == {""} and len(words) == 8
    assert [len(piece) for piece in pieces_of("x" * 5000)] == [2000, 2000, 1000]


def test_phonemes_written_by_hand_are_not_cut():
    raw = "[[ a. b. c ]]"
    pieces = list(pieces_of((raw + " ") * 400))
    assert all(piece.count("[[") == piece.count("]]") for piece in pieces) and len(pieces) > 1


@given(st.text(st.sampled_from("ab Я.,!?\n\t[]’。;-1"), max_size=6000))
def test_cutting_keeps_every_character_but_spaces_and_bounds_the_pieces(text):
    pieces = list(pieces_of(text))
    assert squeezed("".join(pieces)) == squeezed(text)
    assert all(0 < len(piece) <= 2 * LONGEST_PIECE and piece == piece.strip() for piece in pieces)


def test_a_megabyte_without_a_space_is_cut_at_once():
    pieces = list(pieces_of("a" * 1_000_000))
    assert len(pieces) == 500
    assert len(list(pieces_of("[[" * 500_000))) == 500


@given(st.lists(st.sampled_from(["a", " ", ",", "."]), max_size=4 * LONGEST_SENTENCE))
def test_a_long_sentence_keeps_its_phonemes_in_parts_of_bounded_length(phonemes):
    parts = list(parts_of(phonemes))
    assert all(len(part) <= LONGEST_SENTENCE for part in parts) and len(parts) >= 1
    kept = [phoneme for part in parts for phoneme in part]
    assert [p for p in kept if p != " "] == [p for p in phonemes if p != " "]


def test_a_long_sentence_is_cut_at_a_pause_else_between_words():
    words = list("abcd efgh, ") * 60
    for part in list(parts_of(words))[:-1]:
        assert part[-1] == ","
    for part in list(parts_of(list("abcde ") * 100))[:-1]:
        assert "".join(part).endswith("abcde")


def test_a_megabyte_of_wrapped_lines_is_joined_at_once():
    text = ("word " * 12 + "\n") * 16_000
    assert squeezed("".join(pieces_of(text))) == squeezed(text)
