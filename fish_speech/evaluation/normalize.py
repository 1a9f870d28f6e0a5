"""Text as words that can be compared: lower case, numbers spelled out, no punctuation.

Scores of speech recognition are only as fair as this: the recogniser writes "twenty two" where the text has "22,".
"""

from __future__ import annotations

import re
import unicodedata

from ..extras import require

_APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\u00b4`", "'''''")
_SYMBOLS = {"&": " and ", "%": " percent ", "+": " plus ", "@": " at "}  # read aloud; in English alone
_MONEY = re.compile(r"([$€£])\s?(\d[\d,]*(?:\.\d+)?)")
_CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds"}
_ORDINAL = re.compile(r"(?<![\w.,])(\d{1,6})(?:st|nd|rd|th)\b")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_LONGEST = 15  # digits; longer numbers are read digit by digit, as are those with a leading zero


def comparable_words(text: str, language: str = "en") -> list[str]:
    """Split `text` into lower-case words without punctuation, numbers spelled out in `language` where possible.

    Doing it again changes nothing. Apostrophes inside words stay ("don't"); hyphens divide words.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    if any(character.isdecimal() for character in text):
        text = _spell_numbers(text, language)
    if language == "en":
        for symbol, word in _SYMBOLS.items():
            text = text.replace(symbol, word)
    text = unicodedata.normalize("NFKC", text)  # lower case can take letters apart
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return [stripped for word in kept.split() if (stripped := word.strip("'"))]


def _spell_numbers(text: str, language: str) -> str:
    if language == "en":
        text = _MONEY.sub(lambda match: f"{match[2]} {_CURRENCIES[match[1]]}", text)
        text = _ORDINAL.sub(lambda match: f" {_spell(match[1], language, 'ordinal')} ", text)
    return _NUMBER.sub(lambda match: f" {_spell(match[0], language)} ", text)


def _spell(number: str, language: str, form: str = "cardinal") -> str:
    num2words = require("num2words", "spelling out numbers").num2words
    digits = number.replace(",", "")
    whole = digits.isdecimal()
    try:
        if len(digits) > _LONGEST or (whole and len(digits) > 1 and int(digits[0]) == 0):
            return " ".join(num2words(int(digit), lang=language) for digit in digits if digit.isdecimal())
        if form == "cardinal" and language == "en" and whole and "," not in number and 1100 <= int(digits) < 2000:
            form = "year"  # 1984 is nineteen eighty-four more often than one thousand nine hundred and eighty-four
        return str(num2words(int(digits) if whole else float(digits), lang=language, to=form))
    except NotImplementedError:  # a language that num2words does not know
        return digits
