"""The languages that whisper models know, by their codes."""

from __future__ import annotations

from ..errors import UserError

_CODES = """
af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is it
ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so
sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())


def check_language(language: str | None, model: str = "") -> None:
    """Raise UserError if whisper knows no such language, or if `model`, named as for English only, does not."""
    if language is not None and language not in LANGUAGES:
        raise UserError(
            f"unknown language {language!r}",
            f"whisper knows {', '.join(sorted(LANGUAGES))}",
            "give one of these codes to --language, or leave it out to have the language detected",
        )
    if model.removesuffix(".pt").endswith(".en") and language not in (None, "en"):
        raise only_english(model, language)


def only_english(model: str, language: str | None) -> UserError:
    """What to tell someone who asks an English model for another language."""
    return UserError(
        f"{model} does not know the language {language!r}",
        "it is a model for English only",
        f"use --whisper-model {model.removesuffix('.pt').removesuffix('.en') or 'small'}, or --language en",
    )
