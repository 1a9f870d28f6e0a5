"""What was heard against what should have been said: words missing, added, and heard as others.

Both texts are brought to the same words first: lower case, no punctuation, numbers, spelled words and contractions in the
reading that fits best. Scripts without spaces are compared character by character.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from ..prepare.matching import match_words, similarity
from ..prepare.readings import best_readings, readings_of, usual
from ..text.words import words_of

# Written words that are read in more ways than `readings_of` lists: $2.50, 3:30, 20°C, 5km, e.g., z.B., Dr., kg.
_UNSURE = re.compile(
    r"\d[.:/,]\d|[$€£¥]\s?\d|\d\s?[$€£¥°]|\d[^\W\d_]|\b[^\W\d_]\.[^\W\d_]\b"
    r"|^\W*(?:dr|mr|mrs|ms|prof|st|jr|sr|rev|hon|gen|col|capt|lt|sgt|gov|sen|rep|vs|etc|no|nr|vol|fig|approx|dept|est"
    r"|inc|ltd|co|corp|ave|rd|blvd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|bzw|usw|ca|hr|fr|dipl|sra|srta|mme)\."
    r"|^(?:km|kg|cm|mm|ml|[kmgt]b|[kmg]?hz|mph|lbs?|oz|ft|min|sec|hrs?)\W*$",
    re.IGNORECASE,
)
_OPTIONAL = re.compile("[\u0591-\u05c7\u0640\u064b-\u065f\u0670]")  # vowel signs of Hebrew and Arabic, seldom written
_SPARE_WORDS = 2  # more words are excused in the place of names and such numbers than those have
_FEW = 4  # words: "where rise" resembles "arrives" as a whole; longer stretches resemble each other by chance


@dataclass(frozen=True)
class Comparison:
    """Two texts as words, and where they differ."""

    expected: tuple[str, ...]
    heard: tuple[str, ...]
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    misheard: tuple[tuple[str, str], ...] = ()  # expected and heard
    errors: float = 0.0  # 1 for each word missing or added, 0-1 for one misheard: the less it resembles, the more
    unsaid: int = 0  # most words missing in a row, with nothing in their place
    extra: int = 0  # most words added in a row, where none is written
    unsaid_end: int = 0  # so many are missing at the very end
    repeated: int = 0  # words heard twice in a row, but written once

    @property
    def rate(self) -> float:
        """Errors per expected word."""
        return self.errors / max(1, len(self.expected))

    def __str__(self) -> str:
        parts = [f"heard: {' '.join(self.heard) or 'nothing'}"]
        if self.missing:
            parts.append(f"missing: {' '.join(self.missing)}")
        if self.added:
            parts.append(f"added: {' '.join(self.added)}")
        if self.misheard:
            parts.append("misheard: " + ", ".join(f"{word} as {instead}" for word, instead in self.misheard))
        return "; ".join(parts)


def compare_words(
    text: str, heard_text: str, language: str | None = "en", vocabulary: Container[str] | None = None
) -> Comparison:
    """Compare what a recogniser wrote with the text; `vocabulary`: all the words that it can write, None for any word.

    A word outside the vocabulary (a name) is no error whatever is heard in its place, up to a few words; nor are sums of
    money, times, decimals and abbreviations, which are read in many ways. Left out, they are missing as others are.
    """
    text, heard_text = _plain(text), _plain(heard_text)
    unsure = {word for part in words_of(text) if _UNSURE.search(part) for word in _usual_words(part, language)}
    slots = [slot for word in readings_of(words_of(text), language) for slot in word]
    heard_slots = [slot for word in readings_of(words_of(heard_text), language) for slot in word]
    heard = [word for reading in best_readings(heard_slots, usual(slots)) for word in reading]
    expected = [word for reading in best_readings(slots, heard) for word in reading]
    heard = _compounds(heard, expected)
    expected = _compounds(expected, heard)
    missing: list[str] = []
    added: list[str] = []
    misheard: list[tuple[str, str]] = []
    errors, unsaid, extra, unsaid_end, repeated = 0.0, 0, 0, 0, 0
    for place in _differences(expected, heard, unsure):
        names = [w for w in place.expected if w in unsure or (vocabulary is not None and w not in vocabulary)]
        if not place.heard:
            names = []  # nothing is in their place: they are missing, as others are
        found = _explain([word for word in place.expected if word not in names], place.heard, len(names))
        missing += found.missing
        added += found.added
        misheard += found.misheard
        errors += found.errors
        if not place.heard:
            unsaid = max(unsaid, len(found.missing))
            unsaid_end = len(found.missing) if place.end == len(heard) else 0
        if not place.expected:
            extra = max(extra, len(place.heard))
            repeated += len(place.heard) if _is_echo(heard, place) else 0
    said = (tuple(expected), tuple(heard), tuple(missing), tuple(added), tuple(misheard))
    return Comparison(*said, errors, unsaid, extra, unsaid_end, repeated)


def _plain(text: str) -> str:
    """Without what one writer puts and another leaves out."""
    return _OPTIONAL.sub("", text).replace("ё", "е").replace("Ё", "Е")


class _Place(NamedTuple):
    """A stretch between two words that were heard as written."""

    expected: list[str]
    heard: list[str]
    end: int  # of it among all heard words


class _Explained(NamedTuple):
    missing: list[str]
    added: list[str]
    misheard: list[tuple[str, str]]
    errors: float


def _differences(expected: Sequence[str], heard: Sequence[str], unsure: Container[str]) -> Iterator[_Place]:
    matches = match_words(expected, heard)
    same = [match for match in matches if match.similarity == 1 and expected[match.written] not in unsure]
    at = heard_at = 0
    for match in (*same, None):
        end, heard_end = (match.written, match.heard) if match else (len(expected), len(heard))
        if end > at or heard_end > heard_at:
            yield _Place(list(expected[at:end]), list(heard[heard_at:heard_end]), heard_end)
        at, heard_at = end + 1, heard_end + 1


def _explain(expected: list[str], heard: list[str], names: int) -> _Explained:
    """Which of the words of a place were heard as which, and how many errors that is at least."""
    pairs = match_words(expected, heard)
    alike = sum(pair.similarity for pair in pairs)
    misheard = [(expected[pair.written], heard[pair.heard]) for pair in pairs]
    written, paired = {pair.written for pair in pairs}, {pair.heard for pair in pairs}
    lost = [word for at, word in enumerate(expected) if at not in written]
    new = [word for at, word in enumerate(heard) if at not in paired]
    new = new[: max(len(lost), len(new) - (names + _SPARE_WORDS if names else 0))]
    misheard += zip(lost, new)
    count = len(pairs) + max(len(lost), len(new))
    errors = count - alike
    if expected and heard and not names and count <= _FEW:
        errors = min(errors, count * (1 - float(similarity(["".join(expected)], ["".join(heard)])[0, 0])))
    both = min(len(lost), len(new))
    return _Explained(lost[both:], new[both:], misheard, errors)


def _is_echo(heard: Sequence[str], place: _Place) -> bool:
    """Do the words of a place repeat those just before it, or just after it, once or over and over?"""
    start, end = place.end - len(place.heard), place.end
    return any(
        (period <= start and heard[start:end] == heard[start - period : end - period])
        or (end + period <= len(heard) and heard[start:end] == heard[start + period : end + period])
        for period in range(1, end - start + 1)
    )


def _usual_words(word: str, language: str | None) -> list[str]:
    return [said for slots in readings_of([word], language) for said in usual(slots)]


def _compounds(words: Sequence[str], other: Sequence[str]) -> list[str]:
    """Join neighbours that the other text writes as one word: "voice mail" where it has "voicemail"."""
    known = set(other)
    joined: list[str] = []
    pairs = iter(zip_longest(words, words[1:]))
    for word, following in pairs:
        whole = word + (following or "")
        if following and whole in known and not (word in known and following in known):
            joined.append(whole)
            next(pairs)
        else:
            joined.append(word)
    return joined
