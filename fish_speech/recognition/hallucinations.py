"""Recognised text that was not said: lines whisper writes for silence and music, loops, and rates nobody speaks at."""

from __future__ import annotations

import re
import unicodedata
import zlib
from itertools import groupby

from .known_lines import COMMON, CREDIT_PATTERNS, CREDITS

COMPRESSION_RATIO = 2.4  # whisper's own limit: text that compresses better is a loop
LEAST_CHARACTERS_PER_S, MOST_CHARACTERS_PER_S = 0.5, 40.0  # letters and digits; the fastest talkers reach 25
DENSE = 2.5  # times fewer where a character is a syllable or a word: Chinese, Japanese, Korean
LOW_CONFIDENCE = 0.5
_LONG_ENOUGH_S = 4.0  # a shorter clip may well be one short word and a pause
_REPEATS = {1: 6, 2: 5, 3: 4, 4: 4}  # n-gram length in words: as often in a row is a loop; longer ones 3 times
_LONGEST_LOOP = 20  # words
_CHARACTER_LOOP = re.compile(r"(\D{1,8}?)\1{9,}")  # ten times the same: "ahahahahahahahahahah", "ーーーーーーーーーー"
_COMPRESSIBLE, _WINDOW = 60, 600  # bytes; shorter text says nothing by its ratio, and all text of hours compresses well
_SOUND = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|【[^】]*】|（[^）]*）|♪[^♪]*♪")  # [Music], (applause), *laughs*
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n")


def suspicious(
    text: str,
    duration_s: float | None = None,
    language: str | None = None,
    confidence: float | None = None,
) -> str | None:
    """Say why the text recognised in a clip of `duration_s` seconds cannot be trusted; None if nothing speaks against it.

    `confidence` is the mean of the words' (0-1), where it is known. `language`, where known, sets the rate that is
    plausible; known lines are looked for in every language, since whisper mixes them. Only whole texts are compared:
    a sentence that contains "thanks for watching" is none.
    """
    shown = repr(" ".join(text.split())[:80])
    plain = plain_text(text)
    if not plain:
        return "no words were recognised"
    if not plain_text(_SOUND.sub(" ", text)):
        return f"it describes a sound, it is nothing said: {shown}"
    sentences = [sentence for part in _SENTENCE.split(text) if (sentence := plain_text(part))]
    if _is_credit(plain) or all(_is_credit(sentence) for sentence in sentences):
        return f"a line that whisper writes for silence or music: {shown}"
    loop = _loop(text, plain)
    if loop:
        return loop
    common = all(_key(sentence) in _COMMON_KEYS for sentence in sentences)
    if common and confidence is not None and confidence < LOW_CONFIDENCE:
        return f"a phrase that whisper writes for silence, and only {confidence:.0%} sure of it: {shown}"
    if duration_s is None:
        return None
    return _rate(len(_key(plain)), duration_s, _is_dense(plain, language), common)


def plain_text(text: str) -> str:
    """Lower case, letters and digits alone, one space between words; what stands inside a word goes: I'll, amara.org."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"(?<=\w)['’ʼ.](?=\w)", "", text)
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(kept.split())


def _is_credit(plain: str) -> bool:
    return _key(plain) in _CREDIT_KEYS or _PATTERN.fullmatch(plain) is not None


def _loop(text: str, plain: str) -> str | None:
    if _CHARACTER_LOOP.search(_key(plain)):
        return "the same characters over and over"
    words = plain.split()
    for length in range(1, _LONGEST_LOOP + 1):
        needed = _REPEATS.get(length, 3)
        if len(words) < needed * length:
            continue
        # Where words equal those `length` before them for long enough, an n-gram follows itself. Digits may well.
        same = [words[i] == words[i - length] and not words[i].isdecimal() for i in range(length, len(words))]
        longest = max((len(list(run)) for equal, run in groupby(same) if equal), default=0)
        if longest >= (needed - 1) * length:
            return f"the same {f'{length} words' if length > 1 else 'word'} over and over"
    encoded = text.encode("utf-8", "replace")
    windows = (encoded[start : start + _WINDOW] for start in range(0, len(encoded), _WINDOW))
    ratio = max((len(w) / len(zlib.compress(w)) for w in windows if len(w) >= _COMPRESSIBLE), default=0.0)
    if ratio > COMPRESSION_RATIO:
        return f"it repeats itself: compression ratio {ratio:.1f}, over {COMPRESSION_RATIO}"
    return None


def _rate(letters: int, duration_s: float, dense: bool, common: bool) -> str | None:
    if duration_s <= 0:
        return "words without any sound"
    rate, scale = letters / duration_s, DENSE if dense else 1.0
    if rate > MOST_CHARACTERS_PER_S / scale:
        return f"{rate:.0f} characters per second: faster than anyone speaks"
    least = LEAST_CHARACTERS_PER_S / scale * (3 if common else 1)
    if duration_s >= _LONG_ENOUGH_S and rate < least:
        return f"{rate:.2f} characters per second: most of the sound is not in the text"
    return None


def _is_dense(plain: str, language: str | None) -> bool:
    if language is not None:
        return language in ("zh", "yue", "ja", "ko")
    letters = _key(plain)
    scripts = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
    return 2 * sum(unicodedata.name(letter, "").startswith(scripts) for letter in letters) > len(letters)


def _key(plain: str) -> str:
    """Without spaces: they are the least certain part of a line in many scripts."""
    return plain.replace(" ", "")


_CREDIT_KEYS = frozenset(_key(plain_text(line)) for line in CREDITS)
_COMMON_KEYS = frozenset(_key(plain_text(line)) for line in COMMON)
_PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in CREDIT_PATTERNS))
