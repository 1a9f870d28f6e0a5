"""What is said when: stretches of speech, and pieces of text, on the time line of a recording."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of a recording, in seconds from its start."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


class Piece(NamedTuple):
    """Text that is never split, with the time at which it is spoken: a recognised word, or a subtitle.

    `text` is as it would be written, punctuation included, without white space at its ends. `confidence` is 0-1: how
    sure it is that this text is spoken at this time.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0
    ends_sentence: bool = False
