"""How much memory a batch takes, and what to do where that is too much."""

from __future__ import annotations

import os
import sys

import torch

from ..models.dual_ar import DualARConfig

_BYTES = 4  # per activation; autocast halves some of them, which is left as reserve
_SHARE = 0.6  # of the free memory that activations may take


def activation_bytes(config: DualARConfig, tokens: int) -> int:
    """Estimate what the backward pass of `tokens` positions keeps without recomputation.

    Per token and layer: the inputs of norms, projections and attention (about ten widths) and of the gated
    feed-forward (four hidden widths); each frame runs the fast layers once per codebook.
    """
    slow = config.n_layer * (10 * config.dim + 4 * (config.intermediate_size or 0))
    fast_width = 10 * (config.fast_dim or 0) + 4 * (config.fast_intermediate_size or 0)
    fast = config.num_codebooks * (config.n_fast_layer * fast_width + 3 * config.codebook_size)
    return tokens * (slow + fast) * _BYTES


def free_bytes(device: str) -> int | None:
    """Memory that is free for a run on `device`; None where the system does not say."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    if sys.platform == "linux":
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def choose_recompute(config: DualARConfig, tokens: int, device: str) -> tuple[bool, str]:
    """Whether to recompute activations for batches of `tokens` positions on `device`, and why."""
    needed, free = activation_bytes(config, tokens), free_bytes(device)
    if free is None:
        return False, "free memory unknown"
    reason = f"a full batch of {tokens} tokens keeps about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return needed > _SHARE * free, reason
