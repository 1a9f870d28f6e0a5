"""Segments: the short stretch of each clip that the decoder makes while training, the same in latents, mel and audio."""

import torch
import torch.nn.functional as F
from torch import Tensor


def segment_starts(uniform: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Frames at which segments of `frames` start: `uniform` (batch) in [0, 1) spread over clips of `lengths` (batch).

    A clip that is shorter than a segment starts at 0.
    """
    return (uniform * (lengths - frames + 1).clamp(min=0)).long()


def cut_segments(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """Cut `length` steps from each of (batch, channels, time), from `starts` (batch) on, in steps of x.

    Returns (batch, channels, length), with zeros beyond the end of x.
    """
    x = F.pad(x, (0, max(0, length - x.size(2))))
    steps = starts[:, None, None] + torch.arange(length, device=x.device)  # (batch, 1, length)
    inside = steps < x.size(2)
    return x.gather(2, (steps * inside).expand(-1, x.size(1), -1)) * inside
