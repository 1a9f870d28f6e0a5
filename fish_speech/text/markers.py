"""Markers of mood, tone and sounds that some versions obey: plain text in round brackets, as in "(whispering) Come here."

A version that was not trained on them reads them aloud, as does any version a name that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from ..errors import UserError
from ..marker_names import MARKERS

_BRACKETS = re.compile(r"[(（]([^()（）]{1,60})[)）]")
# Also what people write for a mood that has another name here: no marker, and read aloud by every version.
_ALIKE = {
    "happy": "joyful",
    "whisper": "whispering",
    "laugh": "laughing",
    "sigh": "sighing",
    "hurry": "in a hurry tone",
}
_KINDS = {name: kind for kind, names in MARKERS.items() for name in names}


def with_marker(text: str, kind: str, name: str) -> str:
    """Put the marker `name` of a kind in MARKERS before `text`, as in "(angry) Go away."; put it before each segment.

    Raises ValueError for what is not in MARKERS; `check_markers` tells a person more.
    """
    if plain_name(name) not in MARKERS.get(kind, ()):
        raise ValueError(f"there is no {kind} {name!r}")
    return f"({plain_name(name)}) {text.lstrip()}"


def check_markers(version_name: str, supported: bool, names: Mapping[str, str | None]) -> None:
    """Raise UserError if a marker is asked for that the version does not know; `names` by kind, None for not asked."""
    asked = {kind: name for kind, name in names.items() if name is not None}
    if asked and not supported:
        flags = " and ".join(f"--{kind}" for kind in asked)
        raise UserError(
            f"{flags} {'have' if len(asked) > 1 else 'has'} no effect with version {version_name}",
            "its model was not trained on markers, and would read them aloud",
            "leave it out, or imitate a recording in that mood with --reference-audio",
        )
    problems = [_unknown(kind, name) for kind, name in asked.items() if plain_name(name) not in MARKERS.get(kind, ())]
    if problems:
        raise UserError(
            "; ".join(what for what, _ in problems),
            f"version {version_name} knows " + "; ".join(f"{kind}s: {', '.join(MARKERS[kind])}" for kind in asked),
            "; ".join(fix for _, fix in problems),
        )


def markers_in(text: str) -> list[str]:
    """The names in round brackets that are markers, or that a person may take for one, in the order of the text."""
    names = (plain_name(match[1]) for match in _BRACKETS.finditer(text))
    return [name for name in names if name in _KINDS or name in _ALIKE]


def without_markers(text: str) -> str:
    """The words of `text` that are said: without the markers of MARKERS and the space behind them."""
    kept = re.sub(rf"{_BRACKETS.pattern}\s*", lambda match: "" if plain_name(match[1]) in _KINDS else match[0], text)
    return kept.strip()


def plain_name(name: str) -> str:
    """A marker's name as it is listed: small letters, one space between words, no brackets, no hyphens."""
    return " ".join(name.strip(" ()（）").replace("-", " ").replace("_", " ").lower().split())


def _unknown(kind: str, name: str) -> tuple[str, str]:
    """What is wrong with a name, and what to do about it."""
    plain, what = plain_name(name), f"there is no {kind} {name!r}"
    if plain in _KINDS:
        return what, f"use --{_KINDS[plain]} {plain!r}"
    near = [_ALIKE[plain]] if plain in _ALIKE else get_close_matches(plain, _KINDS, n=1, cutoff=0.6)
    if near:
        return what, f"did you mean --{_KINDS[near[0]]} {near[0]!r}?"
    return what, f"choose one of the {kind}s above"
