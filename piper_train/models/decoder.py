"""The decoder: latents to waveform by transposed convolutions and parallel residual blocks (HiFi-GAN, arXiv:2010.05646)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weight_norm import remove_weight_norm, weight_norm

if TYPE_CHECKING:
    from .config import VitsConfig

SLOPE = 0.1  # of every leaky ReLU but the last one
LAST_SLOPE = 0.01


class Decoder(nn.Module):
    """(batch, inter_channels, frames) -> (batch, 1, frames * hop_length) in [-1, 1].

    Nothing is masked inside: in a padded batch the end of a shorter item differs from the item alone. For several
    speakers the speaker vector is added once, after the first convolution.
    """

    def __init__(self, config: VitsConfig):
        super().__init__()
        width = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(config.inter_channels, width, 7, padding=3)
        if config.gin_channels:
            self.cond = nn.Conv1d(config.gin_channels, width, 1)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        block = DoubleBlock if config.resblock == "1" else SingleBlock
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(weight_norm(up))
            width //= 2
            self.resblocks.extend(
                block(width, kernel, dilations)
                for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
            )
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3, bias=False)

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Make sound of latents; `g` is the speaker vector (batch, gin_channels, 1)."""
        x = self.conv_pre(z)
        if g is not None:
            x = x + self.cond(g)
        parallel = len(self.resblocks) // len(self.ups)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            blocks = self.resblocks[stage * parallel : (stage + 1) * parallel]
            total = blocks[0](x)
            for block in blocks[1:]:
                total = total + block(x)
            x = total / parallel
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))

    def remove_weight_norm(self) -> None:
        """Fold the norms into plain weights, for inference and export; it cannot be trained on as before."""
        remove_weight_norm(self)


class SingleBlock(nn.Module):
    """Residual block "2": x + conv(leaky(x)) for each dilation."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(_same_size(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, SLOPE))
        return x


class DoubleBlock(nn.Module):
    """Residual block "1": x + plain(leaky(dilated(leaky(x)))) for each dilation."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(_same_size(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_size(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


def _same_size(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    padding = dilation * (kernel - 1) // 2
    return weight_norm(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding))
