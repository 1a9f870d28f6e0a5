"""Whisper's .json, as openai-whisper, faster-whisper and whisperX write it, and as others might."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.plain_text import MAX_TIME_S, Unusable
from fish_speech.prepare.whisper_json import read_whisper


def read(content: Any) -> tuple[str, list[tuple[str, float, float, float]]]:
    text, pieces = read_whisper(json.dumps(content), "a.json")
    return text, [(p.text, p.start_s, p.end_s, round(p.confidence, 4)) for p in pieces]


def word(text: str, start: float | None, end: float | None, probability: float = 0.5) -> dict[str, Any]:
    times = {} if start is None else {"start": start, "end": end}
    return {"word": text, "probability": probability} | times


SEGMENTS = [
    {"id": 0, "start": 0.0, "end": 2.5, "text": " Hello Mr. Smith.", "avg_logprob": -0.5, "no_speech_prob": 0.1},
    {"id": 1, "start": 3, "end": 4, "text": " Bye.", "avg_logprob": -0.25, "no_speech_prob": 0.7},
    {"id": 2, "start": 9.0, "end": 9.5, "text": " Thank you.", "avg_logprob": -1.25, "no_speech_prob": 0.7},
]


@pytest.mark.parametrize("content", [{"text": " Hello...", "segments": SEGMENTS, "language": "en"}, SEGMENTS])
def test_segments_become_pieces_and_silence_is_dropped_as_whisper_does(content):
    text, pieces = read(content)
    assert text == "Hello Mr. Smith. Bye."
    assert pieces == [
        ("Hello Mr. Smith.", 0.0, 2.5, round(math.exp(-0.5), 4)),
        ("Bye.", 3.0, 4.0, round(math.exp(-0.25), 4)),
    ]


def test_words_are_used_when_they_have_times():
    words = [word(" A", 0.1, 0.3), word(" well", 0.3, 0.5), word("-known", 0.5, 0.9, 0.25), word(" Mr.", 1.0, 1.0)]
    words += [word(" Smith.", 1.2, 1.5), word(" Bye.", 1.6, 1.9)]
    segment = {"start": 0.0, "end": 2.0, "text": " A well-known Mr. Smith. Bye.", "words": words, "avg_logprob": -1.0}
    text, pieces = read({"segments": [segment]})
    assert text == "A well-known Mr. Smith. Bye."
    assert pieces == [
        ("A", 0.1, 0.3, 0.5),
        ("well-known Mr.", 0.3, 1.2, 0.25),  # "Mr." has no time of its own: it is said before the next word
        ("Smith.", 1.2, 1.5, 0.5),
        ("Bye.", 1.6, 1.9, 0.5),
    ]
    _, sentences = read_whisper(json.dumps([segment]), "a.json")
    assert [p.ends_sentence for p in sentences] == [False, False, True, True]


def test_whisperx_words_without_times_join_their_neighbours():
    words = [{"word": "In"}, {"word": "May", "start": 1.0, "end": 1.2, "score": 0.9}, {"word": "2014."}]
    segment = {"start": 0.5, "end": 2.0, "text": " In May 2014.", "words": words}
    assert read({"segments": [segment], "word_segments": words}) == ("In May 2014.", [("In May 2014.", 0.5, 2.0, 0.9)])


def test_older_whisperx_has_words_beside_the_segments():
    words = [{"text": "Good", "start": 1.0, "end": 1.2, "score": 0.9}, {"text": "day", "start": 1.2, "end": 1.5}]
    _, pieces = read({"segments": [{"start": 0.5, "end": 2.0, "text": "Good day"}], "word_segments": words})
    assert pieces == [("Good", 1.0, 1.2, 0.9), ("day", 1.2, 1.5, 1.0)]


def test_words_of_older_faster_whisper_are_lists():
    segment = {"start": 0, "end": 1, "text": " Hi you", "words": [[0.1, 0.4, " Hi", 0.5], [0.4, 0.9, " you", 1]]}
    assert read([segment])[1] == [("Hi", 0.1, 0.4, 0.5), ("you", 0.4, 0.9, 1.0)]


def test_scripts_without_spaces_keep_their_characters_apart_and_the_text_together():
    words = [word("你", 0.1, 0.2), word("好。", 0.2, 0.4), word("再", 0.5, 0.6), word("见。", 0.6, 0.8)]
    segments = [
        {"start": 0, "end": 0.4, "text": "你好。", "words": words[:2]},
        {"start": 0.4, "end": 1, "text": "再见。", "words": words[2:]},
    ]
    text, pieces = read({"text": "你好。再见。", "segments": segments})
    assert text == "你好。再见。" and [p[0] for p in pieces] == ["你", "好。", "再", "见。"]


@pytest.mark.parametrize(
    "words",
    [
        [word(" Hello", 0.1, 0.4)],  # not all that the segment says
        [word(" Hello", 0.5, 0.9), word(" you", 0.1, 0.4)],  # out of order
        [word(" Hello", None, None), word(" you", None, None)],
        [],
        None,
    ],
)
def test_words_that_do_not_fit_leave_the_segment_whole(words):
    segment = {"start": 0, "end": 1, "text": " Hello you", "words": words, "avg_logprob": 0}
    assert read([segment])[1] == [("Hello you", 0.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{", "[1, 2]", "3", "null", '{"segments": 3}', '{"a": [1]}', '[{"text": "a tweet"}]', "[" * 100_000,
     '{"a":' * 100_000, "NaN", '"\ud800"', "1" * 1_000_000],
)  # fmt: skip
def test_other_json_is_no_transcript(text):
    with pytest.raises(Unusable, match=r"^no transcript: a.json is not a Whisper JSON"):
        read_whisper(text, "a.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start": math.nan}, "a time that is not finite"),
        ({"end": math.inf}, "a time that is not finite"),
        ({"start": "0"}, "a time that is str"),
        ({"start": True}, "a time that is bool"),
        ({"start": -1}, "a time of -1 s"),
        ({"end": 1e9}, r"a time of 1e\+09 s"),
        ({"end": 0}, "ends at 0 s, not after its start"),
        ({"end": None}, "a segment without times"),
        ({"text": ["a"]}, "a text that is list"),
        ({"words": [3]}, "a word that is float"),
        ({"words": [{"word": 3, "start": 0, "end": 1}]}, "a text that is float"),
        ({"words": [word(" Hi", 0.5, 0.25)]}, "before its start"),
    ],
)
def test_damage_has_a_reason(change, reason):
    with pytest.raises(Unusable, match=reason) as error:
        read([{"start": 0, "end": 1, "text": " Hi"} | change])
    assert str(error.value).startswith("unusable transcript: a.json: ")


def test_many_words_without_times_leave_the_segment_whole():
    words = [{"word": "a"}] * 100_000 + [word("b", 0, 1)]
    segment = {"start": 0, "end": 1, "text": "a" * 100_000 + "b", "words": words}
    assert len(read([segment])[1]) == 1


def test_a_confidence_that_is_no_number_is_none():
    assert read([{"start": 0, "end": 1, "text": "Hi", "avg_logprob": math.nan}])[1] == [("Hi", 0.0, 1.0, 0.0)]
    assert read([{"start": 0, "end": 1, "text": "Hi", "words": [word("Hi", 0, 1, 7.0)]}])[1] == [("Hi", 0.0, 1.0, 1.0)]


SCALARS = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["Hi", " you", "", "\n"])
WORDS = st.fixed_dictionaries(
    {}, optional={"word": SCALARS, "start": SCALARS, "end": SCALARS, "score": SCALARS, "probability": SCALARS}
)
SEGMENT = st.fixed_dictionaries(
    {"start": SCALARS, "end": SCALARS, "text": SCALARS},
    optional={"words": st.lists(WORDS | SCALARS, max_size=4) | SCALARS, "avg_logprob": SCALARS},
)
SOUND_WORD = st.builds(word, st.sampled_from([" a", "b", " c d", "。", " "]), st.sampled_from([None, 0, 1, 2, 3]),
                       st.sampled_from([3, 4]))  # fmt: skip
SOUND = st.lists(SOUND_WORD, max_size=5).map(
    lambda words: {"start": 0.0, "end": 5.0, "text": "".join(w["word"] for w in words), "words": words}
)


@given(st.lists(SEGMENT | SOUND, max_size=4), st.lists(WORDS, max_size=4) | SCALARS, SCALARS)
def test_any_content_gives_pieces_within_time_or_a_reason(segments, word_segments, text):
    content = json.dumps({"segments": segments, "word_segments": word_segments, "text": text})
    try:
        _, pieces = read_whisper(content, "a.json")
    except Unusable as error:
        assert "a.json" in str(error) and "\n" not in str(error)
    else:
        assert all(0 <= p.start_s < p.end_s <= MAX_TIME_S and 0 <= p.confidence <= 1 for p in pieces)
        assert all(p.text == p.text.strip() != "" for p in pieces)
        assert [p.start_s for p in pieces] == sorted(p.start_s for p in pieces)


@given(SOUND)
def test_words_say_what_the_segment_says(segment):
    said, pieces = read_whisper(json.dumps([segment]), "a.json")
    assert [c for p in pieces for c in p.text if c.isalnum()] == [c for c in said if c.isalnum()]
