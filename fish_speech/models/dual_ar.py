"""The text-to-semantic model: a slow transformer over tokens and a fast one over the codebooks of a frame.

Each position of the slow transformer predicts the next text or semantic token; from its hidden state the fast
transformer predicts the next frame's codes, one codebook after another (Fish-Speech, arXiv:2411.01156).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .adapted_layers import tied_logits
from .dual_ar_config import DualARConfig as DualARConfig
from .teacher_forcing import TEACHER_FORCING, Frames, next_column
from .transformer import Block, KVCache, RMSNorm, RotaryTable, run_blocks


class DualAROutput(NamedTuple):
    """Logits: what comes at the next position."""

    token_logits: Tensor  # (batch, tokens, vocab)
    codebook_logits: Tensor  # FISH (batch, tokens, codebooks, codebook_size), S1 (frames, codebooks, codebook_size)


class DualAR(nn.Module):
    """DualAR text-to-semantic transformer with the parameter names of the published checkpoints."""

    tokenizer: Any = None  # set by the loader

    def __init__(self, config: DualARConfig, semantic_begin_id: int, semantic_end_id: int | None = None):
        """Make the model with new weights; `semantic_end_id` None: the family's number of ids from the first one on."""
        super().__init__()
        self.config = config
        self.semantic_begin_id = semantic_begin_id
        last = semantic_begin_id + config.semantic_tokens - 1
        self.semantic_end_id = last if semantic_end_id is None else semantic_end_id
        self.recompute_activations = False  # set by training where memory is short
        c = config
        self.embeddings = nn.Embedding(c.vocab_size, c.dim)
        self.codebook_embeddings = nn.Embedding(c.codebook_size * c.num_codebooks, c.dim)
        self.layers = nn.ModuleList(
            Block(
                c.dim,
                c.n_head,
                c.n_local_heads,
                c.intermediate_size or 0,
                c.attention_qkv_bias,
                c.dropout,
                c.norm_eps,
                c.head_dim,
                c.attention_o_bias,
                c.attention_qk_norm,
            )
            for _ in range(c.n_layer)
        )
        self.norm = RMSNorm(c.dim, c.norm_eps)
        if not c.tie_word_embeddings:
            self.output = nn.Linear(c.dim, c.vocab_size, bias=False)
        assert c.fast_dim is not None and c.fast_n_head is not None
        if c.fast_dim != c.dim:
            self.fast_project_in = nn.Linear(c.dim, c.fast_dim)
        self.fast_embeddings = nn.Embedding(c.codebook_size, c.fast_dim)
        self.fast_layers = nn.ModuleList(
            Block(
                c.fast_dim,
                c.fast_n_head,
                c.fast_n_local_heads or 0,
                c.fast_intermediate_size or 0,
                bool(c.fast_attention_qkv_bias),
                c.dropout,
                c.norm_eps,
                c.fast_head_size,
                bool(c.fast_attention_o_bias),
                bool(c.fast_attention_qk_norm),
            )
            for _ in range(c.n_fast_layer)
        )
        self.fast_norm = RMSNorm(c.fast_dim, c.norm_eps)
        self.fast_output = nn.Linear(c.fast_dim, c.codebook_size, bias=False)
        self._rope = RotaryTable(c.head_dim or 0, c.rope_base)
        self._fast_rope = RotaryTable(c.fast_head_size, c.rope_base)

    def reset_parameters(self, rng: torch.Generator | None = None) -> None:
        """Draw all weights anew: normal(0, initializer_range) for linears and embeddings, zero biases, unit norms."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, self.config.initializer_range, generator=rng)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, RMSNorm):
                nn.init.ones_(module.weight)

    def set_dropout(self, rate: float) -> None:
        """Set the dropout on attention weights while training, in every block."""
        for block in [*self.layers, *self.fast_layers]:
            block.attention.dropout = rate  # type: ignore[union-attr]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.weight.device

    def embed(self, grid: Tensor) -> Tensor:
        """Sum the text embedding and, at semantic tokens, one embedding per codebook, divided by `embedding_scale`.

        `grid` is (batch, 1 + codebooks, tokens): row 0 holds text or semantic ids, the rest codes. -> (batch, tokens, dim)
        """
        ids, codes = grid[:, 0], grid[:, 1:]  # (batch, tokens), (batch, codebooks, tokens)
        is_semantic = (ids >= self.semantic_begin_id) & (ids <= self.semantic_end_id)
        offsets = torch.arange(codes.size(1), device=codes.device) * self.config.codebook_size
        x = self.embeddings(ids)
        # Only frames pay for the codebook lookups: text is half of a short utterance.
        frame_codes = codes.transpose(1, 2)[is_semantic] + offsets  # (frames, codebooks)
        if frame_codes.size(0):
            frames = x[is_semantic] + self.codebook_embeddings(frame_codes).sum(dim=1)  # (frames, dim)
            if self.config.embedding_scale != 1:
                frames = frames / self.config.embedding_scale
            x = x.masked_scatter(is_semantic[..., None], frames.to(x.dtype))
        return x

    def slow(self, grid: Tensor, padding_mask: Tensor | None = None, row_lengths: list[int] | None = None) -> Tensor:
        """Run the slow transformer over (batch, 1 + codebooks, tokens) -> hidden states before the final norm.

        `padding_mask` (batch, tokens) is true at padding. With `row_lengths`, grid is (1, 1 + codebooks, tokens) and
        holds rows one after another, without padding; each row starts at position 0 and sees only itself.
        """
        tokens = grid.size(2)
        if row_lengths is None:
            rope = self._rope.first(tokens, grid.device)
        else:
            positions = torch.cat([torch.arange(length, device=grid.device) for length in row_lengths])
            rope = self._rope.rows(positions, max(row_lengths))
        mask = None
        if padding_mask is not None:
            causal = torch.ones(tokens, tokens, dtype=torch.bool, device=grid.device).tril()
            mask = causal & ~padding_mask[:, None, None]  # (batch, 1, tokens, tokens)
        recompute = self.recompute_activations and self.training and torch.is_grad_enabled()
        return run_blocks(self.layers, self.embed(grid), rope, mask, row_lengths, recompute=recompute)

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (..., dim) into logits over the vocabulary (..., vocab)."""
        normed = self.norm(hidden)
        if self.config.tie_word_embeddings:
            return tied_logits(self.embeddings, normed)
        return self.output(normed)

    def fast_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Predict every code of a frame from the hidden state before it and the codes that come first (teacher forcing).

        hidden (frames, dim), codes (frames, codebooks - 1) -> (frames, codebooks, codebook_size)
        """
        start = self.project_hidden(hidden)
        x = torch.cat([start[:, None], self.fast_embeddings(codes)], dim=1)  # (frames, codebooks, fast_dim)
        rope = self._fast_rope.first(x.size(1), x.device)
        recompute = self.recompute_activations and self.training and torch.is_grad_enabled()
        x = run_blocks(self.fast_layers, x, rope, recompute=recompute)
        return self.fast_output(self.fast_norm(x))

    def project_hidden(self, hidden: Tensor) -> Tensor:
        """Bring a slow hidden state (..., dim) to the fast transformer's width (..., fast_dim)."""
        return self.fast_project_in(hidden) if self.config.fast_dim != self.config.dim else hidden

    @property
    def semantic_ids(self) -> range:
        """Ids of the tokens that stand for frames."""
        return range(self.semantic_begin_id, self.semantic_end_id + 1)

    def frames(self, grid: Tensor, labels: Tensor) -> Frames:
        """Where the fast part runs in training, and on which codes; grid, labels (batch, 1 + codebooks, tokens)."""
        return TEACHER_FORCING[self.config.family].frames(grid, labels, self.semantic_ids)

    def code_labels(self, labels: Tensor) -> Tensor:
        """The labels in (batch, 1 + codebooks, tokens) that codes are trained on -> (batch, codebooks, tokens)."""
        return TEACHER_FORCING[self.config.family].code_labels(labels, self.semantic_ids)

    def forward(self, grid: Tensor, padding_mask: Tensor | None = None, labels: Tensor | None = None) -> DualAROutput:
        """Return logits for every position of (batch, 1 + codebooks, tokens); padding_mask (batch, tokens), true = padding.

        The fast part runs where the released model of the family runs it (see teacher_forcing.py): by `labels`, shaped as
        the grid, in S1; None takes the grid's next column. In FISH codebook logits are zero where it does not run, in
        S1 only frames are there, four empty ones if there are none. Costs the full vocabulary at each position; training
        uses `losses`.
        """
        hidden = self.slow(grid, padding_mask)  # (batch, tokens, dim)
        token_logits = self.token_logits(hidden)
        runs, codes = self.frames(grid, next_column(grid) if labels is None else labels)
        states, frame_codes = hidden[runs], codes[runs]
        dense = TEACHER_FORCING[self.config.family].dense
        if not dense and not len(states):  # four rows of no meaning, as the released model gives
            states, frame_codes = hidden.new_zeros(4, hidden.size(2)), codes.new_zeros(4, codes.size(2))
        computed = self.fast_logits(states, frame_codes)  # (frames, codebooks, codebook_size)
        if not dense:
            return DualAROutput(token_logits, computed)
        codebook_logits = computed.new_zeros(*runs.shape, *computed.shape[1:])
        return DualAROutput(token_logits, codebook_logits.index_put((runs,), computed))

    def new_caches(self, capacity: int) -> tuple[list[KVCache], list[KVCache]]:
        """Return empty caches for the slow layers (`capacity` tokens) and the fast layers (one frame)."""
        slow = [KVCache(capacity) for _ in self.layers]
        return slow, [KVCache(self.config.num_codebooks) for _ in self.fast_layers]

    def step(self, grid: Tensor, caches: list[KVCache]) -> Tensor:
        """Run new tokens (batch, 1 + codebooks, tokens) after the cached ones -> last hidden state (batch, dim), pre-norm."""
        start = caches[0].length
        rope = self._rope.first(start + grid.size(2), grid.device, start)
        return run_blocks(self.layers, self.embed(grid), rope, caches=caches)[:, -1]

    def fast_hidden(self, x: Tensor, caches: list[KVCache]) -> Tensor:
        """Run (batch, positions, fast_dim) after the cached ones -> normed state of the last position (batch, fast_dim).

        `fast_output` makes logits of it.
        """
        start = caches[0].length
        rope = self._fast_rope.first(start + x.size(1), x.device, start)
        return self.fast_norm(run_blocks(self.fast_layers, x, rope, caches=caches)[:, -1])
