"""What Whisper wrote as .json: openai-whisper and faster-whisper segments, with or without words, and whisperX words.

openai-whisper: {"segments": [{"start", "end", "text", "avg_logprob", "no_speech_prob", "words": [{"word", "start",
"end", "probability"}]}]}; faster-whisper: the list of segments alone; whisperX: words with "score", some of them (digits)
without times, and all again as "word_segments". The file may come from anywhere: nothing in it is trusted.
"""

from __future__ import annotations

import json
import math
from itertools import groupby
from typing import Any, NamedTuple, TypeGuard

from ..text.words import ends_sentence, join, words_of
from ..timeline import Piece
from .plain_text import MAX_TIME_S, Unusable, clean, has_words

MAX_SEGMENTS, MAX_WORDS = 200_000, 1_000_000
MAX_UNTIMED = 50  # words in a row without times; with more, the times of the words say too little
MAX_WORD = 200  # characters that parts are joined to
NO_SPEECH_PROB, LOGPROB = (
    0.6,
    -1.0,
)  # openai-whisper's own defaults: silence if above the first and not above the second
_NEEDED = {"start", "end", "text"}


class _Word(NamedTuple):
    text: str  # with the space before it, if Whisper wrote one
    start_s: float | None
    end_s: float | None
    confidence: float


def read_whisper(text: str, name: str) -> tuple[str, tuple[Piece, ...]]:
    """Return what was said and when: word by word where the file has times for words, else by segment.

    Raises Unusable with one line if it is no such file ("no transcript: ... not a Whisper JSON") or is damaged.
    """
    try:
        content = json.loads(text, parse_int=float)  # float: a number of a million digits takes no time
    except (ValueError, RecursionError) as error:
        raise Unusable(f"no transcript: {name} is not a Whisper JSON: it cannot be read as JSON") from error
    top = content if isinstance(content, dict) else {}
    segments = content if isinstance(content, list) else top.get("segments")
    if not isinstance(segments, list) or not all(isinstance(s, dict) and s.keys() >= _NEEDED for s in segments):
        raise Unusable(
            f"no transcript: {name} is not a Whisper JSON: it has no list of segments with start, end and text"
        )
    if len(segments) > MAX_SEGMENTS:
        raise Unusable(f"unusable transcript: {name} holds more than {MAX_SEGMENTS} segments")
    try:
        return _read(segments, top)
    except _Damaged as error:
        raise Unusable(f"unusable transcript: {name}: {error}") from error


class _Damaged(Exception):
    pass


def _read(segments: list[dict[str, Any]], top: dict[str, Any]) -> tuple[str, tuple[Piece, ...]]:
    kept = [segment for segment in segments if not _is_silence(segment)]
    texts = [_text(segment) for segment in kept]
    glue = "" if any(text[:1].isspace() for text in texts) else " "
    text = clean(glue.join(texts))
    if isinstance(top.get("text"), str) and _letters(top["text"]) == _letters(text):
        text = clean(top["text"])  # with the spaces, or none, that the language has between sentences
    timed: list[_Word] = []
    for segment in kept:
        timed += _words_of_segment(segment) or [_whole(segment)] if has_words(_text(segment)) else []
        if len(timed) > MAX_WORDS:
            raise _Damaged(f"more than {MAX_WORDS} words")
    separate = top.get("word_segments")
    if isinstance(separate, list) and not any(segment.get("words") for segment in kept):  # older whisperX
        timed = _with_times(separate, {"text": text}) or timed
    timed.sort(key=lambda word: word.start_s or 0.0)
    return text, tuple(_pieces(timed))


def _is_silence(segment: dict[str, Any]) -> bool:
    no_speech, logprob = segment.get("no_speech_prob"), segment.get("avg_logprob")
    return _is_number(no_speech) and _is_number(logprob) and no_speech > NO_SPEECH_PROB and logprob <= LOGPROB


def _text(segment: dict[str, Any]) -> str:
    text = segment.get("text", segment.get("word"))
    if not isinstance(text, str):
        raise _Damaged(f"a text that is {type(text).__name__}, not a string")
    return text


def _whole(segment: dict[str, Any]) -> _Word:
    start_s, end_s = _time(segment.get("start")), _time(segment.get("end"))
    if start_s is None or end_s is None:
        raise _Damaged("a segment without times")
    if end_s <= start_s:
        raise _Damaged(f"a segment that ends at {end_s:g} s, not after its start at {start_s:g} s")
    return _Word(_text(segment), start_s, end_s, _confidence(segment))


def _words_of_segment(segment: dict[str, Any]) -> list[_Word]:
    """Return the words of a segment, each with times; [] if it has none, or they are not the words of its text."""
    words = segment.get("words")
    return _with_times(words, segment) if isinstance(words, list) else []


def _with_times(items: list[Any], segment: dict[str, Any]) -> list[_Word]:
    if len(items) > MAX_WORDS:
        raise _Damaged(f"more than {MAX_WORDS} words")
    words = [_word(item, _confidence(segment)) for item in items]
    words = [word for word in words if clean(word.text)]
    if not any(word.start_s is not None for word in words):
        return []
    if _letters("".join(word.text for word in words)) != _letters(_text(segment)):
        return []
    runs = ((untimed, len(list(run))) for untimed, run in groupby(words, lambda word: word.start_s is None))
    if any(untimed and length > MAX_UNTIMED for untimed, length in runs):
        return []
    words = _joined(words, _time(segment.get("start")), _time(segment.get("end")))
    ordered = all(a.start_s <= b.start_s for a, b in zip(words, words[1:]))  # type: ignore[operator]
    return words if ordered else []


def _word(item: Any, confidence: float) -> _Word:
    if isinstance(item, list) and len(item) == 4:  # faster-whisper's Word, a named tuple in its older versions
        item = dict(zip(("start", "end", "word", "probability"), item))
    if not isinstance(item, dict):
        raise _Damaged(f"a word that is {type(item).__name__}, not an object")
    start_s, end_s = _time(item.get("start")), _time(item.get("end"))
    if start_s is None or end_s is None or end_s == start_s:
        start_s = end_s = None  # whisperX has no times for digits; Whisper's own are empty now and then
    elif end_s < start_s:
        raise _Damaged(f"a word that ends at {end_s:g} s, before its start at {start_s:g} s")
    return _Word(_text(item), start_s, end_s, _confidence(item, confidence))


def _joined(words: list[_Word], start_s: float | None, end_s: float | None) -> list[_Word]:
    """Join what has no times to the word before it, until the next one starts; and parts of a word to their word."""
    spaced = any(word.text[:1].isspace() for word in words)
    joined: list[_Word] = []
    pending: list[_Word] = []  # at the start, before anything that has times
    next_start_s, later = end_s, []
    for word in reversed(words):
        later.append(next_start_s)
        next_start_s = next_start_s if word.start_s is None else word.start_s
    for word, until_s in zip(words, reversed(later)):
        if word.start_s is None:
            if not joined:
                pending.append(word)
                continue
            before = joined.pop()
            until_s = max(before.end_s or 0.0, until_s or 0.0)
            joined.append(_Word(_both(before, word, spaced), before.start_s, until_s, min(before[3], word[3])))
        elif joined and _is_part(joined[-1], word, spaced):
            before = joined.pop()
            until_s = max(before.end_s or 0.0, word.end_s or 0.0)
            joined.append(_Word(before.text + word.text, before.start_s, until_s, min(before[3], word[3])))
        else:
            joined.append(word)
    for word in reversed(pending):
        first = joined[0]
        start = first.start_s if start_s is None else min(start_s, first.start_s or 0.0)
        joined[0] = _Word(_both(word, first, spaced), start, first.end_s, min(first[3], word[3]))
    return joined


def _both(before: _Word, after: _Word, spaced: bool) -> str:
    return before.text + after.text if spaced else join([clean(before.text), clean(after.text)])


def _is_part(before: _Word, word: _Word, spaced: bool) -> bool:
    """Whisper splits well-known into " well" and "-known": without a space it goes on, where words have spaces."""
    if not spaced or word.text[:1].isspace() or before.text[-1:].isspace() or len(before.text) > MAX_WORD:
        return False
    return len(words_of(before.text[-1:] + word.text[:1])) == 1


def _pieces(words: list[_Word]) -> list[Piece]:
    texts = [clean(word.text) for word in words]
    pieces = []
    for i, (word, text) in enumerate(zip(words, texts)):
        following = texts[i + 1].split()[0] if i + 1 < len(texts) else None
        start_s, end_s = word.start_s or 0.0, word.end_s or 0.0
        pieces.append(Piece(text, start_s, end_s, word.confidence, ends_sentence(text.split()[-1], following)))
    return pieces


def _time(value: Any) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise _Damaged(f"a time that is {'not finite' if isinstance(value, float) else type(value).__name__}")
    if not 0 <= value <= MAX_TIME_S:
        raise _Damaged(f"a time of {value:g} s, not within 0 and {MAX_TIME_S / 86400:g} days")
    return float(value)


def _confidence(item: dict[str, Any], otherwise: float = 1.0) -> float:
    """Return the probability of a word, or the mean one of a segment's tokens, as 0-1; 0 if it is no number."""
    for key in ("probability", "score", "confidence"):
        if item.get(key) is not None:
            return min(1.0, max(0.0, item[key])) if _is_number(item[key]) else 0.0
    if item.get("avg_logprob") is not None:
        return math.exp(min(0.0, item["avg_logprob"])) if _is_number(item["avg_logprob"]) else 0.0
    return otherwise


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
