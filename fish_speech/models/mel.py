"""Log-mel spectrogram with the codec's exact arithmetic: reflect padding, magnitude STFT, Slaney filter bank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = 1e-5


@dataclass(frozen=True)
class MelConfig:
    """Shape of the spectrogram."""

    sample_rate: int = 44100  # Hz
    n_mels: int = 160
    n_fft: int = 2048  # samples
    hop_length: int = 512  # samples per mel frame
    win_length: int = 2048  # samples

    def __post_init__(self) -> None:
        if not 0 < self.hop_length <= self.win_length <= self.n_fft <= 1 << 16:
            raise ValueError(f"need 0 < hop_length <= win_length <= n_fft, got {self}")


class LogMel:
    """Turns waveforms into log-mel frames. Holds no weights; window and filter bank are made once per device."""

    def __init__(self, config: MelConfig):
        self.config = config
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, waveform: Tensor) -> Tensor:
        """(batch, 1, samples) or (batch, samples) -> (batch, mels, frames), frames = samples // hop_length.

        Raises ValueError for a waveform too short to be padded by reflection (about a window).
        """
        c = self.config
        waveform = waveform.flatten(0, -2).float()  # (batch, samples)
        window, filters = self._on(waveform.device)
        left, right = (c.win_length - c.hop_length) // 2, (c.win_length - c.hop_length + 1) // 2
        if waveform.size(-1) <= right:
            raise ValueError(f"{waveform.size(-1)} samples are too short for a mel spectrogram; need over {right}")
        padded = F.pad(waveform[:, None], (left, right), mode="reflect")[:, 0]
        with torch.autocast(
            waveform.device.type, enabled=False
        ):  # bfloat16 has steps of 0.03 and more in the logarithm
            spectrum = torch.stft(
                padded, c.n_fft, c.hop_length, c.win_length, window, center=False, onesided=True, return_complex=True
            )  # (batch, bins, frames)
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-6).sqrt()
            mel = (magnitude.transpose(1, 2) @ filters).transpose(1, 2)  # (batch, mels, frames)
            return mel.clamp(min=LOG_FLOOR).log()

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean absolute difference of the log-mels of two waveforms (batch, samples) or (batch, 1, samples)."""
        return (self(one) - self(other)).abs().mean()

    def frames(self, samples: Tensor) -> Tensor:
        """Mel frames that `samples` give."""
        return samples // self.config.hop_length

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._constants:
            window = torch.hann_window(self.config.win_length)
            filters = mel_filterbank(self.config.sample_rate, self.config.n_fft, self.config.n_mels)
            self._constants[device] = (window.to(device), filters.to(device))
        return self._constants[device]


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Return the Slaney filter bank (n_fft // 2 + 1, n_mels) from 0 Hz to half the sample rate, unit area, float32."""
    top = sample_rate // 2
    frequencies = torch.linspace(0, top, n_fft // 2 + 1)
    mels = torch.linspace(_hz_to_mel(0.0), _hz_to_mel(float(top)), n_mels + 2)
    linear = mels * (200.0 / 3)
    logarithmic = 1000.0 * torch.exp(math.log(6.4) / 27.0 * (mels - 15.0))
    points = torch.where(mels >= 15.0, logarithmic, linear)  # Hz
    widths = points[1:] - points[:-1]
    slopes = points[None] - frequencies[:, None]  # (bins, n_mels + 2)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return triangles * (2.0 / (points[2:] - points[:-2]))


def _hz_to_mel(frequency: float) -> float:
    if frequency < 1000.0:
        return frequency / (200.0 / 3)
    return 15.0 + math.log(frequency / 1000.0) / (math.log(6.4) / 27.0)
