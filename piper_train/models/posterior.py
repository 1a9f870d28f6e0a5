"""The posterior encoder of VITS: what a recording's spectrogram says of its latents. Used while training only."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import VitsConfig
from .masks import sequence_mask
from .wavenet import WaveNet

_LAYERS = 16


class Posterior(NamedTuple):
    """Latents drawn for a recording, and what they were drawn from."""

    z: Tensor  # (batch, channels, frames)
    m: Tensor  # mean, (batch, channels, frames)
    logs: Tensor  # ln of the standard deviation, (batch, channels, frames)
    y_mask: Tensor  # (batch, 1, frames), 1 for a frame and 0 for padding


class PosteriorEncoder(nn.Module):
    """A WaveNet over the frames of a linear spectrogram, projected to mean and spread of the latents."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.pre = nn.Conv1d(config.spec_channels, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, _LAYERS, config.gin_channels)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, spec: Tensor, lengths: Tensor, g: Tensor | None = None, noise: Tensor | None = None) -> Posterior:
        """Encode `spec` (batch, bins, frames) of `lengths` (batch) by speaker `g` (batch, gin, 1).

        `noise`, standard normal of (batch, channels, frames), is drawn if it is not given.
        """
        y_mask = sequence_mask(lengths, spec.size(2)).to(spec.dtype)
        x = self.enc(self.pre(spec) * y_mask, y_mask, g)
        m, logs = (self.proj(x) * y_mask).chunk(2, dim=1)
        noise = torch.randn_like(m, dtype=spec.dtype) if noise is None else noise
        return Posterior((m + noise * logs.exp()) * y_mask, m, logs, y_mask)
