"""How long a text may take to say: limits for its sound, so that a model neither babbles on nor stops at once.

Counted by what is spoken, not by bytes: a Chinese character is a syllable in three bytes, a digit up to four syllables in
one. Measured on 206 recordings of a real voice (samples/allison is a part of them; 0.056-0.36 s per letter, median 0.082)
and on espeak-ng's voices of 24 languages at their usual speed, whose seconds per character stand below.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

SPARE_S = 2.0  # for a slow start, a breath, a pause where none is written


class SpokenLength(NamedTuple):
    """Limits in seconds: no one says it faster, and no one takes longer."""

    least_s: float
    longest_s: float


# Seconds per character. The longest is about twice what is usual, the least a third.
_LETTER = SpokenLength(0.02, 0.14)  # Latin 0.05-0.08, Cyrillic 0.06, Greek 0.06, Georgian 0.07
_CONSONANT = SpokenLength(0.03, 0.22)  # Arabic 0.10, Hebrew 0.09, Persian 0.10: vowels are not written
_SYLLABIC_LETTER = SpokenLength(0.03, 0.27)  # Hindi 0.12, Tamil 0.11, Thai 0.13, Amharic 0.13; marks count as nothing
_KANA = SpokenLength(0.04, 0.27)  # 0.125
_HANGUL = SpokenLength(0.05, 0.38)  # 0.18
_HAN = SpokenLength(0.06, 0.6)  # Cantonese 0.23, espeak-ng's slow Mandarin 0.40
_SPELLED = SpokenLength(0.02, 0.5)  # letters of FBI, WWW: 0.09-0.41; slowly, "M G C P", 0.36
_DIGIT = SpokenLength(0.05, 1.0)  # 0.28-0.69; twenty zeros may be one word, so zeros have no least
_SYMBOL = SpokenLength(0.0, 0.8)  # "percent", "dot", "dollars"
_SENTENCE_PAUSE, _PAUSE = SpokenLength(0.0, 1.0), SpokenLength(0.0, 0.5)
_NOTHING = SpokenLength(0.0, 0.0)

_SCRIPTS = (
    (_HAN, ("CJK",)),
    (_KANA, ("HIRAGANA", "KATAKANA", "BOPOMOFO")),
    (_HANGUL, ("HANGUL",)),
    (_CONSONANT, ("ARABIC", "HEBREW", "SYRIAC", "THAANA")),
    (_LETTER, ("LATIN", "CYRILLIC", "GREEK", "GEORGIAN", "ARMENIAN")),
)
_CAPITALS = re.compile(r"(?<![^\W\d_])[^\W\d_](?:\.[^\W\d_])+\b|(?<!\w)[^\W\d_]{1,6}(?!\w)")
_INNER = re.compile(r"(?<=\w)[.:/@_-]+(?=\w)")  # "dot", "slash", "at"
_FEW = 4  # words in capitals that may all be spelled
_ENDS, _BREAKS = frozenset(".!?…。！？｡؟।;；\n"), frozenset(',，、،:：—–-()"“”')
_SAID = ("Sc", "Sm", "So")  # currencies, mathematics, others
_SAID_TOO = frozenset("%‰&@#°№*/\\_^")


def spoken_length(text: str) -> SpokenLength:
    """The limits of `text` in any language, pauses between words counted only in the longest, no spare time added."""
    text = unicodedata.normalize("NFKC", text)
    capitals = [match.span() for match in _CAPITALS.finditer(text) if match[0].isupper()]
    if len(capitals) > _FEW and not any(character.islower() for character in text):
        capitals = []  # it is loud, and spells nothing
    spelled = {at for span in capitals for at in range(*span)}
    inner = {match.start() for match in _INNER.finditer(text)}
    least = longest = 0.0
    before = ""
    for at, character in enumerate(text):
        if at in spelled:
            length = _SPELLED if character.isalpha() else _NOTHING
        elif at in inner:
            length = _SYMBOL
        else:
            length = _NOTHING if _is_pause(character) and _is_pause(before) else _length_of(character)
        least, longest = least + length.least_s, longest + length.longest_s
        if not character.isspace():
            before = character
    return SpokenLength(least, longest)


def longest_seconds(text: str) -> float:
    """The most seconds of sound that `text` may take, pauses and spare time included."""
    return spoken_length(text).longest_s + SPARE_S


def longest_frames(text: str, frame_rate: float) -> int:
    """The most frames (of `frame_rate` per second) that `text` may take."""
    return math.ceil(longest_seconds(text) * frame_rate)


def least_frames(text: str, frame_rate: float) -> int:
    """The least frames that `text` takes, below which it cannot be whole; at least one."""
    return max(1, math.ceil(spoken_length(text).least_s * frame_rate))


def _is_pause(character: str) -> bool:
    return character in _ENDS or character in _BREAKS


@lru_cache(maxsize=10_000)
def _length_of(character: str) -> SpokenLength:
    category = unicodedata.category(character)
    if character in _ENDS:
        return _SENTENCE_PAUSE
    if character in _BREAKS:
        return _PAUSE
    if category[0] == "N":
        zero = unicodedata.numeric(character, 0.0) == 0
        return _DIGIT._replace(least_s=0.0) if zero else _DIGIT
    if category in _SAID or character in _SAID_TOO:
        return _SYMBOL
    if category[0] != "L":
        return _NOTHING
    name = unicodedata.name(character, "CJK")
    return next((length for length, scripts in _SCRIPTS if name.startswith(scripts)), _SYLLABIC_LETTER)
