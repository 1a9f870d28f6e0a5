"""The words of a text: split it, put it back together, see where sentences end and how long words are.

Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are split into characters, the
same units in which Whisper times them. `join(words_of(text))` is the text, with every run of white space one space.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

# Han, kana, bopomofo, and their marks and punctuation; Thai and Lao; Burmese; Khmer; the planes of rare Han.
_SPACELESS = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x312F), (0x31A0, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF01, 0xFF0F), (0xFF1A, 0xFF1F), (0xFF61, 0xFF9F),
    (0x20000, 0x3FFFF),
)  # fmt: skip
_ENDS = ".!?…。！？｡‽؟।"
_CLOSERS = "\"'”’»)]}」』）】*_"
# Titles and the like stand before a name. Those that often end a sentence (etc., Inc., a.m.) are left to the next word's
# first letter.
_BEFORE_NAMES = frozenset(
    """mr mrs ms dr prof rev hon st gen col capt lt sgt cmdr adm gov sen rep pres messrs mme mlle vs cf viz approx
    dept est ca bzw z.b d.h u.a hr fr dipl ing sra srta i.e e.g""".split()  # noqa: SIM905
)
_BEFORE_NUMBERS = frozenset("no nos nr vol fig eq op p pp jan feb mar apr jun jul aug sep sept oct nov dec".split())  # noqa: SIM905


def words_of(text: str) -> list[str]:
    """Split `text` at white space, and between characters of scripts without spaces; punctuation stays with its word.

    A character of such a script keeps a space that follows it if the next word is of such a script too, because `join`
    puts none there. Words have no other white space.
    """
    words: list[str] = []
    for token in text.split():
        units = _characters(token) if any(map(is_spaceless, token)) else [token]
        if words and _glued(words[-1], units[0]):
            words[-1] += " "
        words += units
    return words


def join(words: Iterable[str]) -> str:
    """Put words back together: one space between them, none between characters of scripts without spaces."""
    parts: list[str] = []
    last = ""
    for word in words:
        if parts and not last[-1:].isspace() and not _glued(last, word):
            parts.append(" ")
        parts.append(word)
        last = word
    return "".join(parts)


def ends_sentence(word: str, following: str | None = None) -> bool:
    """Does a sentence end after `word`? `following` is the next word, None at the end of the text, which ends one.

    Not after abbreviations and initials (Mr. J. Smith), nor where the next word starts with a small letter.
    """
    if following is None:
        return True
    core = word.strip().rstrip(_CLOSERS)
    if not core or core[-1] not in _ENDS:
        return False
    if core[-1] not in ".…":
        return True if core[-1] in "。！？｡" else not _starts_small(following)
    bare = core.rstrip(".…").lstrip("\"'“‘«([{*_").casefold()
    is_initial = len(bare) == 1 and bare.isalpha() and core.endswith(".") and bare != "i"
    if bare in _BEFORE_NUMBERS and following[:1].isdigit():
        return False
    return not (_starts_small(following) or is_initial or bare in _BEFORE_NAMES)


@lru_cache(maxsize=100_000)
def letters_of(word: str) -> int:
    """How long `word` takes to say, in letters; a character of a script without spaces counts as three."""
    return sum(3 if is_spaceless(character) else 1 for character in word if is_letter(character))


@lru_cache(maxsize=10_000)
def is_spaceless(character: str) -> bool:
    """Is it of a script that puts no spaces between words?"""
    code = ord(character)
    return code >= 0x0E00 and any(low <= code <= high for low, high in _SPACELESS)


def is_letter(character: str) -> bool:
    """Is it a letter or a digit?"""
    return unicodedata.category(character)[0] in "LN"


def _glued(before: str, after: str) -> bool:
    """Is there no space between these two when they are joined?"""
    return bool(before and after) and is_spaceless(before[-1]) and is_spaceless(after[0])


def _characters(token: str) -> list[str]:
    """Split before each letter that is, or follows, a letter of a script without spaces; "AI时代。" gives "AI时", "代。".

    Opening brackets go with what follows, all other punctuation and combining marks with what is before.
    """
    units, current, has_letter = [], "", False
    for character in token:
        opens = unicodedata.category(character) in ("Ps", "Pi")
        splits = current and has_letter and (is_letter(character) or opens) and _glued(current, character)
        if splits:
            units.append(current)
            current, has_letter = "", False
        current += character
        has_letter = has_letter or is_letter(character)
    return [*units, current]


def _starts_small(word: str) -> bool:
    first: Sequence[str] = [c for c in word if c.isalnum()][:1]
    return bool(first) and first[0].islower()
