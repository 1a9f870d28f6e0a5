"""Finite scalar quantization, grouped and downsampled in time, as the firefly codec uses it (FSQ, arXiv:2309.15505)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convnext import CausalConv1d, CausalConvTranspose1d, ConvNeXtBlock

BOUND_EPS = 1e-3


@dataclass(frozen=True)
class QuantizerConfig:
    """Shape of the quantizer."""

    input_dim: int = 512  # latent channels
    n_groups: int = 8  # codebooks: the channels are cut into this many consecutive groups
    n_codebooks: int = 1  # residual quantizers per group; the releases use one
    levels: tuple[int, ...] = (8, 5, 5, 5)  # values per FSQ channel; 8*5*5*5 = 1000 codes
    downsample_factor: tuple[int, ...] = (2, 2)  # mel frames per code frame, as factors
    normalize_groups: bool = False  # normalise a group's channels before its quantizer; the releases do not

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        object.__setattr__(self, "downsample_factor", tuple(self.downsample_factor))
        if self.n_codebooks != 1:
            raise ValueError(f"quantizer.n_codebooks is {self.n_codebooks}; only 1 residual quantizer is supported")
        if self.input_dim % self.n_groups:
            raise ValueError(f"quantizer.input_dim {self.input_dim} is not a multiple of n_groups {self.n_groups}")
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"quantizer.levels is {self.levels}; each needs at least 2 values")

    @property
    def codes(self) -> int:
        """Number of different codes a group can have."""
        return math.prod(self.levels)

    @property
    def downsample(self) -> int:
        """Mel frames per code frame."""
        return math.prod(self.downsample_factor)


class FiniteScalarQuantizer(nn.Module):
    """Round each latent channel to a few levels; the tuple of levels is the code.

    levels: values per channel; [8, 5, 5, 5] gives 1000 codes, so ids 1000-1023 of a 1024-wide table are never used.
    normalize: whether each frame is brought to zero mean and unit variance first, so that training from scratch starts
    with most codes in use.
    """

    def __init__(self, dim: int, levels: tuple[int, ...], normalize: bool = False):
        super().__init__()
        self.levels = levels
        self.normalize = normalize
        self.project_in = nn.Linear(dim, len(levels))
        self.project_out = nn.Linear(len(levels), dim)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> codes (batch, frames), int64."""
        return self._codes(self._squashed(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim) -> the same quantized, and codes (batch, frames); for training.

        Gradients pass the rounding as if it were not there (straight-through estimation).
        """
        z = self._squashed(x)
        rounded = z + (z.round() - z).detach()
        levels, _ = self._tables(x.device)
        return self.project_out(rounded / (levels // 2)), self._codes(z.detach())

    def _squashed(self, x: Tensor) -> Tensor:
        return self.bound(self.project_in(F.layer_norm(x, x.shape[-1:]) if self.normalize else x))

    def _codes(self, z: Tensor) -> Tensor:
        levels, basis = self._tables(z.device)
        digits = torch.round(z) + levels // 2
        return (digits.long() * basis).sum(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, frames) -> (batch, frames, dim)."""
        return self.project_out(self.values(codes).to(self.project_out.weight.dtype))

    def values(self, codes: Tensor) -> Tensor:
        """Codes (...) -> the quantized channel values (..., channels) in [-1, 1]."""
        levels, basis = self._tables(codes.device)
        digits = (codes[..., None] // basis) % levels
        return (digits - levels // 2) / (levels // 2)

    def bound(self, z: Tensor) -> Tensor:
        """Squash to the range of the levels. The releases do this twice before rounding, so parity needs it twice."""
        levels, _ = self._tables(z.device)
        half = (levels - 1) * (1 + BOUND_EPS) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        shift = (offset / half).atanh()
        for _ in range(2):
            z = (z + shift).tanh() * half - offset
        return z

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        levels = torch.tensor(self.levels, device=device)
        basis = torch.cumprod(torch.cat([levels.new_ones(1), levels[:-1]]), dim=0)
        return levels, basis


class GroupedQuantizer(nn.Module):
    """One quantizer per group of channels; the extra level of names (`rvqs`) is the published checkpoints'."""

    def __init__(self, config: QuantizerConfig):
        super().__init__()
        width = config.input_dim // config.n_groups
        self.rvqs = nn.ModuleList(
            FiniteScalarQuantizer(width, config.levels, config.normalize_groups) for _ in range(config.n_groups)
        )

    def encode(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> (batch, codebooks, frames)."""
        groups = x.chunk(len(self.rvqs), dim=-1)
        codes = [rvq.encode(group) for rvq, group in zip(self.rvqs, groups, strict=True)]  # type: ignore[operator]
        return torch.stack(codes, dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, channels) -> the same quantized, and codes (batch, codebooks, frames); for training."""
        with torch.autocast(x.device.type, enabled=False):  # a bfloat16 beside a rounding border changes the code
            groups = x.float().chunk(len(self.rvqs), dim=-1)
            pairs = [rvq(group) for rvq, group in zip(self.rvqs, groups, strict=True)]
        return torch.cat([values for values, _ in pairs], dim=-1), torch.stack([codes for _, codes in pairs], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """(batch, codebooks, frames) -> (batch, frames, channels)."""
        rows = zip(self.rvqs, codes.unbind(1), strict=True)
        return torch.cat([rvq.decode(row) for rvq, row in rows], dim=-1)  # type: ignore[operator]


class DownsampledQuantizer(nn.Module):
    """Strided convolutions down to the code frame rate, the grouped quantizer, and transposed ones back up."""

    def __init__(self, config: QuantizerConfig):
        super().__init__()
        self.config = config
        dim, factors = config.input_dim, config.downsample_factor
        self.residual_fsq = GroupedQuantizer(config)
        self.downsample = nn.ModuleList(
            nn.Sequential(CausalConv1d(dim, dim, factor, stride=factor), ConvNeXtBlock(dim)) for factor in factors
        )
        self.upsample = nn.ModuleList(
            nn.Sequential(CausalConvTranspose1d(dim, dim, factor, stride=factor), ConvNeXtBlock(dim))
            for factor in reversed(factors)
        )

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, channels, mel frames) -> what `decode` makes of its codes, and the codes; with gradients."""
        values, codes = self.residual_fsq(self._down(latents).transpose(1, 2))
        return self._up(values.transpose(1, 2)), codes

    def encode(self, latents: Tensor) -> Tensor:
        """(batch, channels, mel frames) -> codes (batch, codebooks, ceil(frames / downsample))."""
        return self.residual_fsq.encode(self._down(latents).transpose(1, 2))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, codebooks, frames) -> (batch, channels, frames * downsample)."""
        return self._up(self.residual_fsq.decode(codes).transpose(1, 2))

    def _down(self, latents: Tensor) -> Tensor:
        for stage in self.downsample:
            latents = stage(latents)
        return latents

    def _up(self, latents: Tensor) -> Tensor:
        for stage in self.upsample:
            latents = stage(latents)
        return latents
