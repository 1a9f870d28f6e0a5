"""Layers with a low-rank adapter: loralib's names and values, computed faster and in any mix of dtypes."""

from __future__ import annotations

from typing import Any

import loralib
import torch
from torch import Tensor, nn

from .dropout import Dropout


class AdaptedLinear(loralib.Linear):
    """loralib's linear layer with the adapter's sum and scale fused into one product, and a cheaper dropout.

    Adapters stay float32 and are cast to the input's dtype in use, so that a bfloat16 base works with or without autocast.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        rate = options.get("lora_dropout", 0.0)
        if rate:
            self.lora_dropout: nn.Module = Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        out = nn.functional.linear(x, self.weight, self.bias)
        if self.r == 0 or self.merged:
            return out
        a, b = self.lora_A.to(x.dtype).T, self.lora_B.to(x.dtype).T
        low = self.lora_dropout(x) @ a  # (..., r)
        return torch.addmm(out.flatten(0, -2), low.flatten(0, -2), b, alpha=self.scaling).view(out.shape)


def tied_logits(embeddings: nn.Embedding, hidden: Tensor) -> Tensor:
    """Logits over the entries of `embeddings` where these are the output layer too: (..., dim) -> (..., entries).

    An adapter of the embeddings counts here as well: merged, it is in the one weight that both use.
    """
    logits = nn.functional.linear(hidden, embeddings.weight)
    if not isinstance(embeddings, loralib.Embedding) or embeddings.r == 0:
        return logits
    low = hidden @ embeddings.lora_B.to(hidden.dtype)  # (..., r)
    return logits + low @ embeddings.lora_A.to(hidden.dtype) * embeddings.scaling
