"""When is each word of a known text spoken? Align the text to words that a recogniser heard, many of them wrong.

Words that were heard as written take the time at which they were heard. Those between them share the speech that is left
there, by their number of letters, and pauses fall after punctuation where they can. Every word says how sure its place
is, so that a clip whose text is doubtful can be left out (`clip_text`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from ..text.words import ends_sentence, letters_of, words_of
from ..timeline import Piece, Span
from .interpolation import bins_of, is_pausing, share, spread
from .matching import Match, match_words, similarity
from .readings import Reading, Slot, best_readings, is_ambiguous, readings_of, usual
from .spoken_words import spoken_words

HEARD = 0.5  # a pair of words that are less alike says nothing about the time
_LETTER_S = 0.07  # of speech, where nothing can be measured
# A run of words that would take longer than _UNSPOKEN_S, and has less than this share of the time, is not spoken.
_UNSPOKEN_S, _UNSPOKEN_SHARE = 0.8, 0.2
_CELLS = 1 << 19  # readings are not chosen where (words of readings) x (words heard) are more
_LETTER_NAME = 3  # letters
_NEAR_S = 0.3  # a sound next to a word may be a part of it that was not understood


class _Heard(NamedTuple):
    word: str
    start_s: float
    end_s: float


_Stretch = TypeVar("_Stretch", Span, _Heard)


def align(text: str, heard: Sequence[Piece], speech: Sequence[Span] = (), language: str | None = "en") -> list[Piece]:
    """Give each written word of `text` its time: one piece per word, in order; `join` makes the text of them again.

    `heard` are recognised words in order of time, `speech` the stretches of speech, if they are known: no word that was
    not heard is put in a pause then. Times never decrease. `confidence` is 1 for a word that was heard as written, less
    for one that sounds alike, at most 0.7 for one that was not heard, by how well the unheard words there fit the time
    and the sounds that are left for them; near 0 for text that has no place in the recording. With nothing heard it
    is 0 for all. Cost: seconds for hours of speech.

    Numbers, spelled words and addresses (`readings_of`) are taken as said in the way that is most like what was heard
    between their neighbours: "500" is heard as written in "five zero zero", too.
    """
    words = words_of(text)
    ways = readings_of(words, language)
    spoken = [usual(slots) for slots in ways]
    plain = _sounds(heard, language)
    tokens, owner, sounds, matches = _matched(spoken, plain)
    several = [is_ambiguous(slots) for slots in ways]
    if any(several):
        found = [sound.word for sound in sounds]
        spoken = _chosen(ways, spoken, _certain(several, spoken, owner, matches), found)
        tokens, owner, sounds, matches = _matched(spoken, plain)
    spans, scores = _placed(several, owner, sounds, tokens, matches)
    letters = [sum(map(_named if more else letters_of, parts)) for parts, more in zip(spoken, several)]
    _fill(words, spoken, letters, spans, scores, sounds, _merged(speech))
    pieces: list[Piece] = []
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else None
        span = spans[number]
        assert span is not None
        pieces.append(Piece(word, *span, scores[number], ends_sentence(word, following)))
    return pieces


def _matched(spoken: Sequence[Reading], plain: list[_Heard]) -> tuple[list[str], list[int], list[_Heard], list[Match]]:
    """Spoken words, the written word of each, the sounds they are compared with, and the pairs."""
    tokens = [token for parts in spoken for token in parts]
    owner = [number for number, parts in enumerate(spoken) for _ in parts]
    sounds = _as_written(plain, tokens)
    return tokens, owner, sounds, match_words(tokens, [sound.word for sound in sounds])


def _certain(
    several: Sequence[bool], spoken: Sequence[Reading], owner: Sequence[int], matches: Sequence[Match]
) -> dict[int, tuple[int, int]]:
    """The words with one reading that were heard as written: their first and last sound. Letters may be of a spelled word."""
    sounds: dict[int, list[int]] = {}
    for match in matches:
        if match.similarity == 1.0 and not several[owner[match.written]]:
            sounds.setdefault(owner[match.written], []).append(int(match.heard))
    return {
        word: (at[0], at[-1])
        for word, at in sounds.items()
        if len(at) == len(spoken[word]) and sum(map(len, spoken[word])) > 1
    }


def _chosen(
    ways: Sequence[tuple[Slot, ...]],
    spoken: Sequence[Reading],
    certain: Mapping[int, tuple[int, int]],
    found: Sequence[str],
) -> list[Reading]:
    """Each word's reading that is most like what was `found` between the words on both sides whose place is certain."""
    chosen = list(spoken)
    first, sound = 0, 0
    for word, (start, end) in [*sorted(certain.items()), (len(ways), (len(found), len(found)))]:
        slots = [(number, slot) for number in range(first, word) for slot in ways[number]]
        size = sum(len(reading) for _, slot in slots for reading in slot)
        if any(len(slot) > 1 for _, slot in slots) and size * (start - sound) <= _CELLS:
            for number in range(first, word):
                chosen[number] = ()
            for (number, _), reading in zip(slots, best_readings([slot for _, slot in slots], found[sound:start])):
                chosen[number] += reading
        first, sound = word + 1, end + 1
    return chosen


def _merged(speech: Sequence[Span]) -> list[Span]:
    """Stretches in order, none empty and no two overlapping."""
    merged: list[Span] = []
    for span in sorted(span for span in speech if span.end_s > span.start_s):
        if merged and span.start_s <= merged[-1].end_s:
            merged[-1] = Span(merged[-1].start_s, max(merged[-1].end_s, span.end_s))
        else:
            merged.append(span)
    return merged


def _sounds(heard: Sequence[Piece], language: str | None) -> list[_Heard]:
    """Heard pieces as words that can be compared; those that become several share the time by their letters."""
    sounds: list[_Heard] = []
    latest = 0.0
    for piece in heard:
        parts = spoken_words(piece.text, language) if piece.text else ()
        if not (math.isfinite(piece.start_s) and math.isfinite(piece.end_s)):
            continue
        start_s = max(piece.start_s, latest)
        latest = max(piece.end_s, start_s)
        sounds += [
            _Heard(part, *span) for part, span in zip(parts, share(list(map(letters_of, parts)), start_s, latest))
        ]
    return sounds


def _as_written(sounds: list[_Heard], tokens: Sequence[str]) -> list[_Heard]:
    """Write "voice mail" as "voicemail", or the other way round, if only that is in the text."""
    known, together = set(tokens), {a + b: a for a, b in zip(tokens, tokens[1:])}
    pairs = set(zip(tokens, tokens[1:]))
    result: list[_Heard] = []
    for sound in sounds:
        last = result[-1] if result else None
        if last and (last.word, sound.word) not in pairs and last.word + sound.word in known and len(sound.word) > 1:
            result[-1] = _Heard(last.word + sound.word, last.start_s, sound.end_s)
        elif sound.word not in known and sound.word in together:
            first = together[sound.word]
            middle = sound.start_s + (sound.end_s - sound.start_s) * len(first) / len(sound.word)
            result += [_Heard(first, sound.start_s, middle), _Heard(sound.word[len(first) :], middle, sound.end_s)]
        else:
            result.append(sound)
    return result


def _placed(
    several: Sequence[bool],
    owner: Sequence[int],
    sounds: Sequence[_Heard],
    tokens: Sequence[str],
    matches: Sequence[Match],
) -> tuple[list[Span | None], list[float]]:
    """Times and confidences of the words that were heard; None and 0 for the others.

    A word with several readings also takes the sounds next to it that stand for more of its reading, however unlike.
    """
    spans: list[Span | None] = [None] * len(several)
    scores = [0.0] * len(several)
    for match in matches:
        if match.similarity >= HEARD:
            word, sound = owner[match.written], sounds[match.heard]
            span = spans[word]
            spans[word] = Span(span.start_s if span else sound.start_s, sound.end_s)
            scores[word] += match.similarity * letters_of(tokens[match.written])
    for order in (matches, matches[::-1]):
        for match in order:
            word, sound = owner[match.written], sounds[match.heard]
            span = spans[word]
            if several[word] and span and max(sound.start_s - span.end_s, span.start_s - sound.end_s) < _NEAR_S:
                spans[word] = Span(min(span.start_s, sound.start_s), max(span.end_s, sound.end_s))
    lengths = [0] * len(several)
    for token, word in zip(tokens, owner):
        lengths[word] += letters_of(token)
    return spans, [score / max(length, 1) for score, length in zip(scores, lengths)]


def _fill(
    words: Sequence[str],
    spoken: Sequence[Sequence[str]],
    letters: Sequence[int],
    spans: list[Span | None],
    scores: list[float],
    sounds: Sequence[_Heard],
    speech: Sequence[Span],
) -> None:
    """Give the words without a time one, in place, run by run."""
    letter_s = _pace(letters, spans, scores)
    where = speech or [Span(sound.start_s, sound.end_s) for sound in sounds]
    first_s, last_s = (where[0].start_s, where[-1].end_s) if where else (0.0, 0.0)
    for run in _runs(spans):
        before = spans[run.start - 1] if run.start else None
        after = spans[run.stop] if run.stop < len(words) else None
        start_s = before.end_s if before else min(first_s, after.start_s if after else first_s)
        room = Span(start_s, max(start_s, after.start_s if after else last_s))
        meanwhile = _inside(room, sounds)
        free = bins_of(room, _inside(room, speech), pauses=True) if speech else bins_of(room, meanwhile, pauses=False)
        expected_s, free_s = sum(letters[run]) * letter_s, sum(span.duration_s for span in free)
        # A neighbour that lasts too long may have swallowed them.
        for at in (run.start - 1, run.stop):
            neighbour = spans[at] if 0 <= at < len(words) else None
            if neighbour:
                free_s += max(0.0, neighbour.duration_s - 1.5 * letters[at] * letter_s - 0.1)
        closed = run.start == 0 or is_pausing(words[run.start - 1])
        if not any(letters[run]):
            score = min((scores[at] for at in (run.start - 1, run.stop) if 0 <= at < len(words)), default=0.0)
        elif expected_s > _UNSPOKEN_S and free_s < _UNSPOKEN_SHARE * expected_s:
            score, free = 0.0, [Span(room.start_s, room.start_s)]
        elif not sounds:
            score = 0.0
        else:
            fit = max(0.0, 1 - abs(expected_s - free_s) / (expected_s + 0.3))
            written = "".join(token for parts in spoken[run] for token in parts)
            alike = similarity([written], ["".join(sound.word for sound in meanwhile)])[0, 0] if meanwhile else 0.0
            score = fit * (0.2 + 0.5 * float(alike)) * min(1.0, 4 / (run.stop - run.start))
        spans[run] = spread(words[run], letters[run], free, letter_s, closed)
        scores[run] = [score] * (run.stop - run.start)


def _named(token: str) -> int:
    """How long a word of a reading takes, in letters; the name of a letter takes about three."""
    return max(letters_of(token), _LETTER_NAME)


def _pace(letters: Sequence[int], spans: Sequence[Span | None], scores: Sequence[float]) -> float:
    """Seconds per letter of the words that were heard as written."""
    sure = [(span.duration_s, count) for span, count, score in zip(spans, letters, scores) if span and score > 0.99]
    if not sure:
        return _LETTER_S
    seconds, count = (sum(column) for column in zip(*sure))
    return seconds / count if seconds > 0 else _LETTER_S


def _runs(spans: Sequence[Span | None]) -> list[slice]:
    """The runs of words without a time."""
    runs: list[slice] = []
    for at, span in enumerate(spans):
        if span is None:
            if runs and runs[-1].stop == at:
                runs[-1] = slice(runs[-1].start, at + 1)
            else:
                runs.append(slice(at, at + 1))
    return runs


def _inside(room: Span, parts: Sequence[_Stretch]) -> list[_Stretch]:
    """Those of `parts`, which are in order, that overlap `room`."""
    first = bisect_right(parts, room.start_s, key=lambda part: part.end_s)
    last = bisect_left(parts, room.end_s, key=lambda part: part.start_s)
    return list(parts[first:last])
