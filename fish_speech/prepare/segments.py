"""Plan the clips of a recording: where to cut, given where there is speech.

Cuts fall in pauses only. Among all ways to cut, dynamic programming takes the one that costs least: lengths far from
the target, short pauses, cuts within a sentence and long silences inside a clip all cost. Every stretch of speech is
in exactly one segment; one that cannot become a clip is told with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from ..timeline import Piece, Span
from .pauses import Pauses

MAX_INNER_PAUSE_S = 5.0  # longer silence is never inside a clip

_SHORT_PAUSE_S = 0.2  # a shorter pause is cut at only where nothing else keeps a clip within its limits
_LEAST_EDGE_S = 0.05  # of silence at each end of a clip that would be too long with more
_GOOD_PAUSE_S = 0.5  # from here on a longer pause is not a better one
_WINDOW_PAUSE_S = 0.3  # long enough to end a recogniser's window

# Costs: 1 is a clip whose length is off its target by half the target.
_SHORT_PAUSE_COST = 8.0
_MID_SENTENCE_COST = 2.0
_TOO_SHORT_COST = 1e6  # more than all that joining a short phrase to a neighbour could cost


@dataclass(frozen=True)
class Limits:
    """How long clips shall be, in seconds, with the silence at their edges."""

    target_s: float = 10.0
    min_s: float = 1.0
    max_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.min_s <= self.target_s <= self.max_s < math.inf:
            raise ValueError(
                f"clips of about {self.target_s:g} s, at least {self.min_s:g} s and at most {self.max_s:g} s:"
                " 0 < --min-segment-len <= --segment-duration <= the longest clip must hold"
            )


class Segment(NamedTuple):
    """A stretch of the recording in seconds: a clip, or what is left out with the reason in one line."""

    start_s: float
    end_s: float
    left_out: str | None


def plan_segments(
    speech: Sequence[Span], duration_s: float, limits: Limits, pieces: Sequence[Piece] = ()
) -> list[Segment]:
    """Return segments, sorted and apart, so that each span of `speech` lies whole in exactly one of them.

    A segment whose `left_out` is None is between `limits.min_s` and `limits.max_s` long. At each end a segment has
    half of the pause, 0.2 s at most, and less only where it would be too long; pauses from 0.1 s on are cut at. Spans
    may touch, overlap or reach beyond the recording: they are joined and clipped first. With `pieces` no cut divides
    one (see Pauses.judge), and cuts where a sentence ends are preferred. Phrases are joined over silences of at most
    5 s. The reasons for what is left out begin with "too short", "no pause" or "long silence".
    Takes a third of a second for 20,000 spans, five hours of speech.
    """
    pauses = Pauses(speech, duration_s)
    if not pauses.spans:
        return []
    usable, ends_sentence = pauses.judge(pieces)
    has_sentences = bool(ends_sentence[1:-1].any())
    cuts = [0, *(at for at in range(1, len(pauses.spans)) if usable[at]), len(pauses.spans)]
    costs = [_cut_cost(pauses.lengths[at], has_sentences and not ends_sentence[at]) for at in cuts]
    segments = []
    for first, last in _cheapest(pauses, cuts, costs, limits):
        bounds = _fitted(pauses, first, last, limits.max_s)
        segments.append(Segment(*bounds, _reason(pauses, first, last, bounds.duration_s, limits, len(pieces) > 0)))
    return segments


def _cheapest(pauses: Pauses, cuts: list[int], cut_costs: list[float], limits: Limits) -> list[tuple[int, int]]:
    """Return the cheapest way to divide the spans at some of `cuts`: (first, last) for each segment spans[first:last].

    best[k] is the least cost of all before cuts[k]; a segment from cuts[j] to cuts[k] adds its own. Of equal costs
    the later j wins, so the plan is always the same.
    """
    lengths = pauses.lengths
    starts = [pauses.start_s(cut) for cut in cuts[:-1]]
    ends = [0.0, *(pauses.end_s(cut) for cut in cuts[1:])]
    inner = list(accumulate(_inner_cost(length) for length in lengths[:-1]))  # of pauses up to each, itself included
    best, came_from = [0.0] + [math.inf] * (len(cuts) - 1), [0] * len(cuts)
    for k in range(1, len(cuts)):
        for j in range(k - 1, -1, -1):
            length = ends[k] - starts[j]
            if j < k - 1 and (length > limits.max_s or lengths[cuts[j + 1]] > MAX_INNER_PAUSE_S):
                break
            cost = best[j] + inner[cuts[k] - 1] - inner[cuts[j]] + cut_costs[k]
            if length < limits.min_s:
                cost += _TOO_SHORT_COST
            elif length <= limits.max_s:
                cost += ((length - limits.target_s) / (0.5 * limits.target_s)) ** 2
            if cost < best[k]:
                best[k], came_from[k] = cost, j
    chosen = []
    k = len(cuts) - 1
    while k > 0:
        chosen.append((cuts[came_from[k]], cuts[k]))
        k = came_from[k]
    return chosen[::-1]


def _cut_cost(pause_s: float, mid_sentence: bool) -> float:
    cost = _MID_SENTENCE_COST if mid_sentence else 0.0
    cost += _SHORT_PAUSE_COST if pause_s < _SHORT_PAUSE_S else 0.0
    return cost + max(0.0, _GOOD_PAUSE_S - pause_s) / _GOOD_PAUSE_S


def _inner_cost(pause_s: float) -> float:
    """Cost of silence inside a clip: from 1 s on a little, from 2 s on much."""
    return max(0.0, pause_s - 1.0) / 2 + 3 * max(0.0, pause_s - 2.0)


def _fitted(pauses: Pauses, first: int, last: int, max_s: float) -> Span:
    """Return the clip of spans[first:last]; its edges shrink, to 50 ms at least, if it fits into `max_s` that way."""
    start_s, end_s = pauses.start_s(first), pauses.end_s(last)
    spare = [
        max(0.0, pauses.spans[first].start_s - start_s - _LEAST_EDGE_S),
        max(0.0, end_s - pauses.spans[last - 1].end_s - _LEAST_EDGE_S),
    ]
    excess = end_s - start_s - max_s
    if excess <= 0 or excess + 1e-6 > sum(spare):
        return Span(start_s, end_s)
    share = (excess + 1e-6) / sum(spare)  # 1 us more, so that rounding does not make it too long
    return Span(start_s + spare[0] * share, end_s - spare[1] * share)


def _reason(pauses: Pauses, first: int, last: int, length: float, limits: Limits, with_pieces: bool) -> str | None:
    """Say why spans[first:last] are no clip of `length` seconds, or return None if they are one."""
    spoken = f"{sum(span.duration_s for span in pauses.spans[first:last]):.1f} s of speech"
    longest = max(pauses.lengths[first + 1 : last], default=0.0)
    if longest > MAX_INNER_PAUSE_S:
        return f"long silence: {longest:.1f} s inside a word or subtitle; clips have at most {MAX_INNER_PAUSE_S:g} s"
    if length > limits.max_s:
        where = "between words or subtitles" if with_pieces else "to cut at"
        return f"no pause: {spoken} without a pause {where}; clips are at most {limits.max_s:g} s"
    if length >= limits.min_s:
        return None
    sides = [at for at in (first, last) if 0 < at < len(pauses.spans)]
    if any(pauses.lengths[at] <= MAX_INNER_PAUSE_S for at in sides):
        where = f"whose neighbours leave no room in a clip of at most {limits.max_s:g} s"
    elif len(sides) == 2:
        where = f"alone between pauses of {pauses.lengths[first]:.1f} and {pauses.lengths[last]:.1f} s"
    elif sides:
        where = f"alone {'before' if first == 0 else 'after'} a pause of {pauses.lengths[sides[0]]:.1f} s"
    else:
        where = "alone in the recording"
    return f"too short: {spoken} {where}; --min-segment-len is {limits.min_s:g} s"


def windows(speech: Sequence[Span], duration_s: float, max_s: float = 28.0, max_silence_s: float = 1.0) -> list[Span]:
    """Return stretches of at most `max_s` for a speech recogniser: sorted, apart, with all speech, cut in pauses.

    Each is as long as possible without a silence above `max_silence_s` in it, but ends rather at a pause of 0.3 s in
    its second half than at a shorter one later. Where speech goes on for more than `max_s` without a pause it is
    divided into equal parts, perhaps within a word: only those windows touch each other.
    """
    if not (max_s > 0 and max_silence_s > 0):
        raise ValueError(f"max_s and max_silence_s must be above 0, not {max_s} and {max_silence_s}")
    pauses = Pauses(speech, duration_s)
    found: list[Span] = []
    first = 0
    while first < len(pauses.spans):
        last = _window_end(pauses, first, max_s, max_silence_s)
        start_s, end_s = pauses.start_s(first), pauses.end_s(last)
        parts = max(1, math.ceil((end_s - start_s) / max_s))
        bounds = [start_s + (end_s - start_s) * part / parts for part in range(parts)] + [end_s]
        found.extend(Span(*pair) for pair in zip(bounds, bounds[1:]))
        first = last
    return found


def _window_end(pauses: Pauses, first: int, max_s: float, max_silence_s: float) -> int:
    """Return last for the window spans[first:last]; spans[first] alone may be longer than `max_s`."""
    last = first + 1
    ends = [last]
    while last < len(pauses.spans) and pauses.lengths[last] <= max_silence_s:
        last += 1
        if pauses.end_s(last) - pauses.start_s(first) <= max_s:
            ends.append(last)
        elif pauses.spans[last - 1].end_s - pauses.start_s(first) > max_s:
            break
    if last == ends[-1] or pauses.lengths[ends[-1]] >= _WINDOW_PAUSE_S:
        return ends[-1]
    late = [end for end in ends if pauses.end_s(end) - pauses.start_s(first) >= max_s / 2] or ends[-1:]
    return next((end for end in reversed(late) if pauses.lengths[end] >= _WINDOW_PAUSE_S), None) or max(
        late, key=lambda end: pauses.lengths[end]
    )
