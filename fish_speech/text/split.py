"""Cut long text into segments of bounded size, at sentence ends where possible. Sizes are UTF-8 bytes."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable

from .normalize import clean_text

_DECIMAL = re.compile(r"(?<!\d)(\d+)\.(\d+)")  # tried at the start of a number only: 1 MB of digits takes no time
_PROTECTED_DECIMAL = re.compile(r"<(\d+)_f_(\d+)>")
_AFTER_SENTENCE = re.compile(r"(?<=[.!?。！？])")
_AFTER_COMMA = re.compile(r"(?<=[,，])")
_AFTER_SPACE = re.compile(r"(?<= )")
_NOTHING_TO_SAY = frozenset(string.punctuation + string.whitespace)


def split_text(text: str, length: int) -> list[str]:
    """Split cleaned `text` into segments of at most `length` bytes, or one character more where a word had to be cut.

    Cuts at sentence ends; pieces that are still too long at commas, then at spaces, then anywhere; neighbours are
    joined again while they fit. Segments are stripped; those of white space and ASCII punctuation alone are dropped.
    """
    if length < 1:
        raise ValueError(f"length is {length}; a segment has at least 1 byte")
    text = _DECIMAL.sub(r"<\1_f_\2>", clean_text(text))
    pieces = [text] if size_of(text) <= length else _AFTER_SENTENCE.split(text)
    pieces = [_PROTECTED_DECIMAL.sub(r"\1.\2", piece) for piece in pieces]
    for cut in (_AFTER_COMMA.split, _AFTER_SPACE.split, lambda piece: _cut_anywhere(piece, length)):
        pieces = cut_long(pieces, length, cut)
    segments = (segment.strip() for segment in merge(pieces, length))
    return [segment for segment in segments if not _NOTHING_TO_SAY.issuperset(segment)]


def size_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def cut_long(pieces: Iterable[str], length: int, cut: Callable[[str], list[str]]) -> list[str]:
    result: list[str] = []
    for piece in pieces:
        result += [piece] if size_of(piece) <= length else cut(piece)
    return result


def _cut_anywhere(piece: str, length: int) -> list[str]:
    """Collect characters until a part has at least `length` bytes."""
    parts, start, size = [], 0, 0
    for end, character in enumerate(piece, start=1):
        size += size_of(character)
        if size >= length:
            parts.append(piece[start:end])
            start, size = end, 0
    return [*parts, piece[start:]]


def merge(pieces: Iterable[str], length: int) -> list[str]:
    """Join neighbours greedily while the sum of their sizes is at most `length`."""
    merged: list[list[str]] = []
    size = 0
    for piece in pieces:
        if merged and size + size_of(piece) <= length:
            merged[-1].append(piece)
            size += size_of(piece)
        else:
            merged.append([piece])
            size = size_of(piece)
    return ["".join(parts) for parts in merged]
