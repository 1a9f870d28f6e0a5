"""Names that are safe as file names everywhere, and that never collide.

A safe name holds letters, digits and marks of any script, `-` and `_`: no separators, dots, controls or emoji.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 100  # UTF-8; leaves room for a suffix and a temporary prefix within the 255 bytes of a file name
_WINDOWS_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"),
}


def safe_name(text: str, fallback: str = "clip") -> str:
    """Turn any text into a file name without suffix; `fallback` if nothing of it can stay. Idempotent."""
    kept = (c if c.isalnum() or c == "-" or unicodedata.category(c)[0] == "M" else "_" for c in _normal(text))
    name = "_".join(part for part in "".join(kept).split("_") if part)
    name = _clean_ends(name)
    while len(name.encode()) > MAX_BYTES:
        name = _clean_ends(name[:-1])
    if name.lower() in _WINDOWS_DEVICES:
        name += "-1"
    return name or fallback


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))


def _clean_ends(name: str) -> str:
    """Strip what looks like a flag at the front, and marks that would join the character before the name."""
    name = name.strip("-_")
    while name and unicodedata.category(name[0])[0] == "M":
        name = name[1:].lstrip("-_")
    return name


def collision_key(name: str) -> str:
    """Return what two names share if some file system (macOS, Windows) takes them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


class NameBook:
    """Hands out names that are not taken; the same questions in the same order give the same answers."""

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = {collision_key(name) for name in taken}
        self._last: dict[str, int] = {}  # number that a name was given, so that many of one name take no longer each

    def take(self, name: str) -> str:
        """Return `name`, or `name-2`, `name-3`, ... if it is taken, and remember it as taken."""
        number = self._last.get(collision_key(name), 1)
        candidate = name if number == 1 else f"{name}-{number}"
        while collision_key(candidate) in self._taken:
            number += 1
            candidate = f"{name}-{number}"
        self._taken.add(collision_key(candidate))
        self._last[collision_key(name)] = number
        return candidate


def text_of(path: Path | str) -> str:
    """Return a path as text that UTF-8 can hold, absolute: POSIX names may be any bytes."""
    return os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")  # noqa: PTH100


def one_line(text: str) -> str:
    """Return `text` fit for a terminal: control characters, line breaks included, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
