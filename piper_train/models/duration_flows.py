"""Invertible steps of the stochastic duration predictor, on two channels per token.

Each step maps (batch, 2, tokens) to the same shape and says the logarithm of how much it stretches space, per item. The
steps work in float32 also under autocast; their small networks follow autocast.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channel_norm import ChannelNorm
from .spline import spline

BINS = 10


class SeparableStack(nn.Module):
    """Depthwise convolutions with growing dilation, each followed by a 1x1 mix of channels, with residuals."""

    def __init__(self, channels: int, kernel: int, layers: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.convs_sep = nn.ModuleList()
        for dilation in (kernel**layer for layer in range(layers)):
            padding = dilation * (kernel - 1) // 2
            self.convs_sep.append(
                nn.Conv1d(channels, channels, kernel, groups=channels, dilation=dilation, padding=padding)
            )
        self.convs_1x1 = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(layers))
        self.norms_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.norms_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Mix (batch, channels, tokens); `g` of the same shape is added first."""
        if g is not None:
            x = x + g
        for wide, mix, norm_1, norm_2 in zip(self.convs_sep, self.convs_1x1, self.norms_1, self.norms_2, strict=True):
            y = F.gelu(norm_1(wide(x * x_mask)))
            y = F.gelu(norm_2(mix(y)))
            x = x + F.dropout(y, self.dropout, self.training)
        return x * x_mask


class AffineStep(nn.Module):
    """Shift and scale each of the two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(2, 1))
        self.logs = nn.Parameter(torch.zeros(2, 1))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return (self.m + self.logs.exp() * x) * x_mask, (self.logs * x_mask).sum((1, 2))

    def inverse(self, y: Tensor, x_mask: Tensor, g: Tensor) -> Tensor:
        return (y - self.m) * (-self.logs).exp() * x_mask


class SplineStep(nn.Module):
    """Bend the second channel by splines that a small network makes of the first channel and the condition."""

    def __init__(self, channels: int, kernel: int, layers: int = 3):
        super().__init__()
        self.scale = 1 / math.sqrt(channels)  # of the numbers that make widths and heights
        self.pre = nn.Conv1d(1, channels, 1)
        self.convs = SeparableStack(channels, kernel, layers)
        self.proj = nn.Conv1d(channels, 3 * BINS - 1, 1)
        nn.init.zeros_(self.proj.weight)  # so that training starts close to the identity
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(1, dim=1)
        second, log_slope = spline(second, *self._curves(first, x_mask, g))
        return torch.cat([first, second], dim=1) * x_mask, (log_slope * x_mask).sum((1, 2))

    def inverse(self, y: Tensor, x_mask: Tensor, g: Tensor) -> Tensor:
        first, second = y.split(1, dim=1)
        second, _ = spline(second, *self._curves(first, x_mask, g), inverse=True)
        return torch.cat([first, second], dim=1) * x_mask

    def _curves(self, first: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        free = self.proj(self.convs(self.pre(first), x_mask, g)) * x_mask  # (batch, 3 * bins - 1, tokens)
        free = free.to(first.dtype).transpose(1, 2)[:, None]  # (batch, 1, tokens, 3 * bins - 1)
        widths, heights, slopes = free.split([BINS, BINS, BINS - 1], dim=-1)
        return widths * self.scale, heights * self.scale, slopes


class Swap(nn.Module):
    """Exchange the two channels."""

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(x.size(0))

    def inverse(self, y: Tensor, x_mask: Tensor, g: Tensor) -> Tensor:
        return y.flip(1)


def make_steps(channels: int, kernel: int, splines: int = 4) -> nn.ModuleList:
    """An affine step, then pairs of a spline step and a swap: spline steps have the odd numbers, as published."""
    steps: list[nn.Module] = [AffineStep()]
    for _ in range(splines):
        steps += [SplineStep(channels, kernel), Swap()]
    return nn.ModuleList(steps)
