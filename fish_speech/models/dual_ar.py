"""The text-to-semantic model: a slow transformer over tokens and a fast one over the codebooks of a frame.

Each position of the slow transformer predicts the next text or semantic token; from its hidden state the fast
transformer predicts the next frame's codes, one codebook after another (Fish-Speech, arXiv:2411.01156).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .transformer import Block, KVCache, RMSNorm, RotaryTable, run_blocks

SEMANTIC_TOKENS = 1024  # semantic ids in the vocabulary, whatever the codebook size


@dataclass(frozen=True)
class DualARConfig:
    """What a DualAR model is; `config.json` beside the weights. Null sizes are derived when it is made."""

    model_type: str = "dual_ar"
    vocab_size: int = 32000
    n_layer: int = 32
    n_head: int = 32
    dim: int = 4096
    intermediate_size: int | None = None  # None: 8/3 of dim, rounded up to a multiple of 256
    n_local_heads: int = -1  # KV heads; -1: as many as heads
    head_dim: int = 64  # always replaced by dim // n_head
    rope_base: float = 10000
    norm_eps: float = 1e-5
    max_seq_len: int = 2048  # tokens
    dropout: float = 0.0  # on attention weights, while training
    tie_word_embeddings: bool = True
    attention_qkv_bias: bool = False
    codebook_size: int = 160
    num_codebooks: int = 4
    use_gradient_checkpointing: bool = True
    initializer_range: float = 0.02
    is_reward_model: bool = False
    share_codebook_embeddings: bool = True
    scale_codebook_embeddings: bool = False
    n_fast_layer: int = 4
    fast_dim: int | None = None  # None: as the slow part, likewise below
    fast_n_head: int | None = None
    fast_n_local_heads: int | None = None
    fast_head_dim: int | None = None
    fast_intermediate_size: int | None = None
    fast_attention_qkv_bias: bool | None = None

    def __post_init__(self) -> None:
        derived: dict[str, Any] = {}
        if self.n_local_heads == -1:
            derived["n_local_heads"] = self.n_head
        if self.intermediate_size is None:
            hidden = int(2 * 4 * self.dim / 3)
            derived["intermediate_size"] = -(-hidden // 256) * 256
        if self.n_head < 1 or self.dim % self.n_head:
            raise ValueError(f"dim {self.dim} is not a multiple of n_head {self.n_head}")
        derived["head_dim"] = self.dim // self.n_head
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        slow = ("dim", "n_head", "n_local_heads", "head_dim", "intermediate_size", "attention_qkv_bias")
        for name in slow:
            if not getattr(self, f"fast_{name}"):
                object.__setattr__(self, f"fast_{name}", getattr(self, name))
        self._check()

    def _check(self) -> None:
        if self.model_type != "dual_ar":
            raise ValueError(f"model_type is {self.model_type!r}; only 'dual_ar' models are supported")
        counts: tuple[str, ...] = (
            "vocab_size",
            "n_layer",
            "n_local_heads",
            "intermediate_size",
            "max_seq_len",
            "codebook_size",
        )
        counts += ("num_codebooks", "n_fast_layer", "fast_dim", "fast_n_head", "fast_n_local_heads")
        for name in counts:
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 < value <= 1 << 24:
                raise ValueError(f"{name} is {value!r}; expected a whole number from 1 to {1 << 24}")
        if self.fast_dim % self.fast_n_head:  # type: ignore[operator]
            raise ValueError(f"fast_dim {self.fast_dim} is not a multiple of fast_n_head {self.fast_n_head}")
        for heads, kv in ((self.n_head, self.n_local_heads), (self.fast_n_head, self.fast_n_local_heads)):
            if heads % kv:  # type: ignore[operator]
                raise ValueError(f"{heads} heads cannot share {kv} KV heads evenly")
        if not self.share_codebook_embeddings:
            raise ValueError("share_codebook_embeddings false is not supported: training and generation would differ")
        if self.is_reward_model:
            raise ValueError("reward models are not supported")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DualARConfig:
        """Make a config from `config.json`'s content; keys that no model uses are ignored, wrong values raise ValueError."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def with_max_length(self, max_length: int) -> DualARConfig:
        """Return the config for sequences of at most `max_length` tokens."""
        return replace(self, max_seq_len=max_length)

    def to_json(self) -> str:
        """Return the text of `config.json` as the released tools write it."""
        return json.dumps(asdict(self), indent=4, sort_keys=True, ensure_ascii=False)


class DualAROutput(NamedTuple):
    """Logits for every position: what comes at the next one."""

    token_logits: Tensor  # (batch, tokens, vocab)
    codebook_logits: Tensor  # (batch, tokens, codebooks, codebook_size)


class DualAR(nn.Module):
    """DualAR text-to-semantic transformer with the parameter names of the published checkpoints."""

    tokenizer: Any = None  # set by the loader

    def __init__(self, config: DualARConfig, semantic_begin_id: int):
        super().__init__()
        self.config = config
        self.semantic_begin_id = semantic_begin_id
        self.semantic_end_id = semantic_begin_id + SEMANTIC_TOKENS - 1
        self.recompute_activations = False  # set by training where memory is short
        c = config
        self.embeddings = nn.Embedding(c.vocab_size, c.dim)
        self.codebook_embeddings = nn.Embedding(c.codebook_size * c.num_codebooks, c.dim)
        self.layers = nn.ModuleList(
            Block(
                c.dim, c.n_head, c.n_local_heads, c.intermediate_size or 0, c.attention_qkv_bias, c.dropout, c.norm_eps
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
        heads, kv_heads, hidden = c.fast_n_head, c.fast_n_local_heads or 0, c.fast_intermediate_size or 0
        bias = bool(c.fast_attention_qkv_bias)
        self.fast_layers = nn.ModuleList(
            Block(c.fast_dim, heads, kv_heads, hidden, bias, c.dropout, c.norm_eps) for _ in range(c.n_fast_layer)
        )
        self.fast_norm = RMSNorm(c.fast_dim, c.norm_eps)
        self.fast_output = nn.Linear(c.fast_dim, c.codebook_size, bias=False)
        self._rope = RotaryTable(c.dim // c.n_head, c.rope_base)
        self._fast_rope = RotaryTable(c.fast_dim // c.fast_n_head, c.rope_base)

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
        """Sum the text embedding and, at semantic tokens, one embedding per codebook.

        `grid` is (batch, 1 + codebooks, tokens): row 0 holds text or semantic ids, the rest codes. -> (batch, tokens, dim)
        """
        ids, codes = grid[:, 0], grid[:, 1:]  # (batch, tokens), (batch, codebooks, tokens)
        is_semantic = (ids >= self.semantic_begin_id) & (ids <= self.semantic_end_id)
        offsets = torch.arange(codes.size(1), device=codes.device) * self.config.codebook_size
        x = self.embeddings(ids)
        # Only frames pay for the codebook lookups: text is half of a short utterance.
        frame_codes = codes.transpose(1, 2)[is_semantic] + offsets  # (frames, codebooks)
        if frame_codes.size(0):
            x = x.masked_scatter(
                is_semantic[..., None],
                (x[is_semantic] + self.codebook_embeddings(frame_codes).sum(dim=1)).to(x.dtype),
            )
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
            return nn.functional.linear(normed, self.embeddings.weight)
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

    def forward(self, grid: Tensor, padding_mask: Tensor | None = None) -> DualAROutput:
        """Return logits for every position of (batch, 1 + codebooks, tokens); padding_mask (batch, tokens), true = padding.

        Codebook logits are zero where the next frame's codes (all but the last codebook) are all zero: the released
        model does not run its fast part there. Costs the full vocabulary at each position; training uses `losses`.
        """
        hidden = self.slow(grid, padding_mask)  # (batch, tokens, dim)
        token_logits = self.token_logits(hidden)
        codes = next_frame_codes(grid).flatten(0, 1)  # (batch * tokens, codebooks - 1)
        rows = frames_to_run(codes)
        computed = self.fast_logits(hidden.flatten(0, 1)[rows], codes[rows])
        codebook_logits = computed.new_zeros(codes.size(0), *computed.shape[1:])
        codebook_logits = codebook_logits.index_put((rows,), computed)
        return DualAROutput(token_logits, codebook_logits.unflatten(0, hidden.shape[:2]))

    def new_caches(self, capacity: int) -> tuple[list[KVCache], list[KVCache]]:
        """Return empty caches for the slow layers (`capacity` tokens) and the fast layers (one frame)."""
        slow = [KVCache(capacity) for _ in self.layers]
        return slow, [KVCache(self.config.num_codebooks) for _ in self.fast_layers]

    def step(self, grid: Tensor, caches: list[KVCache]) -> Tensor:
        """Run new tokens (batch, 1 + codebooks, tokens) after the cached ones -> last hidden state (batch, dim), pre-norm."""
        start = caches[0].length
        rope = self._rope.first(start + grid.size(2), grid.device, start)
        return run_blocks(self.layers, self.embed(grid), rope, caches=caches)[:, -1]

    def fast_step(self, x: Tensor, caches: list[KVCache]) -> Tensor:
        """Run (batch, positions, fast_dim) after the cached ones -> logits of the last position (batch, codebook_size)."""
        start = caches[0].length
        rope = self._fast_rope.first(start + x.size(1), x.device, start)
        x = run_blocks(self.fast_layers, x, rope, caches=caches)[:, -1]
        return self.fast_output(self.fast_norm(x))


def next_frame_codes(grid: Tensor) -> Tensor:
    """Codes of the frame after each position, but for the last codebook: a grid -> (batch, tokens, codebooks - 1)."""
    codes = grid[:, 1:-1]  # (batch, codebooks - 1, tokens)
    return torch.cat([codes[..., 1:], torch.zeros_like(codes[..., :1])], dim=-1).transpose(1, 2)


def frames_to_run(codes: Tensor) -> Tensor:
    """Indices of the positions whose next frame has a code above zero; the first eight if there is none at all."""
    rows = codes.any(dim=-1).nonzero()[:, 0]
    return rows if rows.numel() else torch.arange(min(8, codes.size(0)), device=codes.device)
