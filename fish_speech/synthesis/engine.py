"""How a DualAR model is run during generation: the prompt at once, then column after column, code after code.

`FlatEngine` decodes on the CPU at the speed at which memory gives the weights; `PlainEngine` runs the model's own
modules and serves every other device. Both compute the same; a test compares them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ..models.dual_ar import DualAR
from ..models.quantize import SplitInt8Linear
from .flat_layers import FlatStack, Project, normalization, projection, row_projection


class Engine(Protocol):
    """One sequence of one model. Hidden states are (1, dim), before the final norm; codes are scalars int64."""

    def prefill(self, prompt: Tensor) -> Tensor:
        """Run the prompt (1 + codebooks, tokens) -> the last hidden state."""

    def step(self, column: Tensor) -> Tensor:
        """Run the column (1 + codebooks,) that follows -> its hidden state."""

    def first_logits(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Start a frame with the hidden state and code 0 -> logits (residual_codes,) of code 1, float32 from `FlatEngine`."""

    def next_logits(self, code: Tensor) -> Tensor:
        """Take the frame's next code -> logits (residual_codes,) of the one after it."""


def engine_for(model: DualAR, capacity: int) -> Engine:
    """Choose the engine for sequences of up to `capacity` tokens."""
    flat = model.device.type == "cpu" and not model.training
    return FlatEngine(model, capacity) if flat else PlainEngine(model, capacity)


def drawn_output(model: DualAR) -> Project:
    """The outputs of `fast_output` that codes are drawn from, without computing the others where its kind allows that."""
    output, codes = model.fast_output, model.config.residual_codes
    if codes == model.config.codebook_size:
        return output
    if isinstance(output, SplitInt8Linear):
        return output.first
    if type(output) is not nn.Linear:  # an adapter adds to the weight
        return lambda x: output(x)[..., :codes]
    part = nn.Linear(output.in_features, codes, bias=False, device="meta")
    part.weight = nn.Parameter(output.weight[:codes], requires_grad=False)  # a view
    return part


class PlainEngine:
    """The model's own step functions with growing caches, on any device."""

    def __init__(self, model: DualAR, capacity: int):
        self.model = model
        self._slow, self._fast = model.new_caches(capacity)
        self._fast_output = drawn_output(model)

    def prefill(self, prompt: Tensor) -> Tensor:
        return self.model.step(prompt[None].to(self.model.device), self._slow)

    def step(self, column: Tensor) -> Tensor:
        return self.prefill(column[:, None])

    def first_logits(self, hidden: Tensor, code: Tensor) -> Tensor:
        for cache in self._fast:
            cache.clear()
        # Code 0 comes from the token, so the hidden state and its embedding go through the fast layers together.
        x = torch.stack([self.model.project_hidden(hidden), self.model.fast_embeddings(code[None])], dim=1)
        return self._logits(x)

    def next_logits(self, code: Tensor) -> Tensor:
        return self._logits(self.model.fast_embeddings(code[None, None]))

    def _logits(self, x: Tensor) -> Tensor:
        return self._fast_output(self.model.fast_hidden(x, self._fast))[0]


class FlatEngine:
    """Flat stacks of both transformers; only for inference on the CPU, where it takes what memory bandwidth allows."""

    def __init__(self, model: DualAR, capacity: int):
        self.model, config = model, model.config
        self._slow = FlatStack(list(model.layers), model._rope, capacity)  # type: ignore[arg-type]
        self._fast = FlatStack(list(model.fast_layers), model._fast_rope, config.num_codebooks)  # type: ignore[arg-type]
        self._fast_norm, output = normalization(model.fast_norm), drawn_output(model)
        if type(output) is nn.Linear and output.weight.dtype != torch.float32:
            self._fast_output = row_projection(output.weight.float())  # bfloat16 logits would round apart what is close
        else:
            self._fast_output = projection(output)
        self._offsets = torch.arange(config.num_codebooks) * config.codebook_size
        self._scale = config.embedding_scale

    def prefill(self, prompt: Tensor) -> Tensor:
        return self._slow.prefill(self.model.embed(prompt[None])[0])

    def step(self, column: Tensor) -> Tensor:
        model, token = self.model, int(column[0])
        x = model.embeddings(column[:1])  # (1, dim)
        if model.semantic_begin_id <= token <= model.semantic_end_id:
            x = (x + model.codebook_embeddings(column[1:] + self._offsets).sum(dim=0).to(x.dtype)) / self._scale
        return self._slow.step(x)

    def first_logits(self, hidden: Tensor, code: Tensor) -> Tensor:
        x = torch.cat([self.model.project_hidden(hidden), self.model.fast_embeddings(code[None])])  # (2, fast_dim)
        return self._logits(self._fast.prefill(x))

    def next_logits(self, code: Tensor) -> Tensor:
        return self._logits(self._fast.step(self.model.fast_embeddings(code[None])))

    def _logits(self, x: Tensor) -> Tensor:
        return self._fast_output(self._fast_norm(x).float())[0]
