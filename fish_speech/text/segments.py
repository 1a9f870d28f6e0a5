"""Segments to speak one after the other: text cut at sentence ends, each piece knowing how it ends.

`split.py` holds the released system's rules. These are the same, made careful for what is heard: a blank line ends a
segment, closing quotes stay with their sentence, and "Mr. Smith", "e.g.", "3.5" and "example.com" hold together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .normalize import clean_text
from .split import cut_long, merge, size_of

Ending = Literal["paragraph", "sentence", "clause", "word"]

_ENDS = "!?。！？｡؟۔।॥።។။"  # of a sentence, in any script; the full stop and the ellipsis may be something else
_MAYBE_ENDS = ".…"
_PAUSES = ",;:，、；：､،؛—–"
_CLOSERS = "\"'”’»›)]}」』】）》〉＂＇*_"
_SENTENCE_END = re.compile(f"[{_ENDS}{_MAYBE_ENDS}]+[{re.escape(_CLOSERS)}]*")
_AFTER_CLAUSE = re.compile(r"(?<=[,;:،؛—–])(?=\s)|(?<=[，、；：､])")
_AFTER_LINE = re.compile(r"(?<=[\n\r])(?=[^\n\r])")
_AFTER_SPACE = re.compile(r"(?<=\s)(?=\S)")
_AFTER_MARK = re.compile(r"(?<=[,;:.!?/])(?<!\d[,.:/](?=\d))")
_LAST_WORD = re.compile(r"[^\W\d_]+\Z")
_LONGEST_ABBREVIATION = 8  # letters
_LONGEST_CHARACTER = 32  # bytes that are not cut apart, as a letter with its marks or a joined emoji
_TITLES = (
    "mr mrs ms mx dr prof rev hon fr sr jr st mt ft gen col maj capt lt sgt gov sen rep pres vs ca cf al approx dept"
    " est resp bzw usw hr str ggf evtl inkl sog mme mlle sra srta ud uds sig dott"
)
_ABBREVIATIONS = frozenset(_TITLES.split())
_BEFORE_NUMBERS = frozenset({"no", "nos", "nr", "pp", "fig", "figs", "vol", "ch", "art", "sec"})  # else they are words


@dataclass(frozen=True)
class Segment:
    """A piece of text to speak, and what its end is: of a paragraph, a sentence, a clause, or within one (word)."""

    text: str
    ending: Ending


def split_segments(text: str, length: int) -> list[Segment]:
    """Split cleaned `text` into segments of at most `length` UTF-8 bytes, as `split_text` does, but with care.

    A paragraph (up to a blank line) ends a segment. Where a text is too long for one, it is cut at sentence ends;
    where these are too far apart, at commas and their like, at line ends, at spaces, at marks inside a word, or between
    two characters, which can make a segment longer by a character. Neighbours are joined again while they fit.
    Segments without a letter or digit are dropped. Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"length is {length}; a segment has at least 1 byte")
    segments: list[Segment] = []
    for paragraph in _paragraphs(clean_text(text)):
        pieces = [paragraph]
        for cut in _cuts(length):
            pieces = cut_long(pieces, length, cut)
        texts = [piece.strip() for piece in merge(pieces, length) if any(map(str.isalnum, piece))]
        for index, piece in enumerate(texts):
            is_last = index == len(texts) - 1
            segments.append(Segment(piece, "paragraph" if is_last else ending_of(piece, texts[index + 1])))
    return segments


def ending_of(text: str, next_text: str | None = None) -> Ending:
    """How a segment ends that `next_text` follows, judged by its last characters and the next one."""
    bare = text.rstrip().rstrip(_CLOSERS).rstrip()
    goes_on = next_text is not None and next_text.lstrip()[:1].islower()
    if bare.endswith(tuple(_ENDS)):
        return "clause" if goes_on else "sentence"  # "Really?" he said
    if bare.endswith(tuple(_MAYBE_ENDS)):
        if _is_abbreviated(bare[:-1], next_text or ""):
            return "word"
        return "clause" if goes_on else "sentence"
    return "clause" if bare.endswith(tuple(_PAUSES)) else "word"


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines)
            lines = []
    if lines:
        yield "".join(lines)


def _cuts(length: int) -> list[Callable[[str], list[str]]]:
    return [
        _sentences,
        _AFTER_CLAUSE.split,
        _AFTER_LINE.split,
        _AFTER_SPACE.split,
        _AFTER_MARK.split,
        lambda piece: _cut_anywhere(piece, length),
    ]


def _sentences(text: str) -> list[str]:
    pieces, start = [], 0
    for found in _SENTENCE_END.finditer(text):
        if _ends_sentence(text, found):
            pieces.append(text[start : found.end()])
            start = found.end()
    return [*pieces, text[start:]]


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    """Whether the marks found end a sentence there, and not an abbreviation, a number, an address or a quotation."""
    marks = found.group().rstrip(_CLOSERS)
    if not set(marks) <= set(_MAYBE_ENDS):
        return not _starts_lower(text, found.end()) or marks[-1] not in "!?"
    if text[found.end() : found.end() + 1].isalnum() or _starts_lower(text, found.end()):
        return False
    before, after = text[max(0, found.start() - 40) : found.start()], text[found.end() : found.end() + 8]
    return len(marks) > 1 or not _is_abbreviated(before, after)


def _starts_lower(text: str, position: int) -> bool:
    """Whether the next word after `position` begins with a small letter."""
    return text[position : position + 8].lstrip()[:1].islower()


def _is_abbreviated(before: str, after: str) -> bool:
    """Whether a full stop between `before` and `after` marks an abbreviation or an initial ("I" is a word)."""
    word = _LAST_WORD.search(before[-_LONGEST_ABBREVIATION - 1 :])
    if word is None:
        return False
    letters = word.group()
    if len(letters) == 1:  # J. R. R. Tolkien, z. B.; a single sign of a script without capitals is a word
        return letters != "I" and (letters.isupper() or letters.islower())
    if letters.lower() in _BEFORE_NUMBERS:
        return after.lstrip()[:1].isdigit()
    return letters.lower() in _ABBREVIATIONS


def _cut_anywhere(piece: str, length: int) -> list[str]:
    """Collect characters until a part has at least `length` bytes and the next one is no mark of the last."""
    parts, start, size = [], 0, 0
    for end, character in enumerate(piece, start=1):
        size += size_of(character)
        if size >= length and (size >= length + _LONGEST_CHARACTER or not _belong_together(piece[end - 1 : end + 1])):
            parts.append(piece[start:end])
            start, size = end, 0
    return [*parts, piece[start:]]


def _belong_together(pair: str) -> bool:
    """Whether the second of two code points is drawn with the first: an accent, a vowel sign, a joined emoji."""
    if len(pair) < 2:
        return False
    joined = "\u200d" in pair or 0x1F3FB <= ord(pair[1]) <= 0x1F3FF
    return joined or unicodedata.category(pair[1]).startswith("M")
