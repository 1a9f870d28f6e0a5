"""Text files that users wrote: read within limits, whatever bytes they hold, and made one clean line."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path

from .names import one_line

MAX_TRANSCRIPT_BYTES = 20_000_000  # hours of subtitles are below one megabyte, of word times below five
MAX_TIME_S = 7 * 24 * 3600.0  # no recording is longer; a time beyond it is not a time

_BREAK = re.compile(r"\r\n?|\n")  # not str.splitlines, which also breaks at form feeds and at U+2028


class Unusable(Exception):
    """A transcript file that cannot be used; the message is one line, "category: details"."""


def read_text(path: Path, limit: int = MAX_TRANSCRIPT_BYTES) -> str:
    """Return what a file of UTF-8 (or UTF-16 with its mark) holds. Raises Unusable; reads at most `limit` bytes."""
    name = one_line(path.name)
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise Unusable(f"unreadable transcript: {name}: not a file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Unusable(f"unreadable transcript: {name}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > limit:
        raise Unusable(f"unreadable transcript: {name} is larger than {limit / 1e6:g} MB")
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Windows' Notepad calls this "Unicode"
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(f"unreadable transcript: {name} is not UTF-8 text") from error


def lines_of(text: str) -> list[str]:
    """Split at CR, LF and CRLF only."""
    return _BREAK.split(text)


def clean(text: str) -> str:
    """Make every run of white space and control characters one space, and strip the ends.

    A line break at the end would reach the model as a space (the packed data are not stripped again).
    """
    if text.isprintable():  # most are: no control character in it
        return " ".join(text.split())
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())


def has_words(text: str) -> bool:
    """Is there anything in `text` that can be said?"""
    return any(map(str.isalnum, text))
