"""Which espeak voice makes the phonemes: as asked for, as recorded, or by the letters of the texts."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fish_speech.errors import UserError
from fish_speech.prepare.language import is_english

_BY_SCRIPT = {"CYRILLIC": "ru", "GREEK": "el", "HANGUL": "ko", "GEORGIAN": "ka", "ARMENIAN": "hy", "HIRAGANA": "ja"}
_UKRAINIAN = frozenset("іїєґ")


def voice_of_texts(texts: Sequence[str]) -> str | None:
    """The espeak voice of some texts by their letters; None where these leave it open."""
    letters = [letter for text in texts for letter in text.lower() if letter.isalpha()]
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    if not scripts:
        return None
    script = scripts.most_common(1)[0][0]
    if script == "CYRILLIC" and sum(letter in _UKRAINIAN for letter in letters) > 0.01 * len(letters):
        return "uk"
    if script == "LATIN":
        return "en-us" if is_english(" ".join(texts)) else None
    return _BY_SCRIPT.get(script)


def voice_of_config(path: Path) -> str | None:
    """`espeak.voice` of a config.json; None if there is no such file, or none that says it."""
    try:
        return voice_of_mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def voice_of_mapping(config: Any) -> str | None:
    """`espeak.voice` of a voice's config."""
    espeak = config.get("espeak") if isinstance(config, dict) else None
    voice = espeak.get("voice") if isinstance(espeak, dict) else None
    return voice if isinstance(voice, str) and voice else None


def unknown_language(where: str) -> UserError:
    """What to say where nothing tells the language."""
    return UserError(
        "--espeak-voice is missing",
        f"phonemes are made in the language of the texts, and {where} does not tell it",
        "add --espeak-voice en-us, de, fr, ...; espeak-ng --voices lists them",
    )
