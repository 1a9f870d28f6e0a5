"""Intelligibility: how much of a text a speech recogniser hears (word and character error rate, WER and CER)."""

from __future__ import annotations

from dataclasses import dataclass

from ..extras import require
from .normalize import comparable_words


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn what should have been said into what was heard. Counts of clips add up by `+`."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0  # words, or characters, of the text that should have been said

    @property
    def edits(self) -> int:
        """All errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Edits per word or character of the reference; above 1 if much was added; None for an empty reference."""
        return self.edits / self.length if self.length else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


def word_errors(reference: str, hypothesis: str, language: str = "en") -> ErrorCounts:
    """Count word errors between two texts after both are normalised (see `comparable_words`)."""
    return _count(comparable_words(reference, language), comparable_words(hypothesis, language))


def character_errors(reference: str, hypothesis: str, language: str = "en") -> ErrorCounts:
    """Count character errors between two normalised texts; the space between two words is a character."""
    return _count(
        list(" ".join(comparable_words(reference, language))), list(" ".join(comparable_words(hypothesis, language)))
    )


def _count(reference: list[str], hypothesis: list[str]) -> ErrorCounts:
    if not reference or not hypothesis:  # jiwer refuses an empty reference
        return ErrorCounts(0, len(reference), len(hypothesis), len(reference))
    jiwer = require("jiwer", "counting word errors")
    # Each item stands for itself: jiwer would split words at spaces, and drop a space that is an item.
    numbers = {item: str(number) for number, item in enumerate({*reference, *hypothesis})}
    found = jiwer.process_words(
        " ".join(numbers[item] for item in reference), " ".join(numbers[item] for item in hypothesis)
    )
    return ErrorCounts(found.substitutions, found.deletions, found.insertions, len(reference))
