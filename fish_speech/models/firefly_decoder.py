"""Decode firefly codes piece by piece: the same sums as quantizer and head, with folded weights and the past kept.

Everything after the codes is causal, so a piece needs of all earlier ones only the last rows that each convolution
saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .convnext import CausalConvTranspose1d, ConvNeXtBlock
from .folded_conv import FoldedConv, Past

if TYPE_CHECKING:
    from .firefly import FireflyCodec
    from .hifigan import ParallelBlock

PIECE_FRAMES = 16  # of codes, decoded at once on a CPU: the activations of more fall out of its cache


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
        self._past = Past()

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
        """`x` behind the rows that came before it, as the layer sees them."""
        return self._past.before(layer, x, left, _silu if silu else None)


def _silu(x: Tensor, out: Tensor) -> None:
    torch.ops.aten.silu.out(x, out=out)
