"""The baselines: the same work done the straightforward way that `reference/fish-1.5.md` describes (2.6, 9.1, 10.3),
and `reference/openaudio-s1-mini.md` (2.5, 5.1, 6.3).

Written for comparison only. Parts that do not differ are taken from the toolkit, so that what is compared is the way
of computing, not the quality of these few lines.
"""

from __future__ import annotations

from pathlib import Path

import loralib
import torch
import torch.nn.functional as F
from torch import Tensor

from fish_speech.models import DualAR, DualARConfig, install_lora
from fish_speech.models.lora import is_lora_name
from fish_speech.models.transformer import Block, RotaryTable, rotate
from fish_speech.synthesis.sampling import SamplingConfig, sample_token
from fish_speech.versions import WEIGHTS_FILE

from .sizes import LORA, Scale

PENALTY_WINDOW = 16  # frames


def training_loss(model: DualAR, batch: dict[str, Tensor]) -> Tensor:
    """Loss over the whole padded batch: all logits at all positions, cross entropy that ignores most of them."""
    labels = batch["labels"]
    out = model(batch["inputs"], batch["attention_masks"], labels)
    code_labels = model.code_labels(labels).transpose(1, 2)  # (batch, tokens, codebooks)
    if out.codebook_logits.dim() == 3:  # of frames only
        code_labels = code_labels[model.frames(batch["inputs"], labels).runs]
    base = F.cross_entropy(out.token_logits.flatten(0, 1), labels[:, 0].flatten())
    return base + F.cross_entropy(out.codebook_logits.flatten(0, -2), code_labels.flatten())


class _StaticLayer:
    """One block with keys and values for all positions of the longest sequence."""

    def __init__(self, block: Block, length: int):
        self.block, attention = block, block.attention
        shape = (1, attention.kv_heads, length, attention.head_dim)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)

    def __call__(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, positions: Tensor) -> Tensor:
        block, a = self.block, self.block.attention
        sizes = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        q, k, v = (p.unflatten(-1, (-1, a.head_dim)) for p in a.wqkv(block.attention_norm(x)).split(sizes, dim=-1))
        if a.qk_norm:
            q, k = a.q_norm(q), a.k_norm(k)
        self.keys[:, :, positions] = rotate(k, *rope).transpose(1, 2)
        self.values[:, :, positions] = v.transpose(1, 2)
        keys, values = (c.repeat_interleave(a.heads // a.kv_heads, dim=1) for c in (self.keys, self.values))
        out = F.scaled_dot_product_attention(rotate(q, *rope).transpose(1, 2), keys, values, attn_mask=mask)
        x = x + a.wo(out.transpose(1, 2).flatten(2))
        return x + block.feed_forward(block.ffn_norm(x))


class StaticGenerator:
    """Generation with caches of the longest sequence, a mask over them, and one fast position at a time."""

    def __init__(self, model: DualAR):
        c = self.config = model.config
        self.model = model
        self.slow = [_StaticLayer(block, c.max_seq_len) for block in model.layers]
        self.fast = [_StaticLayer(block, c.num_codebooks) for block in model.fast_layers]
        self.causal = torch.ones(c.max_seq_len, c.max_seq_len, dtype=torch.bool).tril()
        self.rope, self.fast_rope = (RotaryTable(size, c.rope_base) for size in (c.head_dim or 0, c.fast_head_size))

    def step(self, grid: Tensor, positions: Tensor) -> Tensor:
        """Run (1, 1 + codebooks, tokens) at `positions` -> the last hidden state (1, 1, dim), before the norm."""
        m, c = self.model, self.config
        ids, codes = grid[:, 0], grid[:, 1:]
        offsets = torch.arange(c.num_codebooks)[:, None] * c.codebook_size
        is_semantic = (ids >= m.semantic_begin_id) & (ids <= m.semantic_end_id)
        x = m.embeddings(ids) + m.codebook_embeddings(codes + offsets).sum(dim=1) * is_semantic[..., None]
        x = torch.where(is_semantic[..., None], x / c.embedding_scale, x)
        rope, mask = self.rope.rows(positions, c.max_seq_len), self.causal[None, None, positions]
        for layer in self.slow:
            x = layer(x, rope, mask, positions)
        return x[:, -1:]

    def fast_step(self, x: Tensor, position: int) -> Tensor:
        """Run one codebook position (1, 1, fast_dim) -> logits (codebook_size,)."""
        at = torch.tensor([position])
        rope = self.fast_rope.rows(at, self.config.max_seq_len)
        mask = self.causal[None, None, at, : self.config.num_codebooks]
        for layer in self.fast:
            x = layer(x, rope, mask, at)
        return self.model.fast_output(self.model.fast_norm(x))[0, 0]

    def column(self, hidden: Tensor, sampling: SamplingConfig, rng: torch.Generator, window: Tensor | None) -> Tensor:
        """Draw one column (1 + codebooks,) from a hidden state; `window` (1 + codebooks, frames) is penalised."""
        m, c = self.model, self.config
        token = sample_token(m.token_logits(hidden)[0, 0], sampling, rng, None if window is None else window[0])
        for layer in self.fast:
            layer.keys.zero_()
            layer.values.zero_()
        self.fast_step(m.project_hidden(hidden), 0)
        codes = [(token - m.semantic_begin_id).clamp(0, c.codebook_size - 1)]
        for row in range(1, c.num_codebooks):
            logits = self.fast_step(m.fast_embeddings(codes[-1][None, None]), row)[: c.residual_codes]
            codes.append(sample_token(logits, sampling, rng, None if window is None else window[row + 1]))
        return torch.stack([token, *codes])

    @torch.inference_mode()
    def columns(self, prompt: Tensor, count: int, sampling: SamplingConfig, rng: torch.Generator):
        """Yield `count` columns after `prompt` (1 + codebooks, tokens)."""
        length = prompt.size(1)
        hidden = self.step(prompt[None], torch.arange(length))
        column = self.column(hidden, sampling, rng, None)
        yield column
        seen = torch.zeros(prompt.size(0), self.config.max_seq_len, dtype=torch.int64)
        for index in range(count - 1):
            hidden = self.step(column[None, :, None], torch.tensor([length + index]))
            first = max(0, index - PENALTY_WINDOW)
            column = self.column(hidden, sampling, rng, seen[:, first : first + PENALTY_WINDOW])
            seen[:, index] = column
            yield column


def merge(scale: Scale, base: Path, output: Path) -> None:
    """Merge as section 10.3 lists it: a whole model with LoRA, the union of both state dicts, all loaded, then saved."""
    model = DualAR(DualARConfig.from_mapping(scale.model), scale.semantic_begin_id)
    install_lora(model, LORA)
    stored = torch.load(base / WEIGHTS_FILE, map_location="cpu", weights_only=True, mmap=True)
    model.load_state_dict(stored, strict=False, assign=True)  # as released: adapters are not in the base file
    union = {name: tensor for name, tensor in model.state_dict().items() if not is_lora_name(name)}
    adapter = torch.load(base / "adapter.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    union |= {name.removeprefix("model."): tensor for name, tensor in adapter.items()}
    model.load_state_dict(union, strict=True)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, loralib.LoRALayer):
                delta = layer.lora_B.bfloat16() @ layer.lora_A.bfloat16() * layer.scaling
                layer.weight += delta.T if isinstance(layer, torch.nn.Embedding) else delta
    output.mkdir(parents=True)
    torch.save({n: t for n, t in model.state_dict().items() if not is_lora_name(n)}, output / WEIGHTS_FILE)
