"""When is each word of a known text spoken? Align the text to words that a recogniser heard, many of them wrong.

Words that were heard as written take the time at which they were heard. Those between them share the speech that is left
there, by their number of letters, and pauses fall after punctuation where they can. Every word says how sure its place
is, so that a clip whose text is doubtful can be left out (`clip_text`).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from ..text.words import ends_sentence, join, letters_of, words_of
from ..timeline import Piece, Span
from .interpolation import bins_of, is_pausing, share, spread
from .matching import match_words, similarity
from .spoken_words import spoken_words

_HEARD = 0.5  # a pair of words that are less alike says nothing about the time
_LETTER_S = 0.07  # of speech, where nothing can be measured
# A run of words that would take longer than _UNSPOKEN_S, and has less than this share of the time, is not spoken.
_UNSPOKEN_S, _UNSPOKEN_SHARE = 0.8, 0.2
# When a clip is left out; measured on 206 clips (17 min), pocketsphinx hearing 81 % of the words. Of the clips whose text
# is true 85 % are kept, 99.4 % of them with their exact text; where one clip in five has text that is not spoken or speech
# that is not written (a sentence, half a clip, 3 or more words), 97.5 % of those kept are exact.
_MEAN_CONFIDENCE = 0.5
_EDGE_CONFIDENCE = 0.12  # of the first and the last word
_RUN_CONFIDENCE, _RUN_LETTERS = 0.3, 12  # so many letters in a row, each less sure than that
_EXTRA_S = 0.4  # heard between the words
_EDGE_LETTERS = 8  # about two words


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
    """
    words = words_of(text)
    spoken = [spoken_words(word, language) for word in words]
    tokens = [token for parts in spoken for token in parts]
    owner = [number for number, parts in enumerate(spoken) for _ in parts]
    sounds = _as_written(_sounds(heard, language), tokens)
    spans, scores = _placed(len(words), owner, sounds, tokens)
    _fill(words, spoken, spans, scores, sounds, _merged(speech))
    pieces: list[Piece] = []
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else None
        span = spans[number]
        assert span is not None
        pieces.append(Piece(word, *span, scores[number], ends_sentence(word, following)))
    return pieces


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
    count: int, owner: Sequence[int], sounds: Sequence[_Heard], tokens: Sequence[str]
) -> tuple[list[Span | None], list[float]]:
    """Times and confidences of the words that were heard; None and 0 for the others."""
    spans: list[Span | None] = [None] * count
    scores = [0.0] * count
    for match in match_words(tokens, [sound.word for sound in sounds]):
        if match.similarity < _HEARD:
            continue
        word, sound = owner[match.written], sounds[match.heard]
        span = spans[word]
        spans[word] = Span(span.start_s if span else sound.start_s, sound.end_s)
        scores[word] += match.similarity * letters_of(tokens[match.written])
    lengths = [0] * count
    for token, word in zip(tokens, owner):
        lengths[word] += letters_of(token)
    return spans, [score / max(length, 1) for score, length in zip(scores, lengths)]


def _fill(
    words: Sequence[str],
    spoken: Sequence[Sequence[str]],
    spans: list[Span | None],
    scores: list[float],
    sounds: Sequence[_Heard],
    speech: Sequence[Span],
) -> None:
    """Give the words without a time one, in place, run by run."""
    letters = [sum(map(letters_of, parts)) for parts in spoken]
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


def clip_text(
    pieces: Sequence[Piece], start_s: float, end_s: float, heard: Sequence[Piece] = ()
) -> tuple[str, float, str | None]:
    """Return the text spoken in the clip [start_s, end_s), how sure it is (0-1), and why to leave it out, or None.

    `pieces`, in order of time, are words of `align`, recognised words or subtitles; those whose middle lies in the clip
    count. Words that `align` found not to be spoken (confidence 0 and no length) are not part of the text. With `heard`,
    what `align` was given, speech between the words that the text does not have is a reason too.
    """
    inside = _within(pieces, start_s, end_s)
    inside = [piece for piece in inside if piece.confidence > 0 or piece.end_s > piece.start_s]
    said = [piece for piece in inside if letters_of(piece.text)]
    if not said:
        return "", 0.0, "no words: speech that the text does not have"
    text = join(piece.text for piece in inside).strip()
    mean = _mean_confidence(said)
    edges = [_mean_confidence(_edge(said)), _mean_confidence(_edge(said[::-1]))]
    confidence = (mean + min(mean, *edges)) / 2
    if mean < _MEAN_CONFIDENCE:
        unheard = sum(piece.confidence < _HEARD for piece in said)
        return text, confidence, f"text uncertain: {unheard} of {len(said)} words were not heard as written"
    for piece, where in ((said[0], "start"), (said[-1], "end")):
        if piece.confidence < _EDGE_CONFIDENCE:
            return text, confidence, f'text uncertain at the {where}: "{piece.text.strip()}" was not heard'
    run = _longest(said, lambda piece: piece.confidence < _RUN_CONFIDENCE, lambda piece: letters_of(piece.text))
    if sum(letters_of(piece.text) for piece in run) >= _RUN_LETTERS:
        return text, confidence, f'text uncertain: "{join(piece.text for piece in run).strip()}" was not heard'
    extra = _longest(_within(heard, start_s, end_s), lambda word: not _covered(word, inside), _length_s)
    if sum(map(_length_s, extra)) >= _EXTRA_S:
        return (
            text,
            confidence,
            (
                f'speech that the text does not have: "{join(word.text for word in extra).strip()}" was heard'
                f" at {extra[0].start_s:.1f} s"
            ),
        )
    return text, confidence, None


def _within(pieces: Sequence[Piece], start_s: float, end_s: float) -> Sequence[Piece]:
    def middle(piece: Piece) -> float:
        return (piece.start_s + piece.end_s) / 2

    return pieces[bisect_left(pieces, start_s, key=middle) : bisect_left(pieces, end_s, key=middle)]


def _length_s(piece: Piece) -> float:
    return piece.end_s - piece.start_s


def _mean_confidence(pieces: Sequence[Piece]) -> float:
    sizes = [letters_of(piece.text) for piece in pieces]
    return sum(piece.confidence * size for piece, size in zip(pieces, sizes)) / sum(sizes)


def _edge(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The first words, until they have _EDGE_LETTERS."""
    size = 0
    for count, piece in enumerate(pieces, start=1):
        size += letters_of(piece.text)
        if size >= _EDGE_LETTERS:
            return pieces[:count]
    return pieces


def _longest(
    pieces: Sequence[Piece], matches: Callable[[Piece], bool], size: Callable[[Piece], float]
) -> Sequence[Piece]:
    """The run of pieces that match with the largest sum of sizes; empty if none does."""
    best: Sequence[Piece] = ()
    start = 0
    for at, piece in enumerate(pieces):
        if not matches(piece):
            start = at + 1
        elif sum(map(size, pieces[start : at + 1])) > sum(map(size, best)):
            best = pieces[start : at + 1]
    return best


def _covered(word: Piece, pieces: Sequence[Piece]) -> bool:
    """Does some text lie where `word` was heard?"""
    overlap = sum(max(0.0, min(word.end_s, piece.end_s) - max(word.start_s, piece.start_s)) for piece in pieces)
    return overlap >= 0.3 * _length_s(word)
