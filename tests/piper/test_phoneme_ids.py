"""Tables of phonemes, and ids by them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.errors import UserError
from piper_train.phonemes.ids import (
    default_table,
    describe_missing,
    ids_of,
    ids_of_sentence,
    read_table,
    table_of,
)

SMALL = {"_": [0], "^": [1], "$": [2], "a": [3], "b": [4, 5]}


def test_the_default_table_has_166_phonemes_with_ids_0_to_165():
    table = default_table()
    assert sorted(table.values()) == [(number,) for number in range(166)]
    assert (table["_"], table["^"], table["$"], table[" "], table["oʊ"]) == ((0,), (1,), (2,), (3,), (165,))


@given(st.lists(st.sampled_from(sorted(default_table()))))
def test_n_phonemes_become_2n_plus_3_ids_with_a_pad_behind_each(phonemes):
    ids = ids_of_sentence(phonemes, default_table())
    assert len(ids) == 2 * len(phonemes) + 3
    assert ids[:2] == [1, 0] and ids[-1] == 2
    assert ids[3:-1:2] == [0] * len(phonemes)
    assert ids[2:-1:2] == [default_table()[phoneme][0] for phoneme in phonemes]


def test_a_phoneme_may_have_several_ids_and_gets_one_pad():
    assert ids_of_sentence("ab", table_of(SMALL)) == [1, 0, 3, 0, 4, 5, 0, 2]


def test_each_sentence_keeps_its_begin_and_end():
    assert ids_of(["a", "", "a"], table_of(SMALL)) == [1, 0, 3, 0, 2, 1, 0, 2, 1, 0, 3, 0, 2]


def test_unknown_phonemes_are_left_out_with_their_pad_and_named_by_how_often():
    missing: Counter[str] = Counter()
    assert ids_of(["aQa", "QЖ\u0361"], table_of(SMALL), missing) == [1, 0, 3, 0, 3, 0, 2, 1, 0, 2]
    assert missing == {"Q": 2, "Ж": 1, "\u0361": 1}
    assert describe_missing(missing).startswith("'Q' (U+0051) 2 times, '")
    assert "(U+0361) once" in describe_missing(missing)
    assert describe_missing(missing, most=1).endswith(", and 2 more")
    assert describe_missing(Counter()) == ""


def test_a_table_file_maps_phonemes_to_an_id_or_a_list(tmp_path):
    path = tmp_path / "phonemes.json"
    path.write_text(json.dumps({**SMALL, "ç": 7}, ensure_ascii=False), encoding="utf-8-sig")
    assert read_table(path) == {**{phoneme: tuple(ids) for phoneme, ids in SMALL.items()}, "ç": (7,)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[1, 2]", "not a map"),
        ("{", "Expecting"),
        ('{"_": 0, "^": 1}', r"lacks \$"),
        ('{"_": 0, "^": 1, "$": 2, "a": "3"}', "'a' has '\"3\"'|'a' has '3'"),
        ('{"_": 0, "^": 1, "$": 2, "a": true}', "'a' has 'true'"),
        ('{"_": 0, "^": 1, "$": 2, "a": 1.5}', "'a' has '1.5'"),
        ('{"_": 0, "^": 1, "$": 2, "a": []}', r"'a' has '\[\]'"),
        ('{"_": 0, "^": 1, "$": 2, "a": -1}', "id -1; ids go from 0 to 255"),
        ('{"_": 0, "^": 1, "$": 2, "a": 256}', "id 256; ids go from 0 to 255"),
        ('{"_": 0, "^": 1, "$": 2, "": 3}', "is no phoneme"),
        ('{"_": 0, "^": 1, "$": 2, "a": 3, "a": 4}', "'a' stands in it twice"),
        ("[" * 100_000, "nested too deeply|Expecting|recursion"),
        (b"\xff\xfe\x00", "utf-8"),
        (b" " * 1_000_001, "more than 1 MB"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_reason(tmp_path, content, why):
    path = tmp_path / "phonemes.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=why):
        read_table(path, 256)


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        read_table(tmp_path / "none.json")
