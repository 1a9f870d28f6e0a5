"""How long a phoneme program is waited for before it counts as stuck."""

from __future__ import annotations

_ANSWER_S = 120.0  # for a batch, which takes a fraction of a second; a program that is silent for longer is stuck
_CHARACTERS_PER_S = 2_000.0  # the slowest that is still work: very long texts get more time


def patience_s(characters: int) -> float:
    """Seconds in which a program must have answered a batch of so many characters."""
    return _ANSWER_S + characters / _CHARACTERS_PER_S
