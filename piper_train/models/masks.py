"""Masks of padded batches: which time steps belong to a clip, and which frames to a phoneme."""

import torch
from torch import Tensor


def sequence_mask(lengths: Tensor, steps: int | Tensor) -> Tensor:
    """Mark the first `lengths` (batch) of `steps` time steps: booleans (batch, 1, steps)."""
    time = torch.arange(steps, device=lengths.device)  # type: ignore[arg-type]  # a tensor works, and can be traced
    return (time < lengths[:, None])[:, None]


def path_of_durations(durations: Tensor, frames: int | Tensor) -> Tensor:
    """Lay phonemes out in time: booleans (batch, frames, symbols), true where a frame belongs to a symbol.

    `durations` is (batch, symbols), in frames. Frames after a clip's last symbol belong to none.
    """
    ends = durations.cumsum(1)[:, None]  # (batch, 1, symbols)
    time = torch.arange(frames, device=durations.device)[:, None]  # type: ignore[arg-type]
    return (time < ends) & (time >= ends - durations[:, None])
