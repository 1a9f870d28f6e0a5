"""Judges of a waveform for adversarial training; they are no part of a voice that speaks.

Multi-period with one scale discriminator (HiFi-GAN, arXiv:2010.05646) sees samples, folded by prime periods or not folded;
multi-resolution (UnivNet, arXiv:2106.07889) sees spectrogram magnitudes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weight_norm import weight_norm

SLOPE = 0.1
PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window in samples


class Judged(NamedTuple):
    """What the discriminators say; lists hold one entry per discriminator."""

    real_scores: list[Tensor]  # (batch, values) each; 1 means real, 0 made
    fake_scores: list[Tensor]
    real_features: list[list[Tensor]]  # activations of all layers, the score included
    fake_features: list[list[Tensor]]


class Verdict(NamedTuple):
    """What one discriminator says of a batch."""

    score: Tensor  # (batch, values)
    features: list[Tensor]


class _Judges(nn.Module):
    discriminators: nn.ModuleList

    def forward(self, real: Tensor, fake: Tensor) -> Judged:
        """Judge recorded and made waveforms, (batch, 1, samples) each."""
        of_real = [judge(real) for judge in self.discriminators]
        of_fake = [judge(fake) for judge in self.discriminators]
        return Judged(
            [verdict.score for verdict in of_real],
            [verdict.score for verdict in of_fake],
            [verdict.features for verdict in of_real],
            [verdict.features for verdict in of_fake],
        )


class MultiPeriodDiscriminator(_Judges):
    """One scale discriminator, then one for each period."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList([ScaleDiscriminator(), *(PeriodDiscriminator(p) for p in PERIODS)])


class MultiResolutionDiscriminator(_Judges):
    """One discriminator for each resolution of the spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(ResolutionDiscriminator(*sizes) for sizes in RESOLUTIONS)


class ScaleDiscriminator(nn.Module):
    """Looks at the samples as they are, by grouped convolutions with long strides."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 64, 256, 1024, 1024, 1024)
        shapes = ((15, 1, 1), (41, 4, 4), (41, 4, 16), (41, 4, 64), (41, 4, 256), (5, 1, 1))  # kernel, stride, groups
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(old, new, kernel, stride, kernel // 2, groups=groups))
            for old, new, (kernel, stride, groups) in zip(widths[:-1], widths[1:], shapes, strict=True)
        )
        self.conv_post = weight_norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> Verdict:
        """Judge (batch, 1, samples)."""
        return _judge(waveform, self.convs, self.conv_post)


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample, by convolutions over (samples / period, period)."""

    def __init__(self, period: int):
        super().__init__()
        self.period = period
        widths = (1, 32, 128, 512, 1024, 1024)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(old, new, (5, 1), (stride, 1), (2, 0)))
            for old, new, stride in zip(widths[:-1], widths[1:], (3, 3, 3, 3, 1), strict=True)
        )
        self.conv_post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> Verdict:
        """Judge (batch, 1, samples)."""
        x = F.pad(waveform, (0, -waveform.size(-1) % self.period), mode="reflect")
        return _judge(x.unflatten(-1, (-1, self.period)), self.convs, self.conv_post)


class ResolutionDiscriminator(nn.Module):
    """Looks at the magnitudes of one spectrogram, by convolutions over (bins, frames)."""

    def __init__(self, n_fft: int, hop: int, win: int, channels: int = 32):
        super().__init__()
        self.n_fft, self.hop, self.win = n_fft, hop, win
        shapes = (((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1))  # kernel, stride over frames
        self.convs = nn.ModuleList(
            weight_norm(
                nn.Conv2d(channels if layer else 1, channels, kernel, (1, stride), (kernel[0] // 2, kernel[1] // 2))
            )
            for layer, (kernel, stride) in enumerate(shapes)
        )
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: Tensor) -> Verdict:
        """Judge (batch, 1, samples)."""
        pad = (self.n_fft - self.hop) // 2
        with torch.autocast(waveform.device.type, enabled=False):
            window = torch.hann_window(self.win, device=waveform.device)
            padded = F.pad(waveform.float(), (pad, pad), mode="reflect")[:, 0]
            spectrum = torch.stft(padded, self.n_fft, self.hop, self.win, window, center=False, return_complex=True)
            magnitude = spectrum.abs()[:, None]  # (batch, 1, bins, frames)
        return _judge(magnitude, self.convs, self.conv_post)


def _judge(x: Tensor, convs: nn.ModuleList, conv_post: nn.Module) -> Verdict:
    if x.device.type == "cpu" and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)  # a step takes a fifth less time in MRD, little less in MPD
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = conv_post(x)
    return Verdict(x.flatten(1), [*features, x])
