"""Loss of the text-to-semantic model, computed only where it counts.

The value equals that of the released system, which runs the whole padded batch. Here padding is cut out before the
first layer, the vocabulary projection runs only at positions with a label, and the fast transformer only at frames
with one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..models.dual_ar import DualAR
from ..text import IGNORED

LOGIT_BLOCK = 2048  # positions whose vocabulary logits are in memory together


class LossParts(NamedTuple):
    """Scalars of one batch."""

    loss: Tensor  # base + semantic
    base_loss: Tensor  # over text and semantic tokens
    semantic_loss: Tensor  # over the codes of frames
    top_5_accuracy: Tensor  # share of codes above 0 that are among the five likeliest


class LossSums(NamedTuple):
    """Sums over labels and how many there are: sums of parts of a batch add up to those of the batch. All scalars."""

    base: Tensor  # cross entropy of text and semantic tokens
    base_count: Tensor
    semantic: Tensor  # cross entropy of the codes of frames
    semantic_count: Tensor
    hits: Tensor  # codes above 0 that are among the five likeliest
    hit_count: Tensor  # codes above 0

    def means(self) -> LossParts:
        """Losses by label, and the accuracy; 0 where there is no label."""
        base = self.base / self.base_count.clamp(min=1)
        semantic = self.semantic / self.semantic_count.clamp(min=1)
        return LossParts(base + semantic, base, semantic, self.hits / self.hit_count.clamp(min=1))


def label_counts(model: DualAR, labels: Tensor) -> Tensor:
    """Count the labels of tokens and of codes in (batch, 1 + codebooks, tokens) -> (2,) float32."""
    codes = model.code_labels(labels)
    return torch.stack([(labels[:, 0] != IGNORED).sum(), (codes != IGNORED).sum()]).float()


def dual_ar_loss(model: DualAR, inputs: Tensor, labels: Tensor, padding_mask: Tensor) -> LossParts:
    """Return the losses of a batch: inputs, labels (batch, 1 + codebooks, tokens), padding_mask (batch, tokens).

    Means are over labels that are not IGNORED; see `dual_ar_sums`.
    """
    return dual_ar_sums(model, inputs, labels, padding_mask).means()


def dual_ar_sums(model: DualAR, inputs: Tensor, labels: Tensor, padding_mask: Tensor) -> LossSums:
    """Return the summed losses of a batch: inputs, labels (batch, 1 + codebooks, tokens), padding_mask (batch, tokens).

    Padding must be at the right. Where a frame's codes are all zero but for the last codebook, the released model gives
    constant logits: such labels add ln(codebook size) and no gradient.
    """
    real = ~padding_mask
    grid = inputs.transpose(1, 2)[real].T[None]  # (1, 1 + codebooks, tokens of all rows)
    hidden = model.slow(grid, row_lengths=real.sum(dim=1).tolist())[0]  # (tokens of all rows, dim)

    token_labels = labels[:, 0][real]
    has_token_label = token_labels != IGNORED
    base = _token_loss(model, hidden[has_token_label], token_labels[has_token_label])

    runs, codes = model.frames(inputs, labels)  # (batch, tokens), (batch, tokens, codebooks - 1)
    code_labels = model.code_labels(labels).transpose(1, 2)[real]  # (tokens of all rows, codebooks)
    rows = (runs[real] & (code_labels != IGNORED).any(dim=1)).nonzero()[:, 0]
    code_logits = model.fast_logits(hidden[rows], codes[real][rows]).float()  # (frames, codebooks, codebook_size)
    run_labels = code_labels[rows]
    total = (code_labels != IGNORED).sum()
    constant = (total - (run_labels != IGNORED).sum()) * math.log(model.config.codebook_size)
    summed = F.cross_entropy(code_logits.flatten(0, 1), run_labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return LossSums(base, has_token_label.sum(), summed + constant, total, *_top_5(code_logits, run_labels))


def _token_loss(model: DualAR, hidden: Tensor, labels: Tensor) -> Tensor:
    """Summed cross entropy of (positions, dim) against (positions,); many positions go by blocks.

    Logits over a vocabulary of 100,000 would fill the memory, so a block's are made again in the backward pass.
    """

    def summed(states: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(model.token_logits(states).float(), wanted, reduction="sum")

    if len(labels) <= LOGIT_BLOCK:
        return summed(hidden, labels)
    blocks = zip(hidden.split(LOGIT_BLOCK), labels.split(LOGIT_BLOCK), strict=True)
    parts = [checkpoint(summed, *block, use_reentrant=False) for block in blocks]
    return torch.stack(parts).sum()


@torch.no_grad()
def _top_5(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    counted = (labels != IGNORED) & (labels != 0)
    if not counted.any():
        return logits.new_zeros(()), logits.new_zeros(())
    best = logits[counted].topk(min(5, logits.size(-1)), dim=-1).indices
    hits = (best == labels[counted][:, None]).any(dim=-1)
    return hits.float().sum(), counted.float().sum()
