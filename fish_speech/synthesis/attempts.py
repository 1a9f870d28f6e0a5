"""Say a text again with another seed until a verifier is content; of those that fail, keep the best."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .verify import Attempt, Verdict, Verifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The attempt that is kept. `verdict.passed` says whether it is good, or only the best of those tried."""

    attempt: Attempt
    verdict: Verdict
    tried: int  # attempts made
    number: int  # of the attempt, from 0

    @property
    def passed(self) -> bool:
        """Does it say its text?"""
        return self.verdict.passed


def best_attempt(speak: Callable[[int], Attempt], verifier: Verifier, text: str) -> Chosen:
    """Call speak(0), speak(1), ... up to `verifier.attempts` times, and stop at the first that passes.

    Passed goes first, then fewest errors, then one that ended, then the earliest. It also stops at an attempt with the
    same codes as the one before: nothing is drawn by chance then (temperature 0), and all others would be the same.
    """
    best: Chosen | None = None
    last: np.ndarray | None = None
    for number in range(verifier.attempts):
        attempt = speak(number)
        if best is not None and last is not None and np.array_equal(attempt.columns, last):
            log.info("attempt %d is the same as the one before; no seed changes it", number + 1)
            return Chosen(best.attempt, best.verdict, number + 1, best.number)
        last = attempt.columns
        verdict = verifier.judge(attempt, text)
        log.info("attempt %d/%d: %s", number + 1, verifier.attempts, verdict)
        if best is None or _rank(verdict, attempt) < _rank(best.verdict, best.attempt):
            best = Chosen(attempt, verdict, number + 1, number)
        if verdict.passed:
            break
    assert best is not None  # a verifier asks for at least one attempt
    return Chosen(best.attempt, best.verdict, number + 1, best.number)


def _rank(verdict: Verdict, attempt: Attempt) -> tuple[bool, float, bool]:
    """Smaller is better."""
    return not verdict.passed, verdict.errors, not attempt.ended
