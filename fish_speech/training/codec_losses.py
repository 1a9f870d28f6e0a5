"""What a codec is trained to: spectra like the original's, and sound that discriminators take for real."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.discriminators import Judgement
from ..models.mel import LogMel, MelConfig


class MelLoss(nn.Module):
    """L1 distance of log-mel spectra, the mean over several window lengths.

    windows: in samples, hop a quarter of each; n_mels: bands for each window
    """

    def __init__(self, sample_rate: int, windows: Sequence[int], n_mels: Sequence[int]):
        super().__init__()
        self.mels = [
            LogMel(MelConfig(sample_rate, bands, window, window // 4, window))
            for window, bands in zip(windows, n_mels, strict=True)
        ]

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Compare (batch, 1, samples) float32."""
        return torch.stack([mel.distance(made, real) for mel in self.mels]).mean()


class StftLoss(nn.Module):
    """Spectral convergence and log-magnitude L1, the mean over resolutions (Parallel WaveGAN, arXiv:1910.11480).

    resolutions: (n_fft, hop, window) in samples
    """

    def __init__(self, resolutions: Sequence[Sequence[int]]):
        super().__init__()
        self.resolutions = [tuple(resolution) for resolution in resolutions]

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Compare (batch, 1, samples) float32."""
        total = made.new_zeros(())
        for n_fft, hop, win in self.resolutions:
            window = torch.hann_window(win, device=made.device)
            one, other = (_magnitude(x[:, 0], n_fft, hop, win, window) for x in (made, real))
            convergence = torch.linalg.norm(other - one) / torch.linalg.norm(other).clamp(min=1e-6)
            total = total + convergence + (one.log() - other.log()).abs().mean()
        return total / len(self.resolutions)


def _magnitude(waveform: Tensor, n_fft: int, hop: int, win: int, window: Tensor) -> Tensor:
    spectrum = torch.stft(waveform, n_fft, hop, win, window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-7).sqrt()


def discriminator_loss(real: list[Judgement], made: list[Judgement]) -> Tensor:
    """Least squares: real to 1, made to 0; the mean over discriminators."""
    losses = [
        (1 - r.score.float()).square().mean() + m.score.float().square().mean() for r, m in zip(real, made, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(made: list[Judgement]) -> Tensor:
    """Least squares: made to 1; the mean over discriminators."""
    return torch.stack([(1 - m.score.float()).square().mean() for m in made]).mean()


def feature_loss(real: list[Judgement], made: list[Judgement]) -> Tensor:
    """L1 distance of the discriminators' features, the mean over layers, relative to the real ones' size."""
    losses = [
        (m.float() - r.detach().float()).abs().mean() / r.detach().float().abs().mean().clamp(min=1e-3)
        for one, other in zip(real, made, strict=True)
        for r, m in zip(one.features, other.features, strict=True)
    ]
    return torch.stack(losses).mean()
