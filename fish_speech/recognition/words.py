"""From a recogniser's timed words to pieces that are never split, and from pieces to written text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..text.words import ends_sentence, is_spaceless
from ..timeline import Piece


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
    found: list[TimedWord] = []
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
        found += joined
    for number, word in enumerate(found):
        earliest = pieces[-1].end_s if pieces else 0.0
        following = found[number + 1].text.strip() if number + 1 < len(found) else ""
        pieces.append(_piece(word, following, earliest, duration_s))
    return pieces


def join_words(pieces: Iterable[Piece]) -> str:
    """Write recognised words one after the other: a space between two, but not beside scripts that have none.

    Unlike `text.words.join`, which restores a written text, this cannot know of spaces beside such scripts.
    """
    text = ""
    for piece in pieces:
        spaced = text and piece.text and not is_spaceless(text[-1]) and not is_spaceless(piece.text[0])
        text += f" {piece.text}" if spaced else piece.text
    return text


def _continues(before: str, text: str) -> bool:
    if text[0].isspace() or before[-1].isspace():
        return False
    return not is_spaceless(before[-1]) and not is_spaceless(text[0])


def _piece(word: TimedWord, following: str, earliest_s: float, latest_s: float) -> Piece:
    text = " ".join(word.text.split())
    start_s = _within(word.start_s, earliest_s, latest_s)
    end_s = _within(word.end_s, start_s, latest_s)
    return Piece(text, start_s, end_s, _within(word.confidence, 0.0, 1.0), ends_sentence(text, following))


def _within(value: float, low: float, high: float) -> float:
    value = float(value)
    return min(max(value, low), high) if math.isfinite(value) else low
