"""Which positions the fast transformer runs on in training, fed with which codes, and which codes it is to predict.

The families differ: the released Fish Speech 1.5 goes by the next column of its input, OpenAudio S1 by the labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..text.encoded import IGNORED
from ..versions import FISH, S1


class Frames(NamedTuple):
    """Where the fast part runs in a batch, and what it is fed with."""

    runs: Tensor  # bool (batch, tokens)
    codes: Tensor  # (batch, tokens, codebooks - 1); of no meaning where it does not run


class TeacherForcing(NamedTuple):
    """How a family does it. Grids and labels are (batch, 1 + codebooks, tokens), `semantic` is the range of those ids.

    frames: (grid, labels, semantic) -> Frames
    code_labels: (labels, semantic) -> labels of the codes (batch, codebooks, tokens), IGNORED where there is no loss
    dense: whether the model's answer has logits for every position, zero where it did not run, or those of frames only
    """

    frames: Callable[[Tensor, Tensor, range], Frames]
    code_labels: Callable[[Tensor, range], Tensor]
    dense: bool


def next_column(grid: Tensor) -> Tensor:
    """The column after each position as its label; none after the last: a grid -> labels of the same shape."""
    return torch.cat([grid[..., 1:], torch.full_like(grid[..., :1], IGNORED)], dim=-1)


def next_frame_codes(grid: Tensor) -> Tensor:
    """Codes of the frame after each position, but for the last codebook: a grid -> (batch, tokens, codebooks - 1)."""
    codes = grid[:, 1:-1]  # (batch, codebooks - 1, tokens)
    return torch.cat([codes[..., 1:], torch.zeros_like(codes[..., :1])], dim=-1).transpose(1, 2)


def _by_next_codes(grid: Tensor, labels: Tensor, semantic: range) -> Frames:
    """Where the next column's codes are not all zero; at the first eight positions if that is nowhere."""
    codes = next_frame_codes(grid)
    runs = codes.any(dim=-1)
    if not runs.any():
        runs.view(-1)[:8] = True
    return Frames(runs, codes)


def _all_code_labels(labels: Tensor, semantic: range) -> Tensor:
    return labels[:, 1:]


def _is_semantic(ids: Tensor, semantic: range) -> Tensor:
    return (ids >= semantic.start) & (ids < semantic.stop)


def _by_labels(grid: Tensor, labels: Tensor, semantic: range) -> Frames:
    """Where the label is a frame."""
    return Frames(_is_semantic(labels[:, 0], semantic), labels[:, 1:-1].transpose(1, 2))


def _code_labels_of_frames(labels: Tensor, semantic: range) -> Tensor:
    """The codes of frames: what stands below another token is no code."""
    return labels[:, 1:].masked_fill(~_is_semantic(labels[:, 0], semantic)[:, None], IGNORED)


TEACHER_FORCING: dict[str, TeacherForcing] = {
    FISH: TeacherForcing(_by_next_codes, _all_code_labels, dense=True),
    S1: TeacherForcing(_by_labels, _code_labels_of_frames, dense=False),
}
