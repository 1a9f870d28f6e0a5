"""Clean text before it is tokenised: quotes, emoji and runs of commas."""

from __future__ import annotations

import re

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'"})
_EMOJI = re.compile("[\U0001f600-\U0001f64f\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff]")
_COMMAS = re.compile(",{2,}")


def clean_text(text: str) -> str:
    """Strip `text`, make curly single quotes straight, delete emoji and flags, and keep one comma of a run.

    Spaces that a deleted emoji leaves at the end stay, as in the published models' training.
    """
    return _COMMAS.sub(",", _EMOJI.sub("", text.strip().translate(_QUOTES)))
