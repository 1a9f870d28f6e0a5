"""Words as whisper times them become pieces of text that is never split."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.recognition import join_words
from fish_speech.recognition.words import TimedWord, make_pieces
from fish_speech.timeline import Piece


def timed(*texts):
    return [TimedWord(text, number, number + 1, 0.5 + number / 100) for number, text in enumerate(texts)]


def test_what_is_written_together_is_one_piece_as_sure_as_its_least_part():
    pieces = make_pieces([timed(" Twenty", "-five", "%", " of", " it.")], 10)
    assert pieces == [
        Piece("Twenty-five%", 0, 3, 0.5),
        Piece("of", 3, 4, 0.53),
        Piece("it.", 4, 5, 0.54, True),
    ]
    assert join_words(pieces) == "Twenty-five% of it."


def test_scripts_without_spaces_keep_their_words_apart_and_are_written_without_spaces():
    pieces = make_pieces([timed("今日", "は", "Chat", "GPT", "。", "次")], 10)
    assert [piece.text for piece in pieces] == ["今日", "は", "ChatGPT", "。", "次"]
    assert join_words(pieces) == "今日はChatGPT。次"


def test_the_first_word_of_a_segment_is_a_word_of_its_own():
    assert [piece.text for piece in make_pieces([timed(" one"), timed("two")], 10)] == ["one", "two"]


@pytest.mark.parametrize("text", ["end.", "what?", "no!”", "so…", "(really?)", "終わり。", "نعم؟"])
def test_punctuation_ends_a_sentence(text):
    assert make_pieces([timed(f" {text}")], 10)[-1].ends_sentence


@pytest.mark.parametrize("text", ["end", "one,", "this:", "(so)", "”"])
def test_other_marks_do_not_end_a_sentence(text):
    assert not make_pieces([timed(f" {text}")], 10)[-1].ends_sentence


def test_a_full_stop_before_a_name_or_a_small_letter_does_not_end_a_sentence():
    pieces = make_pieces([timed(" Mr.", " Smith", " said", " etc.", " and", " left.", " He")], 10)
    assert [piece.text for piece in pieces if piece.ends_sentence] == ["left."]


numbers = st.floats(allow_nan=True, allow_infinity=True)
words = st.builds(TimedWord, st.text(max_size=6), numbers, numbers, numbers)


@given(st.lists(st.lists(words, max_size=6), max_size=4), st.floats(0, 100))
def test_times_never_go_back_nor_leave_the_clip_whatever_the_recogniser_says(segments, duration_s):
    pieces = make_pieces(segments, duration_s)
    times = [time for piece in pieces for time in (piece.start_s, piece.end_s)]
    assert times == sorted(times) and all(0 <= time <= duration_s for time in times)
    assert all(piece.text and piece.text == piece.text.strip() for piece in pieces)
    assert all(0 <= piece.confidence <= 1 and math.isfinite(piece.confidence) for piece in pieces)
    said = "".join("".join(word.text.split()) for segment in segments for word in segment)
    assert "".join("".join(piece.text.split()) for piece in pieces) == said  # no letter is lost
