"""The level of a recording, every 10 ms: pauses by a threshold, and speech edges to the nearest 10 ms.

Levels are RMS in dB relative to full scale (dBFS, as pydub counts: a square wave of amplitude 1 has 0 dB), without the
frame's own mean, so that a constant offset is no sound.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..timeline import Span

SAMPLE_RATE = 16_000  # Hz
FRAME = 160  # samples: 10 ms
FRAME_S = FRAME / SAMPLE_RATE
FLOOR_DB = -120.0  # what digital silence has here

_REACH = 12  # frames: how far beyond its detected edge speech is looked for
_TRIM = 6  # frames: how much of the noise that the detector took for speech is given back
_SOUND_DB, _NOISE_DB = 6.0, 3.0  # above the pause's noise: surely sound; below: surely noise
_RANGE_DB = 50.0  # what lies so far below the loudest speech beside it is no speech


def frame_levels(waveform: np.ndarray) -> np.ndarray:
    """Return the level of each 10 ms of (samples,) float32 as (frames,) float32 dBFS; the last frame may be shorter."""
    whole = len(waveform) // FRAME
    parts = [_level(waveform[: whole * FRAME].reshape(whole, FRAME))] if whole else []
    if len(waveform) > whole * FRAME:
        parts.append(_level(waveform[None, whole * FRAME :]))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def loud_spans(levels: np.ndarray, silence_db: float, min_silence_s: float) -> list[Span]:
    """Return what lies between the pauses: at least `min_silence_s` on end with every frame below `silence_db`.

    At both ends of the recording silence of any length is a pause, as if it went on outside.
    """
    loud = np.flatnonzero(levels >= silence_db)
    if not len(loud):
        return []
    silent = np.diff(loud) - 1  # frames between one loud frame and the next
    cuts = np.flatnonzero((silent > 0) & (silent * FRAME_S >= min_silence_s - 1e-9))
    starts = loud[np.concatenate(([0], cuts + 1))]
    ends = loud[np.concatenate((cuts, [len(loud) - 1]))] + 1
    return [Span(start * FRAME_S, end * FRAME_S) for start, end in zip(starts.tolist(), ends.tolist())]


def refine(spans: Iterable[Span], levels: np.ndarray) -> list[Span]:
    """Move the edges of detected speech to where the sound begins and ends, by the level of the pause beside them.

    An edge moves out by up to 120 ms over anything 6 dB above the pause's noise (a weak first or last consonant), but
    over at most a third of the pause; otherwise in by up to 60 ms over what is no louder than that noise. So spans
    stay apart, none is lost, and they end rather too late than too early.
    """
    edges = [(int(span.start_s / FRAME_S + 1e-6), int(np.ceil(span.end_s / FRAME_S - 1e-6))) for span in spans]
    edges = [(start, min(end, len(levels))) for start, end in edges if start < len(levels)]
    refined: list[Span] = []
    backwards = levels[::-1]
    for index, (start, end) in enumerate(edges):
        before = start - (edges[index - 1][1] if index else 0)  # frames of pause
        after = (edges[index + 1][0] if index + 1 < len(edges) else len(levels)) - end
        loudest = float(levels[start:end].max())
        new_start = len(levels) - _refined_end(backwards, len(levels) - start, before, end - start, loudest)
        new_end = _refined_end(levels, end, after, end - start, loudest)
        refined.append(Span(new_start * FRAME_S, new_end * FRAME_S))
    return refined


def _refined_end(levels: np.ndarray, end: int, pause: int, speech: int, loudest: float) -> int:
    """Return where speech of `speech` frames really ends, given that a detector said at `end`, before `pause` frames."""
    if pause <= 0:
        return end
    noise = max(float(np.percentile(levels[end : end + min(pause, 100)], 25)), loudest - _RANGE_DB)
    reach = min(_REACH, pause // 3)
    sound = np.flatnonzero(levels[end : end + reach] > noise + _SOUND_DB)
    if len(sound):
        return end + int(sound[-1]) + 1
    trim = min(_TRIM, speech // 3)  # from both sides: a third of the speech is never touched
    sound = np.flatnonzero(levels[end - trim : end] > noise + _NOISE_DB)
    return end - trim + (int(sound[-1]) + 1 if len(sound) else 0)


def _level(frames: np.ndarray) -> np.ndarray:
    """(frames, samples) -> (frames,) dBFS."""
    with np.errstate(divide="ignore"):
        level = 20 * np.log10(frames.std(axis=1, dtype=np.float64))
    return np.maximum(level, FLOOR_DB).astype(np.float32)
