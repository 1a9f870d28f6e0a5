"""From the model's samples to those of a WAV file, by the Piper client's arithmetic, bit by bit."""

from __future__ import annotations

import numpy as np

FULL_SCALE = 32767.0
SILENT = 1e-8  # a sentence whose peak is below is made zero, not loud


def levelled(sound: np.ndarray, normalize: bool = True, volume: float = 1.0) -> np.ndarray:
    """Bring one sentence, float32 (samples,), to full scale unless `normalize` is off; times `volume`, within +-1."""
    if normalize:
        peak = np.max(np.abs(sound), initial=0.0)
        sound = np.zeros_like(sound) if peak < SILENT else sound / peak
    if volume != 1.0:
        sound = sound * volume
    return np.clip(sound, -1.0, 1.0).astype(np.float32)


def to_client_pcm16(sound: np.ndarray) -> np.ndarray:
    """float32 (samples,) in +-1 to int16, cut off towards zero as the client does, where others round."""
    return np.clip(sound * np.float32(FULL_SCALE), -FULL_SCALE, FULL_SCALE).astype(np.int16)


def for_sinks(sound: np.ndarray) -> np.ndarray:
    """The float32 samples that become `to_client_pcm16(sound)` where a sink makes 16 bits of them."""
    return to_client_pcm16(sound).astype(np.float32) / np.float32(32768.0)
