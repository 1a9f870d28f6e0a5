"""Ids, labels and codes of a prompt or a training example, in the layout that all model families share.

Matrices are (1 + codebooks, tokens) int64: row 0 holds ids (semantic begin + code of codebook 0 at frames), the other
rows hold the codes of a frame and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tokenizer import Tokenizer

IGNORED = -100  # label that the loss skips

Clip = tuple[str, np.ndarray]  # a text as it is trained on, and its codes (codebooks, frames)
Example = tuple[np.ndarray, np.ndarray]  # tokens and labels, each (1 + codebooks, tokens) int64


@dataclass(frozen=True)
class Encoded:
    """A sequence as ids. All arrays but `codes` are (tokens,); masks are true at frames."""

    tokens: np.ndarray  # int64
    labels: np.ndarray  # int64, IGNORED where there is no loss
    is_code_token: np.ndarray  # bool, over `tokens`
    is_code_label: np.ndarray  # bool, over `labels`
    codes: list[np.ndarray]  # (codebooks, frames) each, in order of appearance

    def shifted(self) -> Encoded:
        """Drop the last token and the first label, so that labels[i] follows tokens[i]."""
        return Encoded(self.tokens[:-1], self.labels[1:], self.is_code_token[:-1], self.is_code_label[1:], self.codes)

    def matrix(self, num_codebooks: int) -> np.ndarray:
        """Return (1 + codebooks, tokens) int64, the model's input."""
        grid = np.zeros((1 + num_codebooks, len(self.tokens)), np.int64)
        grid[0] = self.tokens
        if self.codes:
            # A shift may have cut the last frame off, so take as many frames as the mask has.
            joined = np.concatenate([codes[:num_codebooks] for codes in self.codes], axis=1)
            grid[1:, self.is_code_token] = joined[:, : int(self.is_code_token.sum())]
        return grid

    def example(self) -> Example:
        """Return (tokens, labels) for training of a sequence that a text begins and `<|im_end|>` ends.

        The last column of the code labels is 0, not IGNORED: published models were trained so.
        """
        codes = np.concatenate(self.codes, axis=1)  # (codebooks, frames)
        labels = np.full((1 + len(codes), len(self.labels)), IGNORED, np.int64)
        labels[0] = self.labels
        labels[1:, self.is_code_label] = codes
        labels[1:, -1] = 0
        return self.matrix(len(codes)), labels


def join_examples(examples: Sequence[Example]) -> Example:
    """Lay examples one after another along time."""
    tokens, labels = zip(*examples, strict=True)
    return np.concatenate(tokens, axis=1), np.concatenate(labels, axis=1)


def text_ids(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the ids of `text`, (tokens,) int64."""
    return np.asarray(tokenizer.encode(text), np.int64)


def semantic_ids(tokenizer: Tokenizer, codes: np.ndarray) -> np.ndarray:
    """Map the codes of codebook 0 to ids, (frames,) int64; ValueError where there is no such semantic token."""
    first = np.asarray(codes[0]).astype(np.int64)
    if first.size and not 0 <= first.min() <= first.max() < tokenizer.num_semantic:
        last = tokenizer.num_semantic - 1
        raise ValueError(f"codebook 0 has codes {first.min()} to {first.max()}, the tokenizer knows 0 to {last}")
    return first + tokenizer.semantic_begin_id


def reference_codes(codes: np.ndarray, num_codebooks: int) -> np.ndarray:
    """Return a reference's (codebooks, frames) of codes given so or as (1, codebooks, frames).

    Rows beyond `num_codebooks` are cut; fewer are a ValueError.
    """
    codes = np.asarray(codes)
    codes = codes[0] if codes.ndim == 3 and len(codes) == 1 else codes
    if codes.ndim != 2 or len(codes) < num_codebooks:
        raise ValueError(f"reference codes have the shape {codes.shape}; expected ({num_codebooks}, frames)")
    return codes[:num_codebooks]
