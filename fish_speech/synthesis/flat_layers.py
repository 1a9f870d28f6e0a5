"""Transformer blocks that decode one new position at a time on the CPU, bound by the reading of their weights.

The same numbers as `models.transformer.Block`, with as few kernels as torch allows: keys and values of all layers lie in
one tensor made beforehand, rotary rows are taken once per position and not per layer, queries that share a KV head are
one small batch (no repeated heads), and views of the one projection buffer are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.transformer import Attention, Block, RMSNorm, RotaryTable, rotate

FIRST_ROOM = 1024  # positions beyond the prompt that the caches are made for; more are made when they are needed

Project = Callable[[Tensor], Tensor]


def projection(linear: Project) -> Project:
    """How to apply `linear` to (tokens, width) fastest; biases, adapters and packed weights are its own business."""
    if type(linear) is nn.Linear and linear.bias is None:
        return row_projection(linear.weight)
    single = getattr(linear, "row_product", None)  # the bare kernel of packed weights, for one row in float32
    return linear if single is None else lambda x: single(x) if x.size(0) == 1 else linear(x)


def row_projection(weight: Tensor) -> Project:
    """How to multiply (tokens, width) by `weight` (outputs, width) fastest."""
    turned = weight.t()
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return lambda x: torch.mm(x, turned)

    def apply(x: Tensor) -> Tensor:  # the matrix-vector kernel reads bfloat16 1.4 times as fast as the other
        return torch.mv(weight, x[0])[None] if x.size(0) == 1 else torch.mm(x, turned)

    return apply


def normalization(norm: RMSNorm) -> Project:
    """How to apply `norm` to (tokens, width) of any float dtype, giving its weight's, with the fewest kernels."""
    eps, width, dtype = norm.eps, norm.weight.size(0), norm.weight.dtype
    if norm.weight.device.type != "cpu":
        return norm
    weight, zeros = norm.weight.float(), torch.zeros(1, width)

    def apply(x: Tensor) -> Tensor:
        if x.size(0) != 1:
            return F.rms_norm(x.float(), (width,), weight, eps).to(dtype)
        length = torch.linalg.vector_norm(x, dtype=torch.float32).item()
        normed = torch.addcmul(zeros, x, weight, value=1 / sqrt(length * length / width + eps))
        return normed if dtype == torch.float32 else normed.to(dtype)

    return apply


def head_normalization(attention: Attention) -> Callable[[Tensor], Tensor] | None:
    """How to bring queries and keys (..., heads + kv_heads, head_dim) float32 to unit scale, in place; None: not at all."""
    if not attention.qk_norm:
        return None
    q_norm, k_norm, width = attention.q_norm, attention.k_norm, attention.head_dim
    weight = torch.cat([q_norm.weight.expand(attention.heads, -1), k_norm.weight.expand(attention.kv_heads, -1)])
    weight = weight.float() * sqrt(width)  # x / sqrt(mean + eps) = x sqrt(width) / sqrt(sum + width eps)
    floor = torch.tensor(sqrt(width * q_norm.eps))

    def apply(x: Tensor) -> Tensor:  # half the time of F.rms_norm
        return x.div_(torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)).mul_(weight)

    return apply


class FlatStack:
    """Blocks of equal shape with caches for up to `capacity` positions of one sequence; for inference mode only.

    `prefill` starts a sequence, `step` adds a position to it. What they are given may be overwritten. Sums of layers
    are kept in float32, whatever the weights are.
    """

    def __init__(self, blocks: Sequence[Block], rope: RotaryTable, capacity: int):
        attention, weight = blocks[0].attention, blocks[0].attention_norm.weight
        self.heads, self.kv_heads, self.head_dim = attention.heads, attention.kv_heads, attention.head_dim
        self.dtype, self.capacity, self.length = weight.dtype, capacity, 0
        self._rope, self._layers = rope, [_FlatLayer(block) for block in blocks]
        self._store = torch.empty(len(blocks), 2, self.kv_heads, 0, self.head_dim, dtype=self.dtype)
        # Queries, keys and values of one position in float32, in which angles are turned, and views of it.
        buffer = torch.empty(1, (self.heads + 2 * self.kv_heads) * self.head_dim)
        rows = buffer.view(-1, self.head_dim)  # (heads + 2 kv_heads, head_dim)
        self._buffer = buffer
        self._normed = rows[: self.heads + self.kv_heads]
        self._turned = torch.view_as_complex(self._normed.unflatten(1, (-1, 2)))
        self._queries = rows[: self.heads].view(self.kv_heads, 1, -1, self.head_dim)  # heads of a KV head as positions
        self._new = rows[self.heads :].view(2, self.kv_heads, self.head_dim)

    def prefill(self, x: Tensor) -> Tensor:
        """Run the first positions (tokens, dim) of a new sequence -> what the last of them gives, (1, dim)."""
        tokens = x.size(0)
        self._make_room(tokens, keep=0)
        x, (cos, sin) = x.float(), self._rope.first(tokens, x.device)
        last = len(self._layers) - 1
        for index, (layer, store) in enumerate(zip(self._layers, self._store, strict=True)):
            widths = [self.heads + self.kv_heads, self.kv_heads]
            turned, values = layer.wqkv(layer.attention_norm(x)).view(1, tokens, -1, self.head_dim).split(widths, dim=2)
            if layer.head_norm is not None:
                turned = layer.head_norm(turned.float()).to(self.dtype)
            queries, keys = rotate(turned, cos, sin).transpose(1, 2).split([self.heads, self.kv_heads], dim=1)
            store[0, :, :tokens] = keys[0]
            store[1, :, :tokens] = values[0].transpose(0, 1)
            if index == last:  # nothing reads the others' outputs
                x, queries = x[-1:], queries[:, :, -1:]
            keys, values = store[:, None, :, :tokens]  # (1, kv_heads, tokens, head_dim) each
            grouped = self.heads != self.kv_heads
            out = F.scaled_dot_product_attention(queries, keys, values, is_causal=x.size(0) > 1, enable_gqa=grouped)
            x = layer.finish(x, out[0].transpose(0, 1).reshape(x.size(0), -1))
        self.length = tokens
        return x.to(self.dtype)

    def step(self, x: Tensor) -> Tensor:
        """Run the next position (1, dim) -> (1, dim)."""
        position, end = self.length, self.length + 1
        self._make_room(end, keep=position)
        cos, sin = self._rope.first(end, x.device, position)
        angles = torch.complex(cos, sin)  # (1, head_dim // 2)
        new_rows = self._store[:, :, :, position].unbind(0)
        seen = self._store[:, :, :, None, :end].flatten(0, 1).unbind(0)  # keys, values of layer 0, of layer 1, ...
        x = self._run(x.float(), angles, new_rows, seen)
        self.length = end
        return x.to(self.dtype)

    def _run(self, x: Tensor, angles: Tensor, new_rows: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        buffer, normed, turned, new, queries = self._buffer, self._normed, self._turned, self._new, self._queries
        attend, width, narrow = F.scaled_dot_product_attention, self.heads * self.head_dim, self.dtype != torch.float32
        for index, layer in enumerate(self._layers):
            buffer.copy_(layer.wqkv(layer.attention_norm(x)))
            if layer.head_norm is not None:
                layer.head_norm(normed)
            turned.mul_(angles)
            new_rows[index].copy_(new)
            out = attend(queries.to(self.dtype) if narrow else queries, seen[2 * index], seen[2 * index + 1])
            x = layer.finish(x, out.reshape(1, width))
        return x

    def _make_room(self, needed: int, keep: int) -> None:
        """Make the caches hold `needed` positions; the first `keep` of them stay."""
        if self._store.size(3) >= needed:
            return
        size = max(needed, min(self.capacity, 2 * needed, needed + FIRST_ROOM))
        layers, two, heads, _, head_dim = self._store.shape
        grown = self._store.new_empty(layers, two, heads, size, head_dim)
        grown[:, :, :, :keep] = self._store[:, :, :, :keep]
        self._store = grown


class _FlatLayer:
    """One block's weights, ready to be applied to (tokens, dim)."""

    def __init__(self, block: Block):
        self.attention_norm, self.ffn_norm = normalization(block.attention_norm), normalization(block.ffn_norm)
        self.wqkv, self.wo = projection(block.attention.wqkv), projection(block.attention.wo)
        self.head_norm = head_normalization(block.attention)
        feed_forward = block.feed_forward
        self.w1, self.w2, self.w3 = (projection(w) for w in (feed_forward.w1, feed_forward.w2, feed_forward.w3))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Everything after attention, added to `x` (tokens, dim) in place."""
        x.add_(self.wo(attended))
        normed = self.ffn_norm(x)
        gate = F.silu(self.w1(normed), inplace=True)
        return x.add_(self.w2(gate.mul_(self.w3(normed))))
