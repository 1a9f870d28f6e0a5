"""The pauses between the spans of speech: how long, how much of each a clip gets, and which one may be cut at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..timeline import Piece, Span

MIN_PAUSE_S = 0.1  # a shorter one is never cut at: each clip would get less than 50 ms of it
EDGE_S = 0.2  # of silence that a clip keeps at each end, at most

_WORD_TOLERANCE_S, _SUBTITLE_TOLERANCE_S = 0.2, 0.5  # how far the times of pieces may be off
_AFTER_SENTENCE_S = 0.5  # of speech that is in no piece may lie between a sentence's end and the pause after it


class Pauses:
    """The spans of a recording, in order and apart, and `lengths` (spans + 1,): the silence around them in seconds.

    `lengths[i]` is the pause before spans[i]; the first and the last are those at the recording's ends.
    """

    def __init__(self, speech: Sequence[Span], duration_s: float):
        self.spans: list[Span] = []
        for start_s, end_s in sorted(speech):
            start_s, end_s = max(0.0, start_s), min(duration_s, end_s)
            if start_s >= end_s:
                continue
            if self.spans and start_s <= self.spans[-1].end_s:
                start_s, end_s = self.spans[-1].start_s, max(end_s, self.spans.pop().end_s)
            self.spans.append(Span(start_s, end_s))
        bounds = [0.0, *(time for span in self.spans for time in span), duration_s]
        self.lengths = [end_s - start_s for start_s, end_s in zip(bounds[::2], bounds[1::2])]

    def start_s(self, first: int) -> float:
        """Where a clip that begins with spans[first] starts: with its part of the pause before."""
        return self.spans[first].start_s - self._edge_s(first)

    def end_s(self, last: int) -> float:
        """Where a clip of spans[:last] ends: with its part of the pause after."""
        return self.spans[last - 1].end_s + self._edge_s(last)

    def _edge_s(self, index: int) -> float:
        at_the_end = index in (0, len(self.spans))  # nobody shares the silence there
        return min(EDGE_S, self.lengths[index] if at_the_end else self.lengths[index] / 2)

    def judge(self, pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Return for each pause, as (spans + 1,) bool: may it be cut at, and does a sentence end there?

        A piece spoken on both sides forbids a cut. Time is counted in seconds of speech here, since a recogniser's
        word or a subtitle may reach over silence in which it is not spoken. Its times may be off: it is on both sides
        only if more than a tolerance of it is on each, 0.2 s for words, 15 % of its length up to 0.5 s for subtitles.
        """
        usable = np.array(self.lengths) >= MIN_PAUSE_S - 1e-6
        ends_sentence = np.zeros(len(usable), bool)
        if not pieces or not self.spans:
            return usable, ends_sentence
        spoken = np.array([0.0, *accumulate(span.duration_s for span in self.spans)])  # speech before each pause
        times = np.array([time for span in self.spans for time in span])
        ordered = sorted(pieces, key=lambda piece: (piece.start_s + piece.end_s, piece))
        bounds = np.array([(piece.start_s, piece.end_s) for piece in ordered])  # (pieces, 2)
        starts, ends = np.interp(bounds, times, np.repeat(spoken, 2)[1:-1]).T
        tolerance = np.clip(0.15 * (bounds[:, 1] - bounds[:, 0]), _WORD_TOLERANCE_S, _SUBTITLE_TOLERANCE_S)

        # Each piece lies across the pauses from `low` up to `high`: +1 and -1 there, and the sum counts the pieces.
        low = np.searchsorted(spoken, starts + tolerance, side="right")
        high = np.searchsorted(spoken, ends - tolerance, side="left")
        across = np.zeros(len(spoken) + 1, int)
        np.add.at(across, low[low < high], 1)
        np.add.at(across, high[low < high], -1)
        usable &= np.cumsum(across)[:-1] == 0

        middles = np.maximum.accumulate((starts + ends) / 2)
        for pause, said in enumerate(np.searchsorted(middles, spoken, side="right") - 1):  # the last piece before it
            near = said >= 0 and spoken[pause] - ends[said] <= _AFTER_SENTENCE_S
            ends_sentence[pause] = near and ordered[said].ends_sentence
        return usable, ends_sentence
