"""What every recogniser can do, and the sound that it takes: mono float32 at 16 kHz."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .. import audio
from ..timeline import Piece

SAMPLE_RATE = 16000  # Hz; what all recognisers take


class Recognizer(Protocol):
    """Something that writes down what it hears. What it heard before changes nothing.

    Give it one recording's speech, minutes rather than hours: its memory grows with the samples.
    """

    @property
    def name(self) -> str:
        """Package, version, model and language: for the record, and for the key of a cache."""

    def __call__(self, samples: np.ndarray) -> str:
        """Mono float32 (samples,) at 16 kHz -> the words heard."""

    def words(self, samples: np.ndarray, language: str | None = None) -> list[Piece]:
        """Mono float32 (samples,) at 16 kHz -> the words heard, with times in seconds from the first sample.

        Times never go back, and lie within the samples; a word may last 0 s. `language` is that of this recording,
        where the recogniser was loaded without one; None then lets each call detect its own.
        """

    def detect_language(self, samples: np.ndarray) -> tuple[str, float]:
        """The language spoken in the first 30 s of (samples,), as in "en", and its probability.

        Ask once per recording, with speech of it, and hand the answer to `words`: short pieces are often mistaken.
        """


def resample(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Bring (samples,) to 16 kHz, float32: what the recognisers, the speaker encoder and DNSMOS take."""
    return audio.resample(np.asarray(samples, np.float32), sample_rate, SAMPLE_RATE)
