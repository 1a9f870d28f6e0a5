"""Noise: how far speech stands above what is heard when nobody speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..timeline import Span

_FRAME_S = 0.02
_GUARD_S = 0.06  # a voice fades in and out: the pause next to speech is not noise alone
_MIN_PAUSE_S = 0.1  # of pauses in all, for a level that one can trust
_QUIETEST = 0.03  # of the frames of each band, where no pauses are known
_BANDS = 8
_MIN_ACTIVITY = 0.7  # of a clip is speech, where it is not known
_LOWEST_DB, _HIGHEST_DB = -20.0, 100.0  # digital silence in the pauses gives the highest


def snr_db(waveform: np.ndarray, sample_rate: int, speech: Sequence[Span] | None = None) -> float | None:
    """Return the signal-to-noise ratio in dB, -20 to 100, of mono (samples,); None if there is nothing to measure.

    `speech` says where somebody speaks, None that it is not known. The noise is the level of the pauses, or, where
    they last under 0.1 s or are unknown, the level that each frequency band falls to between the sounds of speech:
    that is exact up to about 25 dB, and reads cleaner recordings without pauses as less clean than they are.
    """
    size = max(1, round(_FRAME_S * sample_rate))
    count = len(waveform) // size
    if not count or (speech is not None and not len(speech)):
        return None
    frames = (waveform[: count * size] - waveform.mean(dtype=np.float64)).astype(np.float32).reshape(count, size)
    power = np.einsum("fs,fs->f", frames, frames, dtype=np.float64) / size  # (frames,)
    power[frames.min(axis=1) == frames.max(axis=1)] = 0  # digital silence, whatever the clip's offset
    if power.max() < 1e-12:  # -120 dBFS
        return None
    spoken, pause = _frames_of(speech, count, size / sample_rate)
    in_pauses = pause.sum() * size >= _MIN_PAUSE_S * sample_rate
    noise = _steady_power(power[pause]) if in_pauses else _quiet_power(frames)
    if spoken.any():
        clean = float(power[spoken].mean()) - noise
    else:
        activity = max(_MIN_ACTIVITY, float((power > 1.5 * noise).mean()))
        clean = (float(power.mean()) - noise) / activity
    if clean <= 0.01 * noise:
        return _LOWEST_DB
    return min(_HIGHEST_DB, float(10 * np.log10(clean / max(noise, 1e-12 * clean))))


def _frames_of(speech: Sequence[Span] | None, count: int, frame_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Mark the frames that lie in speech and those that lie in pauses, away from speech: two (frames,) of bool."""
    spoken, pause = np.zeros(count, dtype=bool), np.full(count, speech is not None)
    for span in speech or ():
        spoken[max(0, math.ceil(span.start_s / frame_s)) : max(0, math.floor(span.end_s / frame_s))] = True
        first, end = (span.start_s - _GUARD_S) / frame_s, (span.end_s + _GUARD_S) / frame_s
        pause[max(0, math.floor(first)) : max(0, math.ceil(end))] = False
    return spoken, pause


def _steady_power(power: np.ndarray) -> float:
    """Mean of (frames,) without the few that stick out: a click, a breath, speech that was not marked."""
    return float(power[power <= 10 * np.median(power)].mean())


def _quiet_power(frames: np.ndarray) -> float:
    """Noise power of (frames, samples) by the quietest frames of each band (minimum statistics, Martin 2001)."""
    from scipy import fft, signal, special

    size = frames.shape[1]
    window = signal.get_window("hann", size).astype(np.float32)
    spectrum = fft.rfft(frames * window, axis=1)
    power = spectrum.real**2 + spectrum.imag**2  # (frames, bins)
    bins = power.shape[1]
    edges = np.unique(np.geomspace(1, bins, _BANDS + 1).astype(int))
    edges[0] = 0
    bands = np.add.reduceat(power, edges[:-1], axis=1)  # (frames, bands)
    # The quietest frames of a steady noise lie below its mean, by what chi-squared says for that many free values.
    freedom = np.maximum(2.0, 2 * np.diff(edges) / 1.5)  # a Hann window ties neighbouring bins together
    quiet = np.quantile(bands, _QUIETEST, axis=0) * freedom / special.chdtri(freedom, 1 - _QUIETEST)
    return float(quiet.sum()) * 2 / (size * float((window**2).sum()))
