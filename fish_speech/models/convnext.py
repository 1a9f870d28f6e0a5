"""Causal convolutions and the ConvNeXt encoder over mel frames (ConvNeXt, arXiv:2201.03545)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder: one stage of `depths[i]` blocks at width `dims[i]` after another."""

    input_channels: int = 160
    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (128, 256, 384, 512)
    drop_path_rate: float = 0.2  # training only
    kernel_size: int = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "dims", tuple(self.dims))
        if len(self.depths) != len(self.dims) or not self.dims:
            raise ValueError(f"backbone.depths {self.depths} and backbone.dims {self.dims} must be equally long")


class CausalConv1d(nn.Module):
    """Convolution that sees the past only; (batch, in, frames) -> (batch, out, ceil(frames / stride)).

    Also takes and gives (batch, channels, 1, frames): the same sums by the two-dimensional kernels, see `as_image`.
    """

    def __init__(self, dim: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(dim, out, kernel, stride, dilation=dilation, groups=groups)
        self.left = (kernel - 1) * dilation + 1 - stride

    def forward(self, x: Tensor) -> Tensor:
        c = self.conv
        x = F.pad(x, (self.left, -x.size(-1) % c.stride[0]))
        if x.dim() == 3:
            return c(x)
        return F.conv2d(x, c.weight[:, :, None], c.bias, (1, c.stride[0]), 0, (1, c.dilation[0]), c.groups)


class CausalConvTranspose1d(nn.Module):
    """Transposed convolution cropped at the right; (batch, in, frames) -> (batch, out, frames * stride).

    Also takes and gives (batch, channels, 1, frames), see `as_image`.
    """

    def __init__(self, dim: int, out: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(dim, out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        c, frames = self.conv, x.size(-1) * self.conv.stride[0]
        if x.dim() == 3:
            return c(x)[..., :frames]
        return F.conv_transpose2d(x, c.weight[:, :, None], c.bias, (1, c.stride[0]))[..., :frames]


def as_image(x: Tensor) -> Tensor:
    """Lay (batch, channels, frames) out as a channels-last picture of height 1 where that is faster: on CPUs.

    oneDNN has no channels-last kernels in one dimension; in two a HiFi-GAN head trains about twice as fast.
    """
    return x[:, :, None].contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, frames)."""

    def __init__(self, dim: int):
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class DropPath(nn.Module):
    """Skip a residual branch for whole samples while training (stochastic depth, arXiv:1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.size(0), 1, 1).bernoulli_(keep) / keep


class ConvNeXtBlock(nn.Module):
    """Depthwise causal convolution, then a pointwise MLP, scaled and added to the input."""

    def __init__(self, dim: int, kernel: int = 7, drop_path: float = 0.0):
        super().__init__()
        self.dwconv = CausalConv1d(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.dwconv(x).transpose(1, 2))
        return x + self.drop_path((self.gamma * y).transpose(1, 2))

    def mlp(self, y: Tensor) -> Tensor:
        """What follows the convolution: (..., frames, channels) -> the same shape."""
        return self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))


class ConvNeXtEncoder(nn.Module):
    """Mel frames to latents of the same length: (batch, mels, frames) -> (batch, dims[-1], frames)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        dims = config.dims
        stem = nn.Sequential(CausalConv1d(config.input_channels, dims[0], 7), ChannelNorm(dims[0]))
        widenings = [
            nn.Sequential(ChannelNorm(old), nn.Conv1d(old, new, 1))
            for old, new in zip(dims[:-1], dims[1:], strict=True)
        ]
        self.downsample_layers = nn.ModuleList([stem, *widenings])
        rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(dim, config.kernel_size, rates.pop(0)) for _ in range(depth)))
            for depth, dim in zip(config.depths, dims, strict=True)
        )
        self.norm = ChannelNorm(dims[-1])

    def forward(self, mel: Tensor) -> Tensor:
        x = mel
        for widen, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(widen(x))
        return self.norm(x)
