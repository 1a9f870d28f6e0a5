"""Whether a text is English, which is all that pocketsphinx hears."""

from __future__ import annotations

_FREQUENT = frozenset(
    ["the", "of", "and", "to", "in", "a", "is", "that", "it", "for", "was", "with", "as", "you", "are"]
)


def is_english(text: str) -> bool:
    """Whether a text is most likely English, by its letters and most frequent words."""
    words = text.lower().split()
    frequent = sum(word in _FREQUENT for word in words)
    return text.isascii() and (frequent > 0.08 * len(words) or len(words) < 12)
