"""The waveform generator: transposed convolutions and parallel residual stacks, all causal (HiFi-GAN, arXiv:2010.05646)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .convnext import CausalConv1d, CausalConvTranspose1d, as_image


@dataclass(frozen=True)
class HeadConfig:
    """Shape of the generator."""

    hop_length: int = 512  # samples per input frame
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4, 4)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    num_mels: int = 512  # input channels
    upsample_initial_channel: int = 512
    pre_conv_kernel_size: int = 13
    post_conv_kernel_size: int = 13

    def __post_init__(self) -> None:
        for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "resblock_dilation_sizes", tuple(tuple(d) for d in self.resblock_dilation_sizes))
        if math.prod(self.upsample_rates) != self.hop_length:
            raise ValueError(
                f"head.upsample_rates {self.upsample_rates} do not multiply to hop_length {self.hop_length}"
            )
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ValueError("head.upsample_rates and head.upsample_kernel_sizes must be equally long")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError("head.resblock_kernel_sizes and head.resblock_dilation_sizes must be equally long")


def _normed(module: CausalConv1d | CausalConvTranspose1d) -> nn.Module:
    weight_norm(module.conv)  # over all axes but axis 0, which is the input channel of a transposed convolution
    return module


class ResidualStack(nn.Module):
    """x + conv2(silu(conv1(silu(x)))) for each dilation; both convolutions are dilated, unlike HiFi-GAN's."""

    def __init__(self, dim: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(_normed(CausalConv1d(dim, dim, kernel, dilation=d)) for d in dilations)
        self.convs2 = nn.ModuleList(_normed(CausalConv1d(dim, dim, kernel, dilation=d)) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            x = x + conv2(F.silu(conv1(F.silu(x))))
        return x


class ParallelBlock(nn.Module):
    """The mean of residual stacks with different kernels."""

    def __init__(self, dim: int, kernels: tuple[int, ...], dilations: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.blocks = nn.ModuleList(ResidualStack(dim, k, d) for k, d in zip(kernels, dilations, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        total = self.blocks[0](x)
        for block in self.blocks[1:]:
            total = total + block(x)
        return total / len(self.blocks)


class HiFiGANHead(nn.Module):
    """Latents to sound: (batch, num_mels, frames) -> (batch, 1, frames * hop_length) in [-1, 1]."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        width = config.upsample_initial_channel
        self.conv_pre = _normed(CausalConv1d(config.num_mels, width, config.pre_conv_kernel_size))
        self.ups = nn.ModuleList(
            _normed(CausalConvTranspose1d(width >> i, width >> (i + 1), kernel, rate))
            for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
        )
        self.resblocks = nn.ModuleList(
            ParallelBlock(width >> (i + 1), config.resblock_kernel_sizes, config.resblock_dilation_sizes)
            for i in range(len(config.upsample_rates))
        )
        self.conv_post = _normed(CausalConv1d(width >> len(config.upsample_rates), 1, config.post_conv_kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_pre(as_image(x))
        for up, block in zip(self.ups, self.resblocks, strict=True):
            x = block(up(F.silu(x)))
        x = torch.tanh(self.conv_post(F.silu(x)))
        return x.flatten(2)  # the height of 1, if any
