"""From packed examples to a batch of tensors, padded at the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..text.encoded import IGNORED, Example


@dataclass(frozen=True)
class Collate:
    """Make a batch: `inputs` and `labels` (batch, 1 + codebooks, tokens) int64, `attention_masks` (batch, tokens) bool.

    The mask is true at padding. Padded inputs are `pad_id` (that of `<|end_of_text|>`) over code rows of 0; padded
    labels are ignored. Longer examples than `max_length` are cut at the right, which packing leaves no reason for.
    Without examples, a process's share of a short batch, the tensors have no rows.
    """

    pad_id: int
    max_length: int

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        rows = len(examples[0][0]) if examples else 1
        length = min(self.max_length, max((tokens.shape[1] for tokens, _ in examples), default=1))
        # Filled by NumPy: torch's copies wait for its threads, which costs more than the copy.
        inputs = np.zeros((len(examples), rows, length), np.int64)  # (batch, 1 + codebooks, tokens)
        inputs[:, 0] = self.pad_id
        labels = np.full_like(inputs, IGNORED)
        padding = np.ones((len(examples), length), bool)  # (batch, tokens)
        for i, (tokens, targets) in enumerate(examples):
            end = min(tokens.shape[1], length)
            inputs[i, :, :end] = tokens[:, :end]
            labels[i, :, :end] = targets[:, :end]
            padding[i, :end] = False
        arrays = {"inputs": inputs, "attention_masks": padding, "labels": labels}
        return {name: torch.from_numpy(values) for name, values in arrays.items()}
