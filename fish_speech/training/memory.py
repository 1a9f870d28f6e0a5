"""How much memory a batch takes, and how many samples are run at once for it."""

from __future__ import annotations

import torch

from ..models.dual_ar import DualARConfig
from ..system_memory import memory

_BYTES = 4  # per activation; autocast halves some of them, which is left as reserve
_SHARE = 0.6  # of the free memory that activations may take


def activation_bytes(config: DualARConfig, tokens: int) -> int:
    """Estimate what the backward pass of `tokens` positions keeps without recomputation.

    Each frame runs the fast layers once per codebook, and every position is counted as a frame, as most are.
    """
    c = config
    slow = _layer_values(c.dim, c.n_head * (c.head_dim or 0), c.intermediate_size or 0)
    slow += (c.n_head + c.n_local_heads) * (c.head_dim or 0) if c.attention_qk_norm else 0
    fast_heads = (c.fast_n_head or 0) * c.fast_head_size
    fast = _layer_values(c.fast_dim or 0, fast_heads, c.fast_intermediate_size or 0)
    fast += ((c.fast_n_head or 0) + (c.fast_n_local_heads or 0)) * c.fast_head_size if c.fast_attention_qk_norm else 0
    frame = c.num_codebooks * (c.n_fast_layer * fast + 3 * c.codebook_size)
    return tokens * (c.n_layer * slow + frame) * _BYTES


def _layer_values(dim: int, all_heads: int, hidden: int) -> int:
    """Values that a layer keeps of a token: inputs of norms and projections (about six widths), of attention (four widths
    of all heads together) and of the gated feed-forward (four hidden widths)."""
    return 6 * dim + 4 * all_heads + 4 * hidden


def free_bytes(device: str) -> int | None:
    """Memory that is free for a run on `device`; None where the system does not say."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else memory()[1]


def choose_micro_batch(config: DualARConfig, samples: int, longest: int, device: str) -> tuple[int, bool, str]:
    """How many of `samples` samples to run at once, whether to recompute activations, and why.

    By the estimate for samples of `longest` tokens: half and half again until they fit; recomputation, which costs a
    third more time, only where one sample alone does not.
    """
    free = free_bytes(device)
    if free is None:
        return samples, False, "free memory unknown"
    micro = samples
    while micro > 1 and activation_bytes(config, micro * longest) > _SHARE * free:
        micro = -(-micro // 2)
    needed = activation_bytes(config, micro * longest)
    reason = f"{micro} x {longest} tokens keep about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return micro, needed > _SHARE * free, reason
