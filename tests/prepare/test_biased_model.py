"""The language model of a text, for a second pass of pocketsphinx: sound arithmetic, and more words heard right."""

from __future__ import annotations

from itertools import product

import pytest

from fish_speech.prepare.alignment import align
from fish_speech.prepare.biased_model import biased_language_model, general_english

from .long_recordings import hear, long_recording, share_in_right_clip, stored_hearing

DICTIONARY = ["to", "be", "or", "not", "it's", "the", "question", "a"]
TEXT = "To be, or not to be. It's the question! Xyzzy. The question?"


def read_arpa(text: str) -> list[dict[tuple[str, ...], tuple[float, float]]]:
    """Each order's n-grams with probability and backoff weight."""
    orders: list[dict[tuple[str, ...], tuple[float, float]]] = []
    for line in text.splitlines():
        if line.endswith("-grams:"):
            orders.append({})
        elif orders and line and not line.startswith("\\"):
            fields, size = line.split(), len(orders)
            weight = float(fields[size + 1]) if len(fields) > size + 1 else 0.0
            orders[-1][tuple(fields[1 : size + 1])] = (10 ** float(fields[0]), 10**weight)
    return orders


def probability(orders, gram: tuple[str, ...]) -> float:
    if gram in orders[len(gram) - 1]:
        return orders[len(gram) - 1][gram][0]
    _, weight = orders[len(gram) - 2].get(gram[:-1], (0.0, 1.0))
    return weight * probability(orders, gram[1:])


DIGITS = ["dial", "five", "zero", "oh", "hundred", "or", "p", "b", "x", "now"]


@pytest.mark.parametrize("background", [{}, {"a": 0.04, "the": 0.05, "unknown": 0.1}])
@pytest.mark.parametrize(("text", "dictionary"), [(TEXT, DICTIONARY), ("Dial 500, or PBX now. Dial 50.", DIGITS)])
def test_probabilities_sum_to_one_after_every_history(text, dictionary, background):
    orders = read_arpa(biased_language_model(text, dictionary, background))
    words = [gram[0] for gram in orders[0] if gram != ("<s>",)]
    for size in (0, 1, 2):
        for history in product([*words, "<s>"], repeat=size):
            assert sum(probability(orders, (*history, word)) for word in words) == pytest.approx(
                1, abs=2e-3
            )  # 4 decimals


def test_the_header_counts_the_n_grams_and_every_n_gram_has_its_beginning():
    arpa = biased_language_model(TEXT, DICTIONARY, {"a": 0.04})
    orders = read_arpa(arpa)
    assert [f"ngram {size}={len(order)}" for size, order in enumerate(orders, start=1)] == arpa.splitlines()[1:4]
    assert all(gram[:-1] in orders[size] for size in (0, 1) for gram in orders[size + 1])


def test_words_that_the_dictionary_lacks_are_skipped_and_the_texts_order_is_expected():
    orders = read_arpa(biased_language_model(TEXT, DICTIONARY, {"a": 0.04}))
    assert ("xyzzy",) not in orders[0] and ("it's", "the", "question") in orders[2]
    assert probability(orders, ("not", "to", "be")) > 0.4 > 0.05 > probability(orders, ("not", "to", "question"))
    assert probability(orders, ("not", "to", "a")) > 0
    with pytest.raises(ValueError, match="knows no word"):
        biased_language_model("Xyzzy!", DICTIONARY, {})


def test_each_reading_of_a_number_or_a_spelled_word_is_expected_in_its_place():
    pytest.importorskip("num2words")
    orders = read_arpa(biased_language_model("Dial 500 or PBX now.", DIGITS, {}))
    for said in ("dial five hundred or", "dial five zero zero or", "dial five oh oh or", "or p b x now"):
        words = said.split()
        assert all(gram in orders[2] for gram in zip(words, words[1:], words[2:]))
    assert ("dial", "five") in orders[1] and ("dial", "or") not in orders[1] and ("or", "now") not in orders[1]
    assert ("hundred", "zero") not in orders[1]


def test_a_reading_with_a_word_that_the_dictionary_lacks_is_not_expected_unless_there_is_no_other():
    pytest.importorskip("num2words")
    orders = read_arpa(biased_language_model("Dial 500 now.", ["dial", "five", "hundred", "now"], {}))
    assert ("five", "hundred", "now") in orders[2] and ("five", "now") not in orders[1]
    orders = read_arpa(biased_language_model("Dial 500 now.", ["dial", "five", "now"], {}))
    assert ("dial", "five", "now") in orders[2]


def test_general_english_has_probabilities_of_frequent_words():
    pytest.importorskip("pocketsphinx")
    words, frequent = general_english()
    assert len(words) > 100_000 and len(frequent) == 5000 and words.issuperset(frequent)
    assert 0.5 < sum(frequent.values()) < 1 and max(frequent, key=frequent.__getitem__) == "the"


@pytest.mark.slow
def test_pocketsphinx_hears_more_of_the_words_with_the_texts_model(tmp_path):
    pytest.importorskip("pocketsphinx")
    recording = long_recording()
    before, speech = stored_hearing()
    model = tmp_path / "text.arpa"
    model.write_text(biased_language_model(recording.text, *general_english()), encoding="utf-8")
    after = hear(recording, speech, lm=str(model))

    def heard_as_written(heard) -> float:
        pieces = align(recording.text, heard, speech)
        assert share_in_right_clip(recording, pieces) > 0.97
        return sum(piece.confidence > 0.99 for piece in pieces) / len(pieces)

    assert heard_as_written(before) < 0.9 and heard_as_written(after) > 0.95  # measured 0.874 and 0.985
