"""Generate frames of codes after a prompt, one column at a time, with cached keys and values.

A column is the slow transformer's token and the fast transformer's codes for one frame; code 0 is the token itself,
counted from the first semantic id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..models.dual_ar import DualAR
from ..models.quantize import CompactLinear
from ..versions import FISH, S1
from .engine import Engine, engine_for
from .flat_layers import normalization, row_projection
from .sampling import SamplingConfig, sample_token

PENALTY_WINDOW = 16  # frames


def _tokens(window: Tensor) -> Tensor:
    return window[0]


def _first_column(window: Tensor) -> Tensor:
    return window[:, 0]


# Which ids of the window (1 + codebooks, PENALTY_WINDOW) the released system of a family penalises for the token. That of
# S1-mini takes a token and codes of one frame, plainly meant to be the tokens of all: speech is drawn with those.
_RELEASED_PENALTY: dict[str, Callable[[Tensor], Tensor]] = {FISH: _tokens, S1: _first_column}


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
    tokens and `<|im_end|>` only, and not the latter before `min_frames`; the released system draws among all tokens, and
    penalises what that of the model's family does.
    Raises ValueError for a prompt that leaves no room.
    """
    prompt = torch.as_tensor(prompt, dtype=torch.int64)
    room = model.config.max_seq_len - prompt.size(1)
    if room < 1:
        raise ValueError(f"the prompt has {prompt.size(1)} tokens; the model takes {model.config.max_seq_len}")
    count = min(max_new_tokens, room) if max_new_tokens > 0 else room
    end_id = model.tokenizer.id_of("<|im_end|>")
    draw = _ColumnSampler(model, sampling, rng, end_id if speech_only else None)
    engine = engine_for(model, prompt.size(1) + count)
    hidden = engine.prefill(prompt)
    history: list[Tensor] = []
    for index in range(count):
        column = draw(hidden, engine, _penalised(history, index, prompt.size(0)), may_end=index >= min_frames)
        yield column
        if index > 0:  # the released system keeps the first column out of the penalty, and does not stop on it
            history.append(column)
            if column[0] == end_id:
                return
        elif speech_only and column[0] == end_id:
            return
        if index + 1 < count:
            hidden = engine.step(column)


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
        self.allowed = None if end_id is None else _AllowedTokens(model, end_id)
        self.penalty = _RELEASED_PENALTY[model.config.family] if end_id is None else _tokens

    def __call__(self, hidden: Tensor, engine: Engine, previous: Tensor | None, may_end: bool = True) -> Tensor:
        model = self.model
        token = self._draw_token(hidden, previous, may_end)
        code = (token - self.first).clamp(0, model.config.codebook_size - 1)
        codes = [code]
        for row in range(1, self.codebooks):
            logits = (engine.first_logits(hidden, code) if row == 1 else engine.next_logits(code)).float()
            code = self._draw(logits, None if previous is None else previous[row + 1])
            codes.append(code)
        return torch.stack([token, *codes]).cpu()

    def _draw_token(self, hidden: Tensor, previous: Tensor | None, may_end: bool) -> Tensor:
        seen = None if previous is None else self.penalty(previous)
        if self.allowed is None:
            return self._draw(self.model.token_logits(hidden)[0].float(), seen)
        logits = self.allowed.logits(hidden)
        if not may_end:
            logits[-1] = float("-inf")
        index = self._draw(logits, None if seen is None else self.allowed.indices(seen))
        return self.allowed.ids[index]

    def _draw(self, logits: Tensor, seen: Tensor | None) -> Tensor:
        return sample_token(logits, self.sampling, self.rng, None if seen is None else seen.to(logits.device))


class _AllowedTokens:
    """The semantic tokens and, last, the end token: the only rows of the vocabulary projection that speech needs."""

    def __init__(self, model: DualAR, end_id: int):
        self.model = model
        count = min(model.config.codebook_size, model.tokenizer.num_semantic)
        first = model.semantic_begin_id
        self.ids = torch.tensor([*range(first, first + count), end_id], device=model.device)
        self._index = {int(i): index for index, i in enumerate(self.ids.tolist())}
        output = model.embeddings if model.config.tie_word_embeddings else model.output
        self._norm, self._project = normalization(model.norm), None
        if isinstance(output, CompactLinear):
            rows = output.rows(self.ids)
        elif type(output) in (torch.nn.Linear, torch.nn.Embedding):
            rows = output.weight[self.ids]
        else:  # an adapter adds to the weight
            return
        self._project = row_projection(rows.float())  # bfloat16 logits would round apart what is close

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden state (1, dim) -> logits of the allowed tokens (tokens,), float32."""
        if self._project is None:
            return self.model.token_logits(hidden)[0, self.ids].float()
        return self._project(self._norm(hidden).float())[0]

    def indices(self, ids: Tensor) -> Tensor:
        """Where those of `ids` (tokens,) that are allowed stand among the allowed."""
        return torch.tensor([self._index[i] for i in ids.tolist() if i in self._index], dtype=torch.int64)


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
