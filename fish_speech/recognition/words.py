"""From a recogniser's timed words to pieces that are never split, and from pieces to written text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..timeline import Piece

_CLOSERS = "\"'”’»)]}」』）】"
_ENDS = tuple(".!?…。！？｡؟۔।॥܀։።")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


class TimedWord(NamedTuple):
    """A word as whisper gives it: white space at its start says that it does not belong to the word before."""

    text: str
    start_s: float
    end_s: float
    confidence: float


def make_pieces(segments: Iterable[Sequence[TimedWord]], duration_s: float) -> list[Piece]:
    """Join what is written together, as in "twenty" "-five", and keep times in order and within `duration_s`.

    Words of different segments are never joined, and in scripts without spaces each word stays for itself.
    """
    pieces: list[Piece] = []
    for segment in segments:
        joined: list[TimedWord] = []
        for word in segment:
            if not word.text.strip():
                continue
            if joined and _continues(joined[-1].text, word.text):
                before = joined[-1]
                sure = min(before.confidence, word.confidence)
                joined[-1] = TimedWord(before.text + word.text, before.start_s, word.end_s, sure)
            else:
                joined.append(word)
        for word in joined:
            earliest = pieces[-1].end_s if pieces else 0.0
            pieces.append(_piece(word, earliest, duration_s))
    return pieces


def join_words(pieces: Iterable[Piece]) -> str:
    """Write pieces one after the other: a space between two, but not beside scripts that have none."""
    text = ""
    for piece in pieces:
        spaced = text and not _is_unspaced(text[-1]) and not _is_unspaced(piece.text[:1])
        text += f" {piece.text}" if spaced else piece.text
    return text


def ends_sentence(text: str) -> bool:
    """Whether a word's punctuation ends a sentence. An abbreviation's full stop counts: nothing here knows better."""
    return text.rstrip(_CLOSERS).endswith(_ENDS)


def _continues(before: str, text: str) -> bool:
    if text[0].isspace() or before[-1].isspace():
        return False
    return not _is_unspaced(before[-1]) and not _is_unspaced(text[0])


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED) if character else False


def _piece(word: TimedWord, earliest_s: float, latest_s: float) -> Piece:
    text = " ".join(word.text.split())
    start_s = _within(word.start_s, earliest_s, latest_s)
    end_s = _within(word.end_s, start_s, latest_s)
    return Piece(text, start_s, end_s, _within(word.confidence, 0.0, 1.0), ends_sentence(text))


def _within(value: float, low: float, high: float) -> float:
    value = float(value)
    return min(max(value, low), high) if math.isfinite(value) else low
