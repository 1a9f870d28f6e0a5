"""Subtitles (SubRip .srt, WebVTT .vtt): what is said when.

Read line by line here because the libraries at hand would not do for files that nobody has checked: they skip what they
cannot read without a word (webvtt-py), take comments for speech (pysubs2), or take quadratic time (srt).

Players of YouTube's automatic captions show each line twice, first as it is spoken, then above the next one; in such a
file a line that is still shown counts once, when it is new. Times of words within a subtitle are used where given.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..text.words import ends_sentence, join
from ..timeline import Piece
from .cue_text import has_unheard_words, shown_line, spoken, without_tags
from .plain_text import MAX_TIME_S, Unusable, clean, has_words, lines_of

MAX_CUES = 200_000
MAX_CUE_CHARACTERS = 20_000
_INSTANT_S = 0.1  # what stands closer together than this was shown without a break

_TIME = r"(-?)(?:([0-9]{1,9}):)?([0-9]{1,4}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-{{1,2}}>\s*{_TIME}(?:\s.*)?$")
_MEANS_TIMING = re.compile(r"^\s*-?[0-9][0-9:.,]*\s*-->|-->\s*-?[0-9]+[:.,]")
_NOT_SPEECH = re.compile(r"^(?:NOTE(?:[ \t]|$)|(?:STYLE|REGION)[ \t]*$)")
_WORD_TIME = re.compile(r"<()(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{2})[.,]([0-9]{1,9})>")


class Cue(NamedTuple):
    """One subtitle, as it is written."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]  # markup; none of them empty for a viewer


def read_subtitles(text: str, name: str) -> tuple[Piece, ...]:
    """Return what the subtitles in `text` say, in order of time; `name` is for messages. Raises Unusable."""
    cues = sorted(_cues(text, name), key=lambda cue: (cue.start_s, cue.end_s))
    cues = _ended_by_the_next(_each_line_once(_without_highlights(cues)))
    timed = [part for cue in cues for part in _parts(cue)]
    said = [(spoken(markup), start, end, sure) for markup, start, end, sure in timed]
    said = sorted((part for part in said if part[0]), key=lambda part: part[1:3])
    pieces = []
    for i, (words, start, end, sure) in enumerate(said):
        following = said[i + 1][0].split()[0] if i + 1 < len(said) else None
        pieces.append(Piece(words, start, end, sure, ends_sentence(words.split()[-1], following)))
    return tuple(pieces)


def _cues(text: str, name: str) -> Iterator[Cue]:
    """Find the subtitles. SubRip has a number before each, WebVTT may have a name, and comments between them."""
    webvtt = text.lstrip().startswith("WEBVTT")
    lines = lines_of(text)
    timings = [(i, match) for i, line in enumerate(lines) if (match := _timing(line, i, name))]
    if not timings:
        raise Unusable(f"unusable transcript: {name} holds no subtitles with times")
    if len(timings) > MAX_CUES:
        raise Unusable(f"unusable transcript: {name} holds more than {MAX_CUES} subtitles")
    header = [line for line in lines[: timings[0][0]] if line.strip()]
    numbered = bool(header) and header[-1].strip().isdecimal()
    ends = [i for i, _ in timings[1:]]
    for (i, match), end in zip(timings, [*ends, len(lines)]):
        body = lines[i + 1 : end]
        if end < len(lines):
            body = _without_number(body, numbered, webvtt)
        if webvtt:
            body = _without_comments(body)
        where = f"unusable transcript: {name} line {i + 1}"
        if sum(map(len, body)) > MAX_CUE_CHARACTERS:
            raise Unusable(f"{where}: a subtitle of more than {MAX_CUE_CHARACTERS} characters")
        shown = tuple(line for line in body if shown_line(line))
        if any(has_words(shown_line(line)) for line in shown):
            start_s, end_s = _seconds(*match.groups()[:5]), _seconds(*match.groups()[5:])
            _check(start_s, end_s, where)
            yield Cue(start_s, end_s, shown)


def _timing(line: str, i: int, name: str) -> re.Match[str] | None:
    if "->" not in line:
        return None
    match = _TIMING.match(line)
    if match is None and not _MEANS_TIMING.search(line):
        return None  # an arrow in the text
    if match is None or not (_on_the_clock(*match.groups()[1:4]) and _on_the_clock(*match.groups()[6:9])):
        raise Unusable(f"unusable transcript: {name} line {i + 1}: cannot read the times {clean(line)[:60]!r}")
    return match


def _on_the_clock(hours: str | None, minutes: str, seconds: str) -> bool:
    return int(seconds) < 60 and (hours is None or int(minutes) < 60)


def _seconds(sign: str, hours: str | None, minutes: str | None, seconds: str, fraction: str | None) -> float:
    value = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(f"{int(seconds)}.{fraction or 0}")
    return -value if sign else value


def _check(start_s: float, end_s: float, where: str) -> None:
    if start_s < 0 or end_s < 0:
        raise Unusable(f"{where}: a subtitle before the recording starts")
    if end_s > MAX_TIME_S or start_s > MAX_TIME_S:
        raise Unusable(f"{where}: a time beyond {MAX_TIME_S / 86400:g} days")
    if end_s <= start_s:
        raise Unusable(f"{where}: a subtitle that ends at {end_s:g} s, not after its start at {start_s:g} s")


def _without_number(body: list[str], numbered: bool, webvtt: bool) -> list[str]:
    """Drop what names the next subtitle: its number, or in WebVTT any line between an empty one and its times."""
    if webvtt and len(body) > 1 and body[-1].strip() and not body[-2].strip():
        return body[:-1]
    last = next((i for i in range(len(body) - 1, -1, -1) if body[i].strip()), None)
    if numbered and last is not None and body[last].strip().isdecimal():
        return body[:last]
    return body


def _without_comments(body: list[str]) -> list[str]:
    kept, comment = [], False
    for before, line in zip(["text", *body], body):
        if not before.strip() and _NOT_SPEECH.match(line):
            comment = True
        comment = comment and bool(line.strip())
        if not comment:
            kept.append(line)
    return kept


def _without_highlights(cues: list[Cue]) -> list[Cue]:
    """Join what Whisper's --highlight_words writes: the same subtitle once for each word, that word underlined."""
    joined: list[Cue] = []
    for cue in cues:
        before = joined[-1] if joined else None
        marked = before is not None and any("<u>" in line for line in (*cue.lines, *before.lines))
        if before and marked and cue.start_s - before.end_s < _INSTANT_S and _shown(before) == _shown(cue):
            joined[-1] = Cue(before.start_s, max(before.end_s, cue.end_s), before.lines)
        else:
            joined.append(cue)
    return joined


def _shown(cue: Cue) -> list[str]:
    return [shown_line(line) for line in cue.lines]


def _each_line_once(cues: list[Cue]) -> list[Cue]:
    """In captions that roll, or grow word by word, drop from each what was shown before it already.

    Captions roll if at least two of them, and three in ten, begin with the end of the one before and go on.
    """
    shown = [_shown(cue) for cue in cues]
    news = [_new_lines(before, now, cue.lines) for before, now, cue in zip([[], *shown], shown, cues)]
    signs = sum(
        (len(new) < len(cue.lines) and (bool(new) or len(before) > 1 or cue.end_s - cue.start_s < _INSTANT_S))
        or (bool(new) and new[0] != cue.lines[0])
        for before, cue, new in zip([[], *shown], cues, news)
    )  # fmt: skip
    if signs < 2 or signs < 0.3 * (len(cues) - 1):
        return cues
    once = []
    for i, (cue, new) in enumerate(zip(cues, news)):
        said_again = not new and cue.start_s - cues[i - 1].end_s > _INSTANT_S  # the same words, after a pause
        lines = cue.lines if said_again else new
        if lines:
            once.append(cue._replace(lines=lines))
    return once


def _new_lines(before: list[str], now: list[str], lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return `lines`, shown as `now`, without those at their start that end `before`."""
    for count in range(min(len(before), len(now)), 0, -1):
        if before[-count:] == now[:count]:
            return lines[count:]
        if before[-count:-1] == now[: count - 1] and now[count - 1].startswith(before[-1] + " "):
            return (html.escape(now[count - 1][len(before[-1]) + 1 :], quote=False), *lines[count:])
    return lines


def _ended_by_the_next(cues: list[Cue]) -> list[Cue]:
    """Where most subtitles stay while the next one is shown (YouTube's .srt), each is spoken until the next begins."""
    overlaps = [cue.end_s > after.start_s for cue, after in zip(cues, cues[1:])]
    if len(overlaps) < 2 or sum(overlaps) <= len(overlaps) / 2:
        return cues
    after = [*(cue.start_s for cue in cues[1:]), MAX_TIME_S]
    return [cue._replace(end_s=min(cue.end_s, s)) if s > cue.start_s else cue for cue, s in zip(cues, after)]


def _parts(cue: Cue) -> list[tuple[str, float, float, float]]:
    """Split a subtitle at the times within it: (markup, start, end, confidence)."""
    markup = "\n".join(cue.lines)
    sure = 0.0 if has_unheard_words(markup) else 1.0
    texts, given = _WORD_TIME.split(markup)[::6], list(_WORD_TIME.finditer(markup))
    starts = [cue.start_s, *(_seconds(*time.groups()) for time in given)]
    bounds = [*starts, cue.end_s]
    if any(later < earlier for earlier, later in zip(bounds, bounds[1:])):  # times that contradict the subtitle's
        return [(markup, cue.start_s, cue.end_s, sure)]
    parts: list[tuple[str, float, float, float]] = []
    pending = ""
    for text, start, end in zip(texts, starts, bounds[1:]):
        pending += text
        if end == start:  # no time of its own: it goes with what follows
            continue
        if parts and _is_one_word(parts[-1][0], pending):
            before = parts.pop()
            parts.append((before[0] + pending, before[1], end, sure))
        else:
            parts.append((pending, start, end, sure))
        pending = ""
    if pending:
        before = parts.pop()
        parts.append((before[0] + pending, *before[1:]))
    return parts


def _is_one_word(before: str, after: str) -> bool:
    """Do two neighbours make a word, as syllables of a song, rather than each stand for itself?"""
    left, right = without_tags(before)[-1:].strip(), without_tags(after)[:1].strip()
    return bool(left and right) and join([left, right]) != left + right  # scripts without spaces join any two
