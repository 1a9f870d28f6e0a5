"""Plain duration predictor: two convolutions say the logarithm of the frames of each phoneme (FastSpeech, arXiv:1905.09263)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channel_norm import ChannelNorm

if TYPE_CHECKING:
    from .config import VitsConfig

CHANNELS = 256
DROPOUT = 0.5
LEAST_FRAMES = 1e-6  # added before the logarithm


class DurationPredictor(nn.Module):
    """Says one duration, the likeliest. It learns from the alignment without teaching the text encoder."""

    def __init__(self, config: VitsConfig):
        super().__init__()
        self.conv_1 = nn.Conv1d(config.hidden_channels, CHANNELS, 3, padding=1)
        self.norm_1 = ChannelNorm(CHANNELS)
        self.conv_2 = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm_2 = ChannelNorm(CHANNELS)
        self.proj = nn.Conv1d(CHANNELS, 1, 1)
        if config.gin_channels:
            self.cond = nn.Conv1d(config.gin_channels, config.hidden_channels, 1)

    def loss(
        self, x: Tensor, x_mask: Tensor, w: Tensor, g: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Squared error of the log durations, summed over tokens -> (batch,).

        x: text encoding (batch, hidden_channels, tokens); x_mask: (batch, 1, tokens); w: frames of each token
        (batch, 1, tokens); g: speaker vector (batch, gin_channels, 1); noise is not used
        """
        said = self.log_durations(x, x_mask, g)
        target = (w + LEAST_FRAMES).log() * x_mask
        return (said.to(target.dtype) - target).square().sum((1, 2))

    def log_durations(
        self,
        x: Tensor,
        x_mask: Tensor,
        g: Tensor | None = None,
        noise: Tensor | None = None,
        noise_scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Logarithm of the frames of each token, (batch, 1, tokens); the noise is not used."""
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        x = F.dropout(self.norm_1(torch.relu(self.conv_1(x * x_mask))), DROPOUT, self.training)
        x = F.dropout(self.norm_2(torch.relu(self.conv_2(x * x_mask))), DROPOUT, self.training)
        return self.proj(x * x_mask) * x_mask
