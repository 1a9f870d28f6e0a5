"""The convolutional encoder and decoder of the modded DAC codec, all causal (Descript Audio Codec, arXiv:2306.06546)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .convnext import CausalConv1d, CausalConvTranspose1d
from .dac_config import DacConfig, TransformerConfig
from .windowed_transformer import WindowedTransformer

DILATIONS = (1, 3, 9)  # of the residual units of a stage
RESIDUAL_KERNEL, OUTER_KERNEL, LATENT_KERNEL = 7, 7, 3


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha for each channel: it lets periods through (arXiv:2006.08195)."""

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / (self.alpha + 1e-9)


class ResidualUnit(nn.Module):
    """Snake and a dilated convolution, snake and one over the channels alone, added to the input."""

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.block = nn.Sequential(
            Snake(dim),
            normed(CausalConv1d(dim, dim, RESIDUAL_KERNEL, dilation=dilation)),
            Snake(dim),
            normed(CausalConv1d(dim, dim, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class EncoderBlock(nn.Module):
    """Residual units, then a strided convolution to twice the channels, then a transformer if the config asks for one."""

    def __init__(self, dim: int, rate: int, transformer: TransformerConfig | None):
        super().__init__()
        self.block = nn.Sequential(
            *(ResidualUnit(dim, dilation) for dilation in DILATIONS),
            Snake(dim),
            normed(CausalConv1d(dim, 2 * dim, 2 * rate, stride=rate)),
        )
        if transformer is not None:
            self.block.append(WindowedTransformer(transformer))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DecoderBlock(nn.Module):
    """A transposed convolution to half the channels, then residual units."""

    def __init__(self, dim: int, rate: int):
        super().__init__()
        self.block = nn.Sequential(
            Snake(dim),
            normed(CausalConvTranspose1d(dim, dim // 2, 2 * rate, stride=rate)),
            *(ResidualUnit(dim // 2, dilation) for dilation in DILATIONS),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DacEncoder(nn.Module):
    """Sound to latents: (batch, 1, samples) -> (batch, latent_dim, ceil(samples / product of the rates))."""

    def __init__(self, config: DacConfig):
        super().__init__()
        dim, rates = config.encoder_dim, config.encoder_rates
        self.block = nn.Sequential(
            normed(CausalConv1d(1, dim, OUTER_KERNEL)),
            *(EncoderBlock(dim << stage, rate, config.transformer(stage)) for stage, rate in enumerate(rates)),
            Snake(config.latent_dim),
            normed(CausalConv1d(config.latent_dim, config.latent_dim, LATENT_KERNEL)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DacDecoder(nn.Module):
    """Latents to sound: (batch, latent_dim, rows) -> (batch, 1, rows * product of the rates) in [-1, 1]."""

    def __init__(self, config: DacConfig):
        super().__init__()
        dim, rates = config.decoder_dim, config.decoder_rates
        last = dim >> len(rates)
        self.model = nn.Sequential(
            normed(CausalConv1d(config.latent_dim, dim, OUTER_KERNEL)),
            *(DecoderBlock(dim >> stage, rate) for stage, rate in enumerate(rates)),
            Snake(last),
            normed(CausalConv1d(last, 1, OUTER_KERNEL)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.model(x))


def normed(module: nn.Module) -> nn.Module:
    """Weight-normalise a causal convolution: over all axes but axis 0, the input channels of a transposed one."""
    weight_norm(module.conv)  # type: ignore[arg-type]
    return module
