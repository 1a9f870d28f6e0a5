"""Self-attention that knows how far apart two phonemes are, up to a few positions (arXiv:1803.02155)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 4  # positions to either side that have a learned vector each; what is farther away has none
_MASKED = -1e4  # a score that softmax turns to 0, also in half precision


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention with relative positions in keys and values; one table serves all heads."""

    def __init__(self, channels: int, n_heads: int, p_dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = channels // n_heads
        shape = (1, 2 * WINDOW + 1, self.head_dim)  # row WINDOW + d is for a key d positions after the query
        self.emb_rel_k = nn.Parameter(torch.randn(shape) * self.head_dim**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(shape) * self.head_dim**-0.5)
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        self.drop = nn.Dropout(p_dropout)
        for projection in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(projection.weight)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Attend among the valid positions of (batch, channels, tokens); `x_mask` is (batch, 1, tokens).

        Returns (batch, channels, tokens); what stands at masked positions means nothing.
        """
        query = self._heads(self.conv_q(x)) / math.sqrt(self.head_dim)  # (batch, heads, tokens, head_dim)
        key, value = self._heads(self.conv_k(x)), self._heads(self.conv_v(x))
        near = query @ self.emb_rel_k.transpose(-2, -1)  # (batch, heads, tokens, 2 * WINDOW + 1)
        scores = query @ key.transpose(-2, -1) + spread_near(near)  # (batch, heads, tokens, tokens)
        scores = scores.masked_fill(x_mask[:, None] == 0, _MASKED)
        weights = self.drop(scores.softmax(dim=-1))
        attended = weights @ value + collect_near(weights) @ self.emb_rel_v
        return self.conv_o(attended.transpose(-2, -1).flatten(1, 2))

    def _heads(self, x: Tensor) -> Tensor:
        """Split (batch, channels, tokens) into (batch, heads, tokens, head_dim)."""
        return x.view(x.size(0), self.n_heads, self.head_dim, x.size(-1)).transpose(-2, -1)


def spread_near(near: Tensor) -> Tensor:
    """Move (batch, heads, tokens, 2 * WINDOW + 1), by distance, to (.., tokens, tokens), by position; 0 where farther.

    A row of tokens + 2 * WINDOW + 1 columns, read as rows that are one shorter, moves right by one from row to row.
    """
    batch, heads, tokens, _ = near.shape  # sizes, not unflatten: an exported graph must follow them
    rows = F.pad(near, (0, tokens)).flatten(-2)[..., : tokens * (tokens + 2 * WINDOW)]
    return rows.view(batch, heads, tokens, tokens + 2 * WINDOW)[..., WINDOW : WINDOW + tokens]


def collect_near(full: Tensor) -> Tensor:
    """Pick of (batch, heads, tokens, tokens), by position, (.., tokens, 2 * WINDOW + 1) near the diagonal, by distance."""
    batch, heads, tokens, _ = full.shape
    rows = F.pad(F.pad(full, (WINDOW, WINDOW)).flatten(-2), (0, tokens))
    return rows.view(batch, heads, tokens, tokens + 2 * WINDOW + 1)[..., : 2 * WINDOW + 1]
