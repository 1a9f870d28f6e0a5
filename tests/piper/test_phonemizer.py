"""Phonemes of texts, exactly as the Piper client makes them."""

from __future__ import annotations

import random
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.errors import UserError
from piper_train.phonemes.clauses import Clause, clusters_of, merge_clusters, sentences_of, split_raw
from piper_train.phonemes.ids import default_table, ids_of_sentence
from piper_train.phonemes.phonemizer import open_phonemizer

from .phoneme_sources import ask_client, asking, needs_piper

_EN = "Hello world the quick I say no fire Dr. U.S.A. 3.14 $42.50 1999 what don't é naïve garçon Привет"
_RU = "Привет мир это проверка 2024 году щенок ёж hello и ушёл т.д. № 3,5 кг"
_TEXTS = {"en-us": _EN, "ru": _RU, "de": "Straße schön ich bin 5. Tag z.B. Übung", "ar": "مرحبا بالعالم هذا اختبار 5"}
WORDS = {voice: text.split() for voice, text in _TEXTS.items()}
CLUSTERS = {"en-us": [["a", "ɪ"], ["o", "ʊ"], ["a", "ɪ", "ə"]]}
PHONEMES = ["hɛ é. b", "[[a]] ʊ", "a\nb", " "]
BETWEEN = [*" " * 8, ". ", ", ", "? ", "! ", "... ", "…", " — ", "; ", ": ", "\n", "\n\n", "(", ") ", '"', "» ", " «"]
BETWEEN += [" [[ tɛst ç ]] ", "[[a]]", "[[ ]]", " [[ b. ]]", "[[c ]] ", "\t[[d]]\t", "(en)", "[[", "]]", "-", "\u00a0"]


def random_texts(voice, count=80):
    """Texts with every kind of punctuation, brackets, numbers and foreign words."""
    rng = random.Random(8)
    sizes = [rng.randint(0, 7) for _ in range(count)]
    return ["".join(rng.choice(WORDS[voice]) + rng.choice(BETWEEN) for _ in range(size)) for size in sizes]


@needs_piper
@pytest.mark.parametrize("voice", ["en-us", "ru"])
def test_golden_texts_get_the_golden_phonemes_and_ids(voice, piper_golden):
    rows = [row for row in piper_golden("phonemize.json") if row["voice"] == voice]
    assert len(rows) == {"en-us": 9, "ru": 6}[voice]
    with open_phonemizer("espeak", voice, source="piper") as phonemizer:
        assert phonemizer.exact and phonemizer.source.startswith("piper-tts ")
        answers = list(phonemizer.many(row["text"] for row in rows))
    assert [["".join(sentence) for sentence in sentences] for sentences in answers] == [r["sentences"] for r in rows]
    assert [[len(sentence) for sentence in sentences] for sentences in answers] == [r["n_phonemes"] for r in rows]
    table = default_table()
    assert [[ids_of_sentence(s, table) for s in sentences] for sentences in answers] == [r["ids"] for r in rows]


@pytest.fixture(scope="module")
def clients_answers():
    """What the client makes of random texts in each language, and of texts that hold phonemes."""
    questions = [asking(random_texts(voice), voice, CLUSTERS.get(voice)) for voice in WORDS]
    *spoken, plain = ask_client(*questions, asking(PHONEMES, "en-us", kind="text"))
    return {**dict(zip(WORDS, spoken)), "text": plain}


@needs_piper
@pytest.mark.parametrize("voice", WORDS)
def test_any_text_gets_what_the_piper_client_itself_makes_of_it(voice, clients_answers):
    texts = random_texts(voice)
    with open_phonemizer("espeak", voice, CLUSTERS.get(voice), "piper") as phonemizer:
        answers = list(phonemizer.many(texts))
    table = default_table()
    for text, own, (theirs, ids) in zip(texts, answers, clients_answers[voice]):
        assert own == (theirs or [[]]), text  # it has no sentence where we have an empty one
        assert [ids_of_sentence(sentence, table) for sentence in own if theirs] == ids, text


@needs_piper
def test_texts_that_are_phonemes_are_taken_as_the_client_takes_them(clients_answers):
    with open_phonemizer("text") as phonemizer:
        assert phonemizer.exact and phonemizer.source == "text"
        assert list(phonemizer.many(PHONEMES)) == [sentences for sentences, _ in clients_answers["text"]]


@needs_piper
def test_answers_do_not_depend_on_order_batches_or_threads():
    texts = random_texts("ru", 300)
    with open_phonemizer("espeak", "ru", source="piper") as phonemizer:
        answers = list(phonemizer.many(texts))
        assert [phonemizer.sentences(text) for text in reversed(texts)] == answers[::-1]
        parts: dict[int, list] = {}

        def work(part):
            parts[part] = list(phonemizer.many(texts[part::4]))

        threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [parts[part] for part in range(4)] == [answers[part::4] for part in range(4)]


@needs_piper
def test_what_c_text_cannot_hold_or_would_command_espeak_becomes_a_space():
    with open_phonemizer("espeak", "en-us", source="piper") as phonemizer:
        plain = phonemizer.sentences("one two. Three")
        assert phonemizer.sentences("one\0two. Three") == plain
        assert phonemizer.sentences("one\x01two. Three") == plain
        assert phonemizer.sentences("one \ud800 two")[0] != []
        assert phonemizer.sentences("one two. Three") == plain


@needs_piper
def test_a_text_of_a_hundred_thousand_characters_is_spoken_whole():
    with open_phonemizer("espeak", "ru", source="piper") as phonemizer:
        sentences = phonemizer.sentences("Привет, мир. " * 8000)
    assert len(sentences) == 8000
    assert {"".join(sentence) for sentence in sentences} == {"prʲivʲˈet, mʲˈir."}


@needs_piper
def test_a_text_on_which_espeak_falls_over_is_named_and_the_next_is_spoken():
    with open_phonemizer("espeak", "en-us", source="piper") as phonemizer:
        text = "e.g. " * 3000  # the espeak-ng of piper-tts 1.8.0 overruns its memory, and mostly dies of it
        try:
            (sentence,) = phonemizer.sentences(text)
        except UserError as error:
            assert "no phonemes of the text 'e.g. e.g." in error.what and "its worker process ended" in error.why
        else:
            assert sentence
        assert "".join(phonemizer.sentences("say")[0]) == "sˈeɪ"


def test_brackets_that_never_close_take_no_longer_than_text():
    text = "[[ " * 300_000  # minutes, if each looked for its end through the whole text
    assert split_raw(text) == [text]


@given(st.text(alphabet="[]a \n", max_size=20))
def test_raw_phonemes_are_cut_out_as_the_clients_pattern_does(text):
    assert split_raw(text) == re.split(r"(\[\[.*?\]\])", text)
    assert "".join(split_raw(text)) == text


def test_clauses_become_sentences_with_their_punctuation_and_without_language_marks():
    clauses = [Clause("a(en)b(ru)", ",", False), Clause("ç", "!", True), Clause("d", "", False)]
    assert sentences_of(clauses) == [["a", "b", ",", " ", "c", "\u0327", "!"], ["d"]]


@given(st.lists(st.sampled_from("aɪəoʊb"), max_size=12))
def test_clusters_join_the_longest_run_and_lose_nothing(phonemes):
    clusters = clusters_of('[["a", "ɪ"], ["a", "ɪ", "ə"], ["o", "ʊ"]]')
    merged = merge_clusters(phonemes, clusters)
    assert "".join(merged) == "".join(phonemes)
    assert merged == re.findall("aɪə|aɪ|oʊ|.", "".join(phonemes))


@pytest.mark.parametrize("value", ["[[", "5", '{"a": 1}', '[["a"]]', '["aɪ"]', [["a", 1]], [["a", ""]], 7, "[" * 9999])
def test_clusters_that_are_none_are_refused(value):
    with pytest.raises(UserError, match="vowel"):
        open_phonemizer("espeak", "ru", value)


@pytest.mark.parametrize("kind", ["pinyin", "hebrew", "japanese", "thai"])
def test_a_phoneme_type_that_needs_more_says_what_to_use_instead(kind):
    with pytest.raises(UserError, match="dataset_type phoneme_ids"):
        open_phonemizer(kind, "ru")


def test_an_unknown_phoneme_type_or_source_names_the_known_ones():
    with pytest.raises(UserError, match="espeak, text"):
        open_phonemizer("ipa", "ru")
    with pytest.raises(UserError, match="auto, piper, espeak-ng"):
        open_phonemizer("espeak", "ru", source="phonemizer")
