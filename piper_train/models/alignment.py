"""Monotonic alignment: which frames of a clip each symbol covers, found by dynamic programming (arXiv:2005.11129)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor


def log_likelihood(z_p: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
    """Log-density of every frame's latents under every symbol's normal distribution, summed over channels.

    `z_p` is (batch, channels, frames), `m_p` and `logs_p` (batch, channels, symbols). Returns (batch, frames, symbols);
    products of matrices, so that nothing of channels x frames x symbols is ever held.
    """
    precision = torch.exp(-2 * logs_p)
    constant = (-0.5 * np.log(2 * np.pi) - logs_p - 0.5 * m_p.square() * precision).sum(1, keepdim=True)
    squared = (-0.5 * z_p.square()).transpose(1, 2) @ precision  # (batch, frames, symbols)
    return squared.add_(z_p.transpose(1, 2) @ (m_p * precision)).add_(constant)


def maximum_path(neg_cent: Tensor, t_y: Tensor, t_x: Tensor) -> Tensor:
    """The monotonic path of the largest sum through each of `neg_cent` (batch, frames, symbols).

    `t_y` and `t_x` (batch) say how many frames and symbols are valid. Every valid frame belongs to one symbol, every
    valid symbol has a frame at least, and among equals a symbol starts as early as it can. A clip with fewer frames than
    symbols has no such path: its frames are laid to the last symbols, going back by the likelier neighbour, as published
    voices were trained; leave such clips out. Returns ones and zeros of neg_cent's shape, type and device. Raises
    ValueError for lengths that do not fit.
    """
    frames, symbols = (np.ascontiguousarray(lengths.cpu().numpy(), dtype=np.int64) for lengths in (t_y, t_x))
    _check(neg_cent, frames, symbols)
    values = neg_cent.detach().to("cpu", torch.float32).contiguous().numpy()
    path = np.zeros(values.shape, dtype=np.uint8)
    _search()(values, frames, symbols, path)
    return torch.from_numpy(path).to(neg_cent.device).to(neg_cent.dtype)


def _check(neg_cent: Tensor, frames: np.ndarray, symbols: np.ndarray) -> None:
    batch, most_frames, most_symbols = neg_cent.shape
    if frames.shape != (batch,) or symbols.shape != (batch,):
        raise ValueError(f"lengths of {frames.shape} and {symbols.shape} do not fit a batch of {batch}")
    for lengths, most, unit in ((frames, most_frames, "frames"), (symbols, most_symbols, "symbols")):
        if (lengths < 1).any() or (lengths > most).any():
            raise ValueError(f"lengths {lengths.tolist()!s:.200} must lie within 1 to {most} {unit}")


@cache
def _search() -> Callable[..., None]:
    from fish_speech.extras import require

    require("numba", "aligning phonemes with sound", "piper")
    from .alignment_search import search_paths

    return search_paths
