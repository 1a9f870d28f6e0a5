"""Dropout that costs little on the CPU, where torch draws one random number for each element, on one thread."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """Zero each element of `x` with probability `rate` and scale the others by 1 / (1 - rate).

    On the CPU only the dropped elements are drawn, by the gaps between them: the same distribution as torch's dropout
    from `rate` times as many random numbers, and no mask to keep for the backward pass.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu" or rate > 0.25:
        return F.dropout(x, rate)
    return _SparseDropout.apply(x, rate)


class Dropout(nn.Dropout):
    """`dropout` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


class _SparseDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.rate, ctx.dropped = rate, dropped_positions(x.numel(), rate)
        return _zeroed(x, ctx.dropped, rate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _zeroed(grad, ctx.dropped, ctx.rate), None


def _zeroed(x: Tensor, positions: Tensor, rate: float) -> Tensor:
    kept = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(x, 1 / (1 - rate), out=kept)
    kept.view(-1).index_fill_(0, positions, 0)
    return kept


def dropped_positions(count: int, rate: float) -> Tensor:
    """Positions below `count` of which each is in with probability `rate`, independently; rising, int64, on the CPU."""
    found = [torch.empty(0, dtype=torch.int64)]
    start = 0  # positions below it are decided
    while start < count:
        expected = (count - start) * rate
        gaps = torch.empty(math.ceil(expected + 4 * math.sqrt(expected) + 4), dtype=torch.int64).geometric_(rate)
        found.append(gaps.cumsum(0) + (start - 1))
        start = int(found[-1][-1]) + 1
    positions = torch.cat(found)
    return positions[: torch.searchsorted(positions, count)]
