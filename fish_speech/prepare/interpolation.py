"""Times for words that were not heard: what is said between two known words, spread over the time between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from ..timeline import Span

_PAUSE_COST_S = 0.4  # a pause inside a phrase is as unlikely as a misfit of this many seconds
_PAUSE_S = 0.12  # shorter is no pause
_LARGEST_RUN = 80  # words; in longer runs pauses are not weighed
_PUNCTUATION = ".,;:!?…—–-。，、；：！？।؟"


class Timed(Protocol):
    """Anything with a start and an end, in seconds."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


def bins_of(room: Span, parts: Sequence[Timed], pauses: bool) -> list[Span]:
    """The stretches of `room` that words may fill, with a pause between any two.

    If `pauses` are known, where nothing is said at an end of the room an empty stretch stands there, for words that
    belong to the neighbour. Otherwise a room in which nothing was heard may be filled whole.
    """
    bins: list[Span] = []
    for part in parts:
        span = Span(max(part.start_s, room.start_s), min(part.end_s, room.end_s))
        if bins and span.start_s - bins[-1].end_s < _PAUSE_S:
            bins[-1] = Span(bins[-1].start_s, max(span.end_s, bins[-1].end_s))
        else:
            bins.append(span)
    if not pauses:
        return bins or [room]
    if not bins or bins[0].start_s - room.start_s >= _PAUSE_S:
        bins.insert(0, Span(room.start_s, room.start_s))
    if room.end_s - bins[-1].end_s >= _PAUSE_S:
        bins.append(Span(room.end_s, room.end_s))
    return bins


def is_pausing(word: str) -> bool:
    """Is a pause after `word` to be expected?"""
    return word.rstrip(" \"'”’»)]")[-1:] in _PUNCTUATION


def spread(
    words: Sequence[str], letters: Sequence[int], bins: Sequence[Span], letter_s: float, closed: bool
) -> list[Span]:
    """Spread words over `bins` by their letters, so that each bin's words fill it and pauses follow punctuation.

    `closed`: a pause before the first word is nothing unusual.
    """
    count = len(words)
    if count > _LARGEST_RUN or len(bins) > _LARGEST_RUN:
        return _spread_evenly(letters, bins)
    total = [0.0, *accumulate(length * letter_s for length in letters)]
    toll = [0.0 if closed else _PAUSE_COST_S] + [0.0 if is_pausing(word) else _PAUSE_COST_S for word in words]
    # costs[j]: the first j words lie in the bins so far.
    costs = [abs(total[j] - bins[0].duration_s) for j in range(count + 1)]
    choices: list[list[int]] = []
    for span in bins[1:]:
        options = [
            min((costs[i] + toll[i] + abs(total[j] - total[i] - span.duration_s), i) for i in range(j + 1))
            for j in range(count + 1)
        ]
        costs = [cost for cost, _ in options]
        choices.append([i for _, i in options])
    ends = [count]
    for choice in reversed(choices):
        ends.append(choice[ends[-1]])
    ends.append(0)
    ends.reverse()
    return [
        span
        for room, first, last in zip(bins, ends, ends[1:])
        for span in share(letters[first:last], room.start_s, room.end_s)
    ]


def _spread_evenly(letters: Sequence[int], bins: Sequence[Span]) -> list[Span]:
    """Spread words over the time of all bins together; a word lies in the bin that holds its middle."""
    starts = [0.0, *accumulate(span.duration_s for span in bins)]
    spans: list[Span] = []
    for part in share(letters, 0.0, starts[-1]):
        at = min(max(bisect_right(starts, (part.start_s + part.end_s) / 2) - 1, 0), len(bins) - 1)
        shift = bins[at].start_s - starts[at]
        start_s = min(max(part.start_s + shift, bins[at].start_s), bins[at].end_s)
        spans.append(Span(start_s, min(max(part.end_s + shift, start_s), bins[at].end_s)))
    return spans


def share(letters: Sequence[int], start_s: float, end_s: float) -> list[Span]:
    """Divide a stretch between words by their number of letters."""
    total = max(sum(letters), 1)
    marks = [start_s, *(start_s + (end_s - start_s) * done / total for done in accumulate(letters))]
    return [Span(min(a, end_s), min(b, end_s)) for a, b in zip(marks, marks[1:])]
