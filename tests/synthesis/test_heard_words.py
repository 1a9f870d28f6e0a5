"""Words compared in several languages; hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.synthesis.heard_words import compare_words

WORDS = "lighthouse banana quickly seven orange umbrella kitchen mountain river silver table window".split()  # noqa: SIM905
NEW = "xylophone pterodactyl zygote jukebox".split()  # noqa: SIM905


@pytest.mark.parametrize(
    ("text", "heard", "language"),
    [
        ("Dr. Who's 22 dogs -- don't bark!", "dr whos twenty two dogs do not bark", "en"),
        ("Don't, I'm leaving.", "do not i am leaving", "en"),
        ("It was 1984; call 500 at 3:30.", "It was nineteen eighty four call five oh oh at three thirty", "en"),
        ("It cost $25.50, i.e. 10% more.", "it cost twenty five dollars and fifty cents i e ten percent more", "en"),
        ("It cost $25.50, i.e. 10% more.", "it cost twenty five point five zero dollars i e ten percent more", "en"),
        ("At 3:30 on 1/2/2024.", "at half past three on the second of january twenty twenty four", "en"),
        ("Dr. Smith, e.g., ran 5 km at 20°C.", "doctor smith for example ran five kilometers at twenty degrees", "en"),
        ("The PBX of the FBI", "the p b x of the f b i", "en"),
        ("Check your voicemail.", "check your voice mail", "en"),
        ("Check your voice mail.", "check your voicemail", "en"),
        ("Twenty-two dogs", "22 dogs", "en"),
        ("Die Straßenbahnhaltestelle, 42 Züge!", "die straßenbahn haltestelle zweiundvierzig züge", "de"),
        ("L'été, c'est fini.", "l'été c'est fini", "fr"),
        ("人人生而自由，在尊严上一律平等。", "人人生而自由在尊严上一律平等", "zh"),
        ("すべてのにんげんは、うまれながら。", "すべての にんげんは うまれながら", "ja"),
        ("Все люди рождаются свободными.", "все люди рождаются свободными", "ru"),
        ("Её мёд.", "ее мед", "ru"),
        ("يُولَدُ جَمِيعُ النَّاسِ", "يولد جميع الناس", "ar"),
        ("يولد جميع الناس أحرارا.", "يولد جميع الناس أحرارا", "ar"),
        ("มนุษย์ทั้งหลาย", "มนุษย์ ทั้งหลาย", "th"),
        ("모든 인간은 태어날 때부터 자유롭다.", "모든 인간은 태어날 때부터 자유롭다", "ko"),
    ],
)
def test_the_same_words_in_another_spelling_are_no_errors(text, heard, language):
    found = compare_words(text, heard, language)
    assert (found.errors, found.missing, found.added, found.misheard) == (0, (), (), ())


def test_what_is_missing_added_and_misheard_is_named():
    found = compare_words("press one for sales or two for help", "press one sales or too for more help")
    assert found.missing == ("for",) and found.added == ("more",) and found.misheard == (("two", "too"),)
    assert 2 < found.errors < 3
    assert str(found) == (
        "heard: press one sales or too for more help; missing: for; added: more; misheard: two as too"
    )


def test_nothing_heard_misses_everything():
    found = compare_words("three small words", "")
    assert found.errors == found.unsaid_end == 3 and found.missing == ("three", "small", "words")
    assert str(found).startswith("heard: nothing; missing: three small words")


def test_a_missing_end_is_told_from_a_missing_middle():
    text = "please enter your number followed by the pound key"
    assert compare_words(text, "please enter your number followed by the").unsaid_end == 2
    assert compare_words(text, "please enter your number the pound key").unsaid_end == 0
    assert compare_words(text, "please enter your number followed by the panic").unsaid_end == 0


def test_repeated_words_are_told_from_other_additions():
    text = "please enter your number now"
    assert compare_words(text, "please enter your enter your number now").repeated == 2
    assert compare_words(text, "please enter your number now now now").repeated == 2
    assert compare_words(text, "please enter enter your number now").repeated == 1
    assert compare_words(text, f"{text} number now number now number now").repeated == 6
    assert compare_words(text, "please enter your new number now").repeated == 0
    assert compare_words("it was very very good", "it was very very good").repeated == 0


def test_a_sum_may_be_read_in_any_way_but_not_left_out():
    assert compare_words("it costs $25.50", "it costs twenty five fifty").errors == 0
    assert compare_words("it costs $25.50", "it costs").unsaid_end == 5


def test_a_missing_chinese_character_is_one_error():
    found = compare_words("他们赋有理性和良心。", "他们有理性和良", "zh")
    assert found.missing == ("赋", "心") and found.errors == 2 and found.unsaid_end == 1


def test_a_word_that_the_recogniser_cannot_know_is_no_error():
    text, heard = "the digium server is down", "the did she um server is down"
    known = {"the", "server", "is", "down"}
    assert compare_words(text, heard, "en", known).errors == 0
    assert compare_words(text, heard, "en").errors > 0.5
    assert compare_words(text, "the server is down", "en", known).missing == ("digium",)
    assert compare_words(text, "the did she um pink elephant server is down", "en", known).errors == 2


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "22", "1,234", "NASA", "don't", "Mr.", "%", "時代", "--"]), max_size=12))
def test_a_perfect_transcript_has_no_errors(words):
    text = " ".join(words)
    found = compare_words(text, text)
    assert found.errors == 0 and not (found.missing or found.added or found.misheard)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["en", "de", "zh", None]))
def test_any_text_equals_itself(text, language):
    assert compare_words(text, text, language).errors == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10), st.integers(1, 4), st.data())
def test_each_added_word_is_an_error(words, count, data):
    at = data.draw(st.integers(0, len(words)))
    found = compare_words(" ".join(words), " ".join([*words[:at], *NEW[:count], *words[at:]]))
    assert found.errors == count and list(found.added) == NEW[:count]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=10), st.data())
def test_each_missing_word_is_an_error(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(first + 1, len(words)))
    found = compare_words(" ".join(words), " ".join(words[:first] + words[end:]))
    assert found.errors == end - first == len(found.missing)
