"""Speaking rate: whether a text can be what is spoken in so much time."""

from __future__ import annotations

import unicodedata

_MAX_PER_S = 40.0  # letters; the fastest talkers reach 25
_MAX_SYLLABLES_PER_S = 15.0  # Chinese, Japanese and Korean characters; the fastest talkers reach 10
_MIN_PER_S = 1.0
_MIN_SYLLABLES_PER_S = 0.4
_LETTERS_PER_NUMBER = 5  # digits, %, $: one character of them is a word at most
_SLOW_FROM_S = 5.0  # one word may be held for long
_SHORTEST_S = 0.5  # the ends of speech are known to a tenth of a second: what is shorter is taken for as long
_SPOKEN_SYMBOLS = frozenset("%‰&@#°№")
_SYLLABIC = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")


def characters_per_s(text: str, duration_s: float) -> float:
    """Spoken characters, which are letters, digits and symbols, per second; 0 for no duration."""
    letters, syllables, numbers = _count(text)
    return (letters + syllables + numbers) / duration_s if duration_s > 0 else 0.0


def implausible_rate(text: str, speech_s: float) -> str | None:
    """Return why `text` cannot be what is spoken in `speech_s` seconds of speech, or None if it can be."""
    letters, syllables, numbers = _count(text)
    said = f"{letters + syllables + numbers} characters in {speech_s:.1f} s of speech"
    speech_s = max(speech_s, 2 * _SHORTEST_S if speech_s < _SHORTEST_S else 0.0)
    if (letters + numbers) / _MAX_PER_S + syllables / _MAX_SYLLABLES_PER_S > speech_s:
        return f"text too long for the sound: {said}"
    longest_s = (letters + numbers * _LETTERS_PER_NUMBER) / _MIN_PER_S + syllables / _MIN_SYLLABLES_PER_S
    if speech_s > _SLOW_FROM_S and longest_s < speech_s:
        return f"text too short for the sound: {said}"
    return None


def _count(text: str) -> tuple[int, int, int]:
    """Count letters, characters that stand for a syllable, and digits and symbols that are read as words."""
    letters = syllables = numbers = 0
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if category[0] == "L":
            if unicodedata.name(character, "").startswith(_SYLLABIC):
                syllables += 1
            else:
                letters += 1
        elif category[0] == "N" or category in ("Sc", "Sm") or character in _SPOKEN_SYMBOLS:
            numbers += 1
    return letters, syllables, numbers
