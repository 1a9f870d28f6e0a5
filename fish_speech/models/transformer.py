"""The parts that the slow and the fast transformer share: norm, rotary positions, attention with a cache, block.

Llama-style pre-norm blocks with grouped KV heads (RMSNorm arXiv:1910.07467, RoPE arXiv:2104.09864, GQA arXiv:2305.13245).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SHORT = 16  # positions up to which attention is computed as plain products in training on the CPU


class RMSNorm(nn.Module):
    """Scale to unit root mean square, computed in float32 and cast back before the weight."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


class RotaryTable:
    """Cosines and sines of the rotary angles, grown on demand and kept per device.

    The table is rounded to bfloat16, as the released models were trained with it; unrounded angles change logits.
    """

    def __init__(self, head_dim: int, base: float):
        self.head_dim, self.base = head_dim, base
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def rows(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return float32 (cos, sin) of `positions` (tokens,), each (tokens, head_dim // 2); all lie below `length`."""
        cos, sin = self._table(length, positions.device)
        return cos[positions], sin[positions]

    def first(self, length: int, device: torch.device, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return float32 (cos, sin) of positions start..length-1 without copying."""
        cos, sin = self._table(length, device)
        return cos[start:length], sin[start:length]

    def _table(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        table = self._tables.get(device)
        if table is None or table[0].size(0) < length:
            exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
            frequencies = 1.0 / (self.base**exponents)
            angles = torch.outer(torch.arange(max(64, 2 * length), dtype=torch.float32), frequencies)
            cos, sin = (part.to(torch.bfloat16).float().to(device) for part in (angles.cos(), angles.sin()))
            table = self._tables[device] = (cos, sin)
        return table


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn interleaved pairs of (batch, tokens, heads, head_dim) by the angles in cos, sin (tokens, head_dim // 2)."""
    if x.device.type == "cpu":  # one complex product is more than twice as fast there as strided real ones
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (batch, tokens, heads, head_dim // 2)
        return torch.view_as_real(pairs * torch.complex(cos, sin)[:, None]).flatten(-2).to(x.dtype)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (batch, tokens, heads, head_dim // 2) each
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


class KVCache:
    """Keys and values of one attention layer for positions seen so far; grows by doubling up to what is asked."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, kv_heads, tokens, head_dim) and return views of everything so far."""
        end = self.length + keys.size(2)
        if self._keys is None or self._values is None or self._keys.size(2) < end:
            self._grow(keys, end)
        assert self._keys is not None and self._values is not None
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def clear(self) -> None:
        """Forget all positions, keep the memory."""
        self.length = 0

    def _grow(self, like: Tensor, needed: int) -> None:
        batch, heads, _, head_dim = like.shape
        size = max(needed, min(self.capacity, 2 * needed, needed + 512))
        for name in ("_keys", "_values"):
            grown = like.new_empty(batch, heads, size, head_dim)
            old = getattr(self, name)
            if old is not None:
                grown[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, grown)


class Attention(nn.Module):
    """Causal attention with fused projections; `wqkv` stacks queries, keys and values on its output axis.

    head_dim: channels of a head; None shares `dim` evenly
    norm_eps: queries and keys are normed head by head before they are turned; None leaves them as they are
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        bias: bool,
        dropout: float,
        head_dim: int | None = None,
        o_bias: bool = False,
        norm_eps: float | None = None,
    ):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.dropout = heads, kv_heads, head_dim or dim // heads, dropout
        self.wqkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=bias)
        self.wo = nn.Linear(heads * self.head_dim, dim, bias=o_bias)
        if norm_eps is not None:
            self.q_norm = RMSNorm(self.head_dim, norm_eps)
            self.k_norm = RMSNorm(self.head_dim, norm_eps)
        self.qk_norm = norm_eps is not None

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        row_lengths: list[int] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Attend within (batch, tokens, dim); causal unless `mask` (batch, 1, tokens, tokens), true = attend, is given.

        With `row_lengths`, x is (1, tokens, dim) and holds rows one after another that do not see each other.
        With `cache`, x holds the tokens that follow those in the cache.
        """
        widths = [self.heads + self.kv_heads, self.kv_heads]
        turned, v = self.wqkv(x).unflatten(-1, (-1, self.head_dim)).split(widths, dim=2)
        if self.qk_norm:
            q, k = turned.split([self.heads, self.kv_heads], dim=2)
            turned = torch.cat([self.q_norm(q), self.k_norm(k)], dim=2).to(v.dtype)
        q, k = rotate(turned, *rope).split([self.heads, self.kv_heads], dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (batch, heads, tokens, head_dim)
        if cache is not None:
            k, v = cache.append(k, v)
        if row_lengths is None:
            out = self._attend(q, k, v, mask)
        else:
            rows = zip(q.split(row_lengths, 2), k.split(row_lengths, 2), v.split(row_lengths, 2), strict=True)
            out = torch.cat([self._attend(*row, mask=None) for row in rows], dim=2)
        return self.wo(out.transpose(1, 2).flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        new, seen = q.size(2), k.size(2)
        if mask is None and 1 < new < seen:  # tokens after a cached prefix: each sees the prefix and those before it
            mask = torch.ones(new, seen, dtype=torch.bool, device=q.device).tril(seen - new)
        # In float32 torch's kernel is as fast where heads share keys; in bfloat16 its backward pass takes many times longer.
        fits = self.heads == self.kv_heads or q.dtype != torch.float32
        plain = mask is None and fits and not (self.training and self.dropout)
        if plain and 1 < new == seen <= SHORT and q.device.type == "cpu" and torch.is_grad_enabled():
            return _attend_short(q, k, v)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and new > 1,
            enable_gqa=self.heads != self.kv_heads,
        )


def _attend_short(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over a few positions, as plain products: q (batch, heads, tokens, head_dim), k and v (batch,
    kv_heads, tokens, head_dim).

    The codebooks of a thousand frames are a thousand tiny problems, on which torch's kernel for the CPU spends twice the
    time, most of it in the backward pass.
    """
    tokens, shared = q.size(2), q.size(1) // k.size(1)
    future = torch.full((tokens, tokens), float("-inf"), device=q.device).triu(1)
    if shared > 1:  # the queries of heads that share keys stand below one another
        q, future = q.unflatten(1, (-1, shared)).flatten(2, 3), future.repeat(shared, 1)
    scores = (q @ k.transpose(2, 3)).float() * q.size(3) ** -0.5 + future
    out = torch.softmax(scores, dim=-1).to(v.dtype) @ v
    return out.unflatten(2, (shared, tokens)).flatten(1, 2) if shared > 1 else out


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x) (arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Pre-norm attention and feed-forward with residual connections."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        hidden: int,
        bias: bool,
        dropout: float,
        eps: float,
        head_dim: int | None = None,
        o_bias: bool = False,
        qk_norm: bool = False,
    ):
        super().__init__()
        self.attention = Attention(dim, heads, kv_heads, bias, dropout, head_dim, o_bias, eps if qk_norm else None)
        self.feed_forward = FeedForward(dim, hidden)
        self.ffn_norm = RMSNorm(dim, eps)
        self.attention_norm = RMSNorm(dim, eps)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        row_lengths: list[int] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, mask, row_lengths, cache)
        return x + self.feed_forward(self.ffn_norm(x))


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    mask: Tensor | None = None,
    row_lengths: list[int] | None = None,
    caches: list[KVCache] | None = None,
    recompute: bool = False,
) -> Tensor:
    """Run (batch, tokens, dim) through `blocks`; `recompute` trades time for memory in the backward pass."""
    for index, block in enumerate(blocks):
        if recompute:
            x = checkpoint(block, x, rope, mask, row_lengths, use_reentrant=False)
        else:
            x = block(x, rope, mask, row_lengths, caches[index] if caches is not None else None)
    return x
