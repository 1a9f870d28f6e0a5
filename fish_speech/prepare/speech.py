"""Find the speech in a recording that is streamed: by silero's voice activity detector, or by a level threshold.

Hours of audio take flat memory: only levels and probabilities are kept, 0.5 kB for each second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..timeline import Span
from .energy import SAMPLE_RATE, frame_levels, loud_spans, refine
from .silero import CHUNK, PROBABILITY_FRAME, lift_quiet, speech_probabilities


@dataclass(frozen=True)
class SileroVad:
    """Speech by silero-vad's probabilities of 32 ms frames, its edges by the level."""

    threshold: float = 0.4  # speech begins here; the model's authors take 0.5 and lose more of the shortest words
    end_threshold: float = 0.3  # and goes on until the probability is lower than this
    min_pause_s: float = 0.096  # for at least so long
    lift_quiet: bool = True  # raise quiet passages for the detector; see silero.lift_quiet

    def __post_init__(self) -> None:
        if not 0 < self.end_threshold <= self.threshold < 1:
            raise ValueError(f"0 < end_threshold <= threshold < 1 does not hold: {self}")
        if not self.min_pause_s > 0:
            raise ValueError(f"min_pause_s is {self.min_pause_s}; it must be above 0")


@dataclass(frozen=True)
class SilenceThreshold:
    """Speech is what lies between pauses: at least `min_silence_ms` with each 10 ms below `silence_db`."""

    min_silence_ms: float = 500.0
    silence_db: float = -40.0  # dBFS, RMS

    def __post_init__(self) -> None:
        if not 10 <= self.min_silence_ms <= 60_000:
            raise ValueError(f"--min-silence-len is {self.min_silence_ms:g} ms; use 10 to 60000")
        if not -120 < self.silence_db < 0:
            raise ValueError(f"--silence-thresh is {self.silence_db:g} dB; use -119 to -1, as in -40")


def find_speech(blocks: Iterable[np.ndarray], method: SileroVad | SilenceThreshold | None = None) -> list[Span]:
    """Return the stretches of speech in mono float32 16 kHz audio: sorted, apart, within the recording.

    `blocks` are (samples,) of any length, read once; how the audio is divided into blocks does not change the result.
    The default method is SileroVad(). Nothing is dropped for being short, and pauses from 0.1 s on divide. Empty or
    silent audio gives []. Raises ValueError for blocks of another shape or with NaN, UserError if silero-vad is not
    installed.
    """
    method = method or SileroVad()
    levels: list[np.ndarray] = []
    count = 0

    def measured() -> Iterator[np.ndarray]:
        nonlocal count
        for chunk in _chunks(blocks):
            levels.append(frame_levels(chunk))
            count += len(chunk)
            yield chunk

    if isinstance(method, SilenceThreshold):
        for _ in measured():
            pass
        spans = loud_spans(_joined(levels), method.silence_db, method.min_silence_ms / 1000)
    else:
        heard = lift_quiet(measured()) if method.lift_quiet else measured()
        probabilities = _joined(list(speech_probabilities(heard)))
        spans = refine(likely_spans(probabilities, method), _joined(levels))
    duration_s = count / SAMPLE_RATE
    return [Span(span.start_s, min(span.end_s, duration_s)) for span in spans]


def likely_spans(probabilities: np.ndarray, method: SileroVad) -> list[Span]:
    """Turn (frames,) probabilities into spans of whole frames: from `threshold` on until `end_threshold`."""
    frame_s = PROBABILITY_FRAME / SAMPLE_RATE
    above = np.flatnonzero(probabilities >= method.end_threshold)
    if not len(above):
        return []
    min_pause = max(1, int(np.ceil(method.min_pause_s / frame_s - 1e-6)))
    groups = np.split(above, np.flatnonzero(np.diff(above) > min_pause) + 1)
    spans: list[Span] = []
    for group in groups:
        sure = group[probabilities[group] >= method.threshold]
        if len(sure):
            spans.append(Span(float(sure[0]) * frame_s, float(group[-1] + 1) * frame_s))
    return spans


def _chunks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same samples in arrays of CHUNK; only the last is shorter, and none is empty."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 1:
            raise ValueError(f"find_speech takes blocks of (samples,), not {block.shape}")
        if not np.isfinite(block).all():
            raise ValueError("find_speech: NaN or infinite samples")
        waiting.append(block)
        count += len(block)
        if count >= CHUNK:
            joined = np.concatenate(waiting)
            whole = count // CHUNK * CHUNK
            yield from joined[:whole].reshape(-1, CHUNK)
            waiting, count = [joined[whole:].copy()], count - whole
    if count:
        yield np.concatenate(waiting)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
