"""Clipping: tops of the wave that were cut off flat by a converter, a gain or an editor.

Measure before anything is resampled or encoded with loss: both bend the flat tops, and nothing is found any more.
"""

from __future__ import annotations

import numpy as np

_STEP = 1 / 32768  # of 16-bit samples
_NEAR = 10 ** (-0.1 / 20)  # 0.1 dB
_MIN_RUN = 3  # samples
_TOP = 0.7  # of the extreme; where the recording's own quantisation steps are looked for
_CORNER_STEPS = 4  # a rounded top of three samples within one step goes on by at most 4.2 steps to its next sample


def clipped_share(waveform: np.ndarray) -> float:
    """Return the share, 0-1, of mono (samples,) that lie in flat tops.

    A flat top is at least 3 samples, equal within a 16-bit step, within 0.1 dB of full scale or, for a recording that
    was turned down afterwards, of the clip's own extreme, up or down. The wave must leave it with a corner: the rounded
    top of a clean low tone is also flat for some samples, and that of an 8-bit or mu-law recording is flat for many.
    """
    if not len(waveform):
        return 0.0
    return min(1.0, (_flat_tops(waveform) + _flat_tops(-waveform)) / len(waveform))


def _flat_tops(waveform: np.ndarray) -> int:
    """Count the samples in flat tops at the upper extreme."""
    extreme = float(waveform.max())
    if extreme <= _CORNER_STEPS * _STEP:
        return 0
    high = np.flatnonzero(waveform >= _NEAR * min(extreme, 1.0))
    joined = (np.diff(high) == 1) & (np.abs(np.diff(waveform[high])) <= 1.01 * _STEP)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], joined, [False])).astype(np.int8)))
    first, last = high[edges[::2]], high[edges[1::2]]  # (runs,) of two samples or more
    long = last - first + 1 >= _MIN_RUN
    first, last = first[long], last[long]
    if not len(first):
        return 0
    end = len(waveform) - 1
    rise = waveform[first] - waveform[np.maximum(first - 1, 0)]
    fall = waveform[last] - waveform[np.minimum(last + 1, end)]
    corner = np.maximum(rise, fall) >= _CORNER_STEPS * _own_step(waveform, extreme)
    return int((last - first + 1)[corner].sum())


def _own_step(waveform: np.ndarray, extreme: float) -> float:
    """The recording's own quantisation step near its extreme: 256 steps of 16 bits for 8 bits, 1024 for mu-law."""
    gaps = np.diff(np.unique(waveform[waveform >= _TOP * extreme]))
    gaps = gaps[gaps > 0.5 * _STEP]
    if len(gaps) < 4:
        return _STEP
    multiples = gaps / gaps.min()  # a coarse recording has all its values on a lattice; a clipped tone has not
    return max(_STEP, float(gaps.min())) if np.abs(multiples - np.rint(multiples)).max() < 0.05 else _STEP
