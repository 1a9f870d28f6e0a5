"""Names of espeak voices: which may be asked for at all, and what to say about one that is not known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from fish_speech.errors import UserError
from fish_speech.prepare.names import one_line

# A language with its parts, and a variant behind a plus: en-us, en-gb-x-rp, zh, cmn-latn-pinyin, ru+f3. Neither a path
# nor an option can look like this.
_NAME = re.compile(r"[A-Za-z]{2,20}(?:[-_][A-Za-z0-9]{1,20}){0,4}(?:\+[A-Za-z0-9_-]{1,20})?")
_OFTEN_MEANT = {  # names of languages, and codes that others use
    "english": "en-us",
    "british": "en",
    "zh": "cmn",
    "chinese": "cmn",
    "no": "nb",
    "ua": "uk",
    "cz": "cs",
    "jp": "ja",
    "kr": "ko",
    "gr": "el",
    "dk": "da",
    "rus": "ru",
    "eng": "en-us",
}


def check_voice_name(name: str) -> str:
    """Return `name` if it could be an espeak voice. Raises UserError."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise UserError(
        f"'{one_line(str(name))[:60]}' is no name of an espeak voice",
        "a name is a language code, as in en-us, ru or de",
        "set --data.espeak_voice (or --espeak-voice) to the language of the texts; espeak-ng --voices lists them",
    )


def unknown_voice(name: str, known: Iterable[str], source: str) -> UserError:
    """What to say when `source` does not have a voice: those like it, the closest first."""
    near = close_matches(name, known)
    return UserError(
        f"espeak has no voice '{name}'",
        f"{source} does not know it" + (f"; it has {', '.join(near)}" if near else ""),
        f"use --espeak-voice {near[0]}" if near else "use one of those that `espeak-ng --voices` lists",
    )


def close_matches(name: str, known: Iterable[str], most: int = 5) -> list[str]:
    """Known voices like `name`: what it often stands for, its language, that language's accents, similar names."""
    voices = sorted({voice.lower() for voice in known})
    plain = name.lower().replace("_", "-").partition("+")[0]
    language = plain.partition("-")[0]
    wanted = [plain, _OFTEN_MEANT.get(plain, ""), _OFTEN_MEANT.get(language, ""), language]
    accents = [voice for voice in voices if voice.startswith(f"{language}-")]
    similar = difflib.get_close_matches(plain, voices, n=most, cutoff=0.5)
    near = [voice for voice in dict.fromkeys([*wanted, *accents, *similar]) if voice in voices]
    return near[:most]
