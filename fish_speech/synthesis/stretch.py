"""Time stretching: more or fewer seconds at the same pitch, as a stream, by WSOLA.

Waveform Similarity Overlap-Add (Verhelst and Roelands, ICASSP 1993, doi:10.1109/ICASSP.1993.319366): the output is made
of short pieces of the input, each taken near where the speed wants it, at the place that goes on most like the piece
before. It keeps the periods of a voice whole, where a phase vocoder smears them.
"""

from __future__ import annotations

import math

import numpy as np

_HOP_S = 0.015  # output between two splices
_OVERLAP_S = 0.010  # cross-fade at a splice
_COMPARED_S = 0.020  # sound that a candidate is judged by: more than one period of a low voice
_SEARCH_S = 0.010  # how far to each side of the wanted place: both together are one period of 50 Hz
_SILENCE = 1e-10  # mean power; below it any place is as good as another


class Stretch:
    """Play `speed` times as fast, 0.25-4, at the same pitch. The input must be finite float32 (samples,).

    The output does not depend on how the input is cut: each piece is computed from the same samples, whenever they
    come. It lags behind the input by less than 60 ms, and so much is kept in memory.
    """

    def __init__(self, speed: float, sample_rate: int):
        self._speed = speed
        self._hop = max(2, round(_HOP_S * sample_rate))
        self._overlap = max(1, round(_OVERLAP_S * sample_rate))
        self._compared = max(self._hop, round(_COMPARED_S * sample_rate))
        self._search = max(1, round(_SEARCH_S * sample_rate))
        self._fft = 1 << (self._compared + 2 * self._search).bit_length()
        self._fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(self._overlap) + 0.5) / self._overlap)
        self._input = np.zeros(0, np.float32)
        self._start = 0  # position in the whole input of the first sample kept
        self._end = 0  # samples of input so far
        self._made = 0  # pieces of output so far
        self._next = 0  # where the input goes on after the newest piece

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take further input and return the output that it settles, never more than input / speed in all."""
        self._input = np.concatenate([self._input, samples])
        self._end += len(samples)
        pieces = []
        while max(self._needed(), math.ceil((self._made + 1) * self._hop * self._speed)) <= self._end:
            pieces.append(self._piece())
        self._forget()
        return _joined(pieces)

    def finish(self, length: int) -> np.ndarray:
        """Return the rest of the output, so that `length` samples have come out in all; the input ends in silence."""
        missing = length - self._made * self._hop
        pieces = []
        while self._made * self._hop < length:
            behind = self._needed() - self._start - len(self._input)
            if behind > 0:
                self._input = np.concatenate([self._input, np.zeros(behind, np.float32)])
            pieces.append(self._piece())
            self._forget()
        return _joined(pieces)[: max(0, missing)]

    def _wanted(self) -> int:
        """Where in the input the next piece would start if the speed alone decided."""
        return round(self._made * self._hop * self._speed)

    def _needed(self) -> int:
        """How much input there must be to make the next piece."""
        return max(self._next, self._wanted() + self._search) + self._compared

    def _piece(self) -> np.ndarray:
        """Make the next `hop` samples of output."""
        place = self._best_place() if self._made else 0
        piece = self._take(place, self._hop).copy()
        if self._made:
            before, after = self._take(self._next, self._overlap), piece[: self._overlap]
            rise, fall = self._fade, 1 - self._fade
            # What is alike adds up; what is not (breath, hiss) would lose half its power in the middle of the fade.
            power = rise * rise + fall * fall + 2 * _likeness(before, after) * rise * fall
            piece[: self._overlap] = (before * fall + after * rise) / np.sqrt(power)
        self._made += 1
        self._next = place + self._hop
        return piece

    def _best_place(self) -> int:
        """The place near the wanted one whose sound is most like the natural continuation."""
        goal = self._take(self._next, self._compared).astype(np.float64)
        first = max(0, self._wanted() - self._search)
        last = self._wanted() + self._search
        around = self._take(first, last - first + self._compared).astype(np.float64)
        spectrum = np.fft.rfft(around, self._fft) * np.conj(np.fft.rfft(goal, self._fft))
        products = np.fft.irfft(spectrum, self._fft)[: last - first + 1]
        sums = np.concatenate([[0.0], np.cumsum(around * around)])
        powers = np.maximum(sums[self._compared :] - sums[: -self._compared], 0)
        least = _SILENCE * self._compared
        goal_power = float(np.sum(goal * goal))
        if goal_power < least:
            return self._wanted()
        return first + int(np.argmax(products / np.sqrt(powers + least)))

    def _take(self, position: int, count: int) -> np.ndarray:
        return self._input[position - self._start : position - self._start + count]

    def _forget(self) -> None:
        """Drop the input that no later piece can use."""
        unused = min(self._next, max(0, self._wanted() - self._search)) - self._start
        if unused > 0:
            self._input = self._input[unused:].copy()
            self._start += unused


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two stretches of sound, 0-1; 1 if one of them is silent."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    powers = float(np.sum(one * one)) * float(np.sum(other * other))
    if powers < (_SILENCE * len(one)) ** 2:
        return 1.0
    return min(1.0, max(0.0, float(np.sum(one * other)) / math.sqrt(powers)))


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *pieces])
