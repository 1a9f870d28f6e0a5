"""Judges of a waveform for adversarial codec training; they are no part of the codec itself.

Multi-period (HiFi-GAN, arXiv:2010.05646) sees the samples folded by prime periods; multi-resolution (UnivNet,
arXiv:2106.07889) sees spectrogram magnitudes. Each returns a score map and the features on the way to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1


class Judgement(NamedTuple):
    """What one discriminator says of a batch."""

    score: Tensor  # (batch, values); 1 means real, 0 made
    features: list[Tensor]  # activations, for feature matching


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample, by convolutions over (samples / period, period)."""

    def __init__(self, period: int, channels: int):
        super().__init__()
        self.period = period
        widths = [1, channels, channels * 4, channels * 16, channels * 32, channels * 32]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(old, new, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i, (old, new) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> Judgement:
        """Judge (batch, 1, samples)."""
        x = F.pad(waveform, (0, -waveform.size(-1) % self.period), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))  # (batch, 1, samples / period, period)
        return _judge(x, self.convs, self.last)


class ResolutionDiscriminator(nn.Module):
    """Looks at the magnitude of one spectrogram, by convolutions over (bins, frames)."""

    def __init__(self, resolution: Sequence[int], channels: int):
        super().__init__()
        self.n_fft, self.hop_length, self.win_length = resolution
        strides = (1, 2, 2, 2, 1)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(1 if i == 0 else channels, channels, (3, 9), (1, stride), padding=(1, 4)))
            for i, stride in enumerate(strides)
        )
        self.last = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: Tensor) -> Judgement:
        """Judge (batch, 1, samples)."""
        window = torch.hann_window(self.win_length, device=waveform.device)
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform[:, 0].float(), self.n_fft, self.hop_length, self.win_length, window, return_complex=True
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return _judge(magnitude.transpose(1, 2)[:, None], self.convs, self.last)  # (batch, 1, frames, bins)


class Discriminators(nn.Module):
    """All judges together.

    periods: of the multi-period part, pairwise prime; period_channels: width of its first layer (HiFi-GAN has 32)
    resolutions: (n_fft, hop, window) in samples of the multi-resolution part; resolution_channels: its width
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: int = 32,
        resolutions: Sequence[Sequence[int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        resolution_channels: int = 32,
    ):
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, period_channels) for period in periods),
                *(ResolutionDiscriminator(resolution, resolution_channels) for resolution in resolutions),
            ]
        )

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """Judge (batch, 1, samples)."""
        return [judge(waveform) for judge in self.judges]


def _judge(x: Tensor, convs: nn.ModuleList, last: nn.Module) -> Judgement:
    if x.device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = last(x)
    features.append(x)
    return Judgement(x.flatten(1), features)
