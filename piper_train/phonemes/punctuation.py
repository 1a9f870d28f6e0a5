"""Where espeak ends a clause of a text, and with what: for the espeak-ng program, which prints phonemes only.

The rules were read off the answers of espeak-ng 1.52; they hold for nearly all texts, not for all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CLOSERS = "\"'»”’›)\\]}"
_OPENERS = "\"'«“‘‹(\\[{"
_BREAK = re.compile(
    rf"""
      (?P<ellipsis> \.{{3,}} | … )                                     # needs no space behind it
    | (?P<wide> [。！？।、，；：] )                                       # nor do these
    | (?P<mark> [.,;:?!،؟] ) (?P<run> [.,;:?!…]{{0,9}} ) (?P<closers> [{_CLOSERS}]{{0,9}} )
      (?: \s{{0,9}} [—–] )? (?= \s | $ | [{_CLOSERS}] )
    | (?P<dash> [—–⸺] ) (?= \s | $ )
    """,
    re.VERBOSE,
)
_ENDS_TEXT = frozenset("。！？।")
_ASCII = {"،": ",", "؟": "?"}
_LOWER_NEXT = re.compile(rf"[\s—–\-]*[{_OPENERS}]*(\w?)")
_WORDS = re.compile(r"\w|[$%€£&@#+=*/]")


class Piece(NamedTuple):
    """A clause as it is written, with what ends it."""

    text: str
    terminator: str  # one of . ? ! , : ; or ""
    ends_sentence: bool


def pieces_of(text: str) -> list[Piece]:
    """Cut a paragraph into clauses. Their texts together are the paragraph."""
    pieces: list[Piece] = []
    start = 0  # of the clause
    seen = 0  # up to here it was searched for words
    has_words = False
    for match in _BREAK.finditer(text):
        has_words = has_words or bool(_WORDS.search(text, seen, match.start()))
        seen = match.start()
        if not has_words or _goes_on(text, match):
            continue
        terminator, ends = _kind(match)
        pieces.append(Piece(text[start : match.end()], terminator, ends))
        start = seen = match.end()
        has_words = False
    if has_words or _WORDS.search(text, seen) or not pieces:
        pieces.append(Piece(text[start:], "", True))
    else:  # what has no words belongs to the clause before it
        last = pieces[-1]
        pieces[-1] = last._replace(text=last.text + text[start:])
    return pieces


def _kind(match: re.Match[str]) -> tuple[str, bool]:
    if match["ellipsis"]:
        return "", False
    if match["wide"]:
        return "", match["wide"] in _ENDS_TEXT
    if match["dash"]:
        return ";", False
    mark = _ASCII.get(match["mark"], match["mark"])
    return mark, mark in ".?!"


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """A full stop with a small letter behind it ends nothing: an abbreviation."""
    if match["mark"] != "." or match["closers"]:
        return False
    following = _LOWER_NEXT.match(text, match.end())
    return bool(following and following[1].islower())
