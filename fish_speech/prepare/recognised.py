"""The text of a clip that a recogniser wrote: how sure it is, and whether to believe it.

Where no text was given there is nothing to compare with but the recogniser's own confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..recognition import join_words
from ..timeline import Piece

# Mean over letters. pocketsphinx on 52 of Allison's clips: 0.79 of the words are wrong below, 0.30 above.
LEAST_CONFIDENCE = 0.5


def recognised_text(words: Sequence[Piece], start_s: float, end_s: float) -> tuple[str, float, str | None]:
    """Return the words whose middle lies in [start_s, end_s), their mean confidence, and why to leave it out, or None."""
    inside = [word for word in words if start_s <= (word.start_s + word.end_s) / 2 < end_s]
    if not inside:
        return "", 0.0, "no words: speech in which none was recognised"
    letters = [max(1, len(word.text)) for word in inside]
    confidence = sum(word.confidence * size for word, size in zip(inside, letters)) / sum(letters)
    reason = None
    if confidence < LEAST_CONFIDENCE:
        reason = f"text uncertain: the recogniser is sure of {confidence:.0%} of it"
    return join_words(inside), confidence, reason
