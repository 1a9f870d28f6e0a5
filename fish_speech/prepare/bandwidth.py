"""Bandwidth: up to which frequency a recording holds sound, whatever its sample rate says.

Resampling and lossy codecs end the spectrum with a wall: within a few hundred hertz it drops to the noise of the
numbers. A voice and a microphone roll off gently, so a weak high end is no wall.
"""

from __future__ import annotations

import numpy as np

_BIN_HZ = 25.0  # about; bins of the spectrum
_SIDE_HZ = 500.0  # compared on both sides of a wall; wider than the distance of two harmonics of a high voice
_WALL_HZ = 600.0  # a wall's own width
_WALL_DB = 25.0  # a wall's least height
_EDGE_DB = 15.0  # the spectrum ends where it is this much lower than before the wall
_DEEP_DB = 60.0  # what lies above a wall is at least this much below the loudest: the low end of speech has steps, too
_FLOOR_DB = 10.0  # what lies above a wall may exceed the level just above it by this
_LOWEST_HZ = 300.0  # no walls are looked for below


def bandwidth_hz(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the frequency in Hz at which the spectrum of mono (samples,) ends; half the sample rate if nowhere.

    16 kHz material at 44.1 kHz gives about 8000. Works from clips of 1 s on; shorter ones are judged by what they hold.
    Silence has no bandwidth: 0.
    """
    level_db, bin_hz = _spectrum_db(waveform, sample_rate)
    if level_db is None:
        return 0.0
    bins = len(level_db)
    side, wall = max(1, round(_SIDE_HZ / bin_hz)), round(_WALL_HZ / bin_hz)
    power = np.concatenate(([0.0], np.cumsum(10 ** (level_db / 10))))
    mean_db = 10 * np.log10((power[side:] - power[:-side]).clip(1e-30) / side)  # [k]: bins k to k + side
    first = round(_LOWEST_HZ / bin_hz)
    below = np.arange(max(0, first - side), bins - 2 * side - wall + 1)  # a wall starts at bin below + side
    if not len(below):
        return sample_rate / 2
    above = below + side + wall
    highest_above = np.maximum.accumulate(mean_db[::-1])[::-1]  # from bin k on, up to the end of the spectrum
    drop = mean_db[below] - mean_db[above]
    floor = np.minimum(mean_db[above] + _FLOOR_DB, mean_db.max() - _DEEP_DB)
    is_wall = (drop >= _WALL_DB) & (highest_above[above] <= floor)
    if not is_wall.any():
        return sample_rate / 2
    best = int(below[is_wall][np.argmax(drop[is_wall])])
    smooth = np.convolve(level_db, np.ones(3) / 3, "same")
    start = max(0, best - 2 * side)
    before_db = mean_db[start : best + 1].max()  # not of the wall's own slope, which a plain resampler makes long
    inside = np.flatnonzero(smooth[start : best + 2 * side + wall] > before_db - _EDGE_DB)
    return min((start + int(inside[-1]) + 1) * bin_hz, sample_rate / 2)


def _spectrum_db(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray | None, float]:
    """Mean power spectrum of (samples,) in dB, (bins,), and the width of a bin in Hz; None if there is no sound."""
    from scipy import fft, signal

    size = int(fft.next_fast_len(max(16, round(sample_rate / _BIN_HZ)), real=True))
    bin_hz = sample_rate / size
    if not len(waveform):
        return None, bin_hz
    centred = (waveform - waveform.mean(dtype=np.float64)).astype(np.float32)
    if len(centred) < size:
        centred = np.pad(centred, (0, size - len(centred)))
    # Side lobes must stay below the noise of 16 bits: blackmanharris has them at -92 dB.
    window = signal.get_window("blackmanharris", size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(centred, size)[:: size // 2]  # (frames, size)
    power = np.zeros(size // 2 + 1)
    for start in range(0, len(frames), 256):  # flat memory
        spectrum = fft.rfft(frames[start : start + 256] * window, axis=1)
        power += (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=np.float64)
    power /= len(frames)
    if power[1:].max(initial=0.0) / float((window**2).sum()) < 1e-12:  # -120 dBFS
        return None, bin_hz
    return 10 * np.log10(power.clip(power.max() * 1e-15)), bin_hz
