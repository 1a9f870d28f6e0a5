"""What is said in a subtitle: without tags, entities, marks of who speaks, songs and descriptions of sounds.

Square brackets describe sounds wherever they stand. Round ones may also be part of the speech, so they are taken for a
description only at the start or end of a subtitle, after the end of a sentence, or if they begin with a known sound.
"""

from __future__ import annotations

import html
import re

from .plain_text import clean, has_words

_READING = re.compile(r"<rt[^<>]*>[^<>]*(?:</rt>|$)")  # how the characters before it are read, written above them
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</?>|<[0-9:.]{1,20}>|\{\\[^{}]*\}")  # WebVTT and SRT tags, times, {\an8}
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPEAKER_MARK = re.compile(r"""^\s*(?:>>+\s*)?(?:[-‐–—](?:\s+|(?=[^\W\d]|["'“‘«¿¡…(\[♪])))?""")
_ARROWS = re.compile(r"(?:^|\s)>>+(?=\s|$)")  # YouTube's mark of a change of speaker, in the middle of a line
_BRACKETS = re.compile(r"\[[^\[\]]*\]|【[^【】]*】|［[^［］]*］")
_PARENTHESES = re.compile(r"[(（]([^()（）]*)[)）]")
_KNOWN = (
    r"(?:applau|bark|beep|cheer|chuckl|clap|clears? (?:his |her )?throat|cough|crosstalk|cries|crying|door|gasp|giggl|"
    r"groan|grunt|hum|inaudible|indistinct|laugh|moan|music|pause|phone|ring|scream|shout|sigh|silence|sing|sniff|sob|"
    r"unintelligible|whisper|whistl|yell)"
)
_STARRED = re.compile(rf"\*\s*{_KNOWN}[^*]*\*", re.IGNORECASE)
_STARTS_KNOWN = re.compile(rf"\W*{_KNOWN}", re.IGNORECASE)
_SONG = re.compile("[♩♪♫♬][^♩♪♫♬]*[♩♪♫♬]")
_NOTE = re.compile("[♩♪♫♬]")
_UNHEARD = re.compile(
    r"[\[(](?:\s|&nbsp;)*(?:__+|inaudible|unintelligible|indistinct|crosstalk|foreign)", re.IGNORECASE
)


def without_tags(markup: str) -> str:
    """Return the text that is shown, entities resolved, white space as it is."""
    return _INVISIBLE.sub("", html.unescape(_TAG.sub("", _READING.sub("", markup))))


def shown_line(markup: str) -> str:
    """Return a line as a viewer sees it, single-spaced."""
    return clean(without_tags(markup))


def spoken(markup: str) -> str:
    """Return what is said in a subtitle of one or several lines, as one line; "" if nothing is."""
    lines = (_SPEAKER_MARK.sub("", without_tags(line)) for line in markup.split("\n"))
    text = _ARROWS.sub(" ", clean(" ".join(lines)))
    for _ in range(3):  # brackets within brackets
        text = _BRACKETS.sub(" ", text)
    text = clean(_STARRED.sub(" ", _SONG.sub(" ", text)))
    if _NOTE.search(text):  # an open song: it goes on in the next subtitle, or comes from the one before
        return ""
    text = clean(_PARENTHESES.sub(_without_sound, text))
    return text if has_words(text) else ""


def has_unheard_words(markup: str) -> bool:
    """Does it say that something is spoken which it does not write, as [inaudible] or YouTube's [ __ ]?"""
    return _UNHEARD.search(markup) is not None


def _without_sound(match: re.Match[str]) -> str:
    before, after = match.string[: match.start()].rstrip()[-1:], match.string[match.end() :].strip()
    if not before or before in ".!?…。！？—–-" or not has_words(after) or _STARTS_KNOWN.match(match[1]):
        return " "
    return match[0]
