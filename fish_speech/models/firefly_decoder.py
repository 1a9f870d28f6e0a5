"""Decode firefly codes piece by piece: the same sums as quantizer and head, with folded weights and the past kept.

Everything after the codes is causal, so a piece needs of all earlier ones only the last rows that each convolution
saw. Activations are rows, (batch, 1, time, channels): to a convolution a channels-last picture of height 1, and a
stretch of time is a stretch of memory, so that the past goes before a piece without copying the piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .convnext import CausalConv1d, CausalConvTranspose1d, ConvNeXtBlock

if TYPE_CHECKING:
    from .firefly import FireflyCodec
    from .hifigan import ParallelBlock

PIECE_FRAMES = 16  # of codes, decoded at once on a CPU: the activations of more fall out of its cache


class FoldedConv:
    """A causal convolution ready for use: weight normalisation done once, a transposed one turned into a plain one.

    A transposed convolution of stride s makes s samples of every row: as a plain one it has s times the channels, in
    the order that rows * s have in memory.
    """

    def __init__(self, module: CausalConv1d | CausalConvTranspose1d, dtype: torch.dtype):
        conv = module.conv
        weight, bias = conv.weight.detach(), conv.bias.detach()  # type: ignore[union-attr]
        self.rate, self.dilation, self.groups = 1, conv.dilation[0], conv.groups
        if isinstance(module, CausalConvTranspose1d):
            self.rate = conv.stride[0]
            weight = F.pad(weight, (0, -weight.size(2) % self.rate)).unflatten(2, (-1, self.rate))
            weight = weight.flip(2).permute(3, 1, 0, 2).flatten(0, 1)  # (rate * out, in, kernel / rate)
            bias = bias.repeat(self.rate)
        self.left = (weight.size(2) - 1) * self.dilation  # rows of the past that it needs
        self.weight = weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(dtype)
        self.packed = _has_packing(self.weight)
        if self.packed:
            size = [1, conv.in_channels, 1, self.left + 128 * PIECE_FRAMES]  # any length may follow, this one decides
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self._shape, size)

    @property
    def _shape(self) -> tuple[list[int], list[int], list[int], int]:
        """Padding, stride, dilation, groups."""
        return [0, 0], [1, 1], [1, self.dilation], self.groups

    def __call__(self, rows: Tensor) -> Tensor:
        """(batch, 1, left + time, in) -> (batch, 1, time * rate, out)."""
        image = rows.permute(0, 3, 1, 2)
        if self.packed:
            convolve = torch.ops.mkldnn._convolution_pointwise
            y = convolve(image, self.weight, self.bias, *self._shape, "none", [], "")
        else:
            y = F.conv2d(image, self.weight, self.bias, 1, 0, (1, self.dilation), self.groups)
        y = y.permute(0, 2, 3, 1)
        return y.reshape(y.size(0), 1, y.size(2) * self.rate, -1)


def _has_packing(weight: Tensor) -> bool:
    """Whether oneDNN can keep weights in the order that it computes with; else it reorders them for every piece."""
    known = all(
        hasattr(torch.ops.mkldnn, f"_{name}") for name in ("reorder_convolution_weight", "convolution_pointwise")
    )
    known = known and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FoldedStage:
    """An upsampling of the head and its residual stacks, each a list of pairs of convolutions."""

    def __init__(self, up: CausalConvTranspose1d, block: ParallelBlock, dtype: torch.dtype):
        self.up = FoldedConv(up, dtype)
        self.stacks = [
            [
                (FoldedConv(one, dtype), FoldedConv(two, dtype))
                for one, two in zip(stack.convs1, stack.convs2, strict=True)  # type: ignore[arg-type]
            ]
            for stack in block.blocks
        ]
        self.left = max(stack[0][0].left for stack in self.stacks)  # of the input that all stacks share


class FoldedDecoder:
    """The weights that turn codes into sound, folded; shared by any number of `PieceDecoder`s.

    dtype: of the head's convolutions; what comes before them stays in the codec's own.
    """

    def __init__(self, codec: FireflyCodec, dtype: torch.dtype):
        self.quantizer, self.head_dtype = codec.quantizer, dtype
        own = codec.backbone.norm.weight.dtype
        upsample: Any = codec.quantizer.upsample
        self.upsample: list[tuple[FoldedConv, FoldedConv, ConvNeXtBlock]] = [
            (FoldedConv(up, own), FoldedConv(block.dwconv, own), block) for up, block in upsample
        ]
        head = codec.head
        self.pre, self.post = FoldedConv(head.conv_pre, dtype), FoldedConv(head.conv_post, dtype)  # type: ignore
        self.stages = [
            FoldedStage(up, block, dtype)  # type: ignore[arg-type]
            for up, block in zip(head.ups, head.resblocks, strict=True)
        ]


class PieceDecoder:
    """Decodes one sound, piece after piece; keeps the last inputs of each convolution, a constant amount of memory."""

    def __init__(self, weights: FoldedDecoder):
        self.weights = weights
        self._past: dict[object, Tensor] = {}  # by layer: the last rows of its input so far

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (batch, codebooks, frames) that follow those so far -> their sound (batch, samples), float32."""
        w = self.weights
        if not codes.size(2):
            return torch.zeros(codes.size(0), 0, device=codes.device)
        x = w.quantizer.residual_fsq.decode(codes)[:, None]  # (batch, 1, frames, channels)
        for up, depthwise, block in w.upsample:
            x = up(self._rows(up, x, up.left))
            x = x + block.gamma * block.mlp(depthwise(self._rows(depthwise, x, depthwise.left)))
        x = w.pre(self._rows(w.pre, x.to(w.head_dtype), w.pre.left))
        for stage in w.stages:
            x = self._stage(stage, x)
        x = w.post(self._rows(w.post, x, w.post.left, silu=True))
        return torch.tanh(x.float()).flatten(1)

    def _stage(self, stage: FoldedStage, x: Tensor) -> Tensor:
        x = stage.up(self._rows(stage.up, x, stage.up.left, silu=True))
        shared = self._rows(stage, x, stage.left, silu=True)
        total: Tensor | None = None
        for stack in stage.stacks:
            y = x
            for index, (one, two) in enumerate(stack):
                rows = self._rows(one, y, one.left, silu=True) if index else shared[:, :, stage.left - one.left :]
                y = two(self._rows(two, one(rows), two.left, silu=True)).add_(y)
            total = y if total is None else total.add_(y)
        assert total is not None
        return total.div_(len(stage.stacks))

    def _rows(self, layer: object, x: Tensor, left: int, silu: bool = False) -> Tensor:
        """Put the `left` rows that came before in front of `x` (batch, 1, time, channels), and keep the last ones."""
        rows = x.new_empty(x.size(0), 1, left + x.size(2), x.size(3))
        past, here = rows[:, :, :left], rows[:, :, left:]
        past.copy_(self._past[layer]) if layer in self._past else past.zero_()
        torch.ops.aten.silu.out(x, out=here) if silu else here.copy_(x)
        self._past[layer] = rows[:, :, x.size(2) :].clone()
        return rows
