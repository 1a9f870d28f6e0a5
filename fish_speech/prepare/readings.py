"""The ways in which a written word can be said: numbers and spelled words have several.

500 is "five hundred", "five zero zero" or "five oh oh", 1234 "twelve thirty four" and more; PBX is said letter by letter
or as a word, www.asterisk.org with or without its dots. A word is a row of slots, each with its readings, so
that each part is read in its own way: 1-800-555-1234 is "one", "eight hundred", "five five five", "twelve thirty four".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice, product

import numpy as np

from .matching import similarity
from .spoken_words import spells_numbers, spoken_words

Reading = tuple[str, ...]  # words as of `spoken_words`
Slot = tuple[Reading, ...]  # never empty; the first is the usual one

_PARTS = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|\d+|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[^\w\s]+|_+")
_ADDRESS = re.compile(r"\d|\w[.@_/]\w")  # in a word without these, hyphens are not said
_ONE_WAY = re.compile(r"[$€£%&+]|\d(?:st|nd|rd|th)\b", re.IGNORECASE)
_LETTERS = re.compile(r"([^\W\d_]{2,6}?)(['\u2019]?s)?")
_SYMBOLS = {".": "dot", "-": "dash", "/": "slash", "@": "at", "_": "underscore", ":": "colon"}
_MONTHS = frozenset(
    """january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec""".split()  # noqa: SIM905
)
_LONGEST_WORD = 40  # letters; longer ones are read in the usual way
_LONGEST_NUMBER = 15  # digits; longer ones are read one by one
_COMBINATIONS = 12
_FEW_CAPITALS = 20  # words in capitals that say nothing about a text
_PAIR, _SKIP = 0.55, 0.25  # as in matching.py: a pair of words scores its similarity less _PAIR


def readings_of(words: Sequence[str], language: str | None = "en") -> list[tuple[Slot, ...]]:
    """The slots of each written word. The first readings of its slots together are its `spoken_words`.

    Symbols, pairs of digits, "oh", ordinals after a month, and cardinals without "and" are read in English alone;
    letters and digits one by one in all languages. Words with one reading have one slot with it, or none if nothing is
    said. Without the package num2words numbers have one reading. A text in capitals throughout has no spelled words.
    """
    capitals = sum(word.isupper() for word in words)
    spells = capitals <= max(_FEW_CAPITALS, len(words) / 2)
    slots = [_slots(word if spells else word.lower(), language or "en") for word in words]
    if (language or "en") == "en":
        for at in range(1, len(words)):
            month, day = words[at - 1].strip("., ").casefold(), words[at].strip(".,;:!?)\"'”’ ")
            if month in _MONTHS and day.isdecimal() and len(day) <= 2 and len(slots[at]) == 1:
                ordinal = _ordinal(int(day))
                slots[at] = (tuple(dict.fromkeys((*slots[at][0], ordinal, ("the", *ordinal)))),)
    return slots


def usual(slots: Sequence[Slot]) -> Reading:
    """The first readings of all slots together."""
    return tuple(token for slot in slots for token in slot[0])


def is_ambiguous(slots: Sequence[Slot]) -> bool:
    """Is there more than one way to say it?"""
    return any(len(slot) > 1 for slot in slots)


@lru_cache(maxsize=100_000)
def _slots(word: str, language: str) -> tuple[Slot, ...]:
    expected = spoken_words(word, language)
    single: tuple[Slot, ...] = ((expected,),) if expected else ()
    if len(word) > _LONGEST_WORD or _ONE_WAY.search(word):
        return single
    parts = _PARTS.findall(unicodedata.normalize("NFKC", word))
    while parts and not parts[-1][-1].isalnum():
        parts.pop()
    while parts and not parts[0][0].isalnum():
        parts.pop(0)
    slots: list[Slot] = []
    for at, part in enumerate(parts):
        before = parts[at - 1] if at else ""
        if part[0].isdecimal():
            ways = list(_number_ways(part, language))
            if before == "." and at > 1 and parts[at - 2][0].isdecimal():
                ways.insert(0, _one_by_one(part, language))
        elif part[0].isalnum():
            ways = list(_letter_ways(part, language))
            if part == "s" and before[:1].isdecimal() and language == "en":  # the 1990s
                slots[-1] = tuple(dict.fromkeys((*slots[-1], *_plurals(slots[-1]))))
                ways.append(())
        else:
            said = language == "en" and (part != "-" or _ADDRESS.search(word) is not None)
            ways = list(_symbol_ways(part, before, parts[at + 1])) if said else [()]
        slots.append(tuple(dict.fromkeys(ways)))
    if not is_ambiguous(slots):
        return single
    if usual(slots) != expected:
        whole = (sum(ways, ()) for ways in islice(product(*slots), _COMBINATIONS))
        return (tuple(dict.fromkeys((expected, *whole))),)
    return tuple(slot for slot in slots if slot != ((),))


def _number_ways(number: str, language: str) -> Iterator[Reading]:
    yield spoken_words(number, language)
    if not spells_numbers():
        return
    digits = number.replace(",", "")
    one_by_one = _one_by_one(digits, language)
    if language != "en":
        yield one_by_one
        return
    if len(digits) <= _LONGEST_NUMBER:
        cardinal = spoken_words(f"{int(digits):,}")
        yield cardinal
        yield tuple(word for word in cardinal if word != "and")
    yield one_by_one
    yield tuple("oh" if word == "zero" else word for word in one_by_one)
    if len(digits) in (3, 4) and digits[0] != "0" and digits[-3:] != "000":
        pairs = [digits[:-2], digits[-2:]]
        if pairs[1] == "00":
            yield (*spoken_words(pairs[0]), "hundred")
        elif pairs[1][0] == "0":
            yield (*spoken_words(pairs[0]), "oh", *spoken_words(pairs[1][1]))
        else:
            yield (*spoken_words(pairs[0]), *spoken_words(pairs[1]))


def _one_by_one(digits: str, language: str) -> Reading:
    return tuple(word for digit in digits for word in spoken_words(digit, language))


def _ordinal(number: int) -> Reading:
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return spoken_words(f"{number}{ending}")


def _plurals(readings: Slot) -> Iterator[Reading]:
    """Of tens and hundreds."""
    for *first, last in readings:
        if last.endswith("ty"):
            yield (*first, last[:-1] + "ies")
        elif last == "hundred":
            yield (*first, "hundreds")


def _letter_ways(letters: str, language: str) -> Iterator[Reading]:
    yield spoken_words(letters, language)
    if letters.casefold() == "www":
        yield ("w", "w", "w")
    elif (match := _LETTERS.fullmatch(letters)) and match[1].isupper():
        spelled = tuple(match[1].casefold())
        yield (*spelled[:-1], spelled[-1] + "s") if match[2] else spelled


def _symbol_ways(symbol: str, before: str, after: str) -> Iterator[Reading]:
    """`before` and `after` are the parts beside it."""
    name = _SYMBOLS.get(symbol)
    initials = symbol == "." and len(before) == 1 and len(after) == 1 and before.isalpha()  # U.S.A.
    if name == "dot" and before[0].isdecimal() and after[0].isdecimal():
        yield ("point",)
    if name == "at":
        yield ("at",)
    else:
        yield ()
        if name and not initials:
            yield (name,)


def best_readings(slots: Sequence[Slot], heard: Sequence[str]) -> list[Reading]:
    """Choose each slot's reading, so that all together are most like the words that were heard there.

    Of equal ones the first. Cost: the number of words of all readings times that of `heard`.
    """
    count = len(heard)
    tokens = sorted({token for slot in slots for reading in slot for token in reading})
    if not tokens or not count:
        return [slot[0] for slot in slots]
    gains = dict(zip(tokens, similarity(tokens, heard).astype(float) - _PAIR))
    columns = np.arange(count + 1)
    best = -_SKIP * columns  # [j]: score of the slots so far with the first j heard words
    steps: list[tuple[np.ndarray, np.ndarray]] = []  # the reading of each slot, and the j before it, for each j
    for slot in slots:
        scores = np.full(count + 1, -np.inf)
        choice, origin = np.zeros(count + 1, dtype=int), columns
        for number, reading in enumerate(slot):
            row, start = best, columns
            for token in reading:
                row, start = _read(row, start, gains[token])
            better = row > scores + 1e-9
            scores, origin = np.where(better, row, scores), np.where(better, start, origin)
            choice = np.where(better, number, choice)
        best = scores
        steps.append((choice, origin))
    chosen: list[Reading] = []
    column = count
    for slot, (choice, origin) in zip(reversed(slots), reversed(steps)):
        chosen.append(slot[choice[column]])
        column = origin[column]
    return chosen[::-1]


def _read(row: np.ndarray, start: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (heard words + 1) after one more token, paired with a heard word or skipped, and where its slot starts."""
    skipped, paired = row - _SKIP, np.concatenate([[-np.inf], row[:-1] + gain])
    best = np.maximum(skipped, paired)
    start = np.where(paired > skipped, np.concatenate([[0], start[:-1]]), start)
    columns = np.arange(len(row))
    ramped = best + _SKIP * columns  # then any number of heard words are skipped
    peaks = np.maximum.accumulate(ramped)
    at = np.maximum.accumulate(np.where(ramped >= peaks, columns, 0))
    return peaks - _SKIP * columns, start[at]
