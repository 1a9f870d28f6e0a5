"""How written words are said, as words that can be compared with those that a recogniser heard."""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

from ..extras import missing
from ..text.words import is_letter, is_spaceless

_CONTRACTIONS = (
    (re.compile(r"\b(ca)n't\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
)  # 's and 'd are left: they have several readings


@lru_cache(maxsize=100_000)
def spoken_words(word: str, language: str | None = "en") -> tuple[str, ...]:
    """How `word` is said, as words that can be compared: lower case, no punctuation, numbers and contractions in full.

    "Don't" gives ("do", "not"), "22," gives ("twenty", "two"), "--" gives (). Characters of scripts without spaces come
    one by one. Without the package num2words, numbers stay digits. `readings_of` gives the other ways to say a word.
    """
    from ..evaluation.normalize import comparable_words

    language = language or "en"
    spoken = [word]
    if not spells_numbers() and any(map(str.isdecimal, word)):
        folded = unicodedata.normalize("NFKC", word).casefold()
        spoken = "".join(c if c.isalnum() else " " for c in folded).split()
    else:
        spoken = comparable_words(word, language)
    if language == "en":
        text = " ".join(spoken)
        for pattern, full in _CONTRACTIONS:
            text = pattern.sub(full, text)
        spoken = text.split()
    units = (unit for part in spoken for unit in _by_script(part))
    return tuple(stripped for unit in units if (stripped := unit.replace("'", "")))


def _by_script(word: str) -> list[str]:
    """Split into characters of scripts without spaces and runs of others; "ai时代" gives "ai", "时", "代"."""
    units: list[str] = []
    for character in word:
        mark = bool(units) and not is_letter(character)
        same = bool(units) and not is_spaceless(character) and not is_spaceless(units[-1][0])
        if mark or same:
            units[-1] += character
        else:
            units.append(character)
    return units


@cache
def spells_numbers() -> bool:
    """Is the package there that puts numbers into words?"""
    return not missing("num2words")
