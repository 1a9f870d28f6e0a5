"""Duration, silence at the ends, and speaking rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .normalize import comparable_words

FRAME_S = 0.01  # the step in which silence is measured
SILENCE_DB = -40.0  # silence is quieter than the loudest frame by this much
FLOOR_DBFS = -65.0  # and everything below this is silence


@dataclass(frozen=True)
class Timing:
    """Where the speech in a clip lies, in seconds."""

    duration_s: float
    leading_silence_s: float
    trailing_silence_s: float

    @property
    def speech_s(self) -> float:
        """From the first sound to the last, pauses included; 0 for a silent clip."""
        return max(0.0, self.duration_s - self.leading_silence_s - self.trailing_silence_s)


def measure_timing(samples: np.ndarray, sample_rate: int) -> Timing:
    """Find the speech in mono (samples,). A clip that is silent throughout is all leading silence."""
    duration = len(samples) / sample_rate
    size = max(1, round(FRAME_S * sample_rate))
    frames = np.pad(np.asarray(samples, np.float64), (0, -len(samples) % size)).reshape(-1, size)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)  # dBFS of each frame
    loud = np.flatnonzero(level > max(FLOOR_DBFS, level.max(initial=-120.0) + SILENCE_DB))
    if not len(loud):
        return Timing(duration, duration, 0.0)
    first, after = loud[0] * size / sample_rate, (loud[-1] + 1) * size / sample_rate
    return Timing(duration, float(first), max(0.0, float(duration - after)))


def speaking_rate(text: str, speech_s: float, language: str = "en") -> dict[str, float] | None:
    """Words and characters of `text` per second of speech; None if there is no speech.

    Characters are those of the spelled-out words, without spaces.
    """
    words = comparable_words(text, language)
    if speech_s <= 0:
        return None
    return {"words_per_s": len(words) / speech_s, "characters_per_s": sum(map(len, words)) / speech_s}
