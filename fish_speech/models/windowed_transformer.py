"""A causal transformer of which every position sees the last few only, so that a sound of any length needs little memory.

Pre-norm blocks with scaled residual branches (LayerScale, arXiv:2103.17239) and rotary positions (arXiv:2104.09864).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dac_config import TransformerConfig
from .transformer import FeedForward, RMSNorm, rotate


class WindowCache:
    """What a piece needs of those before it: how many positions there were, and the last keys and values per layer."""

    def __init__(self) -> None:
        self.seen = 0  # positions before the piece
        self.last: dict[int, tuple[Tensor, Tensor]] = {}  # by layer: each (batch, heads, up to window - 1, head_dim)


class LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class WindowedAttention(nn.Module):
    """Attention of as many key heads as query heads; `wqkv` stacks queries, keys and values on its output axis."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        inner = config.n_head * config.head_dim
        self.head_dim = config.head_dim
        self.wqkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.wo = nn.Linear(inner, config.dim, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, last: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend from (batch, positions, dim) to themselves and to `last`, the keys and values before them.

        `mask` (positions, last + positions) is true where a position sees another. Returns the result and all keys and
        values, (batch, heads, last + positions, head_dim) each.
        """
        q, k, v = self.wqkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(2)  # (batch, positions, heads, head_dim)
        q, k, v = rotate(q, *rope).transpose(1, 2), rotate(k, *rope).transpose(1, 2), v.transpose(1, 2)
        if last is not None:
            k, v = torch.cat((last[0], k), dim=2), torch.cat((last[1], v), dim=2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.wo(out.transpose(1, 2).flatten(2)), (k, v)


class WindowedBlock(nn.Module):
    """Attention and feed-forward, each normed before and scaled after, added to their input."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.attention = WindowedAttention(config)
        self.feed_forward = FeedForward(config.dim, config.intermediate_size)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention_layer_scale = LayerScale(config.dim)
        self.ffn_layer_scale = LayerScale(config.dim)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, last: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, kept = self.attention(self.attention_norm(x), rope, mask, last)
        x = x + self.attention_layer_scale(attended)
        return x + self.ffn_layer_scale(self.feed_forward(self.ffn_norm(x))), kept


class WindowedTransformer(nn.Module):
    """Blocks, and a norm."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(WindowedBlock(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim, positions), as it stands between convolutions, -> the same shape."""
        return self.follow(x.transpose(1, 2), WindowCache()).transpose(1, 2)

    def follow(self, x: Tensor, cache: WindowCache) -> Tensor:
        """(batch, positions, dim) that follow the pieces that `cache` has seen -> the same shape."""
        count, most = x.size(1), self.config.window - 1
        rope = rotary_rows(cache.seen, count, self.config.head_dim, self.config.rope_base, x.device)
        before = min(cache.seen, most)
        distance = torch.arange(count, device=x.device)[:, None] - torch.arange(-before, count, device=x.device)
        mask = (distance >= 0) & (distance <= most)
        for index, layer in enumerate(self.layers):
            x, (keys, values) = layer(x, rope, mask, cache.last.get(index))
            kept = min(most, keys.size(2))
            first = keys.size(2) - kept
            cache.last[index] = keys[:, :, first:].clone(), values[:, :, first:].clone()
        cache.seen += count
        return self.norm(x)


def rotary_rows(start: int, count: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles of positions start..start+count-1, each (count, head_dim // 2), float32.

    They are rounded to bfloat16, as the released codec has them, and made here on the CPU for these positions alone: no
    table limits how long a sound can be.
    """
    frequencies = 1.0 / (base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    angles = torch.outer(torch.arange(start, start + count, dtype=torch.float32), frequencies)
    cos, sin = (part.to(torch.bfloat16).float().to(device) for part in (angles.cos(), angles.sin()))
    return cos, sin
