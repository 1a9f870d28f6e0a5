"""Merges are learned inside words only, in an order that texts alone decide."""

from collections import Counter

from fish_speech.text import Tokenizer
from fish_speech.text.byte_pairs import count_words, learn_ranks
from fish_speech.text.tokenizer import SPLIT_PATTERN, ranks_text


def test_words_are_cut_as_the_tokenizer_cuts_them_and_lose_nothing():
    text = "I've 12 cats, isn't it?\nYes: naïve  ones!"
    words = count_words([text])
    assert words[b" cats"] == words[b"1"] == words[b"'ve"] == 1
    assert sum(map(len, words.elements())) == len(text.encode())
    assert "(?i:" in SPLIT_PATTERN


def test_the_commonest_pair_comes_first_and_byte_order_settles_ties():
    ranks = learn_ranks(Counter({b"abab": 2, b"ba": 1, b"xy": 4}), 3)
    assert list(ranks)[256:] == [b"ab", b"xy", b"abab"]
    assert list(ranks.values()) == list(range(259))


def test_learning_ends_where_no_pair_occurs_twice():
    assert len(learn_ranks(Counter({b"abc": 1}), 50)) == 256


def test_a_learned_tokenizer_encodes_whole_words_and_no_token_crosses_their_border(tmp_path):
    texts = ["the cat sat on the mat, the end"] * 3
    (tmp_path / "tokenizer.tiktoken").write_text(ranks_text(learn_ranks(count_words(texts), 100)), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path)
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(texts[0])]
    assert pieces == ["the", " cat", " sat", " on", " the", " mat", ",", " the", " end"]
