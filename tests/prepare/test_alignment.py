"""Alignment of a known text with recognised words: exact text, true times, and honest doubt."""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.prepare import matching
from fish_speech.prepare.alignment import align
from fish_speech.prepare.clip_text import clip_text
from fish_speech.prepare.readings import best_readings, is_ambiguous, readings_of, usual
from fish_speech.prepare.spoken_words import spoken_words
from fish_speech.text.words import ends_sentence, join, words_of
from fish_speech.timeline import Piece, Span

from .long_recordings import find_speech, hear, long_recording, share_in_right_clip, stored_hearing, words_by_clip

VOCABULARY = """
    the river runs slowly past an old mill where nobody has worked since spring and every evening some children walk
    down to throw stones at passing boats while their mother calls them home for supper with bread cheese apples
    """.split()  # noqa: SIM905
LETTER_S = 0.06


def speak(sentences: list[str], pause_s: float = 0.6) -> tuple[list[Piece], list[Span]]:
    """What a perfect recogniser hears: each word with its time, and where each sentence lies."""
    heard, spans, at = [], [], 1.0
    for sentence in sentences:
        start_s = at
        for word in sentence.split():
            heard.append(Piece(word.strip(".,").lower(), at, at + LETTER_S * len(word)))
            at = heard[-1].end_s
        spans.append(Span(start_s, at))
        at += pause_s
    return heard, spans


def sentences(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(VOCABULARY, k=rng.randint(4, 12))).capitalize() + "." for _ in range(count)]


def mishear(heard: list[Piece], rng: random.Random, wrong: float) -> list[Piece]:
    """Change, lose, or add a word with probability `wrong` in all, a third each."""
    result = []
    for piece in heard:
        kind = int(rng.random() / wrong * 3) if wrong else 3
        if kind == 0:
            result.append(piece._replace(text=rng.choice(VOCABULARY)))
        elif kind == 2:
            middle = (piece.start_s + piece.end_s) / 2
            result += [piece._replace(end_s=middle), Piece(rng.choice(VOCABULARY), middle, piece.end_s)]
        elif kind > 2:
            result.append(piece)
    return result


def in_right_span(pieces: list[Piece], text: list[str], spans: list[Span]) -> float:
    owner = [number for number, sentence in enumerate(text) for _ in sentence.split()]
    cuts = [(a.end_s + b.start_s) / 2 for a, b in zip(spans, spans[1:])]
    return float(np.mean([bisect_right(cuts, (p.start_s + p.end_s) / 2) == o for p, o in zip(pieces, owner)]))


# The text.

TEXTS = st.text(st.sampled_from("aB.,'-— \n\t22é你好世。「」、のสวัสดี안녕!?$"), max_size=60) | st.text(max_size=40)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_words_join_to_the_text_with_single_spaces(text):
    words = words_of(text)
    assert join(words) == " ".join(text.split())
    assert all(word.strip() for word in words)


def test_scripts_without_spaces_are_split_into_characters_with_their_punctuation():
    assert words_of("「你好」，AI时代。 Hello 世界") == ["「你", "好」，AI时", "代。", "Hello", "世", "界"]
    assert words_of("안녕 하세요") == ["안녕", "하세요"]


@pytest.mark.parametrize(
    ("word", "following", "ends"),
    [
        ("end.", "The", True), ("Mr.", "Smith", False), ("J.", "Smith", False), ("etc.", "and", False), ("etc.", "The", True),
        ("really?!”", "He", True), ("“Stop!”", "he", False), ("好。", "他", True), ("comma,", "The", False),
        ("last", None, True), ("so…", "Then", True), ("I.", "Then", True), ("e.g.", "Paris", False),
        ("No.", "5", False), ("no.", "He", True),
    ],
)  # fmt: skip
def test_sentences_end_at_their_punctuation_but_not_after_titles_and_initials(word, following, ends):
    assert ends_sentence(word, following) is ends


def test_numbers_contractions_and_case_are_written_as_they_are_said():
    pytest.importorskip("num2words")
    assert spoken_words("22,") == ("twenty", "two")
    assert spoken_words("“Don't") == ("do", "not") and spoken_words("I’m") == ("i", "am")
    assert spoken_words("Twenty-Two") == ("twenty", "two") and spoken_words("—") == ()


# The times.


@given(
    TEXTS,
    st.lists(st.tuples(st.sampled_from([*VOCABULARY, "a", "b", "2", "你", ""]), st.floats(0, 50), st.floats(0, 3))),
)
@settings(max_examples=200, deadline=None)
def test_any_text_and_any_words_give_one_piece_a_word_with_times_in_order(text, heard):
    heard_pieces = sorted(
        (Piece(word, start, start + length) for word, start, length in heard), key=lambda p: p.start_s
    )
    pieces = align(text, heard_pieces)
    assert join(piece.text for piece in pieces) == " ".join(text.split())
    marks = [piece.start_s for piece in pieces], [piece.end_s for piece in pieces]
    assert all(list(times) == sorted(times) for times in marks)
    assert all(0 <= piece.start_s <= piece.end_s <= 53 and 0 <= piece.confidence <= 1 for piece in pieces)
    if not heard_pieces:
        assert all(piece.confidence == 0 for piece in pieces)


@pytest.mark.parametrize("known_speech", [True, False])
def test_perfect_recognition_gives_the_right_times_with_confidence_one(known_speech):
    text = sentences(random.Random(1), 40)
    heard, spans = speak(text)
    pieces = align("\n".join(text), heard, spans if known_speech else ())
    assert [piece.confidence for piece in pieces] == [1.0] * len(heard)
    assert [(p.start_s, p.end_s) for p in pieces] == [(p.start_s, p.end_s) for p in heard]
    assert [piece.text for piece in pieces if piece.ends_sentence] == [sentence.split()[-1] for sentence in text]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wrong", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("known_speech", [True, False])
def test_with_up_to_30_percent_of_words_wrong_95_percent_lie_in_the_right_sentence(seed, wrong, known_speech):
    rng = random.Random(seed)
    text = sentences(rng, 100)
    heard, spans = speak(text)
    pieces = align(" ".join(text), mishear(heard, rng, wrong), spans if known_speech else ())
    assert in_right_span(pieces, text, spans) > 0.95


def test_words_that_were_not_heard_lie_in_speech_and_not_in_the_pause():
    heard, spans = speak(["The river runs slowly.", "Nobody walks past the mill."], pause_s=1.0)
    left = [piece for piece in heard if piece.text not in ("slowly", "nobody")]
    pieces = align("The river runs slowly. Nobody walks past the mill.", left, spans)
    slowly, nobody = pieces[3], pieces[4]
    assert slowly.start_s == pytest.approx(heard[3].start_s) and slowly.end_s == pytest.approx(spans[0].end_s)
    assert nobody.start_s == pytest.approx(spans[1].start_s) and nobody.end_s == pytest.approx(heard[4].end_s)
    assert 0 < slowly.confidence < 0.5


def test_words_that_were_not_heard_share_the_time_by_their_letters():
    heard = [Piece("start", 0.0, 0.3), Piece("finish", 0.9, 1.3)]
    pieces = align("start on Wednesday finish", heard)
    assert pieces[1].start_s == 0.3 and pieces[1].end_s == pytest.approx(0.3 + 0.6 * 2 / 11)
    assert pieces[2].end_s == pytest.approx(0.9)


def test_similar_words_are_placed_with_less_confidence_than_equal_ones():
    heard, _ = speak(["the children throw there stones", "at passing votes"])
    pieces = align("The children throw their stones at passing boats", heard)
    assert [round(p.start_s, 2) for p in pieces] == [round(p.start_s, 2) for p in heard]
    assert 0.5 < pieces[3].confidence < 1 and pieces[4].confidence == 1.0


def test_words_written_apart_or_together_and_numbers_are_the_same_words():
    pytest.importorskip("num2words")
    heard, _ = speak(["check voice mail", "dial twenty two", "at the water front"])
    pieces = align("Check voicemail; dial 22 at the waterfront.", heard)
    assert [piece.confidence for piece in pieces] == [1.0] * 7
    assert pieces[1].start_s == heard[1].start_s and pieces[1].end_s == heard[2].end_s
    together = align("Check voice mail!", [Piece("check", 0, 0.5), Piece("voicemail", 0.5, 1.4)])
    assert [piece.confidence for piece in together] == [1.0] * 3 and together[2].end_s == 1.4


def test_chinese_is_aligned_by_character_and_joins_without_spaces():
    heard = [Piece("今天", 0.0, 0.5), Piece("天气", 0.5, 1.0), Piece("很", 1.0, 1.2), Piece("好", 1.2, 1.5)]
    pieces = align(
        "今天天气很好。我们走吧。", [*heard, Piece("我们", 2.0, 2.4), Piece("走吧", 2.4, 2.9)], language="zh"
    )
    assert [piece.confidence for piece in pieces] == [1.0] * 10
    assert clip_text(pieces, 0.0, 1.7) == ("今天天气很好。", 1.0, None)
    assert clip_text(pieces, 1.7, 3.0) == ("我们走吧。", 1.0, None)


# Several readings.


def ways(word: str, language: str | None = "en") -> set[str]:
    """All that can be said for a word."""
    slots = readings_of([word], language)[0]
    return {" ".join(part for reading in said for part in reading) for said in product(*slots)}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("500", "five hundred"), ("500,", "five zero zero"), ("500", "five oh oh"), ("505", "five oh five"),
        ("1234", "twelve thirty four"), ("1234.", "one two three four"), ("1234", "one thousand two hundred thirty four"),
        ("8500", "eighty five hundred"), ("911", "nine eleven"), ("2010", "twenty ten"), ("2010", "two thousand ten"),
        ("1,234", "one thousand two hundred and thirty four"), ("3.14", "three point one four"), ("007", "oh oh seven"),
        ("1990s", "nineteen nineties"), ("3:30", "three thirty"), ("24/7", "twenty four seven"),
        ("1-800-555-1234", "one eight hundred five five five twelve thirty four"), ("(5)", "five"),
        ("PBX.", "p b x"), ("PBX", "pbx"), ("PCs", "p cs"), ("IAX2", "i a x two"), ("U.S.A.", "u s a"), ("USB's", "u s bs"),
        ("www.asterisk.org.", "w w w dot asterisk dot org"), ("www.asterisk.org", "www asterisk org"),
        ("joe_1@example.com", "joe underscore one at example dot com"),
    ],
)  # fmt: skip
def test_numbers_spelled_words_and_addresses_can_be_said_in_several_ways(word, said):
    pytest.importorskip("num2words")
    assert said in ways(word)


@pytest.mark.parametrize(
    "word", ["Hello", "I", "Inter-Asterisk", "22nd", "$5", "50%", "don't", "e.g.", "wait...what", "—", "5", "Ab" * 30]
)
def test_other_words_have_one_reading(word):
    assert not is_ambiguous(readings_of([word])[0]) and usual(readings_of([word])[0]) == spoken_words(word)


def test_days_after_a_month_can_be_ordinals_and_other_numbers_cannot():
    pytest.importorskip("num2words")
    _, day, _, count = readings_of(["July", "4,", "press", "4"])
    assert day == ((("four",), ("fourth",), ("the", "fourth")),) and count == ((("four",),),)


def test_a_text_in_capitals_throughout_has_no_spelled_words():
    text = [word.upper() for word in VOCABULARY]
    assert not any(map(is_ambiguous, readings_of(text)))
    assert sum(map(is_ambiguous, readings_of([*VOCABULARY, "PBX", *VOCABULARY]))) == 1


def test_in_other_languages_numbers_are_cardinals_or_digits_and_nothing_english():
    pytest.importorskip("num2words")
    assert ways("500", "de") == {"fünfhundert", "fünf null null"}
    assert ways("PBX", "de") == {"pbx", "p b x"} and ways("x.de", "de") == {"x de"}


@given(st.text(st.sampled_from("019.,:/-@_sABxW$'’ßü你٣ ½"), max_size=50) | st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_the_usual_reading_is_how_the_word_is_said_and_the_others_have_words_too(text):
    for language in ("en", "de", None):
        for word, slots in zip(words_of(text), readings_of(words_of(text), language)):
            assert usual(slots) == spoken_words(word, language)
            assert all(slot and len(set(slot)) == len(slot) for slot in slots)
            assert all(token and not token.isspace() for slot in slots for reading in slot for token in reading)


@given(st.lists(st.sampled_from(["500", "1234", "PBX", "2010", "IAX2", "old", "www.x1.org"]), max_size=5), st.randoms())
@settings(max_examples=200, deadline=None)
def test_the_readings_that_were_said_are_chosen(words, rng):
    pytest.importorskip("num2words")
    slots = [slot for part in readings_of(words) for slot in part]
    said = [token for slot in slots for token in rng.choice(slot)]
    chosen = best_readings(slots, said)
    assert all(reading in slot for reading, slot in zip(chosen, slots))
    assert [token for reading in chosen for token in reading] == said


@given(st.lists(st.sampled_from("five zero hundred bee see axe the".split()), max_size=6))  # noqa: SIM905
@settings(max_examples=100, deadline=None)
def test_no_other_readings_are_more_like_what_was_heard(heard):
    slots = [slot for part in readings_of(["500", "BC", "50"]) for slot in part]

    def score(tokens: tuple[str, ...]) -> float:
        table = np.zeros((len(tokens) + 1, len(heard) + 1))
        alike = matching.similarity(tokens, heard) if heard else np.zeros((len(tokens), 0))
        for (w, h), _ in np.ndenumerate(table):
            options = [table[w - 1, h] - 0.25] if w else []
            options += [table[w, h - 1] - 0.25] if h else []
            options += [table[w - 1, h - 1] + alike[w - 1, h - 1] - 0.55] if w and h else []
            table[w, h] = max(options, default=0.0)
        return table[-1, -1]

    def joined(said) -> tuple[str, ...]:
        return tuple(token for reading in said for token in reading)

    if heard:
        best = max(score(joined(said)) for said in product(*slots))
        assert score(joined(best_readings(slots, heard))) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("You can dial 500 to attempt it.", "you can dial five zero zero to attempt it"),
        ("You can dial 500 to attempt it.", "you can dial five oh oh to attempt it"),
        ("Its extension 1234 is at 8500 now.", "its extension one two three four is at eighty five hundred now"),
        ("Please visit www.asterisk.org.", "please visit w. w. w. dot asterisk dot org"),
        ("Like a normal PBX you will navigate the PBX.", "like a normal p. b. x. you will navigate the p. b. x."),
        ("Call 1-800-555-1234 today.", "call one eight hundred five five five twelve thirty four today"),
        ("In May 5 of 12 came.", "in may fifth of twelve came"),
    ],
)
def test_a_word_said_in_another_way_spans_all_its_sounds_and_is_sure(text, said):
    pytest.importorskip("num2words")
    heard, spans = speak([said])
    pieces = align(text, heard, spans)
    assert [piece.confidence for piece in pieces] == [1.0] * len(pieces)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in zip(pieces, pieces[1:]))
    assert pieces[-1].end_s == pytest.approx(heard[-1].end_s)
    assert clip_text(pieces, 0.0, 60.0, heard) == (text, 1.0, None)


def test_letters_heard_as_the_words_that_sound_like_them_are_the_spelled_word():
    heard, spans = speak(["the open source pea bee axe is here and you see dee two"])
    pieces = align("The open source PBX is here and UCD2", heard, spans)
    spelled = pieces[3]
    assert (spelled.start_s, spelled.end_s) == (heard[3].start_s, heard[5].end_s) and spelled.confidence > 0.5
    assert clip_text(pieces, 0.0, 60.0, heard)[2] is None


@pytest.mark.parametrize("said", ["six nine three", "excuse me please sorry about that", "the children"])
def test_a_number_that_was_not_said_is_not_sure(said):
    heard, spans = speak([f"you can dial {said} to attempt it"])
    pieces = align("You can dial 500 to attempt it", heard, spans)
    assert pieces[3].confidence < 0.3 and all(piece.confidence == 1.0 for piece in pieces[:3] + pieces[4:])


def test_single_letters_of_the_text_are_not_mistaken_for_those_of_a_spelled_word():
    heard, spans = speak(["aitch three two three", "m. j. c. people", "am i s. p. n.", "blue tooth"])
    pieces = align("H.323 MGCP M I S D N Bluetooth", heard, spans)
    places = [clip_text(pieces, span.start_s - 0.3, span.end_s + 0.3)[0] for span in spans]
    assert places == ["H.323", "MGCP", "M I S D N", "Bluetooth"]


# What is not in both.


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_a_paragraph_that_is_not_spoken_is_found_and_not_given_to_a_clip(wrong):
    rng = random.Random(5)
    text = sentences(rng, 30)
    heard, spans = speak(text)
    title = "Chapter seven, in which our travellers finally reach Constantinople. Footnote: see the appendix."
    pieces = align(" ".join([*text[:15], title, *text[15:]]), mishear(heard, rng, wrong), spans)
    first = len(" ".join(text[:15]).split())
    unspoken = pieces[first : first + len(title.split())]
    assert np.mean([piece.confidence for piece in unspoken]) < 0.1
    assert all(spans[14].start_s <= piece.start_s <= piece.end_s <= spans[15].end_s for piece in unspoken)
    assert in_right_span(pieces[:first] + pieces[first + len(unspoken) :], text, spans) > 0.95
    if not wrong:
        assert clip_text(pieces, spans[14].start_s - 0.3, spans[14].end_s + 0.3, heard) == (text[14], 1.0, None)


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_speech_that_is_not_in_the_text_stays_without_words(wrong):
    rng = random.Random(6)
    said = sentences(rng, 30)
    said[10] = "Sorry, someone rang my doorbell, let me begin this again."
    heard, spans = speak(said)
    noisy = mishear(heard, rng, wrong)
    written = said[:10] + said[11:]
    pieces = align(" ".join(written), noisy, spans)
    assert in_right_span(pieces, written, spans[:10] + spans[11:]) > 0.95
    text, _, reason = clip_text(pieces, spans[10].start_s - 0.3, spans[10].end_s + 0.3, noisy)
    assert reason is not None
    if not wrong:
        assert text == "" and reason == "no words: speech that the text does not have"


@pytest.mark.parametrize("wrong", [0.0, 0.2])
def test_of_a_sentence_spoken_twice_one_take_gets_the_words_and_the_other_none(wrong):
    rng = random.Random(9)
    written = sentences(rng, 20)
    said = [*written[:11], written[10], *written[11:]]
    heard, spans = speak(said)
    pieces = align(" ".join(written), mishear(heard, rng, wrong), spans)
    takes = [clip_text(pieces, span.start_s - 0.3, span.end_s + 0.3)[0] for span in spans[10:12]]
    assert sorted(takes) == ["", written[10]]


def test_an_aside_inside_a_clip_is_a_reason_to_leave_it_out():
    heard, spans = speak(["The old mill excuse me please has worked since spring."])
    pieces = align("The old mill has worked since spring.", heard, spans)
    text, _, reason = clip_text(pieces, 0.0, spans[0].end_s + 1, heard)
    assert text == "The old mill has worked since spring."
    assert reason is not None and reason.startswith(
        'speech that the text does not have: "excuse me please" was heard at'
    )


def test_a_clip_with_most_words_unheard_is_uncertain():
    heard, spans = speak(["children throw stones", "the old mill"])
    pieces = align("Purple elephants juggle bananas. The old mill.", heard, spans)
    _, confidence, reason = clip_text(pieces, 0.0, spans[0].end_s + 0.3, heard)
    assert reason == "text uncertain: 4 of 4 words were not heard as written" and confidence < 0.5
    assert clip_text(pieces, spans[1].start_s - 0.3, 99.0, heard) == ("The old mill.", 1.0, None)


def test_a_doubtful_first_or_last_word_is_named():
    sure = [Piece(word, number, number + 0.9) for number, word in enumerate(["the", "old", "mill", "has", "worked"])]
    doubtful = sure[0]._replace(confidence=0.05)
    assert clip_text([doubtful, *sure[1:]], 0, 9)[2] == 'text uncertain at the start: "the" was not heard'
    doubtful = sure[4]._replace(confidence=0.05)
    _, confidence, reason = clip_text([*sure[:4], doubtful], 0, 9)
    assert reason == 'text uncertain at the end: "worked" was not heard' and confidence < 0.8


def test_subtitles_are_taken_whole_by_their_middle():
    cues = [Piece("Good evening, everyone.", 0.5, 2.0), Piece("Welcome back.", 2.4, 3.4), Piece("♪", 3.5, 4.0)]
    assert clip_text(cues, 0.0, 2.2) == ("Good evening, everyone.", 1.0, None)
    assert clip_text(cues, 2.2, 9.0) == ("Welcome back. ♪", 1.0, None)
    assert clip_text(cues, 3.45, 9.0)[2] == "no words: speech that the text does not have"


# Hours.


def test_three_hours_of_words_with_a_quarter_wrong_are_aligned():
    rng = random.Random(7)
    words = [f"{a}{b}" for a in VOCABULARY for b in ("", "s", "ing", "er")]
    text = [" ".join(rng.choices(words, k=10)) + "." for _ in range(3000)]
    heard, spans = speak(text)
    pieces = align("\n".join(text), mishear(heard, rng, 0.25), spans)
    assert in_right_span(pieces, text, spans) > 0.98


def test_a_text_of_another_recording_gets_no_confidence():
    rng = random.Random(8)
    heard, spans = speak(sentences(rng, 500))
    pieces = align(" ".join(f"word{rng.randrange(999)}x" for _ in range(6000)), heard, spans)
    assert max(piece.confidence for piece in pieces) < 0.7
    assert np.mean([piece.confidence for piece in pieces]) < 0.1


# The search for anchors.


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 3)), max_size=8, unique=True))
@settings(max_examples=300, deadline=None)
def test_the_heaviest_chain_of_anchors_is_found(runs):
    runs = sorted(runs)

    def heaviest(at_w: int, at_h: int) -> int:
        return max((n + heaviest(w + n, h + n) for w, h, n in runs if w >= at_w and h >= at_h), default=0)

    chain = matching._heaviest_chain(runs)
    assert sum(count for _, _, count in chain) == heaviest(0, 0)
    assert all(a[0] + a[2] <= b[0] and a[1] + a[2] <= b[1] for a, b in zip(chain, chain[1:]))


@given(st.lists(st.sampled_from("abcd"), max_size=7), st.lists(st.sampled_from("abcd"), max_size=7))
@settings(max_examples=200, deadline=None)
def test_the_table_finds_the_best_path(written, heard):
    written, heard = [w * 3 for w in written], [w * 3 for w in heard]
    if not written or not heard:
        return
    alike = matching.similarity(written, heard)

    def best(w: int, h: int, state: str) -> float:
        if w == len(written) and h == len(heard):
            return 0.0
        options = []
        if w < len(written) and h < len(heard):
            options.append(alike[w, h] - matching._PAIR + best(w + 1, h + 1, "pair"))
        if w < len(written):
            options.append(-matching._SKIP - matching._OPEN * (state != "written") + best(w + 1, h, "written"))
        if h < len(heard):
            options.append(-matching._SKIP - matching._OPEN * (state != "heard") + best(w, h + 1, "heard"))
        return max(options)

    path = matching._best_path(alike)
    skipped = [(w1 - w0 - 1, h1 - h0 - 1) for (w0, h0), (w1, h1) in zip([(-1, -1), *path], [*path, alike.shape])]
    score = sum(alike[pair] - matching._PAIR for pair in path)
    score -= sum(matching._SKIP * n + matching._OPEN * (n > 0) for pair in skipped for n in pair)
    assert score == pytest.approx(best(0, 0, "pair"), abs=1e-4)


# Real speech.


def check_recording(recording, pieces, heard):
    """What the feature must show: issue 4 asks for 90 % of words in the clip that speaks them."""
    assert share_in_right_clip(recording, pieces) > 0.97
    kept = []
    for clip, start_s, end_s in zip(recording.clips, [0.0, *recording.cuts], [*recording.cuts, 1e9]):
        text, _, reason = clip_text(pieces, start_s, end_s, heard)
        if reason is None:
            kept.append(text == clip.text)
    assert len(kept) >= 0.85 * len(recording.clips)  # measured 42 of 45
    assert np.mean(kept) >= 0.97  # measured 1.0


def test_joined_clips_get_their_own_words_from_what_pocketsphinx_heard():
    recording = long_recording()
    heard, speech = stored_hearing()
    pieces = align(recording.text, heard, speech)
    assert [piece.text for piece in pieces] == recording.text.split() and len(words_by_clip(recording)) == len(pieces)
    check_recording(recording, pieces, heard)


def test_the_stored_hearing_belongs_to_this_recording():
    recording = long_recording()
    heard, speech = stored_hearing()
    assert speech[-1].end_s <= len(recording.samples) / recording.sample_rate
    inside = [recording.clips[0].start_s, *accumulate((clip.end_s for clip in recording.clips), max)]
    assert inside[0] - 0.2 <= heard[0].start_s and heard[-1].end_s <= inside[-1] + 0.2


@pytest.mark.slow
def test_joined_clips_get_their_own_words_with_pocketsphinx_itself():
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("silero_vad")
    recording = long_recording()
    speech = find_speech(recording)
    heard = hear(recording, speech)
    check_recording(recording, align(recording.text, heard, speech), heard)
