"""The corpus grammar: numbers as they are read aloud, and sentences that a seed decides."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tools.minnow_grammar import SLOTS, TEMPLATES, cardinal, expand, grammar_sentences, ordinal
from tools.minnow_text import is_speakable


@pytest.mark.parametrize(
    ("number", "spoken"),
    [
        (0, "zero"),
        (17, "seventeen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (215, "two hundred and fifteen"),
        (1001, "one thousand and one"),
        (89755, "eighty nine thousand seven hundred and fifty five"),
    ],
)
def test_cardinal(number, spoken):
    assert cardinal(number) == spoken


@pytest.mark.parametrize(
    ("number", "spoken"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (23, "twenty third"), (100, "one hundredth")],
)
def test_ordinal(number, spoken):
    assert ordinal(number) == spoken


def test_every_template_and_slot_expands():
    rng = random.Random(0)
    templates = [template for _, group in TEMPLATES.values() for template in group]
    alternatives = [choice for slot in SLOTS.values() if not callable(slot) for choice in slot]
    for template in templates + alternatives:
        assert "}" not in expand(template, rng)
    assert all(template[-1] in ".?!" for template in templates)


def test_a_seed_decides_the_sentences_and_most_are_speakable():
    first, again, other = (list(islice(grammar_sentences(seed), 500)) for seed in (7, 7, 8))
    assert first == again != other
    assert sum(map(is_speakable, first)) > 450
