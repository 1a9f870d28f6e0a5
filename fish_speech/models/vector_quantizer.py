"""Vector quantization over a few channels, residual and downsampled in time, as the DAC codecs do it (arXiv:2306.06546).

A code is the nearest row of a codebook by direction; what the rows so far miss is quantized by the next codebook.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convnext import CausalConv1d, CausalConvTranspose1d, ConvNeXtBlock
from .dac_config import VectorQuantizerConfig
from .windowed_transformer import WindowedTransformer


class NormedLinear(nn.Module):
    """A linear layer whose rows have the lengths `weight_g` (weight normalisation); kernel axis of 1 as in the files."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out))
        self.weight_g = nn.Parameter(torch.ones(out, 1, 1))
        self.weight_v = nn.Parameter(torch.empty(out, dim, 1))
        nn.init.normal_(self.weight_v, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0)[..., 0], self.bias)


class VectorQuantizer(nn.Module):
    """One codebook, with projections into its few channels and back."""

    def __init__(self, dim: int, codebook_dim: int, size: int):
        super().__init__()
        self.in_proj = NormedLinear(dim, codebook_dim)
        self.out_proj = NormedLinear(codebook_dim, dim)
        self.codebook = nn.Embedding(size, codebook_dim)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> codes (batch, frames): of the rows nearest by direction, the first."""
        points, rows = F.normalize(self.in_proj(x), dim=-1), F.normalize(self.codebook.weight, dim=-1)
        distances = points.square().sum(-1, keepdim=True) - 2 * points @ rows.T + rows.square().sum(-1)
        return distances.argmin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, frames) -> (batch, frames, dim). Codes above the last one count as the last one."""
        return self.out_proj(self.codebook(codes.clamp(max=self.codebook.num_embeddings - 1)))


class ResidualVectorQuantizer(nn.Module):
    """Codebooks of which each quantizes what those before it miss."""

    def __init__(self, dim: int, codebook_dim: int, sizes: tuple[int, ...]):
        super().__init__()
        self.quantizers = nn.ModuleList(VectorQuantizer(dim, codebook_dim, size) for size in sizes)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(batch, frames, dim) -> codes (batch, frames) of each codebook, and what all of them miss of x."""
        codes = []
        for quantizer in self.quantizers:
            codes.append(quantizer.encode(x))  # type: ignore[operator]
            x = x - quantizer.decode(codes[-1])  # type: ignore[operator]
        return codes, x


class DownsampledVectorQuantizer(nn.Module):
    """Strided convolutions down to the frame rate of codes, a transformer, the codebooks, and the same way back."""

    def __init__(self, config: VectorQuantizerConfig):
        super().__init__()
        dim, factors = config.input_dim, config.downsample_factor
        sizes = config.sizes
        self.semantic_quantizer = ResidualVectorQuantizer(dim, config.codebook_dim, sizes[:1])
        self.quantizer = ResidualVectorQuantizer(dim, config.codebook_dim, sizes[1:])
        self.downsample = nn.ModuleList(
            nn.Sequential(CausalConv1d(dim, dim, factor, stride=factor), ConvNeXtBlock(dim)) for factor in factors
        )
        self.upsample = nn.ModuleList(
            nn.Sequential(CausalConvTranspose1d(dim, dim, factor, stride=factor), ConvNeXtBlock(dim))
            for factor in reversed(factors)
        )
        self.pre_module = WindowedTransformer(config.pre_module)
        self.post_module = WindowedTransformer(config.post_module)

    def before_codes(self, latents: Tensor) -> Tensor:
        """The encoder's (batch, dim, rows) -> (batch, dim, frames), of which the codes are made."""
        for stage in self.downsample:
            latents = stage(latents)
        return self.pre_module(latents)

    def after_codes(self, x: Tensor) -> Tensor:
        """(batch, dim, frames) that stand for codes -> (batch, dim, rows), the decoder's input."""
        x = self.post_module(x)
        for stage in self.upsample:
            x = stage(x)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """(batch, frames, dim), which `before_codes` makes, -> codes (batch, codebooks, frames) int64."""
        semantic, rest = self.semantic_quantizer.encode(x)
        residual, _ = self.quantizer.encode(rest)
        return torch.stack([*semantic, *residual], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, codebooks, frames) -> (batch, frames, dim), which `after_codes` takes.

        Codes above the last one of their codebook count as the last one. Raises ValueError for another count of rows.
        """
        quantizers = [*self.semantic_quantizer.quantizers, *self.quantizer.quantizers]
        if codes.size(1) != len(quantizers):
            raise ValueError(f"codes have {codes.size(1)} rows; this codec has {len(quantizers)} codebooks")
        rows = zip(quantizers, codes.unbind(1), strict=True)
        return torch.stack([quantizer.decode(row) for quantizer, row in rows]).sum(0)  # type: ignore[operator]
