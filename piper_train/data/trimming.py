"""Where speech begins and ends in a clip, by Silero's voice activity detector, as Piper trims its training clips.

From the first chunk of 512 samples at 16 kHz that is speech (probability of 0.2 or more) to the last one, with a margin
on both sides. Nothing is lifted or smoothed.
"""

from __future__ import annotations

import math

import numpy as np

from fish_speech.audio import resample
from fish_speech.errors import UserError
from fish_speech.prepare.silero import CHUNK, PROBABILITY_FRAME, speech_probabilities

VAD_RATE = 16000  # Hz
THRESHOLD = 0.2


def speech_shares(
    waveform: np.ndarray, sample_rate: int, before_s: float, after_s: float
) -> tuple[float, float] | None:
    """Return the share of (samples,) float32 at which to begin and to end, each in [0, 1]; None if there is no speech.

    Raises UserError if the detector is not installed.
    """
    heard = resample(waveform, sample_rate, VAD_RATE)
    whole = heard[: len(heard) // PROBABILITY_FRAME * PROBABILITY_FRAME]
    chunks = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
    try:
        probabilities = np.concatenate([np.ravel(part) for part in speech_probabilities(chunks)] or [np.zeros(0)])
    except UserError as error:
        raise UserError(
            "silence cannot be trimmed: no voice activity detector",
            error.why,
            "pip install --upgrade silero-vad onnxruntime, or say --data.trim_silence false",
        ) from None
    speech = np.flatnonzero(probabilities >= THRESHOLD)
    if len(speech) == 0:
        return None
    total_s, chunk_s = len(heard) / VAD_RATE, PROBABILITY_FRAME / VAD_RATE
    first_s = max(0.0, speech[0] * chunk_s - before_s)
    last_s = min(total_s, (speech[-1] + 1) * chunk_s + after_s)
    return first_s / total_s, last_s / total_s


def trimmed(waveform: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """Cut (samples,) at those shares of its length: the first rounded down, the last up."""
    first, last = (share * len(waveform) for share in shares)
    return waveform[math.floor(first) : math.ceil(last)]
