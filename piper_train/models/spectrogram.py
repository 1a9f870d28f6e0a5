"""Spectrograms of waveforms: linear magnitude, which the posterior encoder sees, and log-mel, which the loss compares.

All arithmetic is float32 outside autocast: half precision has steps of 0.03 and more in the logarithm.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .config import VitsConfig

POWER_FLOOR = 1e-6  # added to the power of each bin
MEL_FLOOR = 1e-5
_MEL_BREAK_HZ, _HZ_PER_MEL = 1000.0, 200.0 / 3  # Slaney: linear below the break, logarithmic above
_MEL_LOG_STEP = math.log(6.4) / 27.0


def linear_spectrogram(audio: Tensor, n_fft: int, hop: int, win: int) -> Tensor:
    """Magnitudes of (batch, samples) -> (batch, n_fft // 2 + 1, samples // hop); a batch axis is not needed.

    The ends are reflected, so that frame i is centred on the i-th stretch of `hop` samples.
    Raises ValueError for audio that is too short to be reflected, (n_fft - hop) / 2 samples and less.
    """
    pad = (n_fft - hop) // 2
    if audio.size(-1) <= max(pad, hop - 1):
        raise ValueError(f"{audio.size(-1)} samples are too few for a spectrogram; it needs {max(pad + 1, hop)}")
    with torch.autocast(audio.device.type, enabled=False):
        waveform = audio.reshape(-1, 1, audio.size(-1)).float()
        waveform = F.pad(waveform, (pad, pad), mode="reflect")[:, 0]
        spectrum = torch.stft(
            waveform, n_fft, hop, win, _window(win, audio.device), center=False, return_complex=True
        )  # (batch, bins, frames)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR).sqrt()
    return magnitude.reshape(*audio.shape[:-1], *magnitude.shape[1:])


def log_mel(linear: Tensor, config: VitsConfig) -> Tensor:
    """Magnitudes (..., bins, frames) -> natural logarithm of mel bands (..., mel_channels, frames)."""
    top = config.sample_rate / 2 if config.mel_fmax is None else config.mel_fmax
    bank = _filters(config.sample_rate, config.filter_length, config.mel_channels, config.mel_fmin, top, linear.device)
    with torch.autocast(linear.device.type, enabled=False):
        return (bank @ linear.float()).clamp(min=MEL_FLOOR).log()


def mel_of(audio: Tensor, config: VitsConfig) -> Tensor:
    """Log-mel of (batch, samples) -> (batch, mel_channels, samples // hop_length); a batch axis is not needed."""
    return log_mel(linear_spectrogram(audio, config.filter_length, config.hop_length, config.win_length), config)


def mel_filters(sample_rate: int, n_fft: int, bands: int, lowest: float, highest: float) -> np.ndarray:
    """Triangles on the Slaney mel scale with unit area, float32 (bands, n_fft // 2 + 1); frequencies in Hz."""
    frequencies = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    corners = _mel_to_hz(np.linspace(_hz_to_mel(lowest), _hz_to_mel(highest), bands + 2))
    widths = np.diff(corners)[:, None]
    slopes = corners[:, None] - frequencies  # (bands + 2, bins)
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)


def _hz_to_mel(frequency: float) -> float:
    if frequency < _MEL_BREAK_HZ:
        return frequency / _HZ_PER_MEL
    return _MEL_BREAK_HZ / _HZ_PER_MEL + math.log(frequency / _MEL_BREAK_HZ) / _MEL_LOG_STEP


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    start = _MEL_BREAK_HZ / _HZ_PER_MEL
    logarithmic = _MEL_BREAK_HZ * np.exp(_MEL_LOG_STEP * np.maximum(0, mels - start))
    return np.where(mels < start, mels * _HZ_PER_MEL, logarithmic)


# What is kept must not be made inside inference mode, or a later training step could not use it.
@lru_cache(maxsize=16)
def _window(samples: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(samples, device=device)


@lru_cache(maxsize=16)
def _filters(sample_rate: int, n_fft: int, bands: int, lowest: float, highest: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(mel_filters(sample_rate, n_fft, bands, lowest, highest)).to(device)
