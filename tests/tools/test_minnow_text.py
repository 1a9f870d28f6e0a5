"""The corpus sentences: what is taken from WordNet, the form they have, and what stays out of training."""

from __future__ import annotations

from itertools import product

import pytest

from tools.minnow_text import HELDOUT_WORDS, _near_twin, is_speakable, make_sentences, tidy_example, words_of


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        ("the train leaves at noon", "The train leaves at noon."),
        ("how far is it to the lake", "How far is it to the lake?"),
        ("where is my hat", "Where is my hat?"),
        ("did you hear that noise", "Did you hear that noise?"),
        ("do your own work", "Do your own work."),
        ("when i came home, he left", "When I came home, he left."),
        ("a well-known song!", "A well known song!"),
        ("don't worry about it", "Don't worry about it."),
        ("the boss's plan b", None),
        ("two words", None),
        ("it cost 100 dollars", None),
        ("Mr Smith came home", None),
        ("he works for the FBI", None),
        ("he said (twice) no", None),
        ("first this; then that", None),
        ("a caf\u00e9 near the lake", None),
        ("he was murdered in his bed", None),
    ],
)
def test_tidy_example(example, sentence):
    assert tidy_example(example) == sentence


def test_words_of_spells_digits_out():
    assert words_of("Press 1, or don't!") == words_of("press one or don't") == ["press", "one", "or", "don't"]


@pytest.fixture
def wordnet(tmp_path):
    """A small WordNet: 40 examples of common words, one with a rare word, one quotation."""
    lines = ["  1 this is the licence"]
    nouns = ("cat", "dog", "bird", "fish", "cow")
    for i, (color, noun) in enumerate(product(("red", "green", "blue", "old"), nouns)):
        lines.append(
            f'{i:08d} 00 n 01 x 0 000 | a gloss; "the {color} {noun} is here"; "my {noun} saw the {color} house"'
        )
    lines.append('00000099 00 n 01 x 0 000 | rare; "the zyzzyva is here"')
    lines += ['00000100 00 n 01 x 0 000 | quoted; "the old dog saw the bird"- A. Poet'] * 9
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    for name in ("verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text("")
    return tmp_path


def test_sentences_are_decided_by_the_seed(wordnet):
    first, again, other = (make_sentences(wordnet, seed, heldout=5) for seed in (7, 7, 8))
    assert (first.train, first.heldout) == (again.train, again.heldout)
    assert first.train != other.train


def test_sentences_obey_the_limits_and_repeat_nothing(wordnet):
    sentences = make_sentences(wordnet, 7, heldout=5)
    everything = sentences.train + sentences.heldout
    assert all(map(is_speakable, everything))
    assert len({tuple(words_of(text)) for text in everything}) == len(everything)
    few, many = HELDOUT_WORDS
    assert len(sentences.heldout) == 5
    assert all(few <= len(text.split()) <= many for text in sentences.heldout)
    text = " ".join(sentences.train)
    assert "zyzzyva" not in text
    assert "saw the bird" not in text


def test_excluded_texts_and_their_sentences_are_left_out(wordnet):
    taken = make_sentences(wordnet, 7, heldout=5).train[:10]
    excluded = [taken[0].upper(), f"Hello. {taken[1]} Goodbye."]
    left = make_sentences(wordnet, 7, heldout=5, excluded=excluded).train
    assert taken[0] not in left
    assert taken[1] not in left


def test_near_twins_share_four_fifths_of_the_words_of_both():
    nine, three = set("abcdefghi"), set("abc")
    assert _near_twin(nine | {"x"}, [set("z"), nine | {"y"}])  # 9 of 11
    assert not _near_twin(three | {"x"}, [three | {"y"}])  # 3 of 5
    assert not _near_twin(nine, [])


def test_no_near_twin_of_a_heldout_sentence_is_trained_on(wordnet):
    sentences = make_sentences(wordnet, 7, heldout=5)
    for held in map(set, map(words_of, sentences.heldout)):
        assert all(len(held & words) < 0.8 * len(held | words) for words in map(set, map(words_of, sentences.train)))
