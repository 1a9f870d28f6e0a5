"""Causal convolutions as they are fastest without gradients: weights folded once, inputs piece by piece.

Activations are rows, (batch, 1, time, channels): to a convolution a channels-last picture of height 1, and a stretch of
time is a stretch of memory, so that the past goes before a piece without copying the piece.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .convnext import CausalConv1d, CausalConvTranspose1d

USUAL_ROWS = 2048  # that a convolution is made ready for; any number may come


class FoldedConv:
    """A causal convolution ready for use: weight normalisation done once, a transposed one turned into a plain one.

    A transposed convolution of stride s makes s samples of every row: as a plain one it has s times the channels, in
    the order that rows * s have in memory. `scale_in` (in,) and `scale_out` (out,) multiply its input and its output.
    """

    def __init__(
        self,
        module: CausalConv1d | CausalConvTranspose1d,
        dtype: torch.dtype,
        scale_in: Tensor | None = None,
        scale_out: Tensor | None = None,
    ):
        conv = module.conv
        weight, bias = conv.weight.detach(), conv.bias.detach()  # type: ignore[union-attr]
        transposed = isinstance(module, CausalConvTranspose1d)
        self.rate, self.stride, self.dilation, self.groups = 1, 1, conv.dilation[0], conv.groups
        if scale_in is not None:
            weight = weight * (scale_in[:, None, None] if transposed else scale_in[:, None])
        if scale_out is not None:
            weight = weight * (scale_out[:, None] if transposed else scale_out[:, None, None])
            bias = bias * scale_out
        if transposed:
            self.rate = conv.stride[0]
            weight = F.pad(weight, (0, -weight.size(2) % self.rate)).unflatten(2, (-1, self.rate))
            weight = weight.flip(2).permute(3, 1, 0, 2).flatten(0, 1)  # (rate * out, in, kernel / rate)
            bias = bias.repeat(self.rate)
        else:
            self.stride = conv.stride[0]
        self.left = (weight.size(2) - 1) * self.dilation + 1 - self.stride  # rows of the past that it needs
        self.weight = weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(dtype)
        self.packed = _has_packing(self.weight)
        if self.packed:
            size = [1, conv.in_channels, 1, self.left + USUAL_ROWS]  # any length may follow, this one decides
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self._shape, size)

    @property
    def _shape(self) -> tuple[list[int], list[int], list[int], int]:
        """Padding, stride, dilation, groups."""
        return [0, 0], [1, self.stride], [1, self.dilation], self.groups

    def __call__(self, rows: Tensor) -> Tensor:
        """(batch, 1, left + time, in) -> (batch, 1, time * rate / stride, out)."""
        image = rows.permute(0, 3, 1, 2)
        if self.packed:
            convolve = torch.ops.mkldnn._convolution_pointwise
            y = convolve(image, self.weight, self.bias, *self._shape, "none", [], "")
        else:
            y = F.conv2d(image, self.weight, self.bias, (1, self.stride), 0, (1, self.dilation), self.groups)
        y = y.permute(0, 2, 3, 1)
        return y.reshape(y.size(0), 1, y.size(2) * self.rate, -1)


def _has_packing(weight: Tensor) -> bool:
    """Whether oneDNN can keep weights in the order that it computes with; else it reorders them for every piece."""
    known = all(
        hasattr(torch.ops.mkldnn, f"_{name}") for name in ("reorder_convolution_weight", "convolution_pointwise")
    )
    known = known and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Past(dict[object, Tensor]):
    """The last rows that each layer saw of one sound, by layer: a constant amount of memory."""

    def before(
        self, layer: object, x: Tensor, left: int, write: Callable[[Tensor, Tensor], object] | None = None
    ) -> Tensor:
        """Put the `left` rows that came before in front of `x` (batch, 1, time, channels), and keep the last ones.

        `write(x, out)` makes of x what the layer sees of it, instead of a copy.
        """
        rows = x.new_empty(x.size(0), 1, left + x.size(2), x.size(3))
        past, here = rows[:, :, :left], rows[:, :, left:]
        past.copy_(self[layer]) if layer in self else past.zero_()
        here.copy_(x) if write is None else write(x, here)
        self[layer] = rows[:, :, x.size(2) :].clone()
        return rows
