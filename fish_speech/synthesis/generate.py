"""Generate frames of codes after a prompt, one column at a time, with cached keys and values.

A column is the slow transformer's token and the fast transformer's codes for one frame; code 0 is the token itself,
counted from the first semantic id.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..models.dual_ar import DualAR
from .sampling import SamplingConfig, sample_token

PENALTY_WINDOW = 16  # frames


@torch.inference_mode()
def generate_columns(
    model: DualAR,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    rng: torch.Generator | None = None,
    speech_only: bool = False,
    min_frames: int = 0,
) -> Iterator[Tensor]:
    """Yield columns (1 + codebooks,) int64 that follow `prompt` (1 + codebooks, tokens), the one of `<|im_end|>` last.

    max_new_tokens 0 means up to the model's longest sequence, and never beyond it. `speech_only` draws among semantic
    tokens and `<|im_end|>` only, and not the latter before `min_frames`; the released system draws among all tokens.
    Raises ValueError for a prompt that leaves no room.
    """
    prompt = torch.as_tensor(prompt, dtype=torch.int64)
    room = model.config.max_seq_len - prompt.size(1)
    if room < 1:
        raise ValueError(f"the prompt has {prompt.size(1)} tokens; the model takes {model.config.max_seq_len}")
    count = min(max_new_tokens, room) if max_new_tokens > 0 else room
    end_id = model.tokenizer.id_of("<|im_end|>")
    draw = _ColumnSampler(model, sampling, rng, end_id if speech_only else None)
    slow_caches, fast_caches = model.new_caches(prompt.size(1) + count)
    hidden = model.step(prompt[None].to(model.device), slow_caches)
    history: list[Tensor] = []
    for index in range(count):
        column = draw(hidden, fast_caches, _penalised(history, index, prompt.size(0)), may_end=index >= min_frames)
        yield column
        if index > 0:  # the released system keeps the first column out of the penalty, and does not stop on it
            history.append(column)
            if column[0] == end_id:
                return
        elif speech_only and column[0] == end_id:
            return
        if index + 1 < count:
            hidden = model.step(column[None, :, None].to(model.device), slow_caches)


def _penalised(history: list[Tensor], index: int, rows: int) -> Tensor | None:
    """The ids of the last frames, (1 + codebooks, PENALTY_WINDOW); None for the first column.

    Until the window is full it also holds zeros, as in the released system, so id 0 is penalised there too.
    """
    if index == 0:
        return None
    recent = history[-PENALTY_WINDOW:]
    if len(recent) < PENALTY_WINDOW:
        recent = [*recent, torch.zeros(rows, dtype=torch.int64)]
    return torch.stack(recent, dim=1)


class _ColumnSampler:
    """Draws one column from the slow transformer's hidden state."""

    def __init__(self, model: DualAR, sampling: SamplingConfig, rng: torch.Generator | None, end_id: int | None):
        self.model, self.sampling, self.rng = model, sampling, rng
        self.first, self.codebooks = model.semantic_begin_id, model.config.num_codebooks
        self.end_id = end_id
        self.blocked: Tensor | None = None
        if end_id is not None:
            blocked = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
            blocked[self.first : self.first + min(model.config.codebook_size, model.tokenizer.num_semantic)] = False
            blocked[end_id] = False
            self.blocked = blocked

    def __call__(self, hidden: Tensor, fast_caches: list, previous: Tensor | None, may_end: bool = True) -> Tensor:
        model = self.model
        logits = model.token_logits(hidden)[0].float()
        if self.blocked is not None:
            logits = logits.masked_fill(self.blocked, float("-inf"))
            if not may_end:
                logits[self.end_id] = float("-inf")
        token = self._draw(logits, previous, 0)
        for cache in fast_caches:
            cache.clear()
        model.fast_step(model.project_hidden(hidden), fast_caches)  # position 0; code 0 comes from the token instead
        code = (token - self.first).clamp(0, model.config.codebook_size - 1)
        codes = [code]
        for row in range(1, self.codebooks):
            logits = model.fast_step(model.fast_embeddings(code[None]), fast_caches)[0].float()
            code = self._draw(logits, previous, row + 1)
            codes.append(code)
        return torch.stack([token, *codes]).cpu()

    def _draw(self, logits: Tensor, previous: Tensor | None, row: int) -> Tensor:
        window = None if previous is None else previous[row].to(logits.device)
        return sample_token(logits, self.sampling, self.rng, window)


def generate(
    model: DualAR,
    prompt_grid: Tensor | np.ndarray,
    max_new_tokens: int = 0,
    temperature: float = 0.7,
    top_p: float = 0.7,
    repetition_penalty: float = 1.2,
    rng: torch.Generator | None = None,
    speech_only: bool = False,
) -> Tensor:
    """Return the codes (codebooks, frames) int64 that follow `prompt_grid` (1 + codebooks, tokens), without `<|im_end|>`.

    All frames are kept: the released command line drops the first frame and decodes the column of `<|im_end|>`.
    """
    sampling = SamplingConfig(temperature, top_p, repetition_penalty)
    columns = list(generate_columns(model, torch.as_tensor(prompt_grid), max_new_tokens, sampling, rng, speech_only))
    return codes_of(columns, model)


def codes_of(columns: list[Tensor], model: DualAR) -> Tensor:
    """Stack columns to codes (codebooks, frames), leaving out a final `<|im_end|>`; no columns give no frames."""
    if columns and columns[-1][0] == model.tokenizer.id_of("<|im_end|>"):
        columns = columns[:-1]
    if not columns:
        return torch.zeros(model.config.num_codebooks, 0, dtype=torch.int64)
    return torch.stack([column[1:] for column in columns], dim=1)
