"""Which attempt is kept, and how many are made. What is heard is given, so that each case is one line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.synthesis.attempts import best_attempt
from fish_speech.synthesis.verify import Attempt, Verifier

TEXT = "one banana two oranges three umbrellas four kitchens"
RATE = 16000
SOUND = (np.linspace(0.3, 0, 3 * RATE) * np.sin(440 * np.arange(3 * RATE) / RATE)).astype(np.float32)


class Speaks:
    """Attempts that are heard as given, each with (missing words, ended)."""

    def __init__(self, *cases: tuple[int, bool], codes_change: bool = True):
        self.cases, self.asked, self.codes_change = cases, [], codes_change

    def __call__(self, number: int) -> Attempt:
        self.asked.append(number)
        columns = np.full((2, 5), number if self.codes_change else 0)
        return Attempt(columns, SOUND, RATE, self.cases[number][1])

    def hear(self, samples: np.ndarray, text: str) -> str:
        missing = self.cases[self.asked[-1]][0]
        return " ".join(text.split()[: len(text.split()) - missing])


def chosen(*cases: tuple[int, bool], codes_change: bool = True):
    speaks = Speaks(*cases, codes_change=codes_change)
    found = best_attempt(speaks, Verifier(speaks.hear, len(cases)), TEXT)
    return found, speaks.asked


def test_the_first_that_passes_ends_it():
    found, asked = chosen((4, True), (0, True), (0, True))
    assert asked == [0, 1] and found.passed and (found.number, found.tried) == (1, 2)


def test_a_good_first_attempt_is_the_only_one():
    found, asked = chosen((0, True), (0, True))
    assert asked == [0] and found.passed and found.tried == 1


@pytest.mark.parametrize(
    ("cases", "number"),
    [
        ([(4, True), (2, True), (3, True)], 1),  # fewest errors
        ([(3, False), (3, True), (3, True)], 1),  # then one that ended
        ([(3, True), (3, True), (3, False)], 0),  # then the earliest
        ([(3, True), (2, False), (4, True)], 1),  # errors before ending
    ],
)
def test_without_one_that_passes_the_best_is_kept(cases, number):
    found, asked = chosen(*cases)
    assert asked == [0, 1, 2] and not found.passed and (found.number, found.tried) == (number, 3)


def test_attempts_that_no_seed_changes_are_not_made_again():
    found, asked = chosen((3, True), (3, True), (3, True), codes_change=False)
    assert asked == [0, 1] and not found.passed and found.number == 0


def test_an_error_while_speaking_reaches_the_caller():
    def speak(number: int) -> Attempt:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        best_attempt(speak, Verifier(None), TEXT)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=5))
def test_what_is_kept_is_never_worse_than_any_that_was_tried(cases):
    found, asked = chosen(*cases)
    tried = [(cases[n] != (0, True), cases[n][0], not cases[n][1], n) for n in asked]
    assert min(tried)[-1] == found.number and found.tried == len(asked)
    assert found.passed == any(case == (0, True) for case in cases)
