"""A text in pieces of bounded size, so that the first is heard early and a book needs no more memory than a page.

Each line is spoken on its own, as the Piper client does; but a line that was only wrapped goes on in the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_PIECE = 2000  # characters; a line up to this is given to espeak as it is, as the client gives it
WRAPPED_FROM = 45  # characters: a line this long that ends no sentence was wrapped, whatever the next begins with

_ENDS_SENTENCE = re.compile(r"[.!?…:;。！？]['\"»”’)\]]*$")
_RAW = r"\[\[[^\[\]]*\]\]"  # phonemes written by hand, which are never cut
# Where a line that is too long is cut, the best first: after a sentence, after a clause, at a space.
_CUTS = [re.compile(rf"{_RAW}|(?P<cut>{place})") for place in (
    r"[.!?…]['\"»”’)\]]*\s+|[。！？]", r"[,;:]\s+|[，、；：]", r"\s+",
)]  # fmt: skip


def pieces_of(text: str) -> Iterator[str]:
    """Yield the lines of `text` in order, wrapped ones joined, none empty or longer than LONGEST_PIECE characters.

    All but white space at line ends and cuts is kept.
    """
    for line in _unwrapped(text):
        yield from _cut(line, LONGEST_PIECE)


def _unwrapped(text: str) -> Iterator[str]:
    parts: list[str] = []  # of a line that may go on
    for line in map(str.strip, text.splitlines()):
        if parts and not (line and _goes_on(parts[-1], line)):
            yield " ".join(parts)
            parts = []
        if line:
            parts.append(line)
    if parts:
        yield " ".join(parts)


def _goes_on(line: str, following: str) -> bool:
    """Whether `following` is the rest of `line`."""
    if _ENDS_SENTENCE.search(line[-10:]):
        return False
    return following[0].islower() or len(line) >= WRAPPED_FROM


def _cut(line: str, length: int) -> Iterator[str]:
    while len(line) > length:
        at = _best_cut(line, length)
        piece, line = line[:at].strip(), line[at:].strip()
        if piece:
            yield piece
    if line:
        yield line


def _best_cut(line: str, length: int) -> int:
    """Where to cut so that the first part has at most `length` characters: its last good place."""
    for pattern in _CUTS:
        last = 0
        for found in pattern.finditer(line[: length + 1]):
            if found.group("cut") and found.end() <= length:
                last = found.end()
        if last:
            return last
    return length
