"""split_segments: the released rules where they are good, care where they are not, and how each segment ends."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.text import clean_text, split_text
from fish_speech.text.segments import ending_of, split_segments


def cut(text, length):
    return [segment.text for segment in split_segments(text, length)]


def test_plain_text_is_cut_as_the_released_system_does(golden):
    for case in golden("text.json")["split_text"]:
        if ".W" not in case["text"]:  # "1.5.2" holds together here
            assert cut(case["text"], case["length"]) == case["segments"]


words = st.lists(st.sampled_from(["hello", "world", "été", "世界"]), min_size=1, max_size=12).map(" ".join)
plain = st.lists(st.tuples(words, st.sampled_from([".", "!", "?", ", and"])), min_size=1, max_size=6).map(
    lambda parts: " ".join(words.capitalize() + mark for words, mark in parts)
)


@settings(deadline=None)
@given(plain, st.integers(20, 120))
def test_ordinary_sentences_are_cut_as_the_released_system_does(text, length):
    assert cut(text, length) == split_text(text, length)


@pytest.mark.parametrize(
    ("text", "length", "segments"),
    [
        ("We met Mr. Smith. He left.", 20, ["We met Mr. Smith.", "He left."]),
        ("It was J. R. R. Tolkien. He wrote.", 26, ["It was J. R. R. Tolkien.", "He wrote."]),
        ("Take fruit, e.g. apples. Or none.", 26, ["Take fruit, e.g. apples.", "Or none."]),
        ("Pi is 3.5 or so. See example.com now. Good.", 27, ["Pi is 3.5 or so.", "See example.com now. Good."]),
        ("She said “Go home.” He did not go.", 24, ["She said “Go home.”", "He did not go."]),
        ('"Go!" "No." (Really.) Fine.', 12, ['"Go!" "No."', "(Really.)", "Fine."]),
        ("“Really?” he asked. I nodded.", 24, ["“Really?” he asked.", "I nodded."]),
        ("Well... I see. So what?!! Nothing…", 15, ["Well... I see.", "So what?!!", "Nothing…"]),
        ("Es war z. B. kalt, d. h. nass. Ja.", 32, ["Es war z. B. kalt, d. h. nass.", "Ja."]),
        ("彼は「行こう。」雨が降った。終わり！", 42, ["彼は「行こう。」雨が降った。", "終わり！"]),
        ("東京、大阪、京都、名古屋", 14, ["東京、", "大阪、", "京都、", "名古屋"]),
        ("مرحبا. كيف حالك؟ أنا بخير.", 30, ["مرحبا. كيف حالك؟", "أنا بخير."]),
        ("आप कैसे हैं। मैं ठीक हूँ।", 35, ["आप कैसे हैं।", "मैं ठीक हूँ।"]),
        ("I said no. See No. 5 of it.", 18, ["I said no.", "See No. 5 of it."]),
        ("https://example.com/a/long/one is 1,234,567", 20, ["https://example.com/", "a/long/one is", "1,234,567"]),
        ("Milk\nEggs and ham\nTea", 18, ["Milk\nEggs and ham", "Tea"]),
        ("It cost 1,000,000 of them, he said", 28, ["It cost 1,000,000 of them,", "he said"]),
    ],
)
def test_what_belongs_together_stays_together(text, length, segments):
    assert cut(text, length) == segments


def test_a_blank_line_ends_a_segment_and_a_line_end_does_not():
    segments = split_segments("One. Two.\r\n \r\nThree\nfour.\n\n* * *\n\nFive", 200)
    assert [(s.text, s.ending) for s in segments] == [
        ("One. Two.", "paragraph"),
        ("Three\nfour.", "paragraph"),
        ("Five", "paragraph"),
    ]


@pytest.mark.parametrize(
    ("text", "following", "ending"),
    [
        ("It is done.", "Then", "sentence"),
        ("Is it?”", "Yes", "sentence"),
        ("Is it?”", "she asked", "clause"),
        ("終わり。」", "次", "sentence"),
        ("and so…", "or not", "clause"),
        ("We met Mr.", "Smith", "word"),
        ("fruit, e.g.", "apples", "word"),
        ("He said no.", "Then", "sentence"),
        ("see No.", "5", "word"),
        ("So am I.", "Then", "sentence"),
        ("first,", "second", "clause"),
        ("大阪、", "京都", "clause"),
        ("a long and", "winding road", "word"),
        ("", None, "word"),
        ("Done.", None, "sentence"),
    ],
)
def test_the_ending_is_what_is_heard(text, following, ending):
    assert ending_of(text, following) == ending


def test_only_what_can_be_spoken_becomes_a_segment():
    for text in ("", " \n\n ", "... !!! ???", "…", "“”", "👨‍👩‍👧‍👦🤗", "。。。", "* * *"):
        assert split_segments(text, 10) == []


def test_a_letter_keeps_its_marks_where_it_is_cut_anywhere():
    for segment in cut("e\u0301" * 20, 7):
        assert segment.startswith("e") and segment.endswith("\u0301")


SILENT = set(string.punctuation)
texts = st.text(st.sampled_from('abI7 .,!?，。…é世\n"”\u0301') | st.characters(exclude_categories=["Cs"]), max_size=80)


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(1, 60))
def test_no_letter_is_lost_or_moved_and_no_segment_is_too_long(text, length):
    segments = cut(text, length)
    assert [c for c in "".join(segments) if c.isalnum()] == [c for c in clean_text(text) if c.isalnum()]
    for segment in segments:
        assert segment == segment.strip()
        assert len(segment.encode()) < length + 32 + 4


@settings(deadline=None)
@given(st.text(max_size=200))
def test_only_the_last_segment_of_a_paragraph_ends_it(text):
    segments = split_segments(text, 30)
    assert not segments or segments[-1].ending == "paragraph"


@pytest.mark.parametrize("unit", ["1", ".", "a.b ", '."', "世", "e\u0301", "\n ", "Mr. ", "One two. "])
@pytest.mark.parametrize("split", [split_segments, split_text])
def test_long_text_of_one_kind_takes_no_more_than_linear_time(unit, split):
    split(unit * ((1 << 18) // len(unit)), 200)  # a quadratic step would take hours


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 byte"):
        split_segments("hello", 0)
