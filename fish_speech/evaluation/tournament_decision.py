"""Which checkpoint to use: the earliest that is as good as the best.

Checkpoints are compared on the same texts, pair by pair. One is worse than another only if its mean is worse by more
than a margin that a listener would care about, and by more than chance explains (paired t test, one-sided, 95 %).

The rule, in this order; what is not measured is passed over:

1. speech   A checkpoint that is silent, or runs into the limit instead of ending by itself, in more than half of the
            texts, or clearly more often than the best, is out.
2. wer      Of the rest, the one with the fewest word errors sets the mark; those that are clearly worse are out.
3. similarity  Of the rest, the one nearest to the voice sets the mark; likewise.
4. loss     Of the rest, the one with the lowest held-out loss sets the mark; likewise. Loss has less noise than the ear,
            so that with few texts a voice that has hardly begun to learn does not pass for as good.
5. Of the rest, the earliest step: less training has changed less of what the base can do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SPEECH, WER, SIMILARITY, LOSS = "speech", "wer", "similarity", "loss"
MEASURES = (SPEECH, WER, SIMILARITY, LOSS)
HEARD = (WER, SIMILARITY)  # what tells whether training helped; the loss, where neither is known
MARGINS = {SPEECH: 0.0, WER: 0.01, SIMILARITY: 0.01, LOSS: 0.01}  # of the loss: a share of it
MOST_FAILURES = 0.5  # share of texts that a checkpoint may leave unspoken
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Costs:
    """What each text costs a system by one measure: lower is better. NaN where it was not measured.

    `values` (texts,): failures, word errors, minus the similarity, or losses. `sizes` (texts,): what they are counted
    by, words for instance; the same for all systems.
    """

    values: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, values: Sequence[float | None], sizes: Sequence[float] | None = None) -> Costs:
        """Take figures of texts, None where there is none; each counts the same unless `sizes` says otherwise."""
        array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        return cls(array, np.ones(len(array)) if sizes is None else np.asarray(sizes, dtype=np.float64))

    @property
    def mean(self) -> float | None:
        """All costs by all sizes; None if nothing was measured."""
        known = np.isfinite(self.values)
        total = self.sizes[known].sum()
        return float(self.values[known].sum() / total) if total else None


@dataclass(frozen=True)
class Contestant:
    """A system and its costs by measure."""

    name: str
    step: int | None  # None: the base
    costs: Mapping[str, Costs]


@dataclass
class Decision:
    """What came out."""

    recommended: Contestant | None  # None: nothing was measured that tells checkpoints apart
    lost: dict[str, str] = field(default_factory=dict)  # name of a checkpoint -> measure by which it is out
    all_fail: bool = False  # no checkpoint speaks more than half of the texts


def worse_by(ours: Costs, other: Costs) -> tuple[float, float]:
    """How much higher the mean of `ours` is, and how much of that chance explains; texts that both have count.

    Chance explains all (infinity) of a difference in fewer than two texts.
    """
    both = np.isfinite(ours.values) & np.isfinite(other.values)
    count = int(both.sum())
    if not count or not ours.sizes[both].sum():
        return 0.0, math.inf
    differences = (ours.values - other.values)[both] / ours.sizes[both].mean()
    difference = float(differences.mean())
    if count < 2:
        return difference, math.inf
    from scipy.special import stdtrit

    error = float(differences.std(ddof=1)) / math.sqrt(count)
    return difference, float(stdtrit(count - 1, CONFIDENCE)) * error


def clearly_worse(measure: str, ours: Costs, other: Costs) -> bool:
    """Whether `ours` is worse by more than the measure's margin and more than chance."""
    difference, noise = worse_by(ours, other)
    margin = MARGINS[measure] * (abs(other.mean or 0.0) if measure == LOSS else 1.0)
    return difference > margin + 1e-9 and difference > noise


def measured(contestants: Sequence[Contestant]) -> list[str]:
    """The measures that every contestant has figures for, in the order of the rule."""

    def known(contestant: Contestant, measure: str) -> bool:
        return measure in contestant.costs and contestant.costs[measure].mean is not None

    return [measure for measure in MEASURES if contestants and all(known(c, measure) for c in contestants)]


def decide(checkpoints: Sequence[Contestant]) -> Decision:
    """Apply the rule to checkpoints (not the base), each with a step."""
    decision = Decision(None)
    left, measures = list(checkpoints), measured(checkpoints)
    if SPEECH in measures:
        left = _that_speak(left, decision)
    for measure in measures:
        # Not the mean alone: where sizes of texts differ between systems it might disagree with the pairs.
        best = min(left, key=lambda c: (c.costs[measure].mean, c.step or 0))
        out = [c for c in left if clearly_worse(measure, c.costs[measure], best.costs[measure])]
        decision.lost |= {c.name: measure for c in out}
        left = [c for c in left if c not in out]
    if left and set(measures) - {SPEECH}:
        decision.recommended = min(left, key=lambda c: c.step or 0)
    return decision


def _that_speak(checkpoints: list[Contestant], decision: Decision) -> list[Contestant]:
    speak = [c for c in checkpoints if (c.costs[SPEECH].mean or 0.0) <= MOST_FAILURES]
    if not speak:
        decision.all_fail = True
        return checkpoints
    decision.lost |= {c.name: SPEECH for c in checkpoints if c not in speak}
    return speak


def gains(base: Contestant, other: Contestant) -> dict[str, str]:
    """How a checkpoint compares with the base by each measure that tells: "better", "worse" or, within noise, "equal"."""
    measures = [m for m in measured([base, other]) if m in HEARD] or [m for m in measured([base, other]) if m == LOSS]
    found = {}
    for measure in measures:
        ours, theirs = other.costs[measure], base.costs[measure]
        better, worse = clearly_worse(measure, theirs, ours), clearly_worse(measure, ours, theirs)
        found[measure] = "better" if better else "worse" if worse else "equal"
    return found
