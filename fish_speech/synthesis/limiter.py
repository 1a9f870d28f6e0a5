"""A look-ahead peak limiter, as a stream: turns the sound down shortly before a peak that would clip."""

from __future__ import annotations

import numpy as np

_ATTACK_S = 0.010  # the gain falls over this time, and rises over it
_HOLD_S = 0.060  # longer than the period of a voice, so that the gain does not follow each period


class Limiter:
    """Amplify by `gain` and keep every sample within [-1, 1].

    Sound that stays within after the gain is only multiplied. Around a peak that would not, the gain falls to what
    just fits, in a smooth 10 ms slope before it, stays down for 60 ms and rises as smoothly: loud parts are held at
    full scale instead of being distorted, and the parts between keep their gain.
    The output does not depend on how the input is cut, and lags 10 ms behind it.
    """

    def __init__(self, gain: float, sample_rate: int):
        self._gain = gain
        self._attack = max(1, round(_ATTACK_S * sample_rate))  # samples the gain looks ahead
        self._hold = round(_HOLD_S * sample_rate)
        slope = np.hanning(self._attack + 2)[1:-1]
        self._slope = slope / slope.sum()
        self._past = self._hold + self._attack - 1  # input before a sample that its gain depends on
        self._kept = np.zeros(self._past)
        self._begun = 0  # samples of input so far
        self._done = 0  # samples of output so far

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take further input, finite float32 (samples,), and return the output that it settles."""
        self._begun += len(samples)
        return self._settle(np.asarray(samples, np.float64) * self._gain, self._begun - self._attack)

    def finish(self) -> np.ndarray:
        """Return the rest; as many samples have come out as went in."""
        return self._settle(np.zeros(self._attack), self._begun)

    def _settle(self, samples: np.ndarray, until: int) -> np.ndarray:
        """Append amplified input and return the output up to sample `until`."""
        self._kept = np.concatenate([self._kept, samples])
        count = until - self._done
        if count <= 0:
            return np.zeros(0, np.float32)
        sound = self._kept[self._past : self._past + count]
        result = (sound * self._gains(self._kept[: self._past + count + self._attack], count)).astype(np.float32)
        self._kept = self._kept[count:].copy()
        self._done = until
        return np.clip(result, -1, 1)  # what rounding adds

    def _gains(self, around: np.ndarray, count: int) -> np.ndarray:
        """The gain of each of `count` samples, given them, `past` samples before and `attack` after."""
        levels = np.abs(around)
        if levels.max() <= 1:
            return np.ones(count)
        from scipy.ndimage import convolve1d, minimum_filter1d

        fitting = 1 / np.maximum(levels, 1)
        # least[n]: what fits from n to `hold + attack` samples later. A gain is the mean of the `attack` values that
        # know of the `hold` samples before it, of itself, and of up to `attack` samples after it: so it always fits.
        width = self._hold + self._attack + 1
        least = minimum_filter1d(fitting, width)[width // 2 : width // 2 + len(fitting) - width + 1]
        cut = convolve1d(1 - least, self._slope)  # of 1 - gain, so that no cut is exactly none
        return 1 - cut[self._attack // 2 :][:count]
